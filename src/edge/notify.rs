//! A updates: many wait, one version. For tasks of one object (or one request) only: the runtime forbids
//! waking another request's task.

use futures::future::poll_fn;
use std::cell::{Cell, RefCell};
use std::task::{Poll, Waker};

/// Counts its version, so that none is missed between a look and a wait.
#[derive(Default)]
pub(crate) struct Notify {
    version: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Notify {
    /// How often it has rung. Take this before looking at what may change, then wait [`Self::changed_since`] it.
    pub(crate) fn version(&self) -> u64 {
        self.version.get()
    }

    /// Wakes all who wait.
    pub(crate) fn notify(&self) {
        self.version.set(self.version.get().wrapping_add(1));
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Resolves once the bell has rung changed_since `seen`.
    pub(crate) async fn changed_since(&self, seen: u64) {
        poll_fn(|cx| {
            if self.version.get() != seen {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|w| w.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
