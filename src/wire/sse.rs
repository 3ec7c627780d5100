//! Server-Sent Events, both ways (WHATWG HTML, 9.2 "Server-sent events").
//!
//! [`Parser`] is incremental: the bytes may be split anywhere, and an event that is not complete yet is no error.

use std::mem;

/// One event: its type (`message` where the stream names none) and its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The value of the `event:` field.
    pub name: String,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
}

/// A line or an event is longer than [`MAX_EVENT`], so the stream is probably no SSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than the limit")]
pub struct TooLong;

/// The longest line and the longest event, in bytes.
pub const MAX_EVENT: usize = 1024 * 1024;

/// Turns bytes into events. Ids and retry times are ignored, because a stream of Claude cannot be resumed.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was a CR. An LF right after it belongs to the same line end.
    after_cr: bool,
    /// The first line has been read, which may begin with a byte order mark.
    started: bool,
    name: String,
    data: String,
    has_data: bool,
}

impl Parser {
    /// Reads the next bytes, and appends the events that they complete.
    pub fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLong> {
        let mut rest = bytes;
        while let Some((&first, tail)) = rest.split_first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                rest = tail;
                continue;
            }
            let end = rest.iter().position(|b| matches!(b, b'\n' | b'\r'));
            let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + part.len() + self.data.len() > MAX_EVENT {
                return Err(TooLong);
            }
            self.line.extend_from_slice(part);
            let Some((&ending, after)) = after.split_first() else {
                break;
            };
            self.after_cr = ending == b'\r';
            rest = after;
            let line = mem::take(&mut self.line);
            events.extend(self.end_line(&line));
        }
        Ok(())
    }

    fn end_line(&mut self, line: &[u8]) -> Option<Event> {
        let line = match mem::replace(&mut self.started, true) {
            false => line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line),
            true => line,
        };
        if line.is_empty() {
            return self.dispatch();
        }
        let text = String::from_utf8_lossy(line);
        let (field, value) = match text.split_once(':') {
            Some((field, value)) => (field, value.strip_prefix(' ').unwrap_or(value)),
            None => (text.as_ref(), ""),
        };
        match field {
            "event" => value.clone_into(&mut self.name),
            "data" => {
                if mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            // Ids, retry times, comments (whose field name is empty), and unknown fields.
            _ => {}
        }
        None
    }

    fn dispatch(&mut self) -> Option<Event> {
        let name = mem::take(&mut self.name);
        let data = mem::take(&mut self.data);
        mem::take(&mut self.has_data)
            .then(|| Event { name: if name.is_empty() { "message".to_owned() } else { name }, data })
    }
}

/// Appends `id: <id>` and `data: <json>` as one event. `json` must be compact, without line ends.
pub fn write(out: &mut Vec<u8>, id: u64, json: &str) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(id.to_string().as_bytes());
    out.push(b'\n');
    write_unnumbered(out, json);
}

/// Appends `data: <json>` as an event without an id. A caller who reconnects after it continues from the event before.
pub fn write_unnumbered(out: &mut Vec<u8>, json: &str) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json.as_bytes());
    out.extend_from_slice(b"\n\n");
}
