//! Admission: what happens to a request that presents a payment, a contract or an owner's test to the object of its
//! wallet. The object looks up what it knows and acts on the decision; nothing is changed here.

use crate::rules::config::Limits;
use crate::rules::payment::Payment;
use crate::rules::record::run_record::{RunRecord, RunStats};
use crate::rules::record::run_request::RunRequest;
use crate::rules::refusal::{ModelError, Refusal};
use crate::rules::run::{Millis, Run, State};

/// What counts against a wallet is forgotten after this time.
pub const COUNTED_FOR: Millis = 24 * 60 * 60 * 1000;
/// The `Retry-After` of a wallet whose unsettled runs are too many, in seconds. Each of them ends soon.
const UNSETTLED_RETRY: u32 = 2;

/// A run that the object knows.
#[derive(Clone, Copy)]
pub struct KnownRun<'a> {
    pub run: &'a Run,
    pub record: &'a RunRecord,
}

/// What the object knows that bears on a request.
#[derive(Clone, Copy, Default)]
pub struct Known<'a> {
    /// The last run of the request's name: of the same payment, or of the same contract.
    pub named: Option<KnownRun<'a>>,
    /// The last run that took the request's idempotency key.
    pub keyed: Option<KnownRun<'a>>,
    /// The payment has been used for a contract, or for another one than the request's.
    pub payment_is_taken: bool,
    pub usage: Usage<'a>,
}

/// What counts against the wallet's limits.
#[derive(Clone, Copy, Debug, Default)]
pub struct Usage<'a> {
    /// The runs under way that are not settled.
    pub unsettled: usize,
    /// When the runs of the last day came to nothing by the payer's doing, oldest first. Of an owner: when their tests
    /// began.
    pub counted: &'a [Millis],
}

/// Which of the known runs a decision is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Which {
    Named,
    Keyed,
}

/// The decision about a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Admission {
    /// No run is in the way: the request begins one.
    Begin,
    /// The run is the one that this request has paid for: the caller is shown it.
    Join(Which),
    /// It cannot be decided yet. Decide again when the run has changed.
    Wait(Which),
    /// Only a facilitator can tell whose payment it is. It is to be verified before the object keeps anything of it.
    VerifyFirst,
    Refuse(Refusal),
    /// The caller is told where the run is that is in the way.
    RefuseFor(Which, Refusal),
}

/// Decides about a request at `now`.
pub fn admit(request: &RunRequest, known: &Known<'_>, limits: &Limits, now: Millis) -> Admission {
    if let (Some(_), Some(named)) = (&request.contract_context, known.named) {
        if let Some(refusal) = contract_refusal(named, request) {
            return Admission::Refuse(refusal);
        }
    }
    if let Some(named) = known.named.filter(|named| !named.run.is_replaceable()) {
        return of_named(named, request);
    }
    if let Some(refusal) = &request.begin_refusal {
        return Admission::Refuse(refusal.clone());
    }
    if known.payment_is_taken {
        return Admission::Refuse(Refusal::PaymentReused);
    }
    if request.payment.as_ref().is_some_and(|payment| !payment.by_key) && request.verified_by.is_none() {
        return Admission::VerifyFirst;
    }
    if let (Some(keyed), Some(key)) = (known.keyed.filter(|keyed| !keyed.run.is_replaceable()), &request.key) {
        let same_request = keyed.record.key.as_ref().is_some_and(|held| held.request == key.request);
        return match (keyed.run.state(), same_request) {
            // A key is taken by a verified payment only.
            (State::Presented, _) => Admission::Wait(Which::Keyed),
            (_, true) => Admission::Join(Which::Keyed),
            (_, false) => Admission::RefuseFor(Which::Keyed, Refusal::IdentifierReused),
        };
    }
    match over_limit(request, known.usage, limits, now) {
        Some(refusal) => Admission::Refuse(refusal),
        None => Admission::Begin,
    }
}

fn of_named(named: KnownRun<'_>, request: &RunRequest) -> Admission {
    let (running, presented) = (named.record.identity(), request.identity());
    match running.proof == presented.proof {
        true if running == presented => Admission::Join(Which::Named),
        true => Admission::Refuse(Refusal::PaymentReused),
        // Two signatures under one nonce: the second is heard if the first turns out not to be good.
        false if matches!(named.run.state(), State::Presented) => Admission::Wait(Which::Named),
        false => Admission::Refuse(Refusal::PaymentReused),
    }
}

/// Whether a run that came to nothing counts against the wallet's limit of the day: by the payer's doing, and not because
/// Claude was overloaded or failed. A payment that was refused, and a schema that no answer satisfied, are the payer's
/// doing all the same.
pub fn counts_against_payer(run: &Run, stats: &RunStats) -> bool {
    let is_claudes = match run.model_error() {
        Some(ModelError::CallerGone | ModelError::WindowOver) => stats.model_is_failing,
        // The time that a failure has taken is missing at the end, whatever came after it.
        Some(ModelError::DeadlineMissed) => stats.model_failed,
        _ => false,
    };
    run.is_unpaid_by_payer() && !is_claudes
}

/// Why a wallet may not begin another run at the moment. What is under way may still come to nothing, so it counts
/// against the limit of the day too.
fn over_limit(request: &RunRequest, usage: Usage<'_>, limits: &Limits, now: Millis) -> Option<Refusal> {
    let count = |limit: u32| usize::try_from(limit).unwrap_or(usize::MAX);
    let retry_after = || {
        let oldest = usage.counted.first().copied().unwrap_or(now);
        let left = oldest.saturating_add(COUNTED_FOR).saturating_sub(now).div_ceil(1000);
        u32::try_from(left).unwrap_or(u32::MAX).max(1)
    };
    if request.payment.is_none() {
        let over = usage.counted.len() >= count(limits.owner_tests_per_day);
        return over.then(|| Refusal::TooManyOwnerTests { retry_after: retry_after() });
    }
    let day = count(limits.unpaid_per_wallet_day);
    match usage {
        _ if usage.counted.len() >= day => Some(Refusal::TooManyUnpaidRuns { retry_after: retry_after() }),
        Usage { unsettled, counted }
            if unsettled >= count(limits.unpaid_per_wallet) || unsettled.saturating_add(counted.len()) >= day =>
        {
            Some(Refusal::TooManyUnpaidRuns { retry_after: UNSETTLED_RETRY })
        }
        _ => None,
    }
}

/// Why a contract that has been executed is not executed again with this request. A contract is one task, with one
/// input, executed as often as was agreed.
fn contract_refusal(named: KnownRun<'_>, request: &RunRequest) -> Option<Refusal> {
    let KnownRun { run, record } = named;
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
pub fn reusable_payment<'a>(last: Option<KnownRun<'a>>, good_until: u64) -> Option<&'a Payment> {
    let KnownRun { run, record } = last?;
    let rejected = matches!(run.state(), State::Refused(Refusal::SettlementRejected { .. }));
    let reusable = run.is_unpaid_execution() && !rejected;
    let payment = record.payment.as_ref().filter(|_| reusable)?;
    (payment.valid_before > good_until).then_some(payment)
}

/// The number of the execution that begins now. An execution that failed before Claude was called does not count.
pub fn next_execution(last: Option<KnownRun<'_>>) -> u32 {
    let Some(KnownRun { run, record }) = last else { return 1 };
    let counts = u32::from(run.is_unpaid_execution());
    record.contract_context.as_ref().map_or(1, |last| last.execution.saturating_add(counts))
}
