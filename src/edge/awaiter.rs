//! Waiting for many promises, one after the other.

use futures::future::poll_fn;
use js_sys::Promise;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::task::{Poll, Waker};
use wasm_bindgen::prelude::Closure;
use wasm_bindgen::JsValue;

/// What a promise comes to.
pub(crate) type Settled = Result<JsValue, JsValue>;
type Callback = Closure<dyn FnMut(JsValue)>;

/// Waits for one promise after the other with the same two callbacks. (`JsFuture` makes new ones for each promise, and a
/// callback costs more than the read or the write that it waits for.)
pub(crate) struct Awaiter(RefCell<Rc<Waiting>>);

#[derive(Default)]
struct Waiting {
    settled: RefCell<Option<Settled>>,
    waker: RefCell<Option<Waker>>,
    /// A promise is waited for, so that JavaScript still has the callbacks.
    is_open: Cell<bool>,
    /// Nobody waits any more.
    is_abandoned: Cell<bool>,
    callbacks: RefCell<Option<(Callback, Callback)>>,
}

impl Awaiter {
    pub(crate) fn new() -> Self {
        Self(RefCell::new(Waiting::new()))
    }

    pub(crate) async fn wait_for(&self, promise: &Promise) -> Settled {
        if self.0.borrow().is_open.get() {
            // An earlier wait was dropped before its promise was settled. That promise must not end this wait.
            self.0.replace(Waiting::new()).abandon();
        }
        let waiting = self.0.borrow().clone();
        waiting.settled.replace(None);
        waiting.is_open.set(true);
        if let Some((fulfilled, rejected)) = &*waiting.callbacks.borrow() {
            let _ = promise.then2(fulfilled, rejected);
        }
        poll_fn(|cx| match waiting.settled.take() {
            Some(settled) => Poll::Ready(settled),
            None => {
                waiting.waker.replace(Some(cx.waker().clone()));
                Poll::Pending
            }
        })
        .await
    }
}

impl Waiting {
    fn new() -> Rc<Self> {
        let waiting = Rc::<Self>::default();
        let callback = |of: fn(JsValue) -> Settled| {
            let waiting = waiting.clone();
            Closure::own_assert_unwind_safe(move |value| waiting.settle(of(value)))
        };
        let callbacks = (callback(Ok), callback(Err));
        waiting.callbacks.replace(Some(callbacks));
        waiting
    }

    fn settle(&self, settled: Settled) {
        self.is_open.set(false);
        if self.is_abandoned.get() {
            // JavaScript has used the callbacks for the last time.
            drop(self.callbacks.take());
            return;
        }
        self.settled.replace(Some(settled));
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }

    fn abandon(&self) {
        self.is_abandoned.set(true);
        if !self.is_open.get() {
            drop(self.callbacks.take());
        }
    }
}

impl Drop for Awaiter {
    fn drop(&mut self) {
        self.0.borrow().abandon();
    }
}
