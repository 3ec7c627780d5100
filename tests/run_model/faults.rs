//! Faults seeded into the machine of one run. Each has to be caught.

use crate::lane::Lane;
use crate::world::{moment, receipt};
use coinslot::testing::rules::refusal::ModelError;
use coinslot::testing::rules::run::{Answer, Effect, Event, Evidence, Run, State, View};

/// A fault seeded into the machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Seeded {
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
    ForgetWhatWasTold,
}

pub const SEEDED: [Seeded; 16] = [
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
    Seeded::ForgetWhatWasTold,
];

/// A machine with one field of its stored form changed.
pub fn altered(run: &Run, field: &str, value: serde_json::Value) -> Run {
    let mut json = serde_json::to_value(run).unwrap();
    json[field] = value;
    serde_json::from_value(json).unwrap()
}

impl Lane {
    pub fn is(&self, seeded: Seeded) -> bool {
        self.seeded == Some(seeded)
    }

    /// The machine, as it is or with a fault.
    pub fn handle(&self, run: &mut Run, event: Event, now: u64) -> Vec<Effect> {
        let before = run.clone();
        let event = match event {
            Event::Reconciled(Evidence::Spent(receipt)) if self.is(Seeded::TakeSpentForPaid) => {
                Event::Reconciled(Evidence::Paid(receipt))
            }
            Event::SettleSpent if self.is(Seeded::TakeSpentForPaid) => Event::Settled(receipt()),
            Event::Abandoned if self.is(Seeded::WorkForNobody) => return vec![],
            Event::VerifyRefused(_) if self.is(Seeded::ForgetWhatWasTold) => {
                *run = altered(run, "told_pending", false.into());
                event
            }
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

    pub fn view(&self, run: &Run) -> View {
        match run.state() {
            State::Answering { settling: true, .. } if self.is(Seeded::ReleaseBeforeSettled) => View::Show,
            _ => run.view(),
        }
    }
}
