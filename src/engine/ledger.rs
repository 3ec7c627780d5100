//! The run's row in the ledger.

use super::hire;
use super::session::{LedgerWrite, Session};
use crate::edge::clock;
use crate::edge::objects::ledgers;
use crate::rules::run::{Event, RECORD_AGAIN};

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

    async fn write_ledger_row(&self) {
        let (row, state) = {
            let data = self.data.borrow();
            // A run that was presented again meanwhile asks for its row when it has come to rest again.
            let row = (!data.run.is_busy()).then(|| self.record.row(&data.run, &data.stats, clock::now()));
            (row, data.run.state().clone())
        };
        let Some(row) = row else { return };
        self.ledger_retry_at.set(Some(clock::now().saturating_add(RECORD_AGAIN)));
        // Before the row: as long as the row is due, all of this is tried again.
        if hire::ended(self).await.is_err() {
            return;
        }
        if let Some(code) = &row.code {
            // Only what may need somebody's eye: a line of the log costs as much CPU time as a query.
            worker::console_log!("run of {}: {} {code}, {} ms", row.template_id, row.status, row.duration_ms);
        }
        // Where the run has changed since, this row is out of date and another one is due.
        if ledgers::write(&self.env, &row).await.is_ok() && *self.data.borrow().run.state() == state {
            self.ledger_retry_at.set(None);
            self.handle_event(Event::LedgerRowWritten);
        }
    }
}
