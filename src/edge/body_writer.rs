//! The writing end of a caller's body: the runtime's own TransformStream carries bytes from the run
//! object to the caller, with its back-pressure, and tells us when the caller is gone.

use js_sys::Uint8Array;
use wasm_bindgen::prelude::wasm_bindgen;
use wasm_bindgen::JsCast;
use wasm_bindgen_futures::JsFuture;
use web_sys::{ReadableStream, TransformStream, WritableStreamDefaultWriter};

#[wasm_bindgen]
extern "C" {
    // The native byte TransformStream: piped without a turn of JavaScript per chunk.
    #[wasm_bindgen(extends = TransformStream)]
    type IdentityTransformStream;

    #[wasm_bindgen(constructor)]
    fn new() -> IdentityTransformStream;
}

/// The caller went away, or the runtime closed the stream.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Gone;

/// Writes to one caller.
pub(crate) struct BodyWriter(WritableStreamDefaultWriter);

/// A body for a response, and the pen that writes it.
pub(crate) fn pipe() -> Result<(ReadableStream, BodyWriter), Gone> {
    let stream = IdentityTransformStream::new();
    let writer = stream.writable().get_writer().map_err(|_| Gone)?;
    Ok((stream.readable(), BodyWriter(writer)))
}

impl BodyWriter {
    /// Writes a chunk; resolves when the caller has taken it.
    pub(crate) async fn write(&self, bytes: &[u8]) -> Result<(), Gone> {
        let chunk = Uint8Array::from(bytes);
        let work = self.0.write_with_chunk(chunk.unchecked_ref());
        JsFuture::from(work).await.map(drop).map_err(|_| Gone)
    }

    /// Ends the body.
    pub(crate) async fn close(self) {
        // A caller who is gone has no need of an end.
        let _ = JsFuture::from(self.0.close()).await;
    }
}
