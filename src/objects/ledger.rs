//! Durable Objects that gather ledger rows for a moment and write them to D1 together. They store nothing: a run's row
//! is due until this object has answered that D1 has it, so a row that is lost here is sent again.

use crate::edge::d1::ledger;
use crate::rules::record::ledger_row::Row;
use futures::channel::oneshot;
use std::cell::{Cell, RefCell};
use std::rc::Rc;
use std::time::Duration;
use worker::{durable_object, Delay, Env, Request, Response, Result, State};

/// The shortest and the longest time for which rows are gathered. A wallet's object stays awake that long for its row.
const GATHER: (u64, u64) = (100, 1_000);
/// How many milliseconds longer rows are gathered for each row of the last batch: below ten rows a second each is written
/// soon, and above that, as many of them together as come in a second.
const GATHER_FOR_ROW: u64 = 100;
/// The most rows of one transaction.
const BATCH: usize = 100;

/// A row, and where to say whether D1 has it.
type Waiting = (Row, oneshot::Sender<bool>);

#[durable_object(fetch)]
pub struct LedgerObject {
    state: State,
    env: Env,
    waiting: Rc<RefCell<Vec<Waiting>>>,
    is_gathering: Rc<Cell<bool>>,
    /// How many rows the last batch had.
    last_batch: Rc<Cell<usize>>,
}

// Needed with panic=unwind. No borrow is held across a call that can panic.
impl std::panic::UnwindSafe for LedgerObject {}
impl std::panic::RefUnwindSafe for LedgerObject {}

impl worker::DurableObject for LedgerObject {
    fn new(state: State, env: Env) -> Self {
        Self { state, env, waiting: Rc::default(), is_gathering: Rc::default(), last_batch: Rc::default() }
    }

    async fn fetch(&self, mut request: Request) -> Result<Response> {
        let row: Row = serde_json::from_str(&request.text().await?)?;
        let (sender, written) = oneshot::channel();
        self.waiting.borrow_mut().push((row, sender));
        if !self.is_gathering.replace(true) {
            let gathering = Gathering(self.is_gathering.clone());
            let (env, waiting, last_batch) = (self.env.clone(), self.waiting.clone(), self.last_batch.clone());
            let rows = u64::try_from(last_batch.get()).unwrap_or(u64::MAX);
            let time = rows.saturating_mul(GATHER_FOR_ROW).clamp(GATHER.0, GATHER.1);
            self.state.wait_until(async move {
                Delay::from(Duration::from_millis(time)).await;
                // Rows that come from here on are gathered anew.
                drop(gathering);
                let rows = waiting.take();
                last_batch.set(rows.len());
                write_all(&env, rows).await;
            });
        }
        // Without an answer the write has panicked.
        match written.await.unwrap_or(false) {
            true => Response::empty(),
            false => Err("D1 has not taken the row".into()),
        }
    }
}

/// Ends the gathering, also when it panics: otherwise no row would ever be written again.
struct Gathering(Rc<Cell<bool>>);

impl Drop for Gathering {
    fn drop(&mut self) {
        self.0.set(false);
    }
}

async fn write_all(env: &Env, mut waiting: Vec<Waiting>) {
    while !waiting.is_empty() {
        let rest = waiting.split_off(waiting.len().min(BATCH));
        let (rows, senders): (Vec<_>, Vec<_>) = std::mem::replace(&mut waiting, rest).into_iter().unzip();
        let written = match ledger::write(env, &rows).await {
            Ok(()) => vec![true; rows.len()],
            // One row that D1 does not take must not keep the others out.
            Err(_) => write_each(env, &rows).await,
        };
        // A sender whose receiver is gone belongs to a run that will send its row again.
        senders.into_iter().zip(written).for_each(|(sender, written)| {
            let _ = sender.send(written);
        });
    }
}

async fn write_each(env: &Env, rows: &[Row]) -> Vec<bool> {
    let mut written = Vec::with_capacity(rows.len());
    for row in rows {
        written.push(ledger::write(env, std::slice::from_ref(row)).await.is_ok());
    }
    written
}
