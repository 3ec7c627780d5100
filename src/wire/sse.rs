//! Server-Sent Events, both ways (WHATWG HTML, 9.2 "Server-sent events").
//!
//! [`Parser`] is incremental: the bytes may be split anywhere, and an event that is not complete yet is no error.

use memchr::{memchr, memchr2};
use std::borrow::Cow;
use std::io::Write;
use std::mem;

/// One event: its type (`message` where the stream names none) and its data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Event<'a> {
    /// The value of the `event:` field.
    pub name: &'a str,
    /// The `data:` lines, joined by line feeds.
    pub data: &'a str,
}

/// A line or an event is longer than [`MAX_EVENT`], so the stream is probably no SSE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event is longer than the limit")]
pub struct TooLong;

/// The longest line and the longest event, in bytes.
pub const MAX_EVENT: usize = 1024 * 1024;

/// Turns bytes into events. Ids and retry times are ignored, because a stream of Claude cannot be resumed.
///
/// An event that lies in one read is borrowed from its bytes. Only what is split between two reads is copied.
#[derive(Debug, Default)]
pub struct Parser {
    /// The beginning of a line whose end has not been read yet.
    line: Vec<u8>,
    /// The last byte was a CR. An LF right after it belongs to the same line end.
    after_cr: bool,
    /// The first line has been read, which may begin with a byte order mark.
    started: bool,
    /// The lines so far of an event whose end has not been read yet.
    unfinished: Fields<'static>,
}

impl Parser {
    /// Reads the next bytes, and calls `on_event` with each event that they complete.
    pub fn push(&mut self, bytes: &[u8], mut on_event: impl FnMut(Event<'_>)) -> Result<(), TooLong> {
        let mut fields: Fields<'_> = mem::take(&mut self.unfinished);
        let mut rest = bytes;
        while let Some((&first, tail)) = rest.split_first() {
            if mem::take(&mut self.after_cr) && first == b'\n' {
                rest = tail;
                continue;
            }
            let end = memchr2(b'\n', b'\r', rest);
            let (part, after) = rest.split_at(end.unwrap_or(rest.len()));
            if self.line.len() + part.len() + fields.data_len() > MAX_EVENT {
                return Err(TooLong);
            }
            let Some((&ending, after)) = after.split_first() else {
                self.line.extend_from_slice(part);
                break;
            };
            self.after_cr = ending == b'\r';
            rest = after;
            let is_blank = if self.line.is_empty() {
                let line = without_mark(part, &mut self.started);
                fields.add(line, Cow::Borrowed);
                line.is_empty()
            } else {
                self.line.extend_from_slice(part);
                let line = without_mark(&self.line, &mut self.started);
                fields.add(line, |value| Cow::Owned(value.to_owned()));
                let is_blank = line.is_empty();
                self.line.clear();
                is_blank
            };
            if is_blank {
                mem::take(&mut fields).dispatch(&mut on_event);
            }
        }
        self.unfinished = fields.into_owned();
        Ok(())
    }
}

/// The line without the byte order mark that the first one may have.
fn without_mark<'l>(line: &'l [u8], started: &mut bool) -> &'l [u8] {
    match mem::replace(started, true) {
        false => line.strip_prefix(b"\xEF\xBB\xBF").unwrap_or(line),
        true => line,
    }
}

/// What the lines of an event have said so far.
#[derive(Debug, Default)]
struct Fields<'a> {
    name: Cow<'a, str>,
    /// `None`: there was no `data:` line.
    data: Option<Cow<'a, str>>,
}

impl<'a> Fields<'a> {
    /// Reads a line. `keep` says how a value of it is kept.
    fn add<'l>(&mut self, line: &'l [u8], keep: impl FnOnce(&'l str) -> Cow<'a, str>) {
        let (field, value) = match memchr(b':', line) {
            Some(colon) => {
                let (field, value) = line.split_at(colon);
                let value = value.strip_prefix(b": ").or(value.strip_prefix(b":"));
                (field, value.unwrap_or_default())
            }
            None => (line, &[][..]),
        };
        let value = || match String::from_utf8_lossy(value) {
            Cow::Borrowed(text) => keep(text),
            Cow::Owned(text) => Cow::Owned(text),
        };
        match (field, &mut self.data) {
            (b"event", _) => self.name = value(),
            (b"data", None) => self.data = Some(value()),
            (b"data", Some(data)) => {
                let data = data.to_mut();
                data.push('\n');
                data.push_str(&value());
            }
            // Ids, retry times, comments (whose field name is empty), and unknown fields.
            _ => {}
        }
    }

    fn data_len(&self) -> usize {
        self.data.as_ref().map_or(0, |data| data.len())
    }

    fn dispatch(&self, on_event: &mut impl FnMut(Event<'_>)) {
        if let Some(data) = &self.data {
            let name = if self.name.is_empty() { "message" } else { &self.name };
            on_event(Event { name, data });
        }
    }

    fn into_owned(self) -> Fields<'static> {
        let own = |text: Cow<'a, str>| Cow::Owned(text.into_owned());
        Fields { name: own(self.name), data: self.data.map(own) }
    }
}

/// Appends `id: <id>` and `data: <json>` as one event. `json` must be compact, without line ends.
pub fn write(out: &mut Vec<u8>, id: u64, json: &str) {
    write_data(out, id, |out| out.extend_from_slice(json.as_bytes()));
}

/// As [`write`], for JSON that `append_json` appends.
pub fn write_data(out: &mut Vec<u8>, id: u64, append_json: impl FnOnce(&mut Vec<u8>)) {
    // A write into memory does not fail.
    let _ = write!(out, "id: {id}\ndata: ");
    append_json(out);
    out.extend_from_slice(b"\n\n");
}

/// Appends `data: <json>` as an event without an id. A caller who reconnects after it continues from the event before.
pub fn write_unnumbered(out: &mut Vec<u8>, json: &str) {
    out.extend_from_slice(b"data: ");
    out.extend_from_slice(json.as_bytes());
    out.extend_from_slice(b"\n\n");
}
