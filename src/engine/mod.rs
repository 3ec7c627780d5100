//! The engine: the one loop. Take an effect from the machine, do it at the edge, hand back the event.
//!
//! A [`Session`] is one run in memory. Whoever has news for the machine calls [`Session::tell`]; the
//! one [`Session::drive`] does what the machine wants; callers watch the bell.

use crate::edge::d1::ledger;
use crate::edge::http::claude;
use crate::edge::kv::config;
use crate::edge::notify::Notify;
use crate::edge::objects::run_store::{LoadedRun, RunStore};
use crate::edge::vault::Vault;
use crate::edge::{clock, fault};
use crate::rules::config::Limits;
use crate::rules::hire::webhook::Webhook;
use crate::rules::model_answer::{AnswerReader, Step};
use crate::rules::record::run_record::{RunRecord, RunStats};
use crate::rules::record::run_request::RenderedPrompt;
use crate::rules::record::transcript::Transcript;
use crate::rules::refusal::{ModelError, Refusal};
use crate::rules::run::{Effect, Event, Evidence, Millis, Run, Terms, GRACE};
use futures::future::{select, AbortHandle, Abortable, Either, LocalBoxFuture};
use futures::stream::{FuturesUnordered, StreamExt};
use futures::FutureExt;
use std::cell::{Cell, RefCell};
use std::collections::VecDeque;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::rc::Rc;
use std::time::Duration;
use worker::Env;

mod hire;
mod money;

/// Text is checkpointed once this much of it is not, in bytes.
const CHECKPOINT_BYTES: usize = 8 * 1024;
/// Or once this much time has passed.
const CHECKPOINT_AGE: Millis = 500;

/// A run's data. Borrowed for moments only, never across an await.
pub(crate) struct RunData {
    /// The machine.
    pub(crate) run: Run,
    /// What the run is about; `None` until it is first presented.
    pub(crate) record: Option<Rc<RunRecord>>,
    /// The sealed sealed_prompt.
    pub(crate) sealed_prompt: String,
    /// Tokens.
    pub(crate) stats: RunStats,
    /// The text.
    pub(crate) transcript: Transcript,
    checkpointed_at: Millis,
}

/// One run in memory.
pub(crate) struct Session {
    env: Env,
    store: RunStore,
    /// The run's data.
    pub(crate) data: RefCell<RunData>,
    /// Rings at every change.
    pub(crate) updates: Notify,
    todo: RefCell<VecDeque<Effect>>,
    driving: Cell<bool>,
    model_call: RefCell<Option<AbortHandle>>,
    grace: RefCell<Option<AbortHandle>>,
    /// Callers who wait for the run or follow it.
    listeners: Cell<usize>,
    /// The last [`Effect::Save`] failed: nothing that cannot be taken back may begin.
    unsaved: Cell<bool>,
    /// A row is being written; the flag says that another one is wanted by now.
    writing_row: Cell<Option<bool>>,
    /// An answer that Claude is to repair, and what is wrong with it.
    repair: RefCell<Option<(String, String)>>,
    /// The last message to a contract's seeker.
    webhook: RefCell<Option<Webhook>>,
    /// It is being sent.
    notifying: Cell<bool>,
}

/// A caller who waits for a run or follows it; gone when dropped.
pub(crate) struct Listener(Rc<Session>);

impl Listener {
    /// Somebody is there.
    pub(crate) fn of(session: &Rc<Session>) -> Self {
        session.listeners.set(session.listeners.get().saturating_add(1));
        Self(session.clone())
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        self.0.listeners.set(self.0.listeners.get().saturating_sub(1));
        if self.0.is_abandoned() {
            self.0.tell(Event::Abandoned);
        }
    }
}

/// Ends a drive, also when it ends in a panic: nobody must wait for a driver who is gone.
struct DriveGuard<'a>(&'a Session);

impl Drop for DriveGuard<'_> {
    fn drop(&mut self) {
        self.0.driving.set(false);
        self.0.updates.notify();
    }
}

type Work<'a> = FuturesUnordered<LocalBoxFuture<'a, ()>>;

impl Session {
    /// Takes up what the store holds.
    pub(crate) fn new(env: Env, store: RunStore) -> worker::Result<Self> {
        let (data, webhook) = match store.load()? {
            Some(LoadedRun { run, record, sealed_prompt, stats, transcript, webhook }) => {
                let record = Some(Rc::new(record));
                (RunData { run, record, sealed_prompt, stats, transcript, checkpointed_at: 0 }, webhook)
            }
            None => {
                let (run, sealed_prompt) = (Run::new(Terms::free()), String::new());
                let (stats, transcript) = (RunStats::default(), Transcript::default());
                (RunData { run, record: None, sealed_prompt, stats, transcript, checkpointed_at: 0 }, None)
            }
        };
        let session = Self {
            env,
            store,
            data: RefCell::new(data),
            updates: Notify::default(),
            todo: RefCell::default(),
            driving: Cell::new(false),
            model_call: RefCell::default(),
            grace: RefCell::default(),
            listeners: Cell::new(0),
            unsaved: Cell::new(false),
            writing_row: Cell::new(None),
            repair: RefCell::default(),
            webhook: RefCell::new(webhook),
            notifying: Cell::new(false),
        };
        if session.data.borrow().run.is_busy() {
            session.tell(Event::Restarted);
        }
        Ok(session)
    }

    /// Sets out on a run. The machine hears of it by [`Event::Presented`].
    pub(crate) fn begin(&self, terms: Terms, record: RunRecord, sealed_prompt: String) -> worker::Result<()> {
        self.store.begin(&record, &sealed_prompt)?;
        let mut data = self.data.borrow_mut();
        data.run = data.run.next(terms);
        data.stats = RunStats::default();
        data.record = Some(Rc::new(record));
        data.sealed_prompt = sealed_prompt;
        Ok(())
    }

    /// Tells the machine; what it wants done is queued, and everybody hears the bell.
    pub(crate) fn tell(&self, event: Event) {
        let (moment, mut effects) = (clock::moment(), Vec::new());
        {
            let run = &mut self.data.borrow_mut().run;
            if run.is_late(moment.now) {
                effects.extend(run.handle(Event::DeadlineMissed, moment));
            }
            effects.extend(run.handle(event, moment));
        }
        self.todo.borrow_mut().extend(effects);
        self.updates.notify();
    }

    /// Whether Claude works for nobody: nobody has paid, and nobody is there.
    fn is_abandoned(&self) -> bool {
        self.listeners.get() == 0 && self.data.borrow().run.is_generating_unpaid()
    }

    /// Whether the machine wants something that nobody has begun to do.
    pub(crate) fn has_todo(&self) -> bool {
        !self.todo.borrow().is_empty()
    }

    /// When it is time to go on, with the machine or with a message to the seeker.
    pub(crate) fn deadline(&self, now: Millis) -> Option<Millis> {
        let run = self.data.borrow().run.deadline(now);
        run.into_iter().chain(self.webhook_due()).min()
    }

    /// Whether all of it may be deleted.
    pub(crate) fn is_expired(&self, now: Millis) -> bool {
        self.data.borrow().run.is_expired(now) && self.webhook_due().is_none() && !self.notifying.get()
    }

    /// Whether a [`Session::drive`] is under way.
    pub(crate) fn is_driven(&self) -> bool {
        self.driving.get()
    }

    /// Does what the machine wants until nothing is wanted and nothing is under way. One at a time:
    /// a second call returns at once, the first does its work.
    pub(crate) async fn drive(&self) {
        if self.driving.replace(true) {
            return;
        }
        let _driving = DriveGuard(self);
        let mut work: Work<'_> = FuturesUnordered::new();
        loop {
            let version = self.updates.version();
            while let Some(effect) = self.next_effect() {
                self.begin_effect(effect, &mut work);
            }
            if self.webhook_due().is_some_and(|due| due <= clock::now()) {
                self.notifying.set(true);
                let silence = || {
                    self.notifying.set(false);
                    None
                };
                work.push(self.guarded(self.notify(), silence));
            }
            if work.is_empty() {
                break;
            }
            match select(work.next(), std::pin::pin!(self.updates.changed_since(version))).await {
                Either::Left(_) | Either::Right(_) => {}
            }
        }
    }

    fn next_effect(&self) -> Option<Effect> {
        self.todo.borrow_mut().pop_front()
    }

    fn begin_effect<'a>(&'a self, effect: Effect, work: &mut Work<'a>) {
        match effect {
            Effect::Clear => {
                stop(&self.grace);
                self.clear();
            }
            Effect::Save => self.save(),
            Effect::Verify if self.unsaved.get() => self.tell(Event::VerifyRefused(Refusal::Internal)),
            Effect::Verify => work.push(self.guarded(self.verify(), || Some(Event::VerifyRefused(Refusal::Internal)))),
            Effect::CallModel if self.is_abandoned() => self.tell(Event::Abandoned),
            Effect::CallModel => {
                let ask = stoppable(&self.model_call, self.call_model());
                let no_text = false; // text may be out: better told as broken off than written twice
                work.push(self.guarded(ask, move || Some(Event::Broke { error: ModelError::Upstream, no_text })));
            }
            Effect::StartGrace => work.push(self.guarded(stoppable(&self.grace, self.wait_grace()), || None)),
            Effect::BackOff => work.push(self.guarded(self.back_off(), || Some(Event::BackOffElapsed))),
            Effect::Settle if self.data.borrow().run.should_withhold() => self.tell(Event::SettleWithheld),
            Effect::Settle if self.unsaved.get() => self.tell(Event::SettleNotSent),
            Effect::Settle => work.push(self.guarded(self.settle(), || Some(Event::SettleUnanswered))),
            Effect::Reconcile => {
                work.push(self.guarded(self.reconcile(), || Some(Event::Reconciled(Evidence::Nothing))))
            }
            Effect::CancelModelCall => stop(&self.model_call),
            // What nobody took the report of is reported again by the alarm.
            Effect::Report => work.push(self.guarded(self.report(), || None)),
            // The row stays owed; the alarm writes it.
            Effect::WriteLedgerRow if self.writing_row.get().is_some() => self.writing_row.set(Some(true)),
            Effect::WriteLedgerRow => work.push(self.guarded(self.write_ledger_rows(), || None)),
        }
    }

    /// Work whose panic is this run's trouble alone: the machine hears of it as `event`.
    fn guarded<'a>(
        &'a self,
        work: impl Future<Output = ()> + 'a,
        event: impl FnOnce() -> Option<Event> + 'a,
    ) -> LocalBoxFuture<'a, ()> {
        let caught = AssertUnwindSafe(work).catch_unwind();
        let told = caught.map(move |result| {
            if result.is_err() {
                worker::console_error!("fault: a panic in a run; the run goes on without");
                event().into_iter().for_each(|event| self.tell(event));
            }
        });
        told.boxed_local()
    }

    fn clear(&self) {
        let mut data = self.data.borrow_mut();
        data.transcript.clear();
        data.stats.next_edition();
        log_fault(self.store.clear());
    }

    fn save(&self) {
        let mut data = self.data.borrow_mut();
        let data = &mut *data;
        let checkpoint = self.store.checkpoint(&mut data.transcript);
        let saved = checkpoint.and_then(|()| self.store.save(&data.run, &data.stats, data.transcript.edition));
        self.unsaved.set(saved.is_err());
        log_fault(saved);
        data.checkpointed_at = clock::now();
    }

    fn record(&self) -> Option<Rc<RunRecord>> {
        self.data.borrow().record.clone()
    }

    async fn wait_grace(&self) {
        worker::Delay::from(Duration::from_millis(GRACE)).await;
        self.tell(Event::GraceElapsed);
    }

    async fn back_off(&self) {
        let wait = self.data.borrow().run.back_off();
        worker::Delay::from(Duration::from_millis(wait)).await;
        self.tell(Event::BackOffElapsed);
    }

    /// Writes rows one at a time: of two under way, the older could be the last to arrive.
    async fn write_ledger_rows(&self) {
        loop {
            self.writing_row.set(Some(false));
            self.write_ledger_row().await;
            if self.writing_row.replace(None) != Some(true) {
                return;
            }
        }
    }

    async fn write_ledger_row(&self) {
        let (row, state) = {
            let data = self.data.borrow();
            // Presented again meanwhile: the row is written when it has come to rest again.
            let record = data.record.as_ref().filter(|_| !data.run.is_busy());
            (record.map(|d| d.row(&data.run, &data.stats, clock::now())), data.run.state().clone())
        };
        let Some(row) = row else { return };
        if self.record_contract_outcome().await.is_err() {
            return;
        }
        let code = row.code.as_deref().unwrap_or("-");
        worker::console_log!("run of {}: {} {code}, {} ms", row.template_id, row.status, row.duration_ms);
        // A row that is out of date by now leaves the next one owed.
        if ledger::write(&self.env, row).await.is_ok() && *self.data.borrow().run.state() == state {
            self.tell(Event::LedgerRowWritten);
        }
    }

    async fn call_model(&self) {
        #[cfg(feature = "panic-probe")]
        self.panic_if_asked().await;
        let mut reading = AnswerReader::default();
        if let Err(fault) = self.converse(&mut reading).await {
            self.take(&mut reading, vec![Step::Broke(fault)]);
        }
    }

    /// One conversation with Claude, from the sealed_prompt to the last event.
    async fn converse(&self, reading: &mut AnswerReader) -> Result<(), ModelError> {
        let internal = |_| ModelError::Upstream;
        let config = config::load(&self.env).await.map_err(internal)?;
        let record = self.record().ok_or(ModelError::Upstream)?;
        let prompt = self.open_prompt(&record).await.map_err(internal)?;
        let repair = self.repair.take();
        let mut body = claude::ask(&self.env, &config, &record, &prompt, repair).await?;
        let limits = &config.limits;
        let end = clock::now().saturating_add(limits.claude_total_seconds.saturating_mul(1000));
        loop {
            let end = end.min(self.settle_by(limits).unwrap_or(end));
            let silence = match reading.has_begun() {
                true => limits.claude_idle_seconds,
                false => limits.claude_begin_seconds,
            };
            let left = Duration::from_millis(end.saturating_sub(clock::now()));
            let limit = Duration::from_secs(silence).min(left);
            let steps = match clock::within(limit, body.next()).await {
                None => return Err(ModelError::TimedOut),
                Some(Ok(Some(bytes))) => reading.push(&bytes),
                Some(Ok(None)) | Some(Err(_)) => reading.end_of_stream(),
            };
            match self.take(reading, steps) {
                Taken::Going => {}
                Taken::Over => return Ok(()),
                Taken::Whole => return self.deliver().await,
            }
        }
    }

    /// While nothing is paid: when the payment can be settled no more. An answer that is not there by
    /// then is for nobody.
    fn settle_by(&self, limits: &Limits) -> Option<Millis> {
        let data = self.data.borrow();
        let payment = data.record.as_ref()?.payment.as_ref()?;
        let unpaid = data.run.receipt().is_none() && !data.run.is_settling();
        let seconds = payment.valid_before.saturating_sub(limits.settle_margin_seconds);
        unpaid.then(|| seconds.saturating_mul(1000))
    }

    /// In the build that `tests/panic.test.mjs` makes for itself, and in no other.
    #[cfg(feature = "panic-probe")]
    #[allow(clippy::panic)]
    async fn panic_if_asked(&self) {
        let Some(record) = self.record() else { return };
        let prompt = self.open_prompt(&record).await;
        if sealed_prompt.is_ok_and(|q| q.system.reveal().contains("[panic-probe]")) {
            panic!("asked to");
        }
    }

    async fn open_prompt(&self, record: &RunRecord) -> Result<RenderedPrompt, Refusal> {
        let sealed = self.data.borrow().sealed_prompt.clone();
        let vault = Vault::new(&self.env).map_err(fault("vault"))?;
        let plain = vault.open(&record.run_id, &sealed).await.map_err(fault("sealed sealed_prompt"))?;
        serde_json::from_slice(&plain).map_err(fault("sealed sealed_prompt"))
    }

    /// Takes steps of the answer.
    fn take(&self, reading: &mut AnswerReader, steps: Vec<Step>) -> Taken {
        {
            let mut data = self.data.borrow_mut();
            data.stats.usage = reading.usage;
            data.stats.stop_reason.clone_from(&reading.stop_reason);
        }
        let contract_run = self.record().is_some_and(|record| record.contract_context.is_some());
        for step in steps {
            match step {
                Step::Began => self.tell(Event::Began),
                Step::Text(text) => self.write(&text),
                Step::Whole if contract_run => return Taken::Whole,
                Step::Whole => self.tell(Event::Ended),
                Step::Broke(fault) => {
                    let no_text = self.data.borrow().transcript.is_empty();
                    self.tell(Event::Broke { error: fault, no_text });
                }
            }
        }
        match reading.is_over() {
            true => Taken::Over,
            false => Taken::Going,
        }
    }

    fn write(&self, text: &str) {
        let first = {
            let mut data = self.data.borrow_mut();
            let data = &mut *data;
            let first = data.transcript.is_empty();
            data.transcript.push(text);
            let now = clock::now();
            let old = now.saturating_sub(data.checkpointed_at) >= CHECKPOINT_AGE;
            if old || data.transcript.unsaved_bytes() >= CHECKPOINT_BYTES {
                data.checkpointed_at = now;
                log_fault(self.store.checkpoint(&mut data.transcript));
            }
            first
        };
        match first {
            true => self.tell(Event::FirstText),
            false => self.updates.notify(),
        }
    }
}

/// How far an answer is, after some steps.
enum Taken {
    /// There is more to come.
    Going,
    /// It is over, and the machine knows.
    Over,
    /// It is whole, and to be held against its contract.
    Whole,
}

/// Work that [`stop`] ends: it is dropped where it stands.
fn stoppable(slot: &RefCell<Option<AbortHandle>>, work: impl Future<Output = ()>) -> impl Future<Output = ()> {
    let (handle, registration) = AbortHandle::new_pair();
    slot.replace(Some(handle));
    Abortable::new(work, registration).map(drop)
}

fn stop(slot: &RefCell<Option<AbortHandle>>) {
    if let Some(handle) = slot.take() {
        handle.abort();
    }
}

/// A write that fails is a fault of ours: the run goes on from memory, and what was saved before counts
/// if the object is restarted.
fn log_fault(result: worker::Result<()>) {
    if let Err(error) = result {
        worker::console_error!("fault: run storage: {error}");
    }
}
