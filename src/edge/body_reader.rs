//! Reads the body of a request or a response chunk by chunk, through one buffer that the runtime fills again and again.

use futures::future::poll_fn;
use js_sys::{ArrayBuffer, Promise, Uint8Array};
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::{JsCast, JsValue};
use web_sys::{
    ReadableStream, ReadableStreamByobReader, ReadableStreamGetReaderOptions, ReadableStreamReadResult,
    ReadableStreamReaderMode,
};

/// The most bytes that one read returns.
const CHUNK: u32 = 32 * 1024;

pub(crate) struct BodyReader {
    reader: ReadableStreamByobReader,
    answers: Answers,
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
        Self { reader, answers: Answers::new(), buffer: None, buffer_bytes: CHUNK, bytes: Vec::new() }
    }

    /// The next bytes; `Ok(None)` at the end of the body. An error means that the connection broke.
    pub(crate) async fn next(&mut self) -> Result<Option<&[u8]>, JsValue> {
        // Each read hands the buffer to the runtime, and gets it back with the bytes.
        let buffer = self.buffer.take().unwrap_or_else(|| ArrayBuffer::new(self.buffer_bytes));
        let view = Uint8Array::new(&buffer);
        let answer = self.answers.of(self.reader.read_with_array_buffer_view(&view).unchecked_ref()).await?;
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

/// What a promise comes to.
type Settled = Result<JsValue, JsValue>;
type Callback = Closure<dyn FnMut(JsValue)>;

/// Waits for one promise after the other with the same two callbacks. (`JsFuture` makes new ones for each promise, and a
/// callback costs more than what a read brings.)
struct Answers(Rc<Waiting>);

#[derive(Default)]
struct Waiting {
    settled: RefCell<Option<Settled>>,
    waker: RefCell<Option<Waker>>,
    /// A promise is waited for, so that JavaScript still has the callbacks.
    is_open: Cell<bool>,
    /// The reader has been dropped.
    is_dropped: Cell<bool>,
    callbacks: RefCell<Option<(Callback, Callback)>>,
}

impl Answers {
    fn new() -> Self {
        let waiting = Rc::<Waiting>::default();
        let callback = |of: fn(JsValue) -> Settled| {
            let waiting = waiting.clone();
            Closure::own_assert_unwind_safe(move |value| waiting.settle(of(value)))
        };
        let callbacks = (callback(Ok), callback(Err));
        waiting.callbacks.replace(Some(callbacks));
        Self(waiting)
    }

    async fn of(&self, promise: &Promise) -> Settled {
        self.0.settled.replace(None);
        self.0.is_open.set(true);
        if let Some((fulfilled, rejected)) = &*self.0.callbacks.borrow() {
            let _ = promise.then2(fulfilled, rejected);
        }
        poll_fn(|cx| match self.0.settled.take() {
            Some(settled) => Poll::Ready(settled),
            None => {
                self.0.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

impl Waiting {
    fn settle(&self, settled: Settled) {
        self.is_open.set(false);
        if self.is_dropped.get() {
            // Nobody waits any more, and JavaScript has used the callbacks for the last time.
            drop(self.callbacks.take());
            return;
        }
        self.settled.replace(Some(settled));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Drop for Answers {
    fn drop(&mut self) {
        self.0.is_dropped.set(true);
        if !self.0.is_open.get() {
            drop(self.0.callbacks.take());
        }
    }
}
