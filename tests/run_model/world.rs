//! The world of one run: where its money is, what is under way, who is there, what is stored; and what the driver and
//! a crash do to it.

use crate::faults::Seeded;
use crate::lane::Lane;
use coinslot::testing::rules::refusal::Refusal;
use coinslot::testing::rules::run::{Answer, Effect, Event, Moment, Policy, Receipt, Run, State, View};

pub const NOW: u64 = 1_000_000;

/// How often what may go wrong still may. Everything else makes progress by itself, so every story ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Budget {
    pub presentations: u8,
    pub crashes: u8,
    /// Answers that get lost: of the facilitator, the node, the ledger, the claims.
    pub losses: u8,
    pub claude_faults: u8,
    pub doubles: u8,
    /// The payer spends the nonce on something else.
    pub cancels: u8,
    /// Alarms before the payment's end, and after.
    pub alarms: u8,
    /// The contract's deadline passes.
    pub deadlines: u8,
}

/// Where the payer's money is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Money {
    WithPayer,
    /// A transaction is submitted, and not mined.
    Pending,
    Moved,
    /// The nonce is spent, and not on us.
    SpentOtherwise,
}

/// What becomes of a settle that has been asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Settling {
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
pub type Row = (String, bool);

/// How far Claude's current answer is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Asked {
    No,
    Waiting,
    Begun,
    Wrote,
}

/// What has been heard since the run last began from nothing; as far as it was saved, it survives a crash.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Heard {
    /// Claude has begun to answer.
    pub begun: bool,
    /// Claude's answer was whole.
    pub ended: bool,
    /// The facilitator has answered for certain.
    pub definite: bool,
    /// The facilitator has called the payment good.
    pub verified: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct World {
    pub run: Run,
    pub stored: (Run, Heard),
    pub heard: Heard,
    pub todo: Vec<Effect>,
    pub verifying: bool,
    pub asked: Asked,
    pub lingering: bool,
    pub backing_off: bool,
    pub settling: Settling,
    pub looking: bool,
    /// The row that is being written.
    pub recording: Option<Row>,
    pub reporting: bool,
    pub money: Money,
    /// A settle may have been asked for without its answer having been heard.
    pub ambiguous: bool,
    /// The payment can be settled no more.
    pub expired: bool,
    /// The contract's deadline has passed.
    pub late: bool,
    pub callers: u8,
    /// A contract's caller was told that the run is under way, before its payment was verified.
    pub told: bool,
    pub now: u64,
    /// Text that a caller has seen of the edition that is being written.
    pub seen: bool,
    /// What the ledger says.
    pub ledger: Option<Row>,
    /// Something of this run is stored. If not, a crash leaves what is stored of the one before.
    pub is_stored: bool,
    /// What the ledger says of the run before.
    pub earlier: Option<Row>,
    pub left: Budget,
    /// The last answer from outside, which may come a second time.
    pub last: Option<Event>,
    /// The promise that was broken, if any.
    pub broken: Option<&'static str>,
}

/// Whose answer gets lost.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Lost {
    Settle,
    Record,
    Report,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Action {
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

pub const SETTLED_ONCE: &str = "settle is asked once per definite answer";
pub const SHOWN_PAID: &str = "nothing is shown before it is settled (or verified, where the creator says so)";
pub const BEGUN_FIRST: &str = "settle is asked only once Claude has begun, or the result is whole";
pub const SAVED_FIRST: &str = "what is settled is stored first";
pub const ONE_CALL: &str = "one call of Claude at a time";
pub const NO_ORPHANS: &str = "what a run waits for is under way, and nothing else is";
pub const NOT_LOST: &str = "money that has moved is never forgotten";
pub const SEEN_STAYS: &str = "text that was seen is not written anew under the reader's eyes";
pub const NOT_FOR_NOBODY: &str = "Claude works on credit only while somebody is there";
pub const BROKEN_UNPAID: &str = "no settlement is first asked for when the answer has broken off";
pub const PAID_ENDS: &str = "what was paid ends delivered or reported";
pub const UNPAID_ENDS: &str = "what was not paid ends uncharged";
pub const ALARMS: &str = "an alarm that is needed gets something done";
pub const LATE_UNPAID: &str = "no settlement is first asked for after the contract's deadline";
pub const TOLD_STORED: &str = "a run that was told to be under way is stored at its end";
pub const ENDS_STORED: &str = "a run at its end is stored, and the ledger says the same";

/// A world in which promises can be broken.
pub trait Keeps {
    fn keeps(&self, promise: &'static str) -> bool;
}

impl Keeps for World {
    fn keeps(&self, promise: &'static str) -> bool {
        self.broken != Some(promise)
    }
}

pub fn receipt() -> Receipt {
    let text = str::to_owned;
    Receipt { transaction: text("0x1"), network: text("eip155:8453"), network_v1: text("base"), payer: text("0x2") }
}

pub fn moment(now: u64) -> Moment {
    Moment { now, jitter: 0 }
}

/// The state's name, without what it carries.
pub fn name(state: &State) -> String {
    let debug = format!("{state:?}");
    debug.split([' ', '(']).next().unwrap().to_owned()
}

impl World {
    /// The driver hears of something and queues what the machine wants.
    pub fn tell(mut self, lane: &Lane, event: Event, now: u64) -> Self {
        if self.late && self.run.is_late(NOW * 5) {
            let effects = lane.handle(&mut self.run, Event::DeadlineMissed, now);
            self.todo.extend(effects);
        }
        let effects = lane.handle(&mut self.run, event, now);
        self.todo.extend(effects);
        self.look_around(lane)
    }

    /// What callers do and the driver notices at any time.
    pub fn look_around(mut self, lane: &Lane) -> Self {
        let writing = self.asked == Asked::Wrote && lane.view(&self.run) == View::Show;
        // Where the run comes to rest, whoever reads has been told how it ends.
        self.seen = self.run.is_busy() && (self.seen || (writing && self.callers > 0));
        self
    }

    /// Whether the payment is presented again. One whose time is over is refused at the door, unless there is a run.
    pub fn may_be_presented(&self) -> bool {
        self.left.presentations > 0 && !((self.expired || self.late) && self.run.is_replaceable())
    }

    /// A caller presents the payment. The object shows them the run that it has bought, or begins one.
    pub fn present(mut self, lane: &Lane) -> Self {
        self.callers += 1;
        if self.has_come_to_nothing() {
            // Another run of the same payment, in a row of its own. The one before writes its own ledger row, and
            // whoever followed it has been told how it ended.
            self.callers = 1;
            self.told = false;
            self.run = self.run.next(self.run.terms().clone());
            self.heard = Heard::default();
            self.ambiguous = false;
            self.last = None;
            self.seen = false;
            self.is_stored = false;
            self.earlier = self.row();
            self.ledger = None;
            self.recording = None;
        }
        self.tell(lane, Event::Presented, NOW)
    }

    pub fn leave(mut self, lane: &Lane) -> Self {
        self.callers -= 1;
        match self.is_abandoned() {
            true => self.tell(lane, Event::Abandoned, NOW),
            false => self,
        }
    }

    pub fn has_come_to_nothing(&self) -> bool {
        self.run.is_replaceable() && *self.run.state() != State::New
    }

    pub fn is_abandoned(&self) -> bool {
        self.callers == 0 && self.run.is_generating_unpaid()
    }

    pub fn breaks(&mut self, promise: &'static str, broken: bool) {
        if broken {
            self.broken.get_or_insert(promise);
        }
    }

    /// A world in which nothing has happened.
    pub fn new(run: Run, left: Budget) -> World {
        World {
            stored: (run.clone(), Heard::default()),
            run,
            heard: Heard::default(),
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
            told: false,
            now: NOW,
            seen: false,
            ledger: None,
            is_stored: false,
            earlier: None,
            left,
            last: None,
            broken: None,
        }
    }

    /// The object dies: memory is gone, connections too; what is stored is found.
    pub fn crash(&self, lane: &Lane) -> World {
        let (run, heard) = self.stored.clone();
        let found = World {
            ambiguous: self.ambiguous || matches!(run.state(), State::Answering { settling: true, .. }),
            heard,
            stored: self.stored.clone(),
            money: self.money,
            expired: self.expired,
            late: self.late,
            now: self.now,
            broken: self.broken,
            ledger: if self.is_stored { self.ledger.clone() } else { self.earlier.clone() },
            is_stored: *run.state() != State::New,
            ..World::new(run, Budget { crashes: self.left.crashes - 1, ..self.left })
        };
        match found.run.is_busy() {
            true => found.tell(lane, Event::Restarted, NOW),
            false => found,
        }
    }

    /// The driver does the next effect.
    pub fn effect(mut self, lane: &Lane, settling: Settling) -> World {
        match self.todo.remove(0) {
            Effect::Clear => {
                self.breaks(SEEN_STAYS, self.seen && self.callers > 0);
                self.lingering = false;
                self.seen = false;
            }
            Effect::Save => {
                self.stored = (self.run.clone(), self.heard);
                self.is_stored = true;
                self.earlier = None;
            }
            Effect::Verify => {
                self.verifying = true;
                self.last = None;
            }
            Effect::CallModel if self.is_abandoned() && !lane.is(Seeded::WorkForNobody) => {
                return self.tell(lane, Event::Abandoned, NOW)
            }
            Effect::CallModel => {
                self.breaks(ONE_CALL, self.asked != Asked::No);
                self.asked = Asked::Waiting;
            }
            Effect::StartGrace => self.lingering = true,
            Effect::BackOff => self.backing_off = true,
            Effect::Settle if self.run.should_withhold() => return self.tell(lane, Event::SettleWithheld, NOW),
            Effect::Settle => self.settle(lane, settling),
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

    pub fn settle(&mut self, lane: &Lane, settling: Settling) {
        self.breaks(SETTLED_ONCE, self.settling != Settling::No || self.heard.definite);
        let stored = self.stored.0.state();
        self.breaks(SAVED_FIRST, !matches!(stored, State::Answering { settling: true, .. }));
        let due = match lane.policy {
            Policy::Free => false,
            Policy::OnStart => self.heard.begun,
            Policy::OnResult => self.heard.ended || self.ambiguous,
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
    pub fn hangs(&self) -> bool {
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
    pub fn is_woken(&self, under_way: bool) -> bool {
        under_way || self.run.deadline(NOW).is_some()
    }

    pub fn needs_alarm(&self, lane: &Lane) -> bool {
        let waits = match self.run.state() {
            // Without a node a payment whose time is up may stay in doubt for good.
            State::SettlementUnknown { looking, .. } => {
                !looking && (lane.node || !self.expired || self.left.alarms > 0)
            }
            State::Interrupted(_) => true,
            State::Refundable(_) => !self.reporting,
            _ => false,
        };
        let owes = !self.run.is_busy() && self.recording.is_none() && self.ledger != self.row();
        self.todo.is_empty() && (waits || owes)
    }

    /// What the ledger has to say of a run at rest.
    pub fn row(&self) -> Option<Row> {
        match self.run.state() {
            State::New => self.ledger.clone(),
            State::Refused(Refusal::PaymentInvalid { .. }) if !self.run.is_kept() => self.ledger.clone(),
            state => Some((name(state), self.run.receipt().is_some())),
        }
    }

    pub fn is_over(&self, lane: &Lane) -> bool {
        let resting = self.todo.is_empty() && !self.run.is_busy() && self.recording.is_none() && !self.reporting;
        resting && !self.needs_alarm(lane)
    }
}
