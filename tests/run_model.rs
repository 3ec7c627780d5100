//! The run machine in its world, explored whole: callers who come and go, a facilitator, a chain, Claude, the
//! ledger, the clock, lost and doubled answers, and a crash between any two steps. And that exploration put
//! to the test: each fault seeded into the machine has to be caught.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use coinslot::testing::rules::refusal::{ModelError, Refusal};
use coinslot::testing::rules::run::{
    Answer, Effect, Event, Evidence, Moment, Policy, Receipt, Release, Run, State, Terms, View,
};
use stateright::{Checker, Model, Property};

const NOW: u64 = 1_000_000;

/// A fault seeded into the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Seeded {
    SettleBeforeClaudeBegins,
    ReleaseBeforeSettled,
    SettleWithoutSaving,
    SettleAgainAfterANo,
    BelieveANoAfterSilence,
    TakeSpentForPaid,
    ForgetThePaidOnRestart,
    AskTwice,
    NeverReport,
    NeverLook,
    WorkForNobody,
    ForgetTheLedger,
    ChargeForABrokenAnswer,
    RewriteWhatWasSeen,
    WorkOnAfterTheDeadline,
}

const SEEDED: [Seeded; 15] = [
    Seeded::SettleBeforeClaudeBegins,
    Seeded::ReleaseBeforeSettled,
    Seeded::SettleWithoutSaving,
    Seeded::SettleAgainAfterANo,
    Seeded::BelieveANoAfterSilence,
    Seeded::TakeSpentForPaid,
    Seeded::ForgetThePaidOnRestart,
    Seeded::AskTwice,
    Seeded::NeverReport,
    Seeded::NeverLook,
    Seeded::WorkForNobody,
    Seeded::ForgetTheLedger,
    Seeded::ChargeForABrokenAnswer,
    Seeded::RewriteWhatWasSeen,
    Seeded::WorkOnAfterTheDeadline,
];

/// What the explored worlds have in common.
#[derive(Clone, Debug)]
struct Slot {
    policy: Policy,
    release: Release,
    /// Whether there is a node of the chain to ask.
    node: bool,
    /// A contract's: it goes on without callers, and is due at some time.
    contract: bool,
    seeded: Option<Seeded>,
    most: Budget,
}

/// How often what may go wrong still may. Everything else makes progress by itself, so every story ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Budget {
    presentations: u8,
    crashes: u8,
    /// Answers that get lost: of the facilitator, the node, the ledger, the claims.
    losses: u8,
    claude_faults: u8,
    doubles: u8,
    /// The payer spends the nonce on something else.
    cancels: u8,
    /// Alarms before the payment's end, and after.
    alarms: u8,
    /// The contract's deadline passes.
    deadlines: u8,
}

/// Where the payer's money is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Money {
    WithPayer,
    /// A transaction is submitted, and not mined.
    Pending,
    Moved,
    /// The nonce is spent, and not on us.
    SpentOtherwise,
}

/// What becomes of a settle that has been asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Settling {
    No,
    /// The request, or its answer, never arrives.
    Silent,
    /// The transaction is submitted.
    Submitted,
    /// Nobody takes the request.
    NotSent,
    /// Refused before anything was submitted.
    Refused,
    /// The nonce was found spent.
    Spent,
}

/// A row of the ledger: the state's name, and whether it was charged.
type Row = (String, bool);

/// How far Claude's current answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Asked {
    No,
    Waiting,
    Begun,
    Wrote,
}

/// What has been heard since the run last began from nothing; as far as it was saved, it survives a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
struct Known {
    /// Claude has begun.
    begun: bool,
    /// Claude has ended.
    ended: bool,
    /// The facilitator has answered for certain.
    definite: bool,
    /// The facilitator has called the payment good.
    verified: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    run: Run,
    stored: (Run, Known),
    known: Known,
    todo: Vec<Effect>,
    verifying: bool,
    asked: Asked,
    lingering: bool,
    backing_off: bool,
    settling: Settling,
    looking: bool,
    /// The row that is being written.
    recording: Option<Row>,
    reporting: bool,
    money: Money,
    /// A settle may have been asked for without its answer having been heard.
    ambiguous: bool,
    /// The payment can be settled no more.
    expired: bool,
    /// The contract's deadline has passed.
    late: bool,
    callers: u8,
    now: u64,
    /// Text that a caller has seen of the edition that is being written.
    seen: bool,
    /// What the ledger says.
    ledger: Option<Row>,
    /// Something of this run is stored. If not, a crash leaves what is stored of the one before.
    is_stored: bool,
    /// What the ledger says of the run before.
    earlier: Option<Row>,
    left: Budget,
    /// The last answer from outside, which may come a second time.
    last: Option<Event>,
    /// The promise that was broken, if any.
    broken: Option<&'static str>,
}

/// Whose answer gets lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Lost {
    Settle,
    Record,
    Report,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
enum Action {
    Present,
    Leave,
    Crash,
    /// The driver does the next effect; for a settle, with this outcome.
    Do(Settling),
    Hear(Event),
    /// The answer gets lost.
    Lose(Lost),
    Again,
    /// Text is stored while it is written, and the state with it.
    Checkpoint,
    Mine,
    Cancel,
    Expire,
    Alarm,
    MissDeadline,
}

const SETTLED_ONCE: &str = "settle is asked once per definite answer";
const SHOWN_PAID: &str = "nothing is shown before it is settled (or verified, where the creator says so)";
const BEGUN_FIRST: &str = "settle is asked only once Claude has begun, or the result is whole";
const SAVED_FIRST: &str = "what is settled is stored first";
const ONE_CALL: &str = "one call of Claude at a time";
const NO_ORPHANS: &str = "what a run waits for is under way, and nothing else is";
const NOT_LOST: &str = "money that has moved is never forgotten";
const SEEN_STAYS: &str = "text that was seen is not written anew under the reader's eyes";
const NOT_FOR_NOBODY: &str = "Claude works on credit only while somebody is there";
const BROKEN_UNPAID: &str = "no settlement is first asked for when the answer has broken off";
const PAID_ENDS: &str = "what was paid ends delivered or reported";
const UNPAID_ENDS: &str = "what was not paid ends uncharged";
const ALARMS: &str = "an alarm that is needed gets something done";
const LATE_UNPAID: &str = "no settlement is first asked for after the contract's deadline";
const ENDS_STORED: &str = "a run at its end is stored, and the ledger says the same";

fn receipt() -> Receipt {
    let text = str::to_owned;
    Receipt { transaction: text("0x1"), network: text("eip155:8453"), network_v1: text("base"), payer: text("0x2") }
}

fn moment(now: u64) -> Moment {
    Moment { now, jitter: 0 }
}

/// The state's name, without what it carries.
fn name(state: &State) -> String {
    let debug = format!("{state:?}");
    debug.split([' ', '(']).next().unwrap().to_owned()
}

/// A machine with one field of its stored form changed.
fn altered(run: &Run, field: &str, value: serde_json::Value) -> Run {
    let mut json = serde_json::to_value(run).unwrap();
    json[field] = value;
    serde_json::from_value(json).unwrap()
}

impl Slot {
    fn new(policy: Policy) -> Self {
        Slot {
            policy,
            release: Release::Settled,
            node: true,
            contract: false,
            seeded: None,
            most: Budget {
                presentations: 2,
                crashes: 1,
                losses: 1,
                claude_faults: 2,
                doubles: 1,
                cancels: 1,
                alarms: 1,
                deadlines: 0,
            },
        }
    }

    fn is(&self, seeded: Seeded) -> bool {
        self.seeded == Some(seeded)
    }

    /// The machine, as it is or with a fault.
    fn handle(&self, run: &mut Run, event: Event, now: u64) -> Vec<Effect> {
        let before = run.clone();
        let event = match event {
            Event::Reconciled(Evidence::Spent(receipt)) if self.is(Seeded::TakeSpentForPaid) => {
                Event::Reconciled(Evidence::Paid(receipt))
            }
            Event::SettleSpent if self.is(Seeded::TakeSpentForPaid) => Event::Settled(receipt()),
            Event::Abandoned if self.is(Seeded::WorkForNobody) => return vec![],
            Event::DeadlineMissed if self.is(Seeded::WorkOnAfterTheDeadline) => return vec![],
            Event::SettleRejected(_) if self.is(Seeded::BelieveANoAfterSilence) => {
                *run = altered(run, "unanswered", false.into());
                event
            }
            other => other,
        };
        let mut effects = run.handle(event.clone(), moment(now));
        match (self.seeded, &event) {
            (Some(Seeded::SettleBeforeClaudeBegins), Event::Verified) => effects.push(Effect::Settle),
            (Some(Seeded::SettleWithoutSaving), _) if effects.contains(&Effect::Settle) => {
                effects.retain(|e| *e != Effect::Save);
            }
            (Some(Seeded::SettleAgainAfterANo), Event::SettleRejected(_)) => {
                *run = before;
                effects = vec![Effect::Save, Effect::Settle];
            }
            (Some(Seeded::ForgetThePaidOnRestart), Event::Restarted) if before.receipt().is_some() => {
                *run = Run::new(before.terms().clone());
                effects = vec![Effect::Save];
            }
            (Some(Seeded::AskTwice), Event::Presented) if *before.state() == State::Streaming => {
                effects.push(Effect::CallModel);
            }
            (Some(Seeded::NeverReport), _) => effects.retain(|e| *e != Effect::Report),
            (Some(Seeded::NeverLook), _) => effects.retain(|e| *e != Effect::Reconcile),
            (Some(Seeded::ForgetTheLedger), _) => effects.retain(|e| *e != Effect::WriteLedgerRow),
            (Some(Seeded::ChargeForABrokenAnswer), Event::Broke { .. })
                if matches!(before.state(), State::Answering { settling: false, .. }) =>
            {
                effects = vec![Effect::Save, Effect::Settle];
                let answer = Answer::Broken(ModelError::CutOff);
                let state = serde_json::to_value(State::Answering { settling: true, answer }).unwrap();
                *run = altered(&altered(&before, "unanswered", true.into()), "state", state);
            }
            (Some(Seeded::RewriteWhatWasSeen), Event::Broke { .. })
                if *before.state() == State::Streaming && matches!(run.state(), State::Interrupted(_)) =>
            {
                *run = before;
                effects = run.handle(Event::Broke { error: ModelError::CutOff, no_text: true }, moment(now));
            }
            _ => {}
        }
        effects
    }

    fn view(&self, run: &Run) -> View {
        match run.state() {
            State::Answering { settling: true, .. } if self.is(Seeded::ReleaseBeforeSettled) => View::Show,
            _ => run.view(),
        }
    }

    fn is_paid_for(&self) -> bool {
        self.policy != Policy::Free
    }
}

impl World {
    /// The driver hears of something and queues what the machine wants.
    fn tell(mut self, slot: &Slot, event: Event, now: u64) -> Self {
        if self.late && self.run.is_late(NOW * 5) {
            let effects = slot.handle(&mut self.run, Event::DeadlineMissed, now);
            self.todo.extend(effects);
        }
        let effects = slot.handle(&mut self.run, event, now);
        self.todo.extend(effects);
        self.look_around(slot)
    }

    /// What callers do and the driver notices at any time.
    fn look_around(mut self, slot: &Slot) -> Self {
        let writing = self.asked == Asked::Wrote && slot.view(&self.run) == View::Show;
        // Where the run comes to rest, whoever reads has been told how it ends.
        self.seen = self.run.is_busy() && (self.seen || (writing && self.callers > 0));
        self
    }

    fn is_abandoned(&self) -> bool {
        self.callers == 0 && self.run.is_generating_unpaid()
    }

    fn breaks(&mut self, promise: &'static str, broken: bool) {
        if broken {
            self.broken.get_or_insert(promise);
        }
    }

    /// The object dies: memory is gone, connections too; what is stored is found.
    fn crash(&self, slot: &Slot) -> World {
        let (run, known) = self.stored.clone();
        let found = World {
            ambiguous: self.ambiguous || matches!(run.state(), State::Answering { settling: true, .. }),
            known,
            todo: vec![],
            verifying: false,
            asked: Asked::No,
            lingering: false,
            backing_off: false,
            settling: Settling::No,
            looking: false,
            recording: None,
            reporting: false,
            callers: 0,
            seen: false,
            last: None,
            ledger: if self.is_stored { self.ledger.clone() } else { self.earlier.clone() },
            is_stored: true,
            earlier: None,
            run,
            left: Budget { crashes: self.left.crashes - 1, ..self.left },
            ..self.clone()
        };
        match found.run.is_busy() {
            true => found.tell(slot, Event::Restarted, NOW),
            false => found,
        }
    }

    /// The driver does the next effect.
    fn effect(mut self, slot: &Slot, settling: Settling) -> World {
        match self.todo.remove(0) {
            Effect::Clear => {
                self.breaks(SEEN_STAYS, self.seen && self.callers > 0);
                self.lingering = false;
                self.seen = false;
            }
            Effect::Save => {
                self.stored = (self.run.clone(), self.known);
                self.is_stored = true;
                self.earlier = None;
            }
            Effect::Verify => {
                self.verifying = true;
                self.last = None;
            }
            Effect::CallModel if self.is_abandoned() && !slot.is(Seeded::WorkForNobody) => {
                return self.tell(slot, Event::Abandoned, NOW)
            }
            Effect::CallModel => {
                self.breaks(ONE_CALL, self.asked != Asked::No);
                self.asked = Asked::Waiting;
            }
            Effect::StartGrace => self.lingering = true,
            Effect::BackOff => self.backing_off = true,
            Effect::Settle if self.run.should_withhold() => return self.tell(slot, Event::SettleWithheld, NOW),
            Effect::Settle => self.settle(slot, settling),
            Effect::Reconcile => {
                self.looking = true;
                self.last = None;
            }
            Effect::CancelModelCall => self.asked = Asked::No,
            // Presented again meanwhile: the row is written when it has come to rest again.
            Effect::WriteLedgerRow if self.run.is_busy() => {}
            Effect::WriteLedgerRow => self.recording = self.row(),
            Effect::Report => self.reporting = true,
        }
        self
    }

    fn settle(&mut self, slot: &Slot, settling: Settling) {
        self.breaks(SETTLED_ONCE, self.settling != Settling::No || self.known.definite);
        let stored = self.stored.0.state();
        self.breaks(SAVED_FIRST, !matches!(stored, State::Answering { settling: true, .. }));
        let due = match slot.policy {
            Policy::Free => false,
            Policy::OnStart => self.known.begun,
            Policy::OnResult => self.known.ended || self.ambiguous,
        };
        self.breaks(BEGUN_FIRST, !due);
        let broken = matches!(self.run.state(), State::Answering { answer: Answer::Broken(_), .. });
        self.breaks(BROKEN_UNPAID, broken && !self.ambiguous);
        self.breaks(LATE_UNPAID, self.late && !self.ambiguous);
        self.settling = settling;
        self.last = None;
        if settling == Settling::Submitted && self.money == Money::WithPayer {
            self.money = Money::Pending;
        }
    }

    /// With nothing left to do, whatever the run waits for is under way, and nothing else is.
    fn hangs(&self) -> bool {
        let asked = self.asked != Asked::No;
        let claude = asked || self.backing_off;
        let settling = self.settling != Settling::No;
        let fine = match self.run.state() {
            State::Presented => self.verifying && !asked && !settling,
            State::Verified | State::Streaming => claude && !settling,
            State::Answering { settling: false, .. } => asked && !settling,
            State::Answering { settling: true, answer } => asked == (*answer == Answer::Writing) && settling,
            State::SettlementUnknown { looking, answer } => {
                asked == (*answer == Answer::Writing)
                    && !settling
                    && self.looking == *looking
                    && self.is_woken(*looking)
            }
            State::Interrupted(_) | State::Refundable(_) => !asked && !settling && self.is_woken(false),
            _ => !asked && !settling && !self.verifying && !self.looking,
        };
        !fine
    }

    /// Something will go on by itself: it is under way, or the alarm is set.
    fn is_woken(&self, under_way: bool) -> bool {
        under_way || self.run.deadline(NOW).is_some()
    }

    fn needs_alarm(&self, slot: &Slot) -> bool {
        let waits = match self.run.state() {
            // Without a node a payment whose time is up may stay in doubt for good.
            State::SettlementUnknown { looking, .. } => {
                !looking && (slot.node || !self.expired || self.left.alarms > 0)
            }
            State::Interrupted(_) => true,
            State::Refundable(_) => !self.reporting,
            _ => false,
        };
        let owes = !self.run.is_busy() && self.recording.is_none() && self.ledger != self.row();
        self.todo.is_empty() && (waits || owes)
    }

    /// What the ledger has to say of a run at rest.
    fn row(&self) -> Option<Row> {
        match self.run.state() {
            State::New | State::Refused(Refusal::PaymentInvalid { .. }) => self.ledger.clone(),
            state => Some((name(state), self.run.receipt().is_some())),
        }
    }

    fn is_over(&self, slot: &Slot) -> bool {
        let resting = self.todo.is_empty() && !self.run.is_busy() && self.recording.is_none() && !self.reporting;
        resting && !self.needs_alarm(slot)
    }
}

impl Model for Slot {
    type State = World;
    type Action = Action;

    fn init_states(&self) -> Vec<World> {
        let run = Run::new(Terms {
            policy: self.policy,
            release: self.release,
            start_attempts: 2,
            paid_attempts: 2,
            valid_until: NOW * 10,
            detached: self.contract,
            due_by: self.contract.then_some(NOW * 5),
            kept_until: None,
        });
        vec![World {
            stored: (run.clone(), Known::default()),
            run,
            known: Known::default(),
            todo: vec![],
            verifying: false,
            asked: Asked::No,
            lingering: false,
            backing_off: false,
            settling: Settling::No,
            looking: false,
            recording: None,
            reporting: false,
            money: Money::WithPayer,
            ambiguous: false,
            expired: false,
            late: false,
            callers: 0,
            now: NOW,
            seen: false,
            ledger: None,
            is_stored: false,
            earlier: None,
            left: self.most,
            last: None,
            broken: None,
        }]
    }

    fn actions(&self, w: &World, actions: &mut Vec<Action>) {
        if w.broken.is_some() {
            return;
        }
        let lossy = w.left.losses > 0;
        // The driver does what is queued before it waits; only a crash comes in between.
        if w.left.crashes > 0 && w.run.state() != &State::New {
            actions.push(Action::Crash);
        }
        if let Some(effect) = w.todo.first() {
            let outcomes: &[Settling] = match (effect, w.money) {
                (Effect::Settle, _) if w.run.should_withhold() => &[Settling::No],
                // Some facilitators answer again what they have answered before.
                (Effect::Settle, Money::Moved) if lossy => &[Settling::Silent, Settling::Spent, Settling::Submitted],
                (Effect::Settle, Money::Moved) => &[Settling::Spent, Settling::Submitted],
                (Effect::Settle, Money::SpentOtherwise) if lossy => &[Settling::Silent, Settling::Spent],
                (Effect::Settle, Money::SpentOtherwise) => &[Settling::Spent],
                (Effect::Settle, _) if w.expired && lossy => &[Settling::Silent, Settling::Refused],
                (Effect::Settle, _) if w.expired => &[Settling::Refused],
                (Effect::Settle, _) if lossy => {
                    &[Settling::Silent, Settling::NotSent, Settling::Submitted, Settling::Refused]
                }
                (Effect::Settle, _) => &[Settling::Submitted, Settling::Refused],
                _ => &[Settling::No],
            };
            actions.extend(outcomes.iter().map(|o| Action::Do(*o)));
            return;
        }
        // Whose time is up is refused at the door, unless there is a run already.
        if w.left.presentations > 0 && w.callers < 2 && !((w.expired || w.late) && w.run.is_replaceable()) {
            actions.push(Action::Present);
        }
        if w.callers > 0 {
            actions.push(Action::Leave);
        }
        if w.left.deadlines > 0 && w.run.is_late(NOW * 5) {
            actions.push(Action::MissDeadline);
        }
        if w.verifying {
            actions.push(Action::Hear(Event::Verified));
            actions.push(Action::Hear(Event::VerifyRefused(Refusal::PaymentInvalid { reason: None })));
        }
        self.claude(w, actions);
        if w.lingering {
            actions.push(Action::Hear(Event::GraceElapsed));
        }
        if w.backing_off {
            actions.push(Action::Hear(Event::BackOffElapsed));
        }
        match w.settling {
            Settling::No => {}
            Settling::Silent => actions.push(Action::Lose(Lost::Settle)),
            Settling::NotSent => actions.push(Action::Hear(Event::SettleNotSent)),
            Settling::Refused => actions.push(Action::Hear(Event::SettleRejected(None))),
            Settling::Spent => actions.push(Action::Hear(Event::SettleSpent)),
            Settling::Submitted => {
                match w.money {
                    Money::Moved => actions.push(Action::Hear(Event::Settled(receipt()))),
                    // The transaction failed: who cannot say why says nothing.
                    Money::SpentOtherwise | Money::WithPayer => actions.push(Action::Hear(Event::SettleFailed)),
                    Money::Pending => {}
                }
                if lossy {
                    actions.push(Action::Lose(Lost::Settle));
                }
            }
        }
        if w.looking {
            let evidence = match (w.money, self.node) {
                (Money::Moved, true) => Evidence::Paid(receipt()),
                (Money::SpentOtherwise, true) => Evidence::Never(None),
                (Money::Moved | Money::SpentOtherwise, false) => Evidence::Spent(receipt()),
                (Money::WithPayer | Money::Pending, true) if w.expired => Evidence::Never(None),
                (Money::WithPayer | Money::Pending, false) if w.expired => Evidence::Nothing,
                (Money::WithPayer | Money::Pending, _) => Evidence::Unspent,
            };
            actions.push(Action::Hear(Event::Reconciled(evidence)));
            if lossy && self.node {
                // A node that cannot say how the nonce was spent, or says nothing.
                actions.push(Action::Hear(Event::Reconciled(Evidence::Nothing)));
                // A node that is behind.
                if matches!(w.money, Money::Moved | Money::SpentOtherwise) && !w.expired {
                    actions.push(Action::Hear(Event::Reconciled(Evidence::Unspent)));
                }
            }
        }
        if w.recording.is_some() {
            actions.push(Action::Hear(Event::LedgerRowWritten));
            if lossy {
                actions.push(Action::Lose(Lost::Record));
            }
        }
        if w.reporting {
            actions.push(Action::Hear(Event::Reported));
            if lossy {
                actions.push(Action::Lose(Lost::Report));
            }
        }
        if w.is_stored && w.asked == Asked::Wrote && w.stored != (w.run.clone(), w.known) {
            actions.push(Action::Checkpoint);
        }
        // An answer that comes twice comes before the next question.
        if w.left.doubles > 0 && w.last.is_some() {
            actions.push(Action::Again);
        }
        if w.money == Money::Pending && !w.expired {
            actions.push(Action::Mine);
        }
        let spendable = matches!(w.money, Money::WithPayer | Money::Pending);
        if w.left.cancels > 0 && spendable && !w.expired && w.known.verified {
            actions.push(Action::Cancel);
        }
        // The clock runs on when nothing else does, or with a settlement in doubt.
        if !w.expired && w.run.is_settling() && w.settling == Settling::No {
            actions.push(Action::Expire);
        }
        let in_doubt = matches!(w.run.state(), State::SettlementUnknown { .. });
        if w.needs_alarm(self) && (w.left.alarms > 0 || !in_doubt || w.expired) {
            actions.push(Action::Alarm);
        }
    }

    fn next_state(&self, w: &World, action: Action) -> Option<World> {
        let mut next = w.clone();
        let mut world = match action {
            Action::Present => {
                next.left.presentations -= 1;
                next.callers += 1;
                if next.run.is_replaceable() && *next.run.state() != State::New {
                    // Another run of the same payment, in a row of its own. The one before writes its own ledger row.
                    next.run = next.run.next(next.run.terms().clone());
                    next.known = Known::default();
                    next.ambiguous = false;
                    next.last = None;
                    next.seen = false;
                    next.is_stored = false;
                    next.earlier = next.row();
                    next.ledger = None;
                    next.recording = None;
                }
                next.tell(self, Event::Presented, NOW)
            }
            Action::Leave => {
                next.callers -= 1;
                match next.is_abandoned() {
                    true => next.tell(self, Event::Abandoned, NOW),
                    false => next,
                }
            }
            Action::MissDeadline => {
                next.left.deadlines -= 1;
                next.late = true;
                // Told whenever anything happens, or when the alarm version for it.
                next.tell(self, Event::AlarmFired, NOW)
            }
            Action::Crash => w.crash(self),
            Action::Do(settling) => {
                if matches!(settling, Settling::Silent | Settling::NotSent) {
                    next.left.losses -= 1;
                }
                next.effect(self, settling)
            }
            Action::Hear(event) => self.hear(next, event),
            Action::Lose(lost) => self.lose(next, lost),
            Action::Again => {
                next.left.doubles -= 1;
                let event = next.last.take()?;
                next.tell(self, event, NOW)
            }
            Action::Checkpoint => World { stored: (next.run.clone(), next.known), ..next },
            Action::Mine => World { money: Money::Moved, ..next },
            Action::Cancel => {
                next.left.cancels -= 1;
                World { money: Money::SpentOtherwise, ..next }
            }
            Action::Expire => {
                next.expired = true;
                // Time for as many alarms again.
                next.left.alarms = next.left.alarms.max(self.most.alarms);
                if next.money == Money::Pending {
                    next.money = Money::WithPayer;
                }
                next
            }
            Action::Alarm => {
                if matches!(next.run.state(), State::SettlementUnknown { .. }) {
                    next.left.alarms = next.left.alarms.saturating_sub(1);
                }
                // It version to keep the object alive, too, until it is time.
                let woken = |mut world: World, _| {
                    let now = world.run.deadline(world.now).unwrap_or(world.now);
                    world.now = now;
                    if world.todo.is_empty() && world.run.state() == w.run.state() {
                        world = world.tell(self, Event::AlarmFired, now);
                    }
                    world
                };
                let mut woken = (0..5).fold(World { now: NOW, ..next }, woken);
                woken.breaks(ALARMS, woken.todo.iter().all(|effect| *effect == Effect::Save));
                World { now: NOW, ..woken }
            }
        };
        self.check(&mut world);
        (world != *w).then_some(world)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        macro_rules! kept {
            ($($promise:ident),*) => {
                vec![$(Property::<Self>::always($promise, |_, w: &World| w.broken != Some($promise))),*]
            };
        }
        let mut properties = kept![
            SETTLED_ONCE,
            SHOWN_PAID,
            BEGUN_FIRST,
            SAVED_FIRST,
            ONE_CALL,
            NO_ORPHANS,
            NOT_LOST,
            SEEN_STAYS,
            NOT_FOR_NOBODY,
            BROKEN_UNPAID,
            LATE_UNPAID,
            PAID_ENDS,
            UNPAID_ENDS,
            ALARMS,
            ENDS_STORED
        ];
        properties.push(Property::eventually("every story comes to an end", |m: &Slot, w: &World| {
            let mut actions = Vec::new();
            m.actions(w, &mut actions);
            actions.is_empty() && (w.broken.is_some() || w.is_over(m))
        }));
        properties.push(Property::sometimes("a run is delivered", |_, w: &World| w.run.state() == &State::Delivered));
        properties.push(Property::sometimes("a run fails and costs nothing", |_, w: &World| {
            matches!(w.run.state(), State::Failed(_)) && w.money == Money::WithPayer
        }));
        if self.policy == Policy::OnStart {
            properties.push(Property::sometimes("a refund is reported", |_, w: &World| {
                matches!(w.run.state(), State::Reported(_))
            }));
            properties.push(Property::sometimes("a run goes on though its callers have gone", |_, w: &World| {
                w.callers == 0 && w.run.state() == &State::Streaming
            }));
        }
        if self.is_paid_for() && self.most.losses > 0 {
            properties.push(Property::sometimes("a lost settlement is found again and delivered", |_, w: &World| {
                w.ambiguous && w.run.state() == &State::Delivered
            }));
        }
        if self.is_paid_for() && self.most.crashes > 0 {
            properties.push(Property::sometimes("a paid run survives a crash", |m: &Slot, w: &World| {
                w.left.crashes < m.most.crashes && w.run.state() == &State::Delivered
            }));
        }
        properties
    }
}

impl Slot {
    fn claude(&self, w: &World, actions: &mut Vec<Action>) {
        let faulty = w.left.claude_faults > 0;
        match w.asked {
            Asked::No => return,
            Asked::Waiting => actions.push(Action::Hear(Event::Began)),
            Asked::Begun => actions.extend([Action::Hear(Event::FirstText), Action::Hear(Event::Ended)]),
            Asked::Wrote => actions.push(Action::Hear(Event::Ended)),
        }
        if faulty {
            let silent = w.asked != Asked::Wrote;
            actions.push(Action::Hear(Event::Broke { error: ModelError::CutOff, no_text: silent }));
            actions.push(Action::Hear(Event::Broke { error: ModelError::Declined, no_text: silent }));
        }
    }

    /// An answer arrives.
    fn hear(&self, mut w: World, event: Event) -> World {
        w.last = None;
        match &event {
            Event::Verified => {
                w.verifying = false;
                w.known.verified = true;
            }
            Event::VerifyRefused(_) => w.verifying = false,
            Event::Began => {
                w.asked = Asked::Begun;
                w.known.begun = true;
            }
            Event::FirstText => w.asked = Asked::Wrote,
            Event::Ended => {
                w.asked = Asked::No;
                w.known.ended = true;
            }
            Event::Broke { .. } => {
                w.asked = Asked::No;
                w.left.claude_faults -= 1;
            }
            Event::GraceElapsed => w.lingering = false,
            Event::BackOffElapsed => w.backing_off = false,
            Event::Settled(_) => {
                w.settling = Settling::No;
                w.known.definite = true;
            }
            Event::SettleRejected(_) => {
                w.settling = Settling::No;
                w.known.definite = !w.ambiguous;
            }
            Event::SettleFailed => {
                w.settling = Settling::No;
                w.ambiguous = true;
            }
            Event::SettleNotSent => w.settling = Settling::No,
            // By whom, nobody knows: from here on the money may have moved.
            Event::SettleSpent => {
                w.settling = Settling::No;
                w.ambiguous = true;
            }
            Event::Reconciled(evidence) => {
                w.looking = false;
                let spent = matches!(w.money, Money::Moved | Money::SpentOtherwise);
                if self.node && (*evidence == Evidence::Nothing || (spent && *evidence == Evidence::Unspent)) {
                    w.left.losses -= 1;
                }
            }
            Event::LedgerRowWritten => {
                w.ledger = w.recording.take();
                // A row that is out of date by now leaves the next one owed.
                if w.ledger != w.row() || w.run.is_busy() {
                    return w;
                }
            }
            Event::Reported => w.reporting = false,
            _ => {}
        }
        if matches!(event, Event::Verified | Event::Settled(_) | Event::SettleRejected(_) | Event::Reconciled(_)) {
            w.last = Some(event.clone());
        }
        w.tell(self, event, NOW)
    }

    /// An answer does not arrive. A request that never arrived has cost its loss already.
    fn lose(&self, mut w: World, lost: Lost) -> World {
        if lost != Lost::Settle || w.settling != Settling::Silent {
            w.left.losses -= 1;
        }
        match lost {
            Lost::Record => w.recording = None,
            Lost::Report => w.reporting = false,
            Lost::Settle => {
                w.settling = Settling::No;
                w.ambiguous = true;
                return w.tell(self, Event::SettleUnanswered, NOW);
            }
        }
        w
    }

    fn check(&self, w: &mut World) {
        let paid = w.run.receipt().is_some();
        if self.is_paid_for() && self.view(&w.run) == View::Show {
            let allowed = match self.release {
                Release::Settled => w.money == Money::Moved && paid,
                Release::Verified => w.known.verified || paid,
            };
            w.breaks(SHOWN_PAID, !allowed);
        }
        w.breaks(NOT_LOST, w.money == Money::Moved && (w.run.is_replaceable() || w.stored.0.is_replaceable()));
        w.breaks(UNPAID_ENDS, paid && w.money != Money::Moved);
        if !w.todo.is_empty() {
            return;
        }
        w.breaks(NO_ORPHANS, w.hangs());
        w.breaks(NOT_FOR_NOBODY, w.asked != Asked::No && w.is_abandoned());
        if w.is_over(self) {
            self.check_end(w);
        }
    }

    fn check_end(&self, w: &mut World) {
        let state = w.run.state().clone();
        let unknown = matches!(state, State::SettlementUnknown { .. });
        let kept = matches!(state, State::Delivered | State::Reported(_)) || (unknown && !self.node);
        w.breaks(PAID_ENDS, self.is_paid_for() && w.money == Money::Moved && !kept);
        w.breaks(UNPAID_ENDS, w.money != Money::Moved && w.ledger.as_ref().is_some_and(|(_, charged)| *charged));
        if !w.run.is_kept() {
            // Nothing is kept of a payment that was not good.
            return;
        }
        let durable = |run: &Run| (run.state().clone(), run.receipt().cloned());
        w.breaks(ENDS_STORED, durable(&w.stored.0) != durable(&w.run));
        w.breaks(ENDS_STORED, w.ledger != w.row());
    }
}

/// Explores every world of `slot`; gives back how many there are and which promises do not hold, each with the
/// shortest story that breaks it.
fn explore(slot: Slot) -> (usize, Vec<(&'static str, String)>) {
    let checker = slot.checker().threads(2).spawn_bfs().join();
    let broken = checker.discoveries().into_iter().filter(|(name, _)| {
        !matches!(checker.discovery_classification(name), stateright::DiscoveryClassification::Example)
    });
    let tell = |path: stateright::Path<World, Action>| {
        let last = format!("in {:?}", path.last_state());
        path.into_actions().iter().map(|action| format!("{action:?}")).chain([last]).collect::<Vec<_>>().join("\n")
    };
    let broken = broken.map(|(name, path)| (name, tell(path))).collect();
    let missing =
        checker.model().properties().into_iter().filter(|p| {
            matches!(p.expectation, stateright::Expectation::Sometimes) && checker.discovery(p.name).is_none()
        });
    let missing: Vec<_> = missing.map(|p| (p.name, "never".to_owned())).collect();
    (checker.unique_state_count(), [broken, missing].concat())
}

fn holds(slot: Slot, worlds: usize) {
    let told =
        format!("{:?}, released when {:?}, node {}, contract {}", slot.policy, slot.release, slot.node, slot.contract);
    let (explored, broken) = explore(slot);
    println!("{told}: {explored} worlds, {} promises broken", broken.len());
    for (promise, story) in &broken {
        println!("BROKEN: {promise}\n{story}");
    }
    assert!(broken.is_empty());
    assert_eq!(explored, worlds, "the machine or its world has changed: look, and pin the new count");
}

#[test]
fn a_stream_keeps_every_promise_in_every_world() {
    holds(Slot::new(Policy::OnStart), 891_211);
}

#[test]
fn a_document_keeps_every_promise_in_every_world() {
    holds(Slot::new(Policy::OnResult), 159_160);
}

#[test]
fn a_stream_that_is_shown_early_keeps_every_promise_in_every_world() {
    holds(Slot { release: Release::Verified, ..Slot::new(Policy::OnStart) }, 1_180_306);
}

fn contract(policy: Policy) -> Slot {
    let slot = Slot::new(policy);
    let most = Budget { deadlines: 1, claude_faults: 1, ..slot.most };
    Slot { contract: true, most, ..slot }
}

#[test]
fn a_contracts_result_keeps_every_promise_in_every_world() {
    holds(contract(Policy::OnResult), 120_054);
}

#[test]
fn a_contracts_stream_keeps_every_promise_in_every_world() {
    holds(contract(Policy::OnStart), 604_974);
}

#[test]
fn an_owners_test_keeps_every_promise_in_every_world() {
    holds(Slot::new(Policy::Free), 1_808);
}

/// Without a node of the chain, "spent" is all the evidence there is. It counts where a settle of ours got no
/// answer at all; a payer who cancels behind that silence cannot be told from one who has paid, so these worlds
/// have the one or the other.
#[test]
fn without_a_node_every_promise_is_kept_too() {
    let slot = Slot { node: false, ..Slot::new(Policy::OnStart) };
    let most = Budget { doubles: 0, ..slot.most };
    holds(Slot { most: Budget { cancels: 0, ..most }, ..slot.clone() }, 938_887);
    holds(Slot { most: Budget { losses: 0, crashes: 0, ..most }, ..slot }, 243_058);
}

#[test]
fn every_seeded_fault_is_caught() {
    let mut missed = Vec::new();
    for seeded in SEEDED {
        let slot = match seeded {
            Seeded::WorkOnAfterTheDeadline => contract(Policy::OnResult),
            _ => Slot::new(Policy::OnStart),
        };
        let slot = Slot { seeded: Some(seeded), ..slot };
        let first = stateright::HasDiscoveries::AnyFailures;
        let checker = slot.checker().threads(2).finish_when(first).spawn_bfs().join();
        let caught = checker.discoveries().into_keys().filter(|name| {
            let kind = checker.discovery_classification(name);
            matches!(kind, stateright::DiscoveryClassification::Counterexample)
        });
        let caught: Vec<_> = caught.collect();
        println!("{seeded:?}: {} worlds, caught by {caught:?}", checker.unique_state_count());
        if caught.is_empty() {
            missed.push(seeded);
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
