//! The types of the run machine: its terms, events and effects, and what its callers see.

use super::Answer;
use crate::rules::refusal::{ModelError, Refusal};
use serde::{Deserialize, Serialize};

/// The time in Unix milliseconds.
pub type Millis = u64;

/// How long a run is kept after its end.
pub const RETENTION: Millis = 24 * 60 * 60 * 1000;
/// How long a run is kept whose settlement is unknown, or whose refund no facilitator has accepted.
pub const RETENTION_IN_DOUBT: Millis = 7 * RETENTION;
/// How often the alarm fires while a run is under way. It keeps the object alive without callers.
pub const HEARTBEAT: Millis = 20 * 1000;
/// How long a stream's settlement waits for the first text after `message_start`. So an answer that breaks off at once
/// is not charged, and one that thinks for long is settled meanwhile.
pub const GRACE: Millis = 250;
/// The same, once the block of the first text has begun. An empty block ends within this time.
pub const GRACE_OF_TEXT: Millis = 50;
/// The first wait of a paid run before Claude is called again, and of a run with an unknown settlement before evidence
/// is looked for. Each wait after it is four times longer.
pub const BACK_OFF: Millis = 2_000;
/// The longest such wait before Claude is called again.
pub const BACK_OFF_MAX: Millis = 30_000;
/// The longest wait of an interrupted run before Claude is called again, where Anthropic names a time.
pub const INTERRUPTED_MAX: Millis = 60 * 60 * 1000;
/// The first wait of a run that is not paid before Claude is called again. It is short, because a caller waits too.
pub const START_BACK_OFF: Millis = 500;
/// The longest such wait. Where Anthropic names a longer one, the caller gets the error instead.
pub const START_BACK_OFF_MAX: Millis = 8_000;
/// The longest wait before evidence is looked for, while the payment can still be settled.
pub const RECONCILE_WAIT_MAX: Millis = 60 * 1000;
/// How long after a payment's end the chain may still show its settlement for the first time.
pub const EVIDENCE_LAG: Millis = 120 * 1000;
/// The wait before evidence is looked for after that.
pub const RECONCILE_WAIT_LATE: Millis = 60 * 60 * 1000;
/// The first wait before a refund is reported again. Each wait after it is four times longer.
pub const REPORT_AGAIN: Millis = 30 * 1000;
/// The longest such wait.
pub const REPORT_AGAIN_MAX: Millis = 2 * 60 * 60 * 1000;
/// How often a facilitator is asked to settle one payment.
pub const MAX_SETTLES: u8 = 5;
/// The wait before a ledger row is written again that could not be written.
pub const RECORD_AGAIN: Millis = 30 * 1000;

/// The time and the jitter of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    pub now: Millis,
    /// A random number, which spreads the waits.
    pub jitter: u16,
}

/// The terms of a run, which are fixed when its payment is presented.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Terms {
    pub policy: Policy,
    pub release: Release,
    /// The most calls of Claude before the run is paid.
    pub start_attempts: u8,
    /// The most calls of Claude once it is paid.
    pub paid_attempts: u8,
    /// When the payment can no longer be settled, in Unix milliseconds.
    pub valid_until: Millis,
    /// Whether the run continues without callers, as that of a contract does.
    #[serde(default)]
    pub detached: bool,
    /// The time from which the result is too late.
    #[serde(default)]
    pub due_by: Option<Millis>,
    /// The time until which a failed run has to be remembered.
    #[serde(default)]
    pub kept_until: Option<Millis>,
}

/// When the text of a stream is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// When the payment is settled.
    #[default]
    Settled,
    /// As soon as the payment is verified and Claude writes. The creator bears the risk that it is never settled.
    Verified,
}

/// When the payment is settled.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// Never, because it is an owner's test.
    Free,
    /// When Claude has begun (streams).
    OnStart,
    /// When the answer is complete (JSON, contracts).
    OnResult,
}

/// The proof that a payment was settled.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Receipt {
    /// The hash of the transaction. It is empty where the payment is known to be settled, but not in which transaction.
    pub transaction: String,
    /// The CAIP-2 id of the network.
    pub network: String,
    /// The name of the same network in v1.
    pub network_v1: String,
    /// The address of the payer.
    pub payer: String,
}

/// What the chain or a facilitator shows of a settlement that was not answered.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The chain shows the transfer.
    Paid(Receipt),
    /// The nonce is spent, and a facilitator does not say on what.
    Spent(Receipt),
    /// The nonce is not spent, and can still be.
    Unspent,
    /// The payment was not settled and cannot be any more. With x402's code of the reason.
    Never(Option<String>),
    /// Nobody could be asked, or what they answered decides nothing.
    Nothing,
}

/// What has happened: the input of the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A caller presents the payment, for the first time or again.
    Presented,
    /// A facilitator answers that the payment is valid.
    Verified,
    /// A facilitator answers that it is not valid, or none gives a usable answer.
    VerifyRefused(Refusal),
    /// A contract's caller was told that the run is under way, and may ask for its end later.
    ToldPending,
    /// Claude has sent `message_start`, its first event.
    Began,
    /// The first text of this edition.
    FirstText,
    /// The time of [`GRACE`] has passed.
    GraceElapsed,
    /// Claude has sent `message_stop`, its last event.
    Ended,
    /// Claude gave no answer, or none that is complete.
    Broke {
        error: ModelError,
        /// Whether this edition of the answer has no text.
        no_text: bool,
    },
    /// The money has moved.
    Settled(Receipt),
    /// The facilitator answers that the money has definitely not moved. With its code of the reason.
    SettleRejected(Option<String>),
    /// There is no answer, or none that can be read.
    SettleUnanswered,
    /// No facilitator has accepted the request.
    SettleNotSent,
    /// The facilitator answers that the settlement has failed, but not that the money has definitely not moved.
    SettleFailed,
    /// The facilitator answers that the nonce was spent before.
    SettleSpent,
    /// The driver has not called settle, because the answer had broken off.
    SettleWithheld,
    /// The wait of [`Effect::BackOff`] has passed.
    BackOffElapsed,
    /// The last caller who waited for the run or followed it has disconnected.
    Abandoned,
    /// The time of [`Terms::due_by`] has passed.
    DeadlineMissed,
    /// The answer to [`Effect::Reconcile`].
    Reconciled(Evidence),
    /// A facilitator has accepted the report of a refund.
    Reported,
    /// The ledger has the row.
    LedgerRowWritten,
    /// The object was loaded from its storage, so everything that was under way has stopped.
    Restarted,
    /// The alarm has fired.
    AlarmFired,
}

/// What has to be done: the output of the machine. In the order of a run's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Clear the text so far, and a wait of [`Effect::StartGrace`], because a new edition begins.
    Clear,
    /// Make the state and the text so far durable, before the next effect.
    Save,
    /// Ask a facilitator to verify the payment.
    Verify,
    /// Call Claude for the answer.
    CallModel,
    /// Send [`Event::GraceElapsed`] after [`GRACE`].
    StartGrace,
    /// Send [`Event::BackOffElapsed`] after [`Run::back_off`].
    BackOff,
    /// Ask a facilitator to settle the payment, unless the answer has broken off.
    Settle,
    /// Look for evidence of a settlement that was not answered.
    Reconcile,
    /// Cancel the call of Claude.
    CancelModelCall,
    /// Report the refund. If no facilitator accepts the report, this effect comes again.
    Report,
    /// Write the ledger's row.
    WriteLedgerRow,
}

/// What a caller with this run's payment gets now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Nothing is shown yet: wait.
    Wait,
    /// This refusal, and no text.
    Refuse(Refusal),
    /// The text so far.
    Show,
}

/// How the text ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// The answer is complete.
    Done,
    /// The answer ends with this refusal.
    Error(Refusal),
}

/// The answer after the object has restarted. One that was being written is lost; one that was complete had been saved.
pub(super) fn after_restart(answer: Answer) -> Answer {
    match answer {
        Answer::Writing => Answer::Broken(ModelError::CutOff),
        whole_or_broken => whole_or_broken,
    }
}

/// A wait that is four times longer each time, up to `max`. The jitter takes off up to half of it, so that runs that
/// failed at the same time do not try again at the same time.
pub(super) fn back_off(base: Millis, times: u8, max: Millis, moment: Moment) -> Millis {
    let longest = base.saturating_mul(4u64.saturating_pow(u32::from(times))).min(max);
    let half = longest / 2;
    half.saturating_add(half.saturating_mul(u64::from(moment.jitter)) / u64::from(u16::MAX))
}

/// The effects, after the call of Claude is cancelled.
pub(super) fn cancelling_model_call(effects: Vec<Effect>) -> Vec<Effect> {
    [vec![Effect::CancelModelCall], effects].concat()
}
