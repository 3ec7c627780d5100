//! One run in memory. Events come in by [`Session::handle_event`]; the effects that they cause wait in a queue for
//! the driver; whoever waits for a change watches [`Session::updates`].

use super::hire::ContractSession;
use crate::edge::clock;
use crate::edge::notify::Notify;
use crate::edge::objects::wallet_store::{NewRun, StoredRun, WalletStore};
use crate::rules::admission::{counts_against_payer, KnownRun};
use crate::rules::payment::reconcile::ConfirmationTurns;
use crate::rules::record::replay::Snapshot;
use crate::rules::record::run_record::{RunRecord, RunStats};
use crate::rules::record::run_request::RenderedPrompt;
use crate::rules::record::transcript::Transcript;
use crate::rules::run::{Effect, Event, Millis, Policy, Run, RECORD_AGAIN};
use futures::future::AbortHandle;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::rc::Rc;
use worker::Env;

/// What changes while a run lasts. It is borrowed for a few statements at a time, never across an await.
pub(crate) struct RunData {
    pub(crate) run: Run,
    pub(crate) stats: RunStats,
    pub(crate) transcript: Transcript,
    /// When the storage last took text.
    pub(super) checkpointed_at: Millis,
    /// The prompt, of a run that began in this process.
    pub(super) prompt: Option<Rc<RenderedPrompt>>,
    /// The same, sealed by the vault for the run's id.
    pub(super) sealed_prompt: Option<String>,
}

/// One run in memory.
pub(crate) struct Session {
    pub(super) env: Env,
    pub(super) store: Rc<WalletStore>,
    /// The run's number in its object.
    pub(crate) number: u64,
    /// What it is found by when it is presented again: the name of its payment, or the id of its task.
    pub(crate) name: String,
    pub(crate) record: Rc<RunRecord>,
    pub(crate) data: RefCell<RunData>,
    /// Notified of every event and every piece of text.
    pub(crate) updates: Notify,
    /// Notified of every event.
    pub(crate) transitions: Notify,
    pub(super) shared: Rc<Shared>,
    /// What the machine wants done and the driver has not begun.
    pub(super) effects: RefCell<VecDeque<Effect>>,
    /// The driver is running.
    pub(super) driven: Cell<bool>,
    /// Stops the call of Claude that is under way.
    pub(super) model_call: RefCell<Option<AbortHandle>>,
    /// Stops the wait of [`Effect::StartGrace`].
    pub(super) grace: RefCell<Option<AbortHandle>>,
    /// In this call of Claude, a block of text has begun.
    pub(super) text_begun: Cell<bool>,
    connected_callers: Cell<usize>,
    is_stored: Cell<bool>,
    /// The run counts against the wallet's limit of a day.
    is_counted: Cell<bool>,
    /// The state has changed since it was saved.
    pub(super) unsaved: Cell<bool>,
    /// The last [`Effect::Save`] failed: nothing that cannot be undone may begin.
    pub(super) save_failed: Cell<bool>,
    /// The facilitator that had verified the payment before it was presented here.
    pub(super) verified_by: RefCell<Option<String>>,
    pub(super) ledger_write: Cell<LedgerWrite>,
    /// How often the chain was asked in vain to confirm the settlement.
    pub(super) confirmation_looks: Cell<u8>,
    /// When a ledger row is written again that could not be written.
    pub(super) ledger_retry_at: Cell<Option<Millis>>,
    pub(super) contract: ContractSession,
}

/// What the runs of one wallet share.
#[derive(Default)]
pub(crate) struct Shared {
    /// Notified when any run changes its state, or a driver ends.
    pub(crate) updates: Notify,
    pub(super) confirmation_turns: RefCell<ConfirmationTurns>,
}

/// Whether a ledger row is being written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum LedgerWrite {
    Idle,
    UnderWay,
    /// The row that is being written is out of date already: another has to follow.
    UnderWayAndStale,
}

/// What a new run begins with.
pub(crate) struct Beginning {
    pub(crate) name: String,
    pub(crate) run: Run,
    pub(crate) record: RunRecord,
    pub(crate) prompt: RenderedPrompt,
    pub(crate) verified_by: Option<String>,
}

impl Session {
    /// A run that begins. Nothing of it is stored yet.
    pub(super) fn begin(env: Env, store: Rc<WalletStore>, shared: Rc<Shared>, number: u64, new: Beginning) -> Self {
        let data = RunData {
            run: new.run,
            stats: RunStats::default(),
            transcript: Transcript::default(),
            checkpointed_at: clock::now(),
            prompt: Some(Rc::new(new.prompt)),
            sealed_prompt: None,
        };
        let contract = ContractSession::new(None);
        let session = Self::new(env, store, shared, (number, new.name, new.record), data, contract);
        session.verified_by.replace(new.verified_by);
        session
    }

    /// A run as it is stored. One that was under way is continued.
    pub(super) fn restore(env: Env, store: Rc<WalletStore>, shared: Rc<Shared>, stored: StoredRun) -> Self {
        let StoredRun { number, name, run, record, stats, transcript, webhook } = stored;
        let (is_busy, is_counted) = (run.is_busy(), counts_against_payer(&run, &stats));
        let data = RunData { run, stats, transcript, checkpointed_at: 0, prompt: None, sealed_prompt: None };
        let contract = ContractSession::new(webhook);
        let session = Self::new(env, store, shared, (number, name, record), data, contract);
        session.is_stored.set(true);
        session.is_counted.set(is_counted);
        if is_busy {
            session.handle_event(Event::Restarted);
        }
        session
    }

    fn new(
        env: Env,
        store: Rc<WalletStore>,
        shared: Rc<Shared>,
        (number, name, record): (u64, String, RunRecord),
        data: RunData,
        contract: ContractSession,
    ) -> Self {
        Self {
            env,
            store,
            number,
            name,
            record: Rc::new(record),
            data: RefCell::new(data),
            updates: Notify::default(),
            transitions: Notify::default(),
            shared,
            effects: RefCell::default(),
            driven: Cell::new(false),
            model_call: RefCell::default(),
            grace: RefCell::default(),
            text_begun: Cell::new(false),
            connected_callers: Cell::new(0),
            is_stored: Cell::new(false),
            is_counted: Cell::new(false),
            unsaved: Cell::new(false),
            save_failed: Cell::new(false),
            verified_by: RefCell::default(),
            ledger_write: Cell::new(LedgerWrite::Idle),
            confirmation_looks: Cell::new(0),
            ledger_retry_at: Cell::new(None),
            contract,
        }
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
        self.unsaved.set(true);
        self.effects.borrow_mut().extend(effects);
        self.updates.notify();
        self.transitions.notify();
        self.shared.updates.notify();
    }

    pub(crate) fn snapshot<'a>(&'a self, data: &'a RunData) -> Snapshot<'a> {
        let RunData { run, stats, transcript, .. } = data;
        Snapshot { run, record: &self.record, stats, transcript }
    }

    /// The run as admission looks at it.
    pub(crate) fn known<'a>(&'a self, data: &'a RunData) -> KnownRun<'a> {
        KnownRun { run: &data.run, record: &self.record }
    }

    // The callers.

    pub(super) fn connect(&self) {
        self.connected_callers.set(self.connected_callers.get().saturating_add(1));
    }

    pub(super) fn disconnect(&self) {
        self.connected_callers.set(self.connected_callers.get().saturating_sub(1));
        if self.is_abandoned() {
            self.handle_event(Event::Abandoned);
        }
    }

    /// Whether Claude writes for a run that nobody has paid and nobody waits for.
    pub(super) fn is_abandoned(&self) -> bool {
        self.connected_callers.get() == 0 && self.data.borrow().run.is_generating_unpaid()
    }

    // The driver and the alarm.

    fn has_pending_effects(&self) -> bool {
        !self.effects.borrow().is_empty()
    }

    /// Whether there is something to do, and no driver does it.
    pub(crate) fn waits_for_driver(&self) -> bool {
        !self.is_driven() && (self.has_pending_effects() || self.has_due_webhook())
    }

    pub(super) fn is_driven(&self) -> bool {
        self.driven.get()
    }

    /// Whether something may still happen to the run.
    pub(crate) fn is_open(&self) -> bool {
        !(self.data.borrow().run.is_closed() && self.contract.is_idle())
    }

    /// Whether the run need not be in memory.
    pub(super) fn is_idle(&self) -> bool {
        // What could not be saved is known here alone.
        let is_unused = self.connected_callers.get() == 0
            && !self.is_driven()
            && !self.has_pending_effects()
            && !self.save_failed.get();
        is_unused && (!self.is_open() || !self.is_stored.get())
    }

    /// Whether a message to a contract's seeker is due.
    fn has_due_webhook(&self) -> bool {
        self.contract.deadline().is_some_and(|due| due <= clock::now())
    }

    /// When the alarm has to wake the run. `None`: nothing will happen to it, or its callers keep it awake.
    pub(crate) fn deadline(&self, now: Millis) -> Option<Millis> {
        if !self.is_stored.get() || !self.is_open() {
            return None;
        }
        let run = &self.data.borrow().run;
        // The machine counts the wait for the row from the present, which would never end before its own.
        let row_retry = self.ledger_retry_at.get().filter(|_| !run.is_busy());
        let now = row_retry.map_or(now, |at| at.saturating_sub(RECORD_AGAIN));
        run.deadline(now).into_iter().chain(self.contract.deadline()).min()
    }

    /// Whether an alarm is too early for all that the run waits for.
    pub(super) fn waits_for_row(&self, now: Millis) -> bool {
        let waits = self.ledger_retry_at.get().is_some_and(|at| at > now);
        waits && self.deadline(now).is_some_and(|deadline| deadline > now)
    }

    /// Whether all that is stored of the run may be deleted.
    pub(crate) fn is_expired(&self, now: Millis) -> bool {
        self.data.borrow().run.is_expired(now) && self.contract.is_idle()
    }

    // The storage.

    /// Makes the run durable as it is now, with the alarm that it needs.
    pub(super) fn save(&self) {
        let now = clock::now();
        let saved = self.try_save(now);
        self.save_failed.set(saved.is_err());
        self.unsaved.set(saved.is_err());
        log_fault(saved);
        self.wake(now);
    }

    fn try_save(&self, now: Millis) -> worker::Result<()> {
        let expires = (!self.is_open()).then(|| self.data.borrow().run.expires_at());
        let mut data = self.data.borrow_mut();
        let RunData { run, stats, transcript, checkpointed_at, sealed_prompt, .. } = &mut *data;
        let state = (&*run, &*stats, transcript.edition);
        let is_new = !self.is_stored.get();
        match is_new {
            false => self.store.update(self.number, state, expires)?,
            true => {
                let (name, record) = (self.name.as_str(), &*self.record);
                let prompt = sealed_prompt.as_deref().filter(|_| !run.is_replaceable());
                self.store.insert(self.number, &NewRun { name, record, sealed_prompt: prompt }, state, expires)?;
                self.is_stored.set(true);
                *sealed_prompt = None;
            }
        }
        // The text that has come before a stream is settled is stored with what follows: nobody has read it yet, and a
        // restart asks for the answer anew.
        if !(is_new && run.terms().policy == Policy::OnStart && run.is_settling()) {
            self.store.checkpoint(self.number, transcript)?;
        }
        *checkpointed_at = now;
        if counts_against_payer(run, stats) && !self.is_counted.replace(true) {
            self.store.count(&self.name, run.is_outstanding(), now)?;
        }
        if run.receipt().is_some() {
            // The executions of a contract are limited by the contract itself, once one of them is paid.
            self.store.note_paid(&self.name, run.terms().detached)?;
        }
        Ok(())
    }

    /// Sets the alarm for what this run waits for.
    pub(super) fn wake(&self, now: Millis) {
        if let Some(deadline) = self.deadline(now) {
            self.store.wake_by(deadline, now);
        } else if self.is_stored.get() && !self.is_open() {
            self.store.wake_to_delete(self.data.borrow().run.expires_at(), now);
        }
    }

    /// Saves the text that is not saved yet, and the state with it where that has changed. Before a run is stored, its
    /// text is not stored either.
    pub(super) fn checkpoint(&self) {
        if !self.is_stored.get() {
            return;
        }
        match self.unsaved.get() {
            true => self.save(),
            false => {
                let mut data = self.data.borrow_mut();
                data.checkpointed_at = clock::now();
                log_fault(self.store.checkpoint(self.number, &mut data.transcript));
            }
        }
    }

    /// Drops the text, for a new edition of the answer.
    pub(super) fn clear_text(&self) {
        let mut data = self.data.borrow_mut();
        data.transcript.clear();
        data.stats.next_edition();
        if self.is_stored.get() {
            log_fault(self.store.clear_text(self.number));
        }
    }

    /// Whether the run is an owner's free test.
    pub(super) fn is_test(&self) -> bool {
        self.data.borrow().run.terms().policy == Policy::Free
    }
}

/// Logs a write that failed. The run goes on from memory; a restart goes on from what was saved before.
pub(super) fn log_fault(result: worker::Result<()>) {
    if let Err(error) = result {
        worker::console_error!("fault: wallet storage: {error}");
    }
}
