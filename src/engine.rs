//! The engine: the one loop. Take an effect from the machine, do it at the edge, hand back the event.
//!
//! A [`Session`] is one run in memory. Whoever has news for the machine calls [`Session::tell`]; the
//! one [`Session::drive`] does what the machine wants; callers watch the bell.

use crate::edge::bell::Bell;
use crate::edge::store::{Loaded, Store};
use crate::edge::vault::Vault;
use crate::edge::{claude, clock, config, fault, ledger};
use crate::rules::claude::{Reading, Step};
use crate::rules::config::Limits;
use crate::rules::dossier::{Dossier, Question, Tally};
use crate::rules::refusal::{ClaudeFault, Refusal};
use crate::rules::run::{Effect, Event, Evidence, Millis, Run, Terms, GRACE};
use crate::rules::transcript::Transcript;
use crate::rules::webhook::Webhook;
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

mod delivery;
mod money;

/// Text is checkpointed once this much of it is not, in bytes.
const CHECKPOINT_BYTES: usize = 8 * 1024;
/// Or once this much time has passed.
const CHECKPOINT_AGE: Millis = 500;

/// A run's data. Borrowed for moments only, never across an await.
pub struct Desk {
    /// The machine.
    pub run: Run,
    /// What the run is about; `None` until it is first presented.
    pub dossier: Option<Rc<Dossier>>,
    /// The sealed question.
    pub question: String,
    /// Tokens.
    pub tally: Tally,
    /// The text.
    pub transcript: Transcript,
    checkpointed_at: Millis,
}

/// One run in memory.
pub struct Session {
    env: Env,
    store: Store,
    /// The run's data.
    pub desk: RefCell<Desk>,
    /// Rings at every change.
    pub bell: Bell,
    todo: RefCell<VecDeque<Effect>>,
    driving: Cell<bool>,
    hush: RefCell<Option<AbortHandle>>,
    grace: RefCell<Option<AbortHandle>>,
    /// Callers who wait for the run or follow it.
    listeners: Cell<usize>,
    /// The last [`Effect::Save`] failed: nothing that cannot be taken back may begin.
    unsaved: Cell<bool>,
    /// A row is being written; the flag says that another one is wanted by now.
    recording: Cell<Option<bool>>,
    /// An answer that Claude is to mend, and what is wrong with it.
    mend: RefCell<Option<(String, String)>>,
    /// The last message to a contract's seeker.
    webhook: RefCell<Option<Webhook>>,
    /// It is being sent.
    notifying: Cell<bool>,
}

/// A caller who waits for a run or follows it; gone when dropped.
pub struct Listener(Rc<Session>);

impl Listener {
    /// Somebody is there.
    pub fn of(session: &Rc<Session>) -> Self {
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
struct Driving<'a>(&'a Session);

impl Drop for Driving<'_> {
    fn drop(&mut self) {
        self.0.driving.set(false);
        self.0.bell.ring();
    }
}

type Work<'a> = FuturesUnordered<LocalBoxFuture<'a, ()>>;

impl Session {
    /// Takes up what the store holds.
    pub fn new(env: Env, store: Store) -> worker::Result<Self> {
        let (desk, webhook) = match store.load()? {
            Some(Loaded { run, dossier, question, tally, transcript, webhook }) => {
                let dossier = Some(Rc::new(dossier));
                (Desk { run, dossier, question, tally, transcript, checkpointed_at: 0 }, webhook)
            }
            None => {
                let (run, question) = (Run::new(Terms::free()), String::new());
                let (tally, transcript) = (Tally::default(), Transcript::default());
                (Desk { run, dossier: None, question, tally, transcript, checkpointed_at: 0 }, None)
            }
        };
        let session = Self {
            env,
            store,
            desk: RefCell::new(desk),
            bell: Bell::default(),
            todo: RefCell::default(),
            driving: Cell::new(false),
            hush: RefCell::default(),
            grace: RefCell::default(),
            listeners: Cell::new(0),
            unsaved: Cell::new(false),
            recording: Cell::new(None),
            mend: RefCell::default(),
            webhook: RefCell::new(webhook),
            notifying: Cell::new(false),
        };
        if session.desk.borrow().run.is_busy() {
            session.tell(Event::Restarted);
        }
        Ok(session)
    }

    /// Sets out on a run. The machine hears of it by [`Event::Presented`].
    pub fn begin(&self, terms: Terms, dossier: Dossier, question: String) -> worker::Result<()> {
        self.store.begin(&dossier, &question)?;
        let mut desk = self.desk.borrow_mut();
        desk.run = desk.run.next(terms);
        desk.tally = Tally::default();
        desk.dossier = Some(Rc::new(dossier));
        desk.question = question;
        Ok(())
    }

    /// Tells the machine; what it wants done is queued, and everybody hears the bell.
    pub fn tell(&self, event: Event) {
        let (moment, mut effects) = (clock::moment(), Vec::new());
        {
            let run = &mut self.desk.borrow_mut().run;
            if run.is_late(moment.now) {
                effects.extend(run.handle(Event::DeadlineMissed, moment));
            }
            effects.extend(run.handle(event, moment));
        }
        self.todo.borrow_mut().extend(effects);
        self.bell.ring();
    }

    /// Whether Claude works for nobody: nobody has paid, and nobody is there.
    fn is_abandoned(&self) -> bool {
        self.listeners.get() == 0 && self.desk.borrow().run.is_on_credit()
    }

    /// Whether the machine wants something that nobody has begun to do.
    pub fn has_todo(&self) -> bool {
        !self.todo.borrow().is_empty()
    }

    /// When it is time to go on, with the machine or with a message to the seeker.
    pub fn deadline(&self, now: Millis) -> Option<Millis> {
        let run = self.desk.borrow().run.deadline(now);
        run.into_iter().chain(self.mail_due()).min()
    }

    /// Whether all of it may be deleted.
    pub fn is_forgotten(&self, now: Millis) -> bool {
        self.desk.borrow().run.is_forgotten(now) && self.mail_due().is_none() && !self.notifying.get()
    }

    /// Whether a [`Session::drive`] is under way.
    pub fn is_driven(&self) -> bool {
        self.driving.get()
    }

    /// Does what the machine wants until nothing is wanted and nothing is under way. One at a time:
    /// a second call returns at once, the first does its work.
    pub async fn drive(&self) {
        if self.driving.replace(true) {
            return;
        }
        let _driving = Driving(self);
        let mut work: Work<'_> = FuturesUnordered::new();
        loop {
            let rings = self.bell.rings();
            while let Some(effect) = self.next_effect() {
                self.begin_effect(effect, &mut work);
            }
            if self.mail_due().is_some_and(|due| due <= clock::now()) {
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
            match select(work.next(), std::pin::pin!(self.bell.after(rings))).await {
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
            Effect::Ask if self.is_abandoned() => self.tell(Event::Abandoned),
            Effect::Ask => {
                let ask = stoppable(&self.hush, self.ask());
                let silent = false; // text may be out: better told as broken off than written twice
                work.push(self.guarded(ask, move || Some(Event::Broke { fault: ClaudeFault::Upstream, silent })));
            }
            Effect::Linger => work.push(self.guarded(stoppable(&self.grace, self.linger()), || None)),
            Effect::BackOff => work.push(self.guarded(self.back_off(), || Some(Event::BackedOff))),
            Effect::Settle if self.desk.borrow().run.should_withhold() => self.tell(Event::SettleWithheld),
            Effect::Settle if self.unsaved.get() => self.tell(Event::SettleNotSent),
            Effect::Settle => work.push(self.guarded(self.settle(), || Some(Event::SettleUnanswered))),
            Effect::Look => work.push(self.guarded(self.look(), || Some(Event::Looked(Evidence::Nothing)))),
            Effect::Hush => stop(&self.hush),
            // What nobody took the report of is reported again by the alarm.
            Effect::Report => work.push(self.guarded(self.report(), || None)),
            // The row stays owed; the alarm writes it.
            Effect::Record if self.recording.get().is_some() => self.recording.set(Some(true)),
            Effect::Record => work.push(self.guarded(self.record(), || None)),
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
        let mut desk = self.desk.borrow_mut();
        desk.transcript.clear();
        desk.tally.next_edition();
        log_fault(self.store.clear());
    }

    fn save(&self) {
        let mut desk = self.desk.borrow_mut();
        let desk = &mut *desk;
        let checkpoint = self.store.checkpoint(&mut desk.transcript);
        let saved = checkpoint.and_then(|()| self.store.save(&desk.run, &desk.tally, desk.transcript.edition));
        self.unsaved.set(saved.is_err());
        log_fault(saved);
        desk.checkpointed_at = clock::now();
    }

    fn dossier(&self) -> Option<Rc<Dossier>> {
        self.desk.borrow().dossier.clone()
    }

    async fn linger(&self) {
        worker::Delay::from(Duration::from_millis(GRACE)).await;
        self.tell(Event::Lingered);
    }

    async fn back_off(&self) {
        let wait = self.desk.borrow().run.back_off();
        worker::Delay::from(Duration::from_millis(wait)).await;
        self.tell(Event::BackedOff);
    }

    /// Writes rows one at a time: of two under way, the older could be the last to arrive.
    async fn record(&self) {
        loop {
            self.recording.set(Some(false));
            self.record_once().await;
            if self.recording.replace(None) != Some(true) {
                return;
            }
        }
    }

    async fn record_once(&self) {
        let (row, state) = {
            let desk = self.desk.borrow();
            // Presented again meanwhile: the row is written when it has come to rest again.
            let dossier = desk.dossier.as_ref().filter(|_| !desk.run.is_busy());
            (dossier.map(|d| d.row(&desk.run, &desk.tally, clock::now())), desk.run.state().clone())
        };
        let Some(row) = row else { return };
        if self.conclude().await.is_err() {
            return;
        }
        let code = row.code.as_deref().unwrap_or("-");
        worker::console_log!("run of {}: {} {code}, {} ms", row.template_id, row.status, row.duration_ms);
        // A row that is out of date by now leaves the next one owed.
        if ledger::write(&self.env, row).await.is_ok() && *self.desk.borrow().run.state() == state {
            self.tell(Event::Recorded);
        }
    }

    async fn ask(&self) {
        #[cfg(feature = "panic-probe")]
        self.panic_if_asked().await;
        let mut reading = Reading::default();
        if let Err(fault) = self.converse(&mut reading).await {
            self.take(&mut reading, vec![Step::Broke(fault)]);
        }
    }

    /// One conversation with Claude, from the question to the last event.
    async fn converse(&self, reading: &mut Reading) -> Result<(), ClaudeFault> {
        let internal = |_| ClaudeFault::Upstream;
        let config = config::load(&self.env).await.map_err(internal)?;
        let dossier = self.dossier().ok_or(ClaudeFault::Upstream)?;
        let question = self.question(&dossier).await.map_err(internal)?;
        let mend = self.mend.take();
        let mut body = claude::ask(&self.env, &config, &dossier, &question, mend).await?;
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
                None => return Err(ClaudeFault::TimedOut),
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
        let desk = self.desk.borrow();
        let payment = desk.dossier.as_ref()?.payment.as_ref()?;
        let unpaid = desk.run.receipt().is_none() && !desk.run.is_settling();
        let seconds = payment.valid_before.saturating_sub(limits.settle_margin_seconds);
        unpaid.then(|| seconds.saturating_mul(1000))
    }

    /// In the build that `tests/panic.test.mjs` makes for itself, and in no other.
    #[cfg(feature = "panic-probe")]
    #[allow(clippy::panic)]
    async fn panic_if_asked(&self) {
        let Some(dossier) = self.dossier() else { return };
        let question = self.question(&dossier).await;
        if question.is_ok_and(|q| q.system.reveal().contains("[panic-probe]")) {
            panic!("asked to");
        }
    }

    async fn question(&self, dossier: &Dossier) -> Result<Question, Refusal> {
        let sealed = self.desk.borrow().question.clone();
        let vault = Vault::new(&self.env).map_err(fault("vault"))?;
        let plain = vault.open(&dossier.run_id, &sealed).await.map_err(fault("sealed question"))?;
        serde_json::from_slice(&plain).map_err(fault("sealed question"))
    }

    /// Takes steps of the answer.
    fn take(&self, reading: &mut Reading, steps: Vec<Step>) -> Taken {
        {
            let mut desk = self.desk.borrow_mut();
            desk.tally.usage = reading.usage;
            desk.tally.stop_reason.clone_from(&reading.stop_reason);
        }
        let engaged = self.dossier().is_some_and(|dossier| dossier.engagement.is_some());
        for step in steps {
            match step {
                Step::Began => self.tell(Event::Began),
                Step::Text(text) => self.write(&text),
                Step::Whole if engaged => return Taken::Whole,
                Step::Whole => self.tell(Event::Ended),
                Step::Broke(fault) => {
                    let silent = self.desk.borrow().transcript.is_empty();
                    self.tell(Event::Broke { fault, silent });
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
            let mut desk = self.desk.borrow_mut();
            let desk = &mut *desk;
            let first = desk.transcript.is_empty();
            desk.transcript.push(text);
            let now = clock::now();
            let old = now.saturating_sub(desk.checkpointed_at) >= CHECKPOINT_AGE;
            if old || desk.transcript.unsaved_bytes() >= CHECKPOINT_BYTES {
                desk.checkpointed_at = now;
                log_fault(self.store.checkpoint(&mut desk.transcript));
            }
            first
        };
        match first {
            true => self.tell(Event::Wrote),
            false => self.bell.ring(),
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
