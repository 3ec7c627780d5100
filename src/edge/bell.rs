//! A bell: many wait, one rings. For tasks of one object (or one request) only: the runtime forbids
//! waking another request's task.

use futures::future::poll_fn;
use std::cell::{Cell, RefCell};
use std::task::{Poll, Waker};

/// Counts its rings, so that none is missed between a look and a wait.
#[derive(Default)]
pub struct Bell {
    rings: Cell<u64>,
    waiting: RefCell<Vec<Waker>>,
}

impl Bell {
    /// How often it has rung. Take this before looking at what may change, then wait [`Self::after`] it.
    pub fn rings(&self) -> u64 {
        self.rings.get()
    }

    /// Wakes all who wait.
    pub fn ring(&self) {
        self.rings.set(self.rings.get().wrapping_add(1));
        let waiting = self.waiting.take();
        waiting.into_iter().for_each(Waker::wake);
    }

    /// Resolves once the bell has rung after `seen`.
    pub async fn after(&self, seen: u64) {
        poll_fn(|cx| {
            if self.rings.get() != seen {
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
