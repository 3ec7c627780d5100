//! The run machine: decides what happens next to the run of one payment.
//!
//! ```text
//! New ─presented─▶ Presented ─verified─▶ Verified ─began─▶ Answering ─settled─▶ Streaming ─ended─▶ Delivered
//!                      │                  ▲  │                 │ │                  │
//!                      ▼ not valid        └──┤ temporary       │ ▼ rejected         ▼ broke: Claude is called again,
//!                   Refused           error  ▼                 │ Refused            from Interrupted if text was shown;
//!                                         Failed               ▼ no answer          after the last attempt:
//!                                         (not charged)  SettlementUnknown          Refundable ─reported─▶ Reported
//!                                                         │ reconcile: find evidence
//!                                                         ├ paid ────▶ as after Answering
//!                                                         ├ unspent ─▶ Answering: settle is called again
//!                                                         └ never ───▶ Refused
//! ```
//!
//! Sans-IO: [`Run::handle`] takes an event and the [`Moment`], and returns effects in order. [`Run::deadline`] says
//! when the alarm is due. The machine relies on its driver for two things: the effects are done in their order, and
//! [`Effect::Save`] is durable before the effect after it begins.
//!
//! A free run (an owner's test) has no payment. It begins in Verified, and goes from there to Streaming.

use crate::rules::refusal::{ModelError, Refusal};
use serde::{Deserialize, Serialize};
pub use vocabulary::*;

mod queries;
mod settlement;
mod vocabulary;

use vocabulary::{after_restart, back_off, cancelling_model_call};

/// How far Claude's answer is, while its settlement is due or under way.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Answer {
    /// Claude is still writing the answer.
    Writing,
    /// The answer is complete and in memory.
    Whole,
    /// It ended before it was complete.
    Broken(ModelError),
}

/// The state of a run. The diagram at the top of this file shows how one leads to the next.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum State {
    /// The payment has not been presented.
    New,
    /// A facilitator is asked to verify the payment.
    Presented,
    /// The payment is valid. Claude is called, or will be called again after a wait.
    Verified,
    /// Claude has begun to answer.
    Answering {
        /// A facilitator has been asked to settle, and has not answered.
        settling: bool,
        answer: Answer,
    },
    /// The run is paid, or free. Its text is released as Claude writes it.
    Streaming,
    /// The answer is complete and paid.
    Delivered,
    /// The payment was not valid, or not settled. Nothing was charged.
    Refused(Refusal),
    /// Claude has failed before anything was charged. The same payment may be presented again.
    Failed(ModelError),
    /// It is not known whether the payment was settled.
    SettlementUnknown {
        /// The driver is looking for evidence.
        looking: bool,
        answer: Answer,
    },
    /// The run is paid, and its answer broke off after text was released. Claude is called again after a wait, or when
    /// the payment is presented again.
    Interrupted(ModelError),
    /// The run is paid, and no more attempts are made. Its refund has to be reported.
    Refundable(ModelError),
    /// As [`State::Refundable`], and a facilitator has the report.
    Reported(ModelError),
}

/// One run of a template.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Run {
    state: State,
    terms: Terms,
    /// The calls of Claude since the run was presented, or since it was paid.
    attempts: u8,
    receipt: Option<Receipt>,
    /// The wait before Claude is called again, while there is one.
    backing_off: Option<Millis>,
    /// A call of settle had no definite answer. From then on a no is not definite either, because the first call may
    /// have moved the money.
    unanswered: bool,
    /// A call of settle had no answer at all. If the nonce is spent later, that call has spent it.
    settle_timed_out: bool,
    /// The facilitator has just answered that the nonce is spent, so the next look for evidence is about that.
    said_spent: bool,
    /// Text of this run, or of an earlier attempt with the same payment, was shown and never paid.
    unpaid_text_shown: bool,
    /// A caller is waiting for the outcome: they have presented the payment while its settlement was unknown, or were
    /// following the answer when the object restarted.
    awaited: bool,
    /// The payment was valid, and Claude was called.
    #[serde(default)]
    model_called: bool,
    /// Somebody was told that the run is under way before its payment was verified, and may ask for its end.
    #[serde(default)]
    told_pending: bool,
    /// The ledger does not have the current row of the run.
    ledger_row_due: bool,
    /// When the alarm has to act on the state in which the run rests.
    due: Option<Millis>,
    /// How often the alarm has acted in this state.
    rounds: u8,
    /// How often a facilitator was asked to settle.
    settles: u8,
    /// When the run came to rest, in Unix milliseconds.
    rested_at: Millis,
}

impl Run {
    /// A run whose payment has not been presented.
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
            told_pending: false,
            ledger_row_due: false,
            due: None,
            rounds: 0,
            settles: 0,
            rested_at: 0,
        }
    }

    /// A new run of the same payment, after this one was refused or has failed. It still owes for text that was shown.
    pub fn next(&self, terms: Terms) -> Self {
        Run { unpaid_text_shown: self.unpaid_text_shown, ..Run::new(terms) }
    }

    /// Takes an event, and returns the effects to be done, in order.
    pub fn handle(&mut self, event: Event, moment: Moment) -> Vec<Effect> {
        use Effect::*;
        match (self.state.clone(), event) {
            // The payment is presented, for the first time or again.
            (State::New, Event::Presented) => {
                self.attempts = 1;
                match self.terms.policy {
                    Policy::Free => self.to(State::Verified, &[CallModel]),
                    // Nothing is stored before the payment is verified: until then anybody may have presented it.
                    Policy::OnStart | Policy::OnResult => self.to(State::Presented, &[Verify]),
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
                let call = self.saved_if_detached(&[CallModel]);
                self.to(State::Verified, &call)
            }
            (State::Presented, Event::ToldPending) => {
                self.told_pending = true;
                vec![]
            }
            (State::Presented, Event::VerifyRefused(refusal)) if self.told_pending => {
                self.rest(State::Refused(refusal), moment)
            }
            (State::Presented, Event::VerifyRefused(refusal)) => {
                self.rested_at = moment.now;
                self.to(State::Refused(refusal), &[])
            }

            // Claude answers, and the money has not moved.
            (State::Verified, Event::Began) => match self.terms.policy {
                Policy::Free => self.to(State::Streaming, &[]),
                Policy::OnStart => self.to(answering(false, Answer::Writing), &[StartGrace]),
                Policy::OnResult => self.to(answering(false, Answer::Writing), &[]),
            },
            (State::Answering { settling: false, .. }, Event::FirstText | Event::GraceElapsed)
                if self.terms.policy == Policy::OnStart =>
            {
                self.settle(Answer::Writing)
            }
            (State::Answering { settling: false, .. }, Event::Ended) => self.settle(Answer::Whole),
            (State::Verified | State::Answering { settling: false, .. }, Event::Broke { error, .. }) => {
                self.start_again(error, moment)
            }
            (State::Verified | State::Streaming, Event::BackOffElapsed) if self.backing_off.take().is_some() => {
                match self.receipt.is_some() {
                    true => vec![Save, CallModel],
                    false => self.saved_if_detached(&[CallModel]),
                }
            }

            // The run is not paid, and no caller is left.
            (State::Verified | State::Answering { settling: false, .. }, Event::Abandoned) => {
                self.fail(ModelError::CallerGone, moment)
            }
            (State::Streaming, Event::Abandoned) if self.terms.policy == Policy::Free => {
                self.fail(ModelError::CallerGone, moment)
            }

            // The result would be too late for its contract. A result that is being settled was in time, and a stream
            // that has begun continues.
            (State::Verified | State::Answering { settling: false, .. }, Event::DeadlineMissed) => {
                self.fail(ModelError::DeadlineMissed, moment)
            }

            // Claude answers while the payment is being settled.
            // Text that nobody has seen need not outlive a restart: Claude is called again, once the payment is found.
            (State::Answering { settling: true, answer: Answer::Writing }, Event::Ended) => {
                let save = if self.is_shown_early() { &[Save][..] } else { &[] };
                self.to(answering(true, Answer::Whole), save)
            }
            (State::Answering { settling: true, answer: Answer::Writing }, Event::Broke { error, .. }) => {
                self.to(answering(true, Answer::Broken(error)), &[])
            }
            (State::SettlementUnknown { looking, answer: Answer::Writing }, Event::Ended) => {
                self.to(State::SettlementUnknown { looking, answer: Answer::Whole }, &[Save, WriteLedgerRow])
            }
            (State::SettlementUnknown { looking, answer: Answer::Writing }, Event::Broke { error, .. }) => {
                self.to(State::SettlementUnknown { looking, answer: Answer::Broken(error) }, &[Save, WriteLedgerRow])
            }

            // The facilitator answers settle.
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
                // No settle that was answered has spent it. From now on, a no may be about that, and is not definite.
                (self.said_spent, self.unanswered) = (true, true);
                self.to(State::SettlementUnknown { looking: true, answer }, &[Save, Reconcile])
            }

            // Evidence of what became of a settlement that was not answered.
            (State::SettlementUnknown { looking: true, answer }, Event::Reconciled(evidence)) => {
                let awaited = self.awaited;
                let said_spent = std::mem::take(&mut self.said_spent);
                match evidence {
                    Evidence::Paid(receipt) => self.settled(receipt, answer, moment),
                    // If every settle was answered, none of them has spent the nonce.
                    Evidence::Spent(receipt) if self.settle_timed_out => self.settled(receipt, answer, moment),
                    Evidence::Never(reason) => self.never(reason, moment),
                    // The node does not know yet what the facilitator knows. If both were asked again at once, they
                    // would give the same answers.
                    Evidence::Unspent if said_spent => self.unknown(answer, moment),
                    // An incomplete answer is only settled if a caller waits, for whom Claude is then called again.
                    // After the last settle, the chain is only watched until the payment's time is over.
                    Evidence::Unspent if self.settles >= MAX_SETTLES => self.unknown(answer, moment),
                    Evidence::Unspent if awaited || !matches!(answer, Answer::Broken(_)) => {
                        self.awaited = false;
                        self.settle(answer)
                    }
                    Evidence::Unspent | Evidence::Spent(_) | Evidence::Nothing => self.unknown(answer, moment),
                }
            }

            // Claude answers, and the run is paid or free.
            (State::Streaming, Event::Ended) => self.rest(State::Delivered, moment),
            (State::Streaming, Event::Broke { error, .. }) if self.terms.policy == Policy::Free => {
                self.rest(State::Failed(error), moment)
            }
            (State::Streaming, Event::Broke { error, no_text: true }) => {
                self.ask_again(error, Some(self.attempts), moment)
            }
            (State::Streaming, Event::Broke { error, no_text: false }) => self.interrupt(error, moment),

            // The object has restarted, so nothing is under way.
            (State::Verified | State::Answering { settling: false, .. }, Event::Restarted) if self.terms.detached => {
                self.uncount_waiting_call();
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
            (State::Streaming, Event::Restarted) => {
                self.uncount_waiting_call();
                self.ask_again(ModelError::CutOff, Some(self.attempts), moment)
            }

            // The ledger, the refund, the alarm.
            (_, Event::LedgerRowWritten) => {
                self.ledger_row_due = false;
                vec![Save]
            }
            (State::Refundable(error), Event::Reported) => self.rest(State::Reported(error), moment),
            (_, Event::AlarmFired) => self.wake(moment),

            // The event is late, early, or a duplicate, so nothing changes.
            _ => vec![],
        }
    }

    fn to(&mut self, state: State, effects: &[Effect]) -> Vec<Effect> {
        self.state = state;
        effects.to_vec()
    }

    /// The effects of a run that is not paid. Only one that goes on without its callers has to be found again after a
    /// restart; of any other, nothing is stored before money moves.
    fn saved_if_detached(&self, effects: &[Effect]) -> Vec<Effect> {
        let save: &[Effect] = if self.terms.detached { &[Effect::Save] } else { &[] };
        [save, effects].concat()
    }

    /// Goes to a state in which the run rests, and which the ledger records.
    fn rest(&mut self, state: State, moment: Moment) -> Vec<Effect> {
        self.ledger_row_due = true;
        self.due = None;
        self.rounds = 0;
        self.rested_at = moment.now;
        self.to(state, &[Effect::Save, Effect::WriteLedgerRow])
    }

    /// Ends without a charge, and stops Claude.
    fn fail(&mut self, error: ModelError, moment: Moment) -> Vec<Effect> {
        self.backing_off = None;
        cancelling_model_call(self.rest(State::Failed(error), moment))
    }

    /// Claude has failed before anything was charged. After a temporary error, Claude is called again.
    fn start_again(&mut self, error: ModelError, moment: Moment) -> Vec<Effect> {
        let again = self.attempts < self.terms.start_attempts && self.terms.policy != Policy::Free;
        let again = again || error == ModelError::OutputMismatch { repair: true };
        let wait = back_off(START_BACK_OFF, self.attempts.saturating_sub(1), START_BACK_OFF_MAX, moment);
        match error.passes_in(wait).filter(|wait| again && *wait <= START_BACK_OFF_MAX) {
            None => self.rest(State::Failed(error), moment),
            Some(wait) => {
                self.attempts = self.attempts.saturating_add(1);
                self.backing_off = Some(wait);
                let back_off = self.saved_if_detached(&[Effect::BackOff]);
                self.to(State::Verified, &[vec![Effect::Clear], back_off].concat())
            }
        }
    }

    /// Does not count the call of Claude that was waiting, because it has not been made.
    fn uncount_waiting_call(&mut self) {
        let waiting = u8::from(self.backing_off.take().is_some());
        self.attempts = self.attempts.saturating_sub(waiting);
    }

    fn may_ask_again(&self, error: ModelError) -> bool {
        // A model that has declined would decline again.
        self.attempts < self.terms.paid_attempts && error != ModelError::Declined
    }

    /// The run is paid and the answer broke off: calls Claude again, or gives up. `calls` counts the calls without a
    /// wait between them; `None` where the run has waited already, for the alarm or for a caller to come back.
    fn ask_again(&mut self, error: ModelError, calls: Option<u8>, moment: Moment) -> Vec<Effect> {
        if !self.may_ask_again(error) {
            return self.give_up(error, moment);
        }
        // The first call is repeated at once, unless Anthropic names a time. Later ones wait.
        let wait = calls.map(|calls| match calls {
            0 | 1 => error.passes_in(0).unwrap_or(0),
            calls => {
                let wait = back_off(BACK_OFF, calls.saturating_sub(2), BACK_OFF_MAX, moment);
                error.passes_in(wait).unwrap_or(wait)
            }
        });
        let wait = wait.filter(|wait| *wait > 0);
        if wait.is_some_and(|wait| wait > BACK_OFF_MAX) {
            // Anthropic names a time that is too long for a caller to wait on an open response.
            return self.interrupt(error, moment);
        }
        self.attempts = self.attempts.saturating_add(1);
        self.due = None;
        self.backing_off = wait;
        let ask = if wait.is_some() { Effect::BackOff } else { Effect::CallModel };
        self.to(State::Streaming, &[Effect::Clear, Effect::Save, ask])
    }

    /// The run is paid, and its answer broke off after the caller saw text. The alarm calls Claude again.
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

    /// The run is paid and will not be delivered. The refund is reported until a facilitator accepts the report.
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

    /// Acts on the alarm.
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
