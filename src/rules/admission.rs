//! Admission: what happens to a request that presents a payment (or a contract) to the object where its run is, or
//! will be. The object acts on the decision; nothing is changed here.

use crate::rules::payment::Payment;
use crate::rules::record::run_record::RunRecord;
use crate::rules::record::run_request::RunRequest;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Run, State};

/// The decision about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// No run is in the way: the request begins one.
    Begin,
    /// The run is the one that this request has paid for: the caller is shown it.
    Join,
    /// It cannot be decided yet. Decide again when the run has changed.
    Wait,
    Refuse(Refusal),
}

/// Decides about a request, given the object's run and what that run is about (`None` before the first run).
pub fn admit(run: &Run, record: Option<&RunRecord>, request: &RunRequest) -> Admission {
    if let (Some(_), Some(record)) = (&request.contract_context, record) {
        if let Some(refusal) = contract_refusal(run, record, request) {
            return Admission::Refuse(refusal);
        }
    }
    let Some(record) = record.filter(|_| !run.is_replaceable()) else {
        return match &request.begin_refusal {
            None => Admission::Begin,
            Some(begin_refusal) => Admission::Refuse(begin_refusal.clone()),
        };
    };
    let (running, presented) = (record.identity(), request.identity());
    match running.proof == presented.proof {
        true if running == presented => Admission::Join,
        true => Admission::Refuse(Refusal::PaymentReused),
        // Two signatures under one nonce: until the first is verified it may be a forgery, and a forgery must not
        // keep the payer out.
        false if matches!(run.state(), State::Presented) => Admission::Wait,
        false => Admission::Refuse(Refusal::PaymentReused),
    }
}

/// Why a contract that has been executed is not executed again with this request. A contract is one task, with one
/// input, executed as often as was agreed.
fn contract_refusal(run: &Run, record: &RunRecord, request: &RunRequest) -> Option<Refusal> {
    let failed = run.is_unpaid_execution();
    let contract = record.contract_context.as_ref()?;
    match record.digest == request.digest {
        false if failed || !run.is_replaceable() => Some(Refusal::ContractInputDiffers),
        true if failed && contract.execution >= contract.attempts => Some(Refusal::RetriesExhausted),
        _ => None,
    }
}

/// The payment of the last execution, where the next execution of the same contract may use it again: nothing was
/// charged, no facilitator has refused to settle it, and it can still be settled after `good_until` (Unix seconds).
pub fn reusable_payment<'a>(run: &Run, record: Option<&'a RunRecord>, good_until: u64) -> Option<&'a Payment> {
    let rejected = matches!(run.state(), State::Refused(Refusal::SettlementRejected { .. }));
    let reusable = run.is_unpaid_execution() && !rejected;
    let payment = record.filter(|_| reusable)?.payment.as_ref()?;
    (payment.valid_before > good_until).then_some(payment)
}

/// The number of the execution that begins now. An execution that failed before Claude was called does not count.
pub fn next_execution(run: &Run, record: Option<&RunRecord>) -> u32 {
    let last = record.and_then(|record| record.contract_context.as_ref());
    let counts = u32::from(run.is_unpaid_execution());
    last.map_or(1, |last| last.execution.saturating_add(counts))
}
