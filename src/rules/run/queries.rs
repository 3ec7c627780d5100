//! Questions about a run, which do not change it.

use super::{
    Answer, Ending, Millis, ModelError, Policy, Receipt, Refusal, Release, Run, State, Terms, View, EVIDENCE_LAG,
    HEARTBEAT, RECORD_AGAIN, RETENTION, RETENTION_IN_DOUBT,
};

impl Run {
    pub fn state(&self) -> &State {
        &self.state
    }

    /// When the run came to rest, in Unix milliseconds; 0 before that.
    pub fn rested_at(&self) -> Millis {
        self.rested_at
    }

    /// The terms that were fixed when the payment was presented.
    pub fn terms(&self) -> &Terms {
        &self.terms
    }

    /// The receipt of the settlement, once there is one.
    pub fn receipt(&self) -> Option<&Receipt> {
        self.receipt.as_ref()
    }

    /// Whether work is under way that will end with an event.
    pub fn is_busy(&self) -> bool {
        match &self.state {
            State::Presented | State::Verified | State::Answering { .. } | State::Streaming => true,
            State::SettlementUnknown { looking, answer } => *looking || *answer == Answer::Writing,
            State::New | State::Delivered | State::Refused(_) | State::Failed(_) => false,
            State::Interrupted(_) | State::Refundable(_) | State::Reported(_) => false,
        }
    }

    /// The wait before Claude is called again.
    pub fn back_off(&self) -> Millis {
        self.backing_off.unwrap_or_default()
    }

    /// Whether a settlement that is due, but has not been asked for, must not be: the answer broke off, so there is
    /// nothing to pay for.
    pub fn should_withhold(&self) -> bool {
        let broken = matches!(self.state, State::Answering { settling: true, answer: Answer::Broken(_) });
        broken && !self.unanswered
    }

    /// Whether a settlement has been asked for, and its outcome is not known.
    pub fn is_settling(&self) -> bool {
        matches!(self.state, State::Answering { settling: true, .. } | State::SettlementUnknown { .. })
    }

    /// Whether Claude works, or is about to work, for a caller who has not paid.
    pub fn is_generating_unpaid(&self) -> bool {
        match &self.state {
            _ if self.terms.detached => false,
            State::Verified | State::Answering { settling: false, .. } => true,
            State::Streaming => self.terms.policy == Policy::Free,
            _ => false,
        }
    }

    /// Whether text has been shown that is not paid, or never was.
    pub fn is_outstanding(&self) -> bool {
        self.unpaid_text_shown || (self.is_shown_early() && self.is_settling())
    }

    pub(super) fn is_shown_early(&self) -> bool {
        self.terms.release == Release::Verified && self.terms.policy == Policy::OnStart
    }

    /// Whether Claude works, or will, for a payment that is not settled, or may not be. Once the payment's time is over,
    /// a settlement in doubt does not keep the wallet from other runs: it may never be known.
    pub fn is_unsettled(&self, now: Millis) -> bool {
        let unsettled = match &self.state {
            State::Presented | State::Verified | State::Answering { .. } => true,
            State::SettlementUnknown { .. } => now <= self.terms.valid_until.saturating_add(EVIDENCE_LAG),
            _ => false,
        };
        unsettled && self.terms.policy != Policy::Free
    }

    /// Whether Claude worked and nothing was paid, by the payer's doing: they hung up, the payment was refused when it
    /// was settled, its window was too short, or their contract asked for what could not be had.
    pub fn is_unpaid_by_payer(&self) -> bool {
        let by_payer = match &self.state {
            State::Refused(Refusal::SettlementRejected { .. }) => true,
            State::Failed(ModelError::CallerGone | ModelError::WindowOver) => true,
            State::Failed(ModelError::DeadlineMissed | ModelError::OutputMismatch { .. } | ModelError::Truncated) => {
                self.terms.detached
            }
            _ => false,
        };
        by_payer && self.model_called
    }

    /// Whether anything is kept of the run: its payment was good, or it needs none.
    pub fn is_kept(&self) -> bool {
        let of_no_payment = matches!(self.state, State::New | State::Presented);
        !of_no_payment && (self.model_called || self.told_pending || self.terms.policy == Policy::Free)
    }

    /// Whether nothing will happen to the run any more, and the ledger has its row.
    pub fn is_closed(&self) -> bool {
        let is_end = matches!(self.state, State::Delivered | State::Refused(_) | State::Failed(_) | State::Reported(_));
        is_end && !self.ledger_row_due
    }

    /// The error of Claude with which the run has ended, if it has ended so.
    pub fn model_error(&self) -> Option<ModelError> {
        match &self.state {
            State::Interrupted(error) | State::Failed(error) => Some(*error),
            State::Refundable(error) | State::Reported(error) => Some(*error),
            _ => None,
        }
    }

    /// Whether nothing of this run has to be remembered, so that a new request of the same payment begins anew.
    pub fn is_replaceable(&self) -> bool {
        matches!(self.state, State::New | State::Refused(_) | State::Failed(_))
    }

    /// Whether Claude was called and nothing was charged. A contract counts such executions.
    pub fn is_unpaid_execution(&self) -> bool {
        self.model_called && matches!(self.state, State::Failed(_) | State::Refused(_))
    }

    /// What a caller gets now.
    pub fn view(&self) -> View {
        match &self.state {
            // Before it is settled, text may only be shown while the settlement is under way or unknown.
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

    /// How the text ends, once it has ended.
    pub fn ending(&self) -> Option<Ending> {
        let claude = |error: &ModelError| Some(Ending::Error(Refusal::Claude(*error)));
        match &self.state {
            State::Delivered => Some(Ending::Done),
            State::Interrupted(error) | State::Failed(error) => claude(error),
            // A caller is told that Claude has declined. After any other error they need to know about their refund.
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

    /// Whether the run will not change any more.
    pub fn is_final(&self) -> bool {
        match &self.state {
            State::Delivered | State::Refused(_) | State::Failed(_) => true,
            State::Refundable(_) | State::Reported(_) => true,
            State::New | State::Presented | State::Verified | State::Answering { .. } => false,
            State::Streaming | State::SettlementUnknown { .. } | State::Interrupted(_) => false,
        }
    }

    /// Whether the run has rested for so long that it may be deleted.
    pub fn is_expired(&self, now: Millis) -> bool {
        let resting = !self.is_busy() && !self.ledger_row_due && self.rested_at > 0;
        resting && now >= self.expires_at()
    }

    /// When the run may be deleted, once it rests.
    pub fn expires_at(&self) -> Millis {
        let keep = match &self.state {
            State::SettlementUnknown { .. } | State::Refundable(_) => RETENTION_IN_DOUBT,
            _ => RETENTION,
        };
        let keep = self.rested_at.saturating_add(keep);
        // A failed execution counts as long as its contract can be executed.
        let until = self.terms.kept_until.filter(|_| self.is_replaceable());
        until.map_or(keep, |until| keep.max(until))
    }

    /// Whether the result would be too late now.
    pub fn is_late(&self, now: Millis) -> bool {
        self.due_by().is_some_and(|due_by| due_by <= now)
    }

    /// When the result is due, while there is none.
    fn due_by(&self) -> Option<Millis> {
        match &self.state {
            State::Verified | State::Answering { settling: false, .. } => self.terms.due_by,
            _ => None,
        }
    }

    /// When the alarm is due, if at all.
    pub fn deadline(&self, now: Millis) -> Option<Millis> {
        if self.state == State::New {
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
        // This is set while the payment is being verified, because the alarm is not set again before Claude works.
        let soon = self.terms.due_by.filter(|due_by| self.state == State::Presented && *due_by > now);
        [due, self.due_by(), soon].into_iter().flatten().chain([usual]).min()
    }
}
