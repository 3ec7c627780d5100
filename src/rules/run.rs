//! The run machine: what happens next in the life of one payment.
//!
//! ```text
//! New ─presented─▶ Presented ─verified─▶ Verified ─began─▶ Answering ─settled─▶ Streaming ─ended─▶ Delivered
//!                      │                     │                 │ │                  │
//!                      ▼ not valid           ▼ Claude fails    │ ▼ rejected         ▼ breaks off: asked again,
//!                   Refused               Failed               │ Refused            then Interrupted (presented
//!                                         (not charged)        ▼ no answer          again: asked again), at last
//!                                                       SettlementUnknown           Refundable ─reported─▶ Refunded
//! ```
//!
//! Sans-IO: [`Run::handle`] takes an event and the time and gives back effects, in order;
//! [`Run::deadline`] says when to wake it. The machine relies on its driver for two things: effects
//! are done in the order given, and [`Effect::Save`] is durable before the effect after it begins.
//!
//! A free run (an owner's test) has no payment: it starts at Verified and passes from there to Streaming.

use super::refusal::{ClaudeFault, Refusal};
use serde::{Deserialize, Serialize};
pub use words::*;

mod words;

/// How far Claude's answer is, while a settlement is due or under way.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Answer {
    /// Text is coming.
    Writing,
    /// It is all there.
    Whole,
    /// It broke off.
    Broken(ClaudeFault),
}

/// Where a run is. The diagram is above.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum State {
    /// Nothing is known of this payment.
    New,
    /// The facilitator is asked to verify.
    Presented,
    /// The payment is good; Claude is asked.
    Verified,
    /// Claude has begun.
    Answering {
        /// Settle has been asked and not been answered.
        settling: bool,
        /// How far the answer is.
        answer: Answer,
    },
    /// Paid (or free): text is released as it comes.
    Streaming,
    /// The whole answer is there, and paid.
    Delivered,
    /// The payment was not accepted, or not settled. Nothing was charged.
    Refused(Refusal),
    /// Claude failed before anything was charged. The same payment may try again.
    Failed(ClaudeFault),
    /// The facilitator did not say whether it settled.
    SettlementUnknown {
        /// How far the answer is.
        answer: Answer,
    },
    /// Paid, and broken off after text was released. The same payment gets it again.
    Interrupted(ClaudeFault),
    /// Paid, and given up.
    Refundable(ClaudeFault),
    /// Paid, and paid back.
    Refunded,
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Run {
    state: State,
    policy: Policy,
    /// Claude calls allowed once the run is paid.
    paid_attempts: u8,
    /// Claude calls made since it was paid.
    attempts: u8,
    receipt: Option<Receipt>,
    /// Claude is to be asked again, but not yet.
    backing_off: Option<ClaudeFault>,
    /// A settle went without an answer: from then on a "no" is not definite, for the money may have
    /// moved the first time.
    unanswered: bool,
    /// The ledger is owed a row.
    owed: bool,
    /// When the run last came to rest.
    rested_at: Millis,
}

impl Run {
    /// A run of which nothing has happened yet.
    pub fn new(policy: Policy, paid_attempts: u8) -> Self {
        Run {
            state: State::New,
            policy,
            paid_attempts,
            attempts: 0,
            receipt: None,
            backing_off: None,
            unanswered: false,
            owed: false,
            rested_at: 0,
        }
    }

    // Asking.

    /// Where the run is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When money moves.
    pub fn policy(&self) -> Policy {
        self.policy
    }

    /// Proof of settlement, once there is one.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// Whether something is under way that an event will end.
    pub fn is_busy(&self) -> bool {
        match &self.state {
            State::Presented | State::Verified | State::Answering { .. } | State::Streaming => true,
            State::SettlementUnknown { answer } => *answer == Answer::Writing,
            State::New | State::Delivered | State::Refused(_) | State::Failed(_) => false,
            State::Interrupted(_) | State::Refundable(_) | State::Refunded => false,
        }
    }

    /// How long to wait before Claude is asked again.
    pub fn back_off(&self) -> Millis {
        let again = u32::from(self.attempts.saturating_sub(3));
        let own = BACK_OFF.saturating_mul(4u64.saturating_pow(again));
        let asked_for = match self.backing_off {
            Some(ClaudeFault::RateLimited { retry_after: Some(seconds) }) => u64::from(seconds).saturating_mul(1000),
            _ => 0,
        };
        own.max(asked_for).min(BACK_OFF_MOST)
    }

    /// Whether a settlement that has not been asked for yet had better not be: there is nothing to sell.
    pub fn should_withhold(&self) -> bool {
        let broken = matches!(self.state, State::Answering { settling: true, answer: Answer::Broken(_) });
        broken && !self.unanswered
    }

    /// Whether a settlement has been asked for (and its outcome is not known, or not yet).
    pub fn is_settling(&self) -> bool {
        matches!(self.state, State::Answering { settling: true, .. } | State::SettlementUnknown { .. })
    }

    /// Whether nothing of this run needs to be known: another presentation starts from nothing.
    pub fn is_blank(&self) -> bool {
        matches!(self.state, State::New | State::Refused(_) | State::Failed(_))
    }

    /// What a caller is told now.
    pub fn view(&self) -> View {
        match &self.state {
            State::New | State::Presented | State::Verified | State::Answering { .. } => View::Wait,
            State::Streaming | State::Delivered | State::Interrupted(_) => View::Show,
            State::Refused(refusal) => View::Refuse(refusal.clone()),
            State::Failed(fault) => View::Refuse(Refusal::Claude(*fault)),
            State::SettlementUnknown { .. } => View::Refuse(Refusal::SettlementUnknown),
            State::Refundable(_) | State::Refunded => View::Refuse(Refusal::Refundable),
        }
    }

    /// How the text ends, once it has.
    pub fn ending(&self) -> Option<Ending> {
        match &self.state {
            State::Delivered => Some(Ending::Done),
            State::Interrupted(fault) | State::Refundable(fault) | State::Failed(fault) => {
                Some(Ending::Error(Refusal::Claude(*fault)))
            }
            State::Refused(refusal) => Some(Ending::Error(refusal.clone())),
            State::Refunded => Some(Ending::Error(Refusal::Refundable)),
            State::New | State::Presented | State::Verified | State::Answering { .. } => None,
            State::Streaming | State::SettlementUnknown { .. } => None,
        }
    }

    /// Whether the run has been at rest for so long that it may be deleted.
    pub fn is_forgotten(&self, now: Millis) -> bool {
        let resting = !self.is_busy() && !self.owed && self.rested_at > 0;
        resting && now >= self.rested_at.saturating_add(self.keep())
    }

    fn keep(&self) -> Millis {
        match &self.state {
            State::New | State::Refused(Refusal::PaymentInvalid { .. } | Refusal::FacilitatorUnavailable) => {
                KEEP_UNVERIFIED
            }
            _ => KEEP,
        }
    }

    /// When to wake the run, if at all.
    pub fn deadline(&self, now: Millis) -> Option<Millis> {
        match &self.state {
            State::New if self.rested_at == 0 => None,
            _ if self.is_busy() => Some(now.saturating_add(HEARTBEAT)),
            _ if self.owed => Some(now.saturating_add(RECORD_AGAIN)),
            _ => Some(self.rested_at.saturating_add(self.keep())),
        }
    }

    // Being told.

    /// Takes an event; gives back what is to be done, in order.
    pub fn handle(&mut self, event: Event, now: Millis) -> Vec<Effect> {
        let was_busy = self.is_busy();
        let effects = self.step(event);
        if was_busy && !self.is_busy() {
            self.rested_at = now;
        }
        effects
    }

    fn step(&mut self, event: Event) -> Vec<Effect> {
        use Effect::*;
        match (self.state.clone(), event) {
            // Presented, and presented again.
            (State::New | State::Refused(_) | State::Failed(_), Event::Presented) => {
                self.owed = false;
                match self.policy {
                    Policy::Free => self.to(State::Verified, &[Clear, Save, Ask]),
                    Policy::OnStart | Policy::OnResult => self.to(State::Presented, &[Clear, Save, Verify]),
                }
            }
            (State::Interrupted(fault), Event::Presented) => self.ask_again(fault, false),
            (State::SettlementUnknown { answer }, Event::Presented) => {
                self.to(State::Answering { settling: true, answer }, &[Save, Settle])
            }
            (_, Event::Presented) => vec![],

            // Verify.
            (State::Presented, Event::Verified) => self.to(State::Verified, &[Save, Ask]),
            (State::Presented, Event::VerifyRefused(refusal)) => self.to(State::Refused(refusal), &[Save]),

            // Claude, before the money has moved.
            (State::Verified, Event::Began) => match self.policy {
                Policy::Free => self.to(State::Streaming, &[Save]),
                Policy::OnStart => self.to(answering(false, Answer::Writing), &[Linger]),
                Policy::OnResult => self.to(answering(false, Answer::Writing), &[]),
            },
            (State::Answering { settling: false, .. }, Event::Wrote | Event::Lingered)
                if self.policy == Policy::OnStart =>
            {
                self.to(answering(true, Answer::Writing), &[Save, Settle])
            }
            (State::Answering { settling: false, .. }, Event::Ended) => {
                self.to(answering(true, Answer::Whole), &[Save, Settle])
            }
            (State::Verified | State::Answering { settling: false, .. }, Event::Broke { fault, .. }) => {
                self.rest(State::Failed(fault))
            }

            // Claude, while it moves.
            (State::Answering { settling: true, .. }, Event::Ended) => self.to(answering(true, Answer::Whole), &[Save]),
            (State::Answering { settling: true, .. }, Event::Broke { fault, .. }) => {
                self.to(answering(true, Answer::Broken(fault)), &[Save])
            }
            (State::SettlementUnknown { .. }, Event::Ended) => {
                self.to(State::SettlementUnknown { answer: Answer::Whole }, &[Save])
            }
            (State::SettlementUnknown { .. }, Event::Broke { fault, .. }) => {
                self.to(State::SettlementUnknown { answer: Answer::Broken(fault) }, &[Save])
            }

            // The money.
            (State::Answering { settling: true, answer }, Event::Settled(receipt)) => {
                self.receipt = Some(receipt);
                self.attempts = 1;
                match answer {
                    Answer::Writing => self.to(State::Streaming, &[Save]),
                    Answer::Whole => self.rest(State::Delivered),
                    // Nothing was released yet, so a new edition can take the place of the broken one.
                    Answer::Broken(fault) => self.ask_again(fault, true),
                }
            }
            (State::Answering { answer: Answer::Broken(fault), .. }, Event::SettleWithheld)
                if self.should_withhold() =>
            {
                self.rest(State::Failed(fault))
            }
            (State::Answering { settling: true, answer }, Event::SettleRejected(_)) if self.unanswered => {
                self.rest(State::SettlementUnknown { answer })
            }
            (State::Answering { settling: true, .. }, Event::SettleRejected(reason)) => {
                let mut effects = vec![Hush];
                effects.extend(self.rest(State::Refused(Refusal::SettlementRejected { reason })));
                effects
            }
            (State::Answering { settling: true, answer }, Event::SettleUnanswered) => {
                self.unanswered = true;
                self.rest(State::SettlementUnknown { answer })
            }

            // Claude, after the money has moved (or where there is none).
            (State::Streaming, Event::Ended) => self.rest(State::Delivered),
            (State::Streaming, Event::Broke { fault, .. }) if self.policy == Policy::Free => {
                self.rest(State::Failed(fault))
            }
            (State::Streaming, Event::Broke { fault, silent: true }) => self.ask_again(fault, true),
            (State::Streaming, Event::BackedOff) if self.backing_off.take().is_some() => vec![Ask],
            (State::Streaming, Event::Broke { fault, silent: false }) => match self.may_ask_again(fault) {
                true => self.rest(State::Interrupted(fault)),
                false => self.rest(State::Refundable(fault)),
            },

            // After a restart: nothing is under way.
            (State::Presented, Event::Restarted) => self.to(State::New, &[Save]),
            (State::Verified | State::Answering { settling: false, .. }, Event::Restarted) => {
                self.rest(State::Failed(ClaudeFault::CutOff))
            }
            (State::Answering { settling: true, answer }, Event::Restarted) => {
                self.unanswered = true;
                self.rest(State::SettlementUnknown { answer: after_restart(answer) })
            }
            (State::SettlementUnknown { answer }, Event::Restarted) => {
                self.to(State::SettlementUnknown { answer: after_restart(answer) }, &[])
            }
            (State::Streaming, Event::Restarted) if self.policy == Policy::Free => {
                self.rest(State::Failed(ClaudeFault::CutOff))
            }
            (State::Streaming, Event::Restarted) => self.ask_again(ClaudeFault::CutOff, true),

            // The alarm and the ledger.
            (_, Event::Recorded) => {
                self.owed = false;
                vec![Save]
            }
            (_, Event::Woken) if self.is_busy() => vec![],
            (_, Event::Woken) if self.owed => vec![Record],

            // Late, early or doubled: nothing changes.
            _ => vec![],
        }
    }

    fn to(&mut self, state: State, effects: &[Effect]) -> Vec<Effect> {
        self.state = state;
        effects.to_vec()
    }

    /// Comes to an end that the ledger hears of.
    fn rest(&mut self, state: State) -> Vec<Effect> {
        self.owed = true;
        self.to(state, &[Effect::Save, Effect::Record])
    }

    fn may_ask_again(&self, fault: ClaudeFault) -> bool {
        // Asked again, a model that declined would decline again.
        self.attempts < self.paid_attempts && fault != ClaudeFault::Declined
    }

    /// Paid, and the answer broke off before anyone saw text of it: ask again, or give up.
    fn ask_again(&mut self, fault: ClaudeFault, by_itself: bool) -> Vec<Effect> {
        if !self.may_ask_again(fault) {
            return self.rest(State::Refundable(fault));
        }
        self.attempts = self.attempts.saturating_add(1);
        // A moment's trouble is over at once; where it was not, it takes a while. A caller has waited already.
        self.backing_off = (by_itself && self.attempts > 2).then_some(fault);
        let ask = if self.backing_off.is_some() { Effect::BackOff } else { Effect::Ask };
        self.to(State::Streaming, &[Effect::Clear, Effect::Save, ask])
    }
}

fn answering(settling: bool, answer: Answer) -> State {
    State::Answering { settling, answer }
}

/// What was being written when the object died is lost; what was whole had been saved.
fn after_restart(answer: Answer) -> Answer {
    match answer {
        Answer::Writing => Answer::Broken(ClaudeFault::CutOff),
        whole_or_broken => whole_or_broken,
    }
}
