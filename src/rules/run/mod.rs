//! The run machine: what happens next in the life of one payment.
//!
//! ```text
//! New ─presented─▶ Presented ─verified─▶ Verified ─began─▶ Answering ─settled─▶ Streaming ─ended─▶ Delivered
//!                      │                  ▲  │                 │ │                  │
//!                      ▼ not valid        └──┤ passing error:  │ ▼ rejected         ▼ breaks off: asked again, once
//!                   Refused       asked again▼                 │ Refused            text was seen by way of
//!                                         Failed               ▼ no answer          Interrupted; at last
//!                                         (not charged)  SettlementUnknown          Refundable ─reported─▶ Reported
//!                                                         │ evidence is looked for
//!                                                         ├ settled ─▶ as after Answering
//!                                                         ├ not yet ─▶ Answering: settle is asked again
//!                                                         └ never ───▶ Refused
//! ```
//!
//! Sans-IO: [`Run::handle`] takes an event and the [`Moment`] and gives back effects, in order;
//! [`Run::deadline`] says when to wake it. The machine relies on its driver for two things: effects
//! are done in the order given, and [`Effect::Save`] is durable before the effect after it begins.
//!
//! A free run (an owner's test) has no payment: it starts at Verified and passes from there to Streaming.

use crate::rules::refusal::{ModelError, Refusal};
use serde::{Deserialize, Serialize};
pub use vocabulary::*;

mod queries;
mod vocabulary;

use vocabulary::{after_restart, back_off, cancelling_model_call};

/// How far Claude's answer is, while a settlement is due or under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// Text is coming.
    Writing,
    /// It is all there.
    Whole,
    /// It broke off.
    Broken(ModelError),
}

/// Where a run is. The diagram is above.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// Nothing is known of this payment.
    New,
    /// The facilitator is asked to verify.
    Presented,
    /// The payment is good; Claude is asked, or is to be asked again in a moment.
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
    Failed(ModelError),
    /// The facilitator did not say whether it settled.
    SettlementUnknown {
        /// Evidence is being looked for.
        looking: bool,
        /// How far the answer is.
        answer: Answer,
    },
    /// Paid, and broken off after text was released. It is asked again in a while, or when presented.
    Interrupted(ModelError),
    /// Paid, and given up.
    Refundable(ModelError),
    /// Paid, given up, and reported to the facilitator for refund.
    Reported(ModelError),
}

/// One run.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    state: State,
    terms: Terms,
    /// Claude calls made since the run was presented, or since it was paid.
    attempts: u8,
    receipt: Option<Receipt>,
    /// Claude is to be asked again, after this long.
    backing_off: Option<Millis>,
    /// A settle went without a definite answer: from then on a "no" is not definite, for the money may
    /// have moved the first time.
    unanswered: bool,
    /// A settle went without any answer: if the payment is found spent, it was by that one.
    settle_timed_out: bool,
    /// The facilitator has just said that the payment is spent.
    said_spent: bool,
    /// Text of this run, or of a start before it, was shown and never paid for.
    unpaid_text_shown: bool,
    /// A caller has asked for the run while its settlement was in doubt, or was there when the object died.
    awaited: bool,
    /// The payment was good, and Claude was asked.
    #[serde(default)]
    model_called: bool,
    /// The ledger is ledger_row_due a row.
    ledger_row_due: bool,
    /// When the alarm is to do something about the state the run rests in.
    due: Option<Millis>,
    /// How often it has, in this state.
    rounds: u8,
    /// When the run came to rest.
    rested_at: Millis,
}

impl Run {
    /// A run of which nothing has happened yet.
    pub fn new(terms: Terms) -> Self {
        Run {
            state: State::New,
            terms,
            attempts: 0,
            receipt: None,
            backing_off: None,
            unanswered: false,
            settle_timed_out: false,
            said_spent: false,
            unpaid_text_shown: false,
            awaited: false,
            model_called: false,
            ledger_row_due: false,
            due: None,
            rounds: 0,
            rested_at: 0,
        }
    }

    /// The same payment sets out anew, after this run has come to nothing. What is ledger_row_due stays ledger_row_due.
    pub fn next(&self, terms: Terms) -> Self {
        Run { unpaid_text_shown: self.unpaid_text_shown, ..Run::new(terms) }
    }

    /// Takes an event; gives back what is to be done, in order.
    pub fn handle(&mut self, event: Event, moment: Moment) -> Vec<Effect> {
        use Effect::*;
        match (self.state.clone(), event) {
            // Presented, and presented again.
            (State::New | State::Refused(_) | State::Failed(_), Event::Presented) => {
                *self = self.next(self.terms.clone());
                self.attempts = 1;
                match self.terms.policy {
                    Policy::Free => self.to(State::Verified, &[Clear, Save, CallModel]),
                    Policy::OnStart | Policy::OnResult => self.to(State::Presented, &[Clear, Save, Verify]),
                }
            }
            (State::Interrupted(error), Event::Presented) => self.ask_again(error, None, moment),
            (State::SettlementUnknown { looking, answer }, Event::Presented) => {
                self.awaited = true;
                match looking {
                    true => vec![],
                    false => self.to(State::SettlementUnknown { looking: true, answer }, &[Reconcile]),
                }
            }
            (_, Event::Presented) => vec![],

            // Verify.
            (State::Presented, Event::Verified) => {
                self.model_called = true;
                self.to(State::Verified, &[Save, CallModel])
            }
            (State::Presented, Event::VerifyRefused(refusal)) if self.terms.detached => {
                self.rest(State::Refused(refusal), moment)
            }
            (State::Presented, Event::VerifyRefused(refusal)) => {
                self.rested_at = moment.now;
                self.to(State::Refused(refusal), &[Save])
            }

            // Claude, before the money has moved.
            (State::Verified, Event::Began) => match self.terms.policy {
                Policy::Free => self.to(State::Streaming, &[Save]),
                Policy::OnStart => self.to(answering(false, Answer::Writing), &[StartGrace]),
                Policy::OnResult => self.to(answering(false, Answer::Writing), &[]),
            },
            (State::Answering { settling: false, .. }, Event::FirstText | Event::GraceElapsed)
                if self.terms.policy == Policy::OnStart =>
            {
                self.to(answering(true, Answer::Writing), &[Save, Settle])
            }
            (State::Answering { settling: false, .. }, Event::Ended) => {
                self.to(answering(true, Answer::Whole), &[Save, Settle])
            }
            (State::Verified | State::Answering { settling: false, .. }, Event::Broke { error, .. }) => {
                self.start_again(error, moment)
            }
            (State::Verified | State::Streaming, Event::BackOffElapsed) if self.backing_off.take().is_some() => {
                vec![Save, CallModel]
            }

            // Nobody has paid and nobody is there.
            (State::Verified | State::Answering { settling: false, .. }, Event::Abandoned) => {
                self.fail(ModelError::CallerGone, moment)
            }
            (State::Streaming, Event::Abandoned) if self.terms.policy == Policy::Free => {
                self.fail(ModelError::CallerGone, moment)
            }

            // The result comes too late for its contract. What is being settled was there in time, and a stream that
            // has begun goes on.
            (State::Verified | State::Answering { settling: false, .. }, Event::DeadlineMissed) => {
                self.fail(ModelError::DeadlineMissed, moment)
            }

            // Claude, while the money moves.
            (State::Answering { settling: true, answer: Answer::Writing }, Event::Ended) => {
                self.to(answering(true, Answer::Whole), &[Save])
            }
            (State::Answering { settling: true, answer: Answer::Writing }, Event::Broke { error, .. }) => {
                self.to(answering(true, Answer::Broken(error)), &[Save])
            }
            (State::SettlementUnknown { looking, answer: Answer::Writing }, Event::Ended) => {
                self.to(State::SettlementUnknown { looking, answer: Answer::Whole }, &[Save, WriteLedgerRow])
            }
            (State::SettlementUnknown { looking, answer: Answer::Writing }, Event::Broke { error, .. }) => {
                self.to(State::SettlementUnknown { looking, answer: Answer::Broken(error) }, &[Save, WriteLedgerRow])
            }

            // The money.
            (State::Answering { settling: true, answer }, Event::Settled(receipt)) => {
                self.settled(receipt, answer, moment)
            }
            (State::Answering { answer: Answer::Broken(error), .. }, Event::SettleWithheld)
                if self.should_withhold() =>
            {
                self.fail(error, moment)
            }
            (State::Answering { settling: true, answer }, Event::SettleRejected(_)) if self.unanswered => {
                self.unknown(answer, moment)
            }
            (State::Answering { settling: true, .. }, Event::SettleRejected(reason)) => self.never(reason, moment),
            (State::Answering { settling: true, answer }, Event::SettleUnanswered) => {
                (self.unanswered, self.settle_timed_out) = (true, true);
                self.unknown(answer, moment)
            }
            (State::Answering { settling: true, answer }, Event::SettleNotSent) => match self.unanswered {
                true => self.unknown(answer, moment),
                false => self.unpaid(Refusal::FacilitatorUnavailable, moment),
            },
            (State::Answering { settling: true, answer }, Event::SettleFailed) => {
                self.unanswered = true;
                self.unknown(answer, moment)
            }
            (State::Answering { settling: true, answer }, Event::SettleSpent) => {
                // Not by a settle of ours that was answered. From now on a "no" may come of that, too.
                (self.said_spent, self.unanswered) = (true, true);
                self.to(State::SettlementUnknown { looking: true, answer }, &[Save, Reconcile])
            }

            // What became of a settlement that nobody told us of.
            (State::SettlementUnknown { looking: true, answer }, Event::Reconciled(evidence)) => {
                let awaited = self.awaited;
                let said_spent = std::mem::take(&mut self.said_spent);
                match evidence {
                    Evidence::Paid(receipt) => self.settled(receipt, answer, moment),
                    // Spent by whom? Where every settle was answered, it was not by us.
                    Evidence::Spent(receipt) if self.settle_timed_out => self.settled(receipt, answer, moment),
                    Evidence::Never(reason) => self.never(reason, moment),
                    // The node has not seen yet what the facilitator has: asked again at once, both would say
                    // the same again.
                    Evidence::Unspent if said_spent => self.unknown(answer, moment),
                    // Where there is nothing to sell but an answer that Claude broke off, only who asks for it
                    // again pays for it.
                    Evidence::Unspent if awaited || !matches!(answer, Answer::Broken(_)) => {
                        self.awaited = false;
                        self.to(answering(true, answer), &[Save, Settle])
                    }
                    Evidence::Unspent | Evidence::Spent(_) | Evidence::Nothing => self.unknown(answer, moment),
                }
            }

            // Claude, after the money has moved (or where there is none).
            (State::Streaming, Event::Ended) => self.rest(State::Delivered, moment),
            (State::Streaming, Event::Broke { error, .. }) if self.terms.policy == Policy::Free => {
                self.rest(State::Failed(error), moment)
            }
            (State::Streaming, Event::Broke { error, no_text: true }) => {
                self.ask_again(error, Some(self.attempts), moment)
            }
            (State::Streaming, Event::Broke { error, no_text: false }) => self.interrupt(error, moment),

            // After a restart: nothing is under way.
            (State::Presented, Event::Restarted) if self.terms.detached => self.to(State::Presented, &[Save, Verify]),
            (State::Presented, Event::Restarted) => {
                self.rested_at = moment.now;
                self.to(State::New, &[Save])
            }
            (State::Verified | State::Answering { settling: false, .. }, Event::Restarted) if self.terms.detached => {
                self.take_back_the_wait();
                self.start_again(ModelError::CutOff, moment)
            }
            (State::Verified | State::Answering { settling: false, .. }, Event::Restarted) => {
                self.rest(State::Failed(ModelError::CutOff), moment)
            }
            (State::Answering { settling: true, answer }, Event::Restarted) => {
                (self.unanswered, self.settle_timed_out) = (true, true);
                self.awaited |= answer == Answer::Writing;
                let answer = after_restart(answer);
                self.to(State::SettlementUnknown { looking: true, answer }, &[Save, Reconcile])
            }
            (State::SettlementUnknown { answer, .. }, Event::Restarted) => {
                self.said_spent = false;
                self.awaited |= answer == Answer::Writing;
                let answer = after_restart(answer);
                self.to(State::SettlementUnknown { looking: true, answer }, &[Save, Reconcile])
            }
            (State::Streaming, Event::Restarted) if self.terms.policy == Policy::Free => {
                self.rest(State::Failed(ModelError::CutOff), moment)
            }
            (State::Streaming, Event::Restarted) => {
                self.take_back_the_wait();
                self.ask_again(ModelError::CutOff, Some(self.attempts), moment)
            }

            // The ledger, the refund and the alarm.
            (_, Event::LedgerRowWritten) => {
                self.ledger_row_due = false;
                vec![Save]
            }
            (State::Refundable(error), Event::Reported) => self.rest(State::Reported(error), moment),
            (_, Event::AlarmFired) => self.wake(moment),

            // Late, early or doubled: nothing changes.
            _ => vec![],
        }
    }

    fn to(&mut self, state: State, effects: &[Effect]) -> Vec<Effect> {
        self.state = state;
        effects.to_vec()
    }

    /// Comes to an end that the ledger hears of.
    fn rest(&mut self, state: State, moment: Moment) -> Vec<Effect> {
        self.ledger_row_due = true;
        self.due = None;
        self.rounds = 0;
        self.rested_at = moment.now;
        self.to(state, &[Effect::Save, Effect::WriteLedgerRow])
    }

    /// Ends with nothing charged; whatever Claude may still be doing is stopped.
    fn fail(&mut self, error: ModelError, moment: Moment) -> Vec<Effect> {
        self.backing_off = None;
        cancelling_model_call(self.rest(State::Failed(error), moment))
    }

    /// Claude failed before anything was charged: a error that passes is given time to.
    fn start_again(&mut self, error: ModelError, moment: Moment) -> Vec<Effect> {
        let again = self.attempts < self.terms.start_attempts && self.terms.policy != Policy::Free;
        let again = again || error == ModelError::OutputMismatch { repair: true };
        let wait = back_off(START_BACK_OFF, self.attempts.saturating_sub(1), START_BACK_OFF_MAX, moment);
        match error.passes_in(wait).filter(|wait| again && *wait <= START_BACK_OFF_MAX) {
            None => self.rest(State::Failed(error), moment),
            Some(wait) => {
                self.attempts = self.attempts.saturating_add(1);
                self.backing_off = Some(wait);
                self.to(State::Verified, &[Effect::Clear, Effect::Save, Effect::BackOff])
            }
        }
    }

    /// A call that was waited for has not been made.
    fn take_back_the_wait(&mut self) {
        let waited = u8::from(self.backing_off.take().is_some());
        self.attempts = self.attempts.saturating_sub(waited);
    }

    /// The money has moved.
    fn settled(&mut self, receipt: Receipt, answer: Answer, moment: Moment) -> Vec<Effect> {
        self.receipt = Some(receipt);
        self.attempts = 1;
        self.due = None;
        self.unpaid_text_shown = false;
        match (answer, self.terms.release) {
            (Answer::Writing, _) => self.to(State::Streaming, &[Effect::Save]),
            (Answer::Whole, _) => self.rest(State::Delivered, moment),
            // Nothing was released yet, so a new edition can take the place of the broken one.
            (Answer::Broken(error), Release::Settled) => self.ask_again(error, Some(1), moment),
            (Answer::Broken(error), Release::Verified) => self.interrupt(error, moment),
        }
    }

    /// The money has not moved, and will not.
    fn never(&mut self, reason: Option<String>, moment: Moment) -> Vec<Effect> {
        self.unpaid(Refusal::SettlementRejected { reason }, moment)
    }

    fn unpaid(&mut self, refusal: Refusal, moment: Moment) -> Vec<Effect> {
        self.unpaid_text_shown |= self.is_outstanding();
        cancelling_model_call(self.rest(State::Refused(refusal), moment))
    }

    /// Whether the money has moved is not known: evidence is looked for after a while.
    fn unknown(&mut self, answer: Answer, moment: Moment) -> Vec<Effect> {
        let first = self.due.is_none();
        let rounds = self.rounds;
        let over = moment.now > self.terms.valid_until.saturating_add(EVIDENCE_LAG);
        let wait = if over { RECONCILE_WAIT_LATE } else { back_off(BACK_OFF, rounds, RECONCILE_WAIT_MAX, moment) };
        let state = State::SettlementUnknown { looking: false, answer };
        let effects = match first {
            true => self.rest(state, moment),
            false => self.to(state, &[Effect::Save]),
        };
        self.rounds = rounds.saturating_add(1);
        self.due = Some(moment.now.saturating_add(wait));
        effects
    }

    fn may_ask_again(&self, error: ModelError) -> bool {
        // Asked again, a model that declined would decline again.
        self.attempts < self.terms.paid_attempts && error != ModelError::Declined
    }

    /// Paid, and the answer broke off: ask again, or give up. `calls` have been made with nobody
    /// asking for them in between; who presents the payment again has waited already.
    fn ask_again(&mut self, error: ModelError, calls: Option<u8>, moment: Moment) -> Vec<Effect> {
        if !self.may_ask_again(error) {
            return self.give_up(error, moment);
        }
        // A moment's trouble is over at once, unless Claude says when; where it was not, it takes a while.
        let wait = calls.map(|calls| match calls {
            0 | 1 => error.passes_in(0).unwrap_or(0),
            calls => {
                let wait = back_off(BACK_OFF, calls.saturating_sub(2), BACK_OFF_MAX, moment);
                error.passes_in(wait).unwrap_or(wait)
            }
        });
        let wait = wait.filter(|wait| *wait > 0);
        if wait.is_some_and(|wait| wait > BACK_OFF_MAX) {
            // Claude asks for more than anybody should wait with us.
            return self.interrupt(error, moment);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.due = None;
        self.backing_off = wait;
        let ask = if wait.is_some() { Effect::BackOff } else { Effect::CallModel };
        self.to(State::Streaming, &[Effect::Clear, Effect::Save, ask])
    }

    /// Paid, and the answer broke off in sight of the caller, who is told.
    fn interrupt(&mut self, error: ModelError, moment: Moment) -> Vec<Effect> {
        if !self.may_ask_again(error) {
            return self.give_up(error, moment);
        }
        let effects = self.rest(State::Interrupted(error), moment);
        let wait = back_off(BACK_OFF, self.attempts.saturating_sub(1), BACK_OFF_MAX, moment);
        let wait = error.passes_in(wait).unwrap_or(wait).min(INTERRUPTED_MAX);
        self.due = Some(moment.now.saturating_add(wait));
        effects
    }

    /// Paid, and not to be had: the refund is reported until somebody takes the report.
    fn give_up(&mut self, error: ModelError, moment: Moment) -> Vec<Effect> {
        let mut effects = self.rest(State::Refundable(error), moment);
        effects.push(self.report(moment));
        effects
    }

    fn report(&mut self, moment: Moment) -> Effect {
        let wait = back_off(REPORT_AGAIN, self.rounds, REPORT_AGAIN_MAX, moment);
        self.rounds = self.rounds.saturating_add(1);
        self.due = Some(moment.now.saturating_add(wait));
        Effect::Report
    }

    fn wake(&mut self, moment: Moment) -> Vec<Effect> {
        let is_due = self.due.is_some_and(|due| due <= moment.now);
        let mut effects = match self.state.clone() {
            State::Interrupted(error) if is_due => return self.ask_again(error, None, moment),
            State::SettlementUnknown { looking: false, answer } if is_due => {
                self.to(State::SettlementUnknown { looking: true, answer }, &[Effect::Reconcile])
            }
            State::Refundable(_) if is_due => {
                let report = self.report(moment);
                vec![Effect::Save, report]
            }
            _ => vec![],
        };
        if self.ledger_row_due && !self.is_busy() {
            effects.push(Effect::WriteLedgerRow);
        }
        effects
    }
}

fn answering(settling: bool, answer: Answer) -> State {
    State::Answering { settling, answer }
}
