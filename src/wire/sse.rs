//! Server-Sent Events, both ways (WHATWG HTML, 9.2 "Server-sent events").
//!
//! [`Parser`] is incremental: any split of the bytes gives the same events, and an incomplete event
//! is a normal answer, not an error.

use std::mem;

/// One event as dispatched: its type (`message` where the stream named none) and its data.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// The `event:` field.
    pub name: String,
    /// The `data:` lines, joined by line feeds.
    pub data: String,
}

/// A line, or an event, grew beyond the limit: the other side is not speaking SSE to us.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than the limit")]
pub struct TooLong;

/// Longest line and longest event accepted, in bytes.
pub const MAX_EVENT: usize = 1024 * 1024;

/// Turns bytes into events. Ids and retry times are passed over: nobody resumes from Claude.
#[derive(Debug, Default)]
pub struct Parser {
    line: Vec<u8>,
    /// The last byte was a CR: an LF right after it belongs to the same line end.
    after_cr: bool,
    /// The very first bytes of the stream have been seen (a byte order mark may stand there).
    started: bool,
    name: String,
    data: String,
    has_data: bool,
}

impl Parser {
    /// Takes the next bytes; appends the events that they complete.
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
            // id, retry, comments (an empty field name), and whatever comes later.
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

/// Appends `id: <id>` and `data: <json>` as one event. `json` is compact, so it holds no line ends.
pub fn write(out: &mut Vec<u8>, id: u64, json: &str) {
    out.extend_from_slice(b"id: ");
    out.extend_from_slice(id.to_string().as_bytes());
    out.push(b'\n');
    write_unnumbered(out, json);
}

/// Appends `data: <json>` as an event that does not count: who comes back after it goes on from the one before.
pub fn write_unnumbered(out: &mut Vec<u8>, json: &str) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json.as_bytes());
    out.extend_from_slice(b"\n\n");
}
