//! A notification without a value: those who wait look for themselves what has changed. For the tasks of one object (or
//! of one request) only, because the runtime forbids waking the task of another request.

use futures::future::poll_fn;
use std::cell::{Cell, RefCell};
use std::task::{Poll, Waker};

/// Counts its notifications, so that none is missed between looking and waiting.
#[derive(Default)]
pub(crate) struct Notify {
    version: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Notify {
    /// How many notifications there have been. Take it before looking at what may change, then wait until
    /// [`Self::changed_since`] it.
    pub(crate) fn version(&self) -> u64 {
        self.version.get()
    }

    /// Wakes all who wait.
    pub(crate) fn notify(&self) {
        self.version.set(self.version.get().wrapping_add(1));
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Resolves once there has been a notification after `seen` was the version.
    pub(crate) async fn changed_since(&self, seen: u64) {
        poll_fn(|cx| {
            if self.version.get() != seen {
                return Poll::Ready(());
            }
            let mut waiting = self.waiting.borrow_mut();
            if !waiting.iter().any(|waker| waker.will_wake(cx.waker())) {
                waiting.push(cx.waker().clone());
            }
            Poll::Pending
        })
        .await;
    }
}
