//! The driver: the one loop that does what the machine wants.

use super::hire;
use super::session::{LedgerWrite, Session};
use crate::rules::refusal::{ModelError, Refusal};
use crate::rules::run::{Effect, Event, Evidence, GRACE, GRACE_OF_TEXT};
use futures::future::{select, AbortHandle, Abortable, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use futures::FutureExt;
use std::cell::RefCell;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::time::Duration;

impl Session {
    /// Does what the machine wants, until it wants nothing more and nothing is under way. A second call returns at
    /// once: the first does its work.
    pub(crate) async fn drive(&self) {
        if self.driven.replace(true) {
            return;
        }
        let _guard = DriveGuard(self);
        let mut tasks = Tasks { session: self, running: FuturesUnordered::new() };
        loop {
            let version = self.transitions.version();
            while let Some(effect) = self.next_effect() {
                self.start(effect, &mut tasks);
            }
            if let Some(send) = hire::due_webhook(self) {
                tasks.start(send, None);
            }
            if tasks.running.is_empty() {
                break;
            }
            // A task has ended, or an event has come: the loop looks for both from its beginning. (Text is no event.)
            select(tasks.running.next(), std::pin::pin!(self.transitions.changed_since(version))).await;
        }
    }

    fn next_effect(&self) -> Option<Effect> {
        self.effects.borrow_mut().pop_front()
    }

    /// Does an effect at once, or starts a task for it. Each task names the event that the machine gets if it panics.
    fn start<'a>(&'a self, effect: Effect, tasks: &mut Tasks<'a>) {
        match effect {
            Effect::Clear => {
                stop(&self.grace);
                self.clear_text();
            }
            Effect::Save => self.save(),
            Effect::Verify => tasks.start(self.verify(), Some(Event::VerifyRefused(Refusal::Internal))),
            Effect::CallModel if self.is_abandoned() => self.handle_event(Event::Abandoned),
            Effect::CallModel => {
                // Text may have been shown, so the machine must not let Claude write it a second time.
                let broke = Event::Broke { error: ModelError::Upstream, no_text: false };
                tasks.start(stoppable(&self.model_call, self.call_model()), Some(broke));
            }
            Effect::StartGrace => tasks.start(stoppable(&self.grace, self.wait_grace()), None),
            Effect::BackOff => tasks.start(self.back_off(), Some(Event::BackOffElapsed)),
            Effect::Settle if self.data.borrow().run.should_withhold() => self.handle_event(Event::SettleWithheld),
            Effect::Settle if self.save_failed.get() => self.handle_event(Event::SettleNotSent),
            Effect::Settle => tasks.start(self.settle(), Some(Event::SettleUnanswered)),
            Effect::Reconcile => tasks.start(self.reconcile(), Some(Event::Reconciled(Evidence::Nothing))),
            Effect::CancelModelCall => stop(&self.model_call),
            // The alarm repeats a report that no facilitator has taken.
            Effect::Report => tasks.start(self.report(), None),
            // The alarm also repeats this, as long as a row is due.
            Effect::WriteLedgerRow => match self.ledger_write.get() {
                LedgerWrite::Idle => tasks.start(self.write_ledger_rows(), None),
                _ => self.ledger_write.set(LedgerWrite::UnderWayAndStale),
            },
        }
    }

    /// Waits for the first text. Once its block has begun, that is a matter of moments, unless the block is empty.
    async fn wait_grace(&self) {
        let begun = async {
            while !self.text_begun.get() {
                self.updates.changed_since(self.updates.version()).await;
            }
            worker::Delay::from(Duration::from_millis(GRACE_OF_TEXT)).await;
        };
        let grace = worker::Delay::from(Duration::from_millis(GRACE));
        select(std::pin::pin!(grace), std::pin::pin!(begun)).await;
        self.handle_event(Event::GraceElapsed);
    }

    async fn back_off(&self) {
        let wait = self.data.borrow().run.back_off();
        worker::Delay::from(Duration::from_millis(wait)).await;
        self.handle_event(Event::BackOffElapsed);
    }
}

/// Ends a drive, also when it panics: otherwise nothing would ever drive the run again.
struct DriveGuard<'a>(&'a Session);

impl Drop for DriveGuard<'_> {
    fn drop(&mut self) {
        self.0.driven.set(false);
        self.0.updates.notify();
        self.0.transitions.notify();
    }
}

/// The tasks that a drive has started.
struct Tasks<'a> {
    session: &'a Session,
    running: FuturesUnordered<LocalBoxFuture<'a, ()>>,
}

impl<'a> Tasks<'a> {
    /// Starts a task. A panic ends this task alone: the run and the object's other callers go on.
    fn start(&mut self, task: impl Future<Output = ()> + 'a, if_it_panics: Option<Event>) {
        let session = self.session;
        let task = AssertUnwindSafe(task).catch_unwind().map(move |result| {
            if result.is_err() {
                worker::console_error!("fault: panic in a task of a run; the run goes on without it");
                if_it_panics.into_iter().for_each(|event| session.handle_event(event));
            }
        });
        self.running.push(task.boxed_local());
    }
}

/// A task that [`stop`] ends: it is dropped at the await where it is.
fn stoppable(slot: &RefCell<Option<AbortHandle>>, task: impl Future<Output = ()>) -> impl Future<Output = ()> {
    let (handle, registration) = AbortHandle::new_pair();
    slot.replace(Some(handle));
    Abortable::new(task, registration).map(drop)
}

fn stop(slot: &RefCell<Option<AbortHandle>>) {
    if let Some(handle) = slot.take() {
        handle.abort();
    }
}
