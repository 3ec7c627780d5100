//! One run in memory. Events come in by [`Session::handle_event`]; the effects that they cause wait in a queue for
//! the driver; whoever waits for a change watches [`Session::updates`].

use super::hire::ContractSession;
use crate::edge::clock;
use crate::edge::notify::Notify;
use crate::edge::objects::run_store::{LoadedRun, RunStore};
use crate::rules::record::replay::Snapshot;
use crate::rules::record::run_record::{RunRecord, RunStats};
use crate::rules::record::transcript::Transcript;
use crate::rules::run::{Effect, Event, Millis, Run, Terms};
use futures::future::AbortHandle;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use worker::Env;

/// What is known of the run. It is borrowed for a few statements at a time, never across an await.
pub(crate) struct RunData {
    pub(crate) run: Run,
    /// `None` until the first run of this object begins.
    pub(crate) record: Option<Rc<RunRecord>>,
    /// The rendered prompt, sealed by the vault for the run's id.
    pub(super) sealed_prompt: String,
    pub(crate) stats: RunStats,
    pub(crate) transcript: Transcript,
    /// When the storage last took text.
    pub(super) checkpointed_at: Millis,
}

impl RunData {
    fn new(loaded: Option<LoadedRun>) -> Self {
        match loaded {
            Some(LoadedRun { run, record, sealed_prompt, stats, transcript, .. }) => {
                Self { run, record: Some(Rc::new(record)), sealed_prompt, stats, transcript, checkpointed_at: 0 }
            }
            None => Self {
                run: Run::new(Terms::free()),
                record: None,
                sealed_prompt: String::new(),
                stats: RunStats::default(),
                transcript: Transcript::default(),
                checkpointed_at: 0,
            },
        }
    }

    pub(crate) fn snapshot(&self) -> Snapshot<'_> {
        let (run, stats, transcript) = (&self.run, &self.stats, &self.transcript);
        Snapshot { run, record: self.record.as_deref(), stats, transcript }
    }
}

/// One run in memory, and after it the next run of the same object.
pub(crate) struct Session {
    pub(super) env: Env,
    pub(super) store: RunStore,
    pub(crate) data: RefCell<RunData>,
    /// Notified of every event and every piece of text.
    pub(crate) updates: Notify,
    /// What the machine wants done and the driver has not begun.
    pub(super) effects: RefCell<VecDeque<Effect>>,
    /// The driver is running.
    pub(super) driven: Cell<bool>,
    /// Stops the call of Claude that is under way.
    pub(super) model_call: RefCell<Option<AbortHandle>>,
    /// Stops the wait of [`Effect::StartGrace`].
    pub(super) grace: RefCell<Option<AbortHandle>>,
    connected_callers: Cell<usize>,
    /// The last [`Effect::Save`] failed: nothing that cannot be undone may begin.
    pub(super) save_failed: Cell<bool>,
    pub(super) ledger_write: Cell<LedgerWrite>,
    pub(super) contract: ContractSession,
}

/// Whether a ledger row is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LedgerWrite {
    Idle,
    UnderWay,
    /// The row that is being written is out of date already: another has to follow.
    UnderWayAndStale,
}

/// Counts one caller who waits for the run or follows it, for as long as it is held.
pub(crate) struct CallerGuard(Rc<Session>);

impl CallerGuard {
    pub(crate) fn new(session: &Rc<Session>) -> Self {
        session.connected_callers.set(session.connected_callers.get().saturating_add(1));
        Self(session.clone())
    }
}

impl Drop for CallerGuard {
    fn drop(&mut self) {
        self.0.connected_callers.set(self.0.connected_callers.get().saturating_sub(1));
        if self.0.is_abandoned() {
            self.0.handle_event(Event::Abandoned);
        }
    }
}

impl Session {
    /// Loads what the object has stored. A run that was under way is continued.
    pub(crate) fn load(env: Env, store: RunStore) -> worker::Result<Self> {
        let loaded = store.load()?;
        let contract = ContractSession::new(loaded.as_ref().and_then(|loaded| loaded.webhook.clone()));
        let session = Self {
            env,
            store,
            data: RefCell::new(RunData::new(loaded)),
            updates: Notify::default(),
            effects: RefCell::default(),
            driven: Cell::new(false),
            model_call: RefCell::default(),
            grace: RefCell::default(),
            connected_callers: Cell::new(0),
            save_failed: Cell::new(false),
            ledger_write: Cell::new(LedgerWrite::Idle),
            contract,
        };
        if session.data.borrow().run.is_busy() {
            session.handle_event(Event::Restarted);
        }
        Ok(session)
    }

    /// Puts a new run in the place of the last one. It starts with [`Event::Presented`].
    pub(crate) fn begin(&self, terms: Terms, record: RunRecord, sealed_prompt: String) -> worker::Result<()> {
        self.store.begin(&record, &sealed_prompt)?;
        let mut data = self.data.borrow_mut();
        data.run = data.run.next(terms);
        data.stats = RunStats::default();
        data.record = Some(Rc::new(record));
        data.sealed_prompt = sealed_prompt;
        Ok(())
    }

    /// Hands an event to the machine and queues the effects that it gives back.
    pub(crate) fn handle_event(&self, event: Event) {
        let (moment, mut effects) = (clock::moment(), Vec::new());
        {
            let run = &mut self.data.borrow_mut().run;
            if run.is_late(moment.now) {
                effects.extend(run.handle(Event::DeadlineMissed, moment));
            }
            effects.extend(run.handle(event, moment));
        }
        self.effects.borrow_mut().extend(effects);
        self.updates.notify();
    }

    pub(super) fn record(&self) -> Option<Rc<RunRecord>> {
        self.data.borrow().record.clone()
    }

    /// Whether Claude writes for a run that nobody has paid and nobody waits for.
    pub(super) fn is_abandoned(&self) -> bool {
        self.connected_callers.get() == 0 && self.data.borrow().run.is_generating_unpaid()
    }

    /// Whether the driver has to run.
    pub(crate) fn has_pending_effects(&self) -> bool {
        !self.effects.borrow().is_empty()
    }

    pub(crate) fn is_driven(&self) -> bool {
        self.driven.get()
    }

    /// When the alarm has to wake the run, if at all.
    pub(crate) fn deadline(&self, now: Millis) -> Option<Millis> {
        let run = self.data.borrow().run.deadline(now);
        run.into_iter().chain(self.contract.deadline()).min()
    }

    /// Whether all that the object has stored may be deleted.
    pub(crate) fn is_expired(&self, now: Millis) -> bool {
        self.data.borrow().run.is_expired(now) && self.contract.is_idle()
    }

    /// Makes the run durable as it is now.
    pub(super) fn save(&self) {
        let mut data = self.data.borrow_mut();
        let data = &mut *data;
        let checkpoint = self.store.checkpoint(&mut data.transcript);
        let saved = checkpoint.and_then(|()| self.store.save(&data.run, &data.stats, data.transcript.edition));
        self.save_failed.set(saved.is_err());
        log_fault(saved);
        data.checkpointed_at = clock::now();
    }

    /// Drops the text, for a new edition of the answer.
    pub(super) fn clear_text(&self) {
        let mut data = self.data.borrow_mut();
        data.transcript.clear();
        data.stats.next_edition();
        log_fault(self.store.clear_text());
    }
}

/// Logs a write that failed. The run goes on from memory; a restart goes on from what was saved before.
pub(super) fn log_fault(result: worker::Result<()>) {
    if let Err(error) = result {
        worker::console_error!("fault: run storage: {error}");
    }
}
