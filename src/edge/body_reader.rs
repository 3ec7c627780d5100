//! Reads the body of a request or a response chunk by chunk, through one buffer that the runtime fills again and again.

use super::awaiter::Awaiter;
use js_sys::{ArrayBuffer, Uint8Array};
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{
    ReadableStream, ReadableStreamByobReader, ReadableStreamGetReaderOptions, ReadableStreamReadResult,
    ReadableStreamReaderMode,
};

/// The most bytes that one read returns.
const CHUNK: u32 = 32 * 1024;

pub(crate) struct BodyReader {
    reader: ReadableStreamByobReader,
    awaiter: Awaiter,
    buffer: Option<ArrayBuffer>,
    buffer_bytes: u32,
    /// What the last read has brought.
    bytes: Vec<u8>,
}

impl BodyReader {
    pub(crate) fn new(body: &ReadableStream) -> Self {
        let options = ReadableStreamGetReaderOptions::new();
        options.set_mode(ReadableStreamReaderMode::Byob);
        let reader = body.get_reader_with_options(&options).unchecked_into();
        Self { reader, awaiter: Awaiter::new(), buffer: None, buffer_bytes: CHUNK, bytes: Vec::new() }
    }

    /// The next bytes; `Ok(None)` at the end of the body. An error means that the connection broke.
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>, JsValue> {
        // Each read hands the buffer to the runtime, and gets it back with the bytes.
        let buffer = self.buffer.take().unwrap_or_else(|| ArrayBuffer::new(self.buffer_bytes));
        let view = Uint8Array::new(&buffer);
        let answer = self.awaiter.wait_for(self.reader.read_with_array_buffer_view(&view).unchecked_ref()).await?;
        let answer: ReadableStreamReadResult = answer.unchecked_into();
        if answer.get_done() != Some(false) {
            return Ok(None);
        }
        let chunk: Uint8Array = answer.get_value().unchecked_into();
        self.bytes.resize(chunk.length() as usize, 0);
        chunk.copy_to(&mut self.bytes);
        self.buffer = Some(chunk.buffer());
        Ok(Some(&self.bytes))
    }

    /// Waits for the end of the body, and holds little memory meanwhile.
    pub(crate) async fn until_end(mut self) {
        self.buffer = None;
        self.buffer_bytes = 16;
        self.bytes = Vec::new();
        while let Ok(Some(_)) = self.next().await {}
    }
}
