//! The writing end of a body. The runtime's own TransformStream carries the bytes to whoever reads the body, holds the
//! writer back while they are slow, and reports when they disconnect.

use super::awaiter::Awaiter;
use js_sys::Uint8Array;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::JsCast;
use web_sys::{ReadableStream, TransformStream, WritableStreamDefaultWriter};

#[wasm_bindgen]
extern "C" {
    // Cloudflare's own TransformStream of bytes: the runtime pipes it without running JavaScript for each chunk.
    #[wasm_bindgen(extends = TransformStream)]
    type IdentityTransformStream;

    #[wasm_bindgen(constructor)]
    fn new() -> IdentityTransformStream;
}

/// The reader has disconnected, or the runtime has closed the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Disconnected;

pub(crate) struct BodyWriter {
    writer: WritableStreamDefaultWriter,
    awaiter: Awaiter,
}

/// A body, and its writing end.
pub(crate) fn pipe() -> Result<(ReadableStream, BodyWriter), Disconnected> {
    let stream = IdentityTransformStream::new();
    let writer = stream.writable().get_writer().map_err(|_| Disconnected)?;
    Ok((stream.readable(), BodyWriter { writer, awaiter: Awaiter::new() }))
}

impl BodyWriter {
    /// Resolves when the reader has taken the bytes.
    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<(), Disconnected> {
        let chunk = Uint8Array::from(bytes);
        let written = self.writer.write_with_chunk(chunk.unchecked_ref());
        self.awaiter.wait_for(written.unchecked_ref()).await.map(drop).map_err(|_| Disconnected)
    }

    pub(crate) async fn close(self) {
        // It fails where the reader has disconnected, and then nobody needs the end.
        let _ = self.awaiter.wait_for(self.writer.close().unchecked_ref()).await;
    }
}
