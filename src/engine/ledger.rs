//! The run's row in the ledger.

use super::hire;
use super::session::{LedgerWrite, Session};
use crate::edge::clock;
use crate::edge::objects::ledgers;
use crate::rules::payment::reconcile::{confirmation_wait, Confirmation};
use crate::rules::run::{Event, Millis, RECORD_AGAIN};

/// Ends a write, also when it panics: otherwise no row of the run would ever be written again.
struct Writing<'a>(&'a Session);

impl Drop for Writing<'_> {
    fn drop(&mut self) {
        self.0.ledger_write.set(LedgerWrite::Idle);
    }
}

impl Session {
    /// Writes one row at a time: of two writes under way, the older could be the last to arrive.
    pub(super) async fn write_ledger_rows(&self) {
        let _writing = Writing(self);
        loop {
            self.ledger_write.set(LedgerWrite::UnderWay);
            self.write_ledger_row().await;
            if self.ledger_write.get() != LedgerWrite::UnderWayAndStale {
                return;
            }
        }
    }

    /// Asks the chain about a settlement that a facilitator has told. A wait: the chain does not show it yet, and the row
    /// has to be written again after it.
    async fn await_confirmation(&self) -> Option<Millis> {
        let is_paid = {
            let data = self.data.borrow();
            !data.run.is_busy() && data.run.receipt().is_some()
        };
        if !is_paid || self.confirm().await != Confirmation::Awaited {
            return None;
        }
        let (looks, now) = (self.confirmation_looks.get(), clock::now());
        self.confirmation_looks.set(looks.saturating_add(1));
        let wait = confirmation_wait(looks, self.data.borrow().run.rested_at(), now)?;
        Some(wait.max(self.shared.confirmation_turns.borrow().wait(now)))
    }

    async fn write_ledger_row(&self) {
        // Until the next try is decided, the machine's own deadline holds.
        self.ledger_retry_at.set(None);
        if self.data.borrow().run.is_busy() {
            // It asks for its row when it has come to rest again.
            return;
        }
        // First: a slow node must not delay what the seeker is told. As long as the row is due, all of this is tried again.
        if hire::ended(self).await.is_err() {
            self.ledger_retry_at.set(Some(clock::now().saturating_add(RECORD_AGAIN)));
            return;
        }
        let awaited = self.await_confirmation().await;
        let (row, state) = {
            let data = self.data.borrow();
            // A run that was presented again meanwhile asks for its row when it has come to rest again.
            let row = (!data.run.is_busy()).then(|| self.record.ledger_row(&data.run, &data.stats, clock::now()));
            (row, data.run.state().clone())
        };
        let Some(row) = row else { return };
        let again = awaited.unwrap_or(RECORD_AGAIN);
        self.ledger_retry_at.set(Some(clock::now().saturating_add(again)));
        if awaited.is_some() {
            if self.data.borrow().run.is_final() {
                // Claude is not asked again, and the node may be away for a day.
                self.data.borrow_mut().prompt = None;
            }
            self.wake(clock::now());
        }
        if let Some(code) = &row.code {
            // Only what may need somebody's eye: a line of the log costs as much CPU time as a query.
            worker::console_log!("run of {}: {} {code}, {} ms", row.template_id, row.status, row.duration_ms);
        }
        // Where the run has changed since, this row is out of date and another one is due.
        let is_written = ledgers::write(&self.env, &row).await.is_ok();
        if is_written && awaited.is_none() && *self.data.borrow().run.state() == state {
            self.ledger_retry_at.set(None);
            self.handle_event(Event::LedgerRowWritten);
        }
    }
}
