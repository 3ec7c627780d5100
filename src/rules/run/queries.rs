//! What a run says of itself, without changing.

use super::{
    Answer, Ending, Millis, ModelError, Policy, Receipt, Refusal, Release, Run, State, Terms, View, HEARTBEAT,
    RECORD_AGAIN, RETENTION, RETENTION_IN_DOUBT, RETENTION_UNVERIFIED,
};

impl Run {
    /// Where the run is.
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When it came to rest; 0 before it ever has. Unix milliseconds.
    pub fn rested_at(&self) -> Millis {
        self.rested_at
    }

    /// What was agreed when it was presented.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// Proof of settlement, once there is one.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// Whether something is under way that an event will end.
    pub fn is_busy(&self) -> bool {
        match &self.state {
            State::Presented | State::Verified | State::Answering { .. } | State::Streaming => true,
            State::SettlementUnknown { looking, answer } => *looking || *answer == Answer::Writing,
            State::New | State::Delivered | State::Refused(_) | State::Failed(_) => false,
            State::Interrupted(_) | State::Refundable(_) | State::Reported(_) => false,
        }
    }

    /// How long to wait before Claude is asked again.
    pub fn back_off(&self) -> Millis {
        self.backing_off.unwrap_or_default()
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

    /// Whether Claude works, or is about to, for somebody who has not paid.
    pub fn is_generating_unpaid(&self) -> bool {
        match &self.state {
            _ if self.terms.detached => false,
            State::Verified | State::Answering { settling: false, .. } => true,
            State::Streaming => self.terms.policy == Policy::Free,
            _ => false,
        }
    }

    /// Whether text is out that is not paid for (yet), or never was.
    pub fn is_outstanding(&self) -> bool {
        self.unpaid_text_shown || (self.is_shown_early() && self.is_settling())
    }

    fn is_shown_early(&self) -> bool {
        self.terms.release == Release::Verified && self.terms.policy == Policy::OnStart
    }

    /// Whether it is decided: paid, or come to nothing without a debt.
    pub fn is_cleared(&self) -> bool {
        self.receipt.is_some() || (self.is_replaceable() && self.state != State::New && !self.is_outstanding())
    }

    /// Why Claude gave no whole answer, where that is how the run ended.
    pub fn model_error(&self) -> Option<ModelError> {
        match &self.state {
            State::Interrupted(error) | State::Failed(error) => Some(*error),
            State::Refundable(error) | State::Reported(error) => Some(*error),
            _ => None,
        }
    }

    /// Whether nothing of this run needs to be known: another run_request starts from nothing.
    pub fn is_replaceable(&self) -> bool {
        matches!(self.state, State::New | State::Refused(_) | State::Failed(_))
    }

    /// Whether Claude model_called, and nothing was charged: an execution, as a contract counts them.
    pub fn is_unpaid_execution(&self) -> bool {
        self.model_called && matches!(self.state, State::Failed(_) | State::Refused(_))
    }

    /// What a caller is told now.
    pub fn view(&self) -> View {
        match &self.state {
            // Only text of an answer that is being settled is ever there to be shown.
            State::Answering { settling: true, .. } | State::SettlementUnknown { .. } if self.is_shown_early() => {
                View::Show
            }
            State::New | State::Presented | State::Verified | State::Answering { .. } => View::Wait,
            State::Streaming | State::Delivered | State::Interrupted(_) => View::Show,
            State::Refused(refusal) => View::Refuse(refusal.clone()),
            State::Failed(error) => View::Refuse(Refusal::Claude(*error)),
            State::SettlementUnknown { looking: true, .. } => View::Wait,
            State::SettlementUnknown { looking: false, .. } => View::Refuse(Refusal::SettlementUnknown),
            State::Refundable(_) | State::Reported(_) => View::Refuse(Refusal::Refundable),
        }
    }

    /// How the text ends, once it has.
    pub fn ending(&self) -> Option<Ending> {
        let claude = |error: &ModelError| Some(Ending::Error(Refusal::Claude(*error)));
        match &self.state {
            State::Delivered => Some(Ending::Done),
            State::Interrupted(error) | State::Failed(error) => claude(error),
            // What Claude declines it says so; of anything else the caller needs to know what comes of the money.
            State::Refundable(error @ ModelError::Declined) | State::Reported(error @ ModelError::Declined) => {
                claude(error)
            }
            State::Refundable(_) | State::Reported(_) => Some(Ending::Error(Refusal::Refundable)),
            State::Refused(refusal) => Some(Ending::Error(refusal.clone())),
            State::SettlementUnknown { looking: false, answer: Answer::Whole | Answer::Broken(_) } => {
                Some(Ending::Error(Refusal::SettlementUnknown))
            }
            State::New | State::Presented | State::Verified | State::Answering { .. } => None,
            State::Streaming | State::SettlementUnknown { .. } => None,
        }
    }

    /// Whether nothing more comes of the run.
    pub fn is_final(&self) -> bool {
        match &self.state {
            State::Delivered | State::Refused(_) | State::Failed(_) => true,
            State::Refundable(_) | State::Reported(_) => true,
            State::New | State::Presented | State::Verified | State::Answering { .. } => false,
            State::Streaming | State::SettlementUnknown { .. } | State::Interrupted(_) => false,
        }
    }

    /// Whether the run has been at rest for so long that it may be deleted.
    pub fn is_expired(&self, now: Millis) -> bool {
        let resting = !self.is_busy() && !self.ledger_row_due && self.rested_at > 0;
        resting && now >= self.expires_at()
    }

    fn expires_at(&self) -> Millis {
        let keep = match &self.state {
            State::SettlementUnknown { .. } | State::Refundable(_) => RETENTION_IN_DOUBT,
            // Of a contract it is kept how often it was executed.
            _ if self.unpaid_text_shown || self.terms.detached => RETENTION,
            State::New => RETENTION_UNVERIFIED,
            State::Refused(
                Refusal::PaymentInvalid { .. }
                | Refusal::PaymentReused
                | Refusal::FacilitatorUnavailable
                | Refusal::Internal,
            ) => RETENTION_UNVERIFIED,
            _ => RETENTION,
        };
        let keep = self.rested_at.saturating_add(keep);
        // How often a contract was executed counts as long as it can be.
        let until = self.terms.kept_until.filter(|_| self.is_replaceable());
        until.map_or(keep, |until| keep.max(until))
    }

    /// Whether its result can only come too late by now.
    pub fn is_late(&self, now: Millis) -> bool {
        self.due_by().is_some_and(|due_by| due_by <= now)
    }

    /// When the result is due, as long as there is none.
    fn due_by(&self) -> Option<Millis> {
        match &self.state {
            State::Verified | State::Answering { settling: false, .. } => self.terms.due_by,
            _ => None,
        }
    }

    /// When to wake the run, if at all.
    pub fn deadline(&self, now: Millis) -> Option<Millis> {
        if self.state == State::New && self.rested_at == 0 {
            return None;
        }
        let usual = match (self.is_busy(), self.ledger_row_due) {
            (true, _) => now.saturating_add(HEARTBEAT),
            (false, true) => now.saturating_add(RECORD_AGAIN),
            (false, false) => self.expires_at(),
        };
        let due = match &self.state {
            State::Interrupted(_) | State::Refundable(_) | State::SettlementUnknown { looking: false, .. } => self.due,
            _ => None,
        };
        // Set while the payment is verified, for the alarm is not set again before Claude works.
        let soon = self.terms.due_by.filter(|due_by| self.state == State::Presented && *due_by > now);
        [due, self.due_by(), soon].into_iter().flatten().chain([usual]).min()
    }
}
