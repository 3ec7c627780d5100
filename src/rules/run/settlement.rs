//! What becomes of a settlement: it is asked for, has moved the money, has not, or is in doubt.

use super::vocabulary::{
    back_off, cancelling_model_call, BACK_OFF, EVIDENCE_LAG, RECONCILE_WAIT_LATE, RECONCILE_WAIT_MAX,
};
use super::{answering, Answer, Effect, Moment, Receipt, Refusal, Release, Run, State};

impl Run {
    /// Asks a facilitator to settle, once that is stored.
    pub(super) fn settle(&mut self, answer: Answer) -> Vec<Effect> {
        self.settles = self.settles.saturating_add(1);
        self.to(answering(true, answer), &[Effect::Save, Effect::Settle])
    }

    /// The money has moved.
    pub(super) fn settled(&mut self, receipt: Receipt, answer: Answer, moment: Moment) -> Vec<Effect> {
        self.receipt = Some(receipt);
        self.attempts = 1;
        self.due = None;
        self.unpaid_text_shown = false;
        match (answer, self.terms.release) {
            // The receipt is stored with the next text. After a restart before that, the payment is found again.
            (Answer::Writing, _) => self.to(State::Streaming, &[]),
            (Answer::Whole, _) => self.rest(State::Delivered, moment),
            // Nothing was released yet, so a new edition can replace the incomplete one.
            (Answer::Broken(error), Release::Settled) => self.ask_again(error, Some(1), moment),
            (Answer::Broken(error), Release::Verified) => self.interrupt(error, moment),
        }
    }

    /// The money has not moved, and never will.
    pub(super) fn never(&mut self, reason: Option<String>, moment: Moment) -> Vec<Effect> {
        self.unpaid(Refusal::SettlementRejected { reason }, moment)
    }

    /// Ends without a payment, and stops Claude.
    pub(super) fn unpaid(&mut self, refusal: Refusal, moment: Moment) -> Vec<Effect> {
        self.unpaid_text_shown |= self.is_outstanding();
        cancelling_model_call(self.rest(State::Refused(refusal), moment))
    }

    /// It is not known whether the money has moved, so the alarm looks for evidence after a wait.
    pub(super) fn unknown(&mut self, answer: Answer, moment: Moment) -> Vec<Effect> {
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
}
