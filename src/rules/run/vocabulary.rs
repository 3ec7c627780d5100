//! The run machine's vocabulary: what it is told, what it wants done, what it says of itself.

use super::Answer;
use crate::rules::refusal::{ModelError, Refusal};
use serde::{Deserialize, Serialize};

/// Unix milliseconds.
pub type Millis = u64;

/// An ended run, and what it holds, is kept this long.
pub const RETENTION: Millis = 24 * 60 * 60 * 1000;
/// A run whose settlement is in doubt, or whose refund nobody took the report of, is kept this long.
pub const RETENTION_IN_DOUBT: Millis = 7 * RETENTION;
/// While a run is under way, its alarm joins it this often: it keeps the object alive without callers.
pub const HEARTBEAT: Millis = 20 * 1000;
/// How long a stream's settlement waits, after `message_start`, for the first text. An answer that breaks
/// off at once is not charged; one that is slow to speak is settled while it thinks.
pub const GRACE: Millis = 250;
/// How long a run waits before Claude is asked again, once paid (the first time it is asked at once), and
/// before evidence of a settlement is looked for. Each time after that four times longer.
pub const BACK_OFF: Millis = 2_000;
/// The longest a paid run waits for Claude.
pub const BACK_OFF_MAX: Millis = 30_000;
/// The longest a paid run rests before Claude is asked again, where Claude asks for it.
pub const INTERRUPTED_MAX: Millis = 60 * 60 * 1000;
/// How long a run that is not paid waits before Claude is asked again: a caller is there, and waits too.
pub const START_BACK_OFF: Millis = 500;
/// The longest such wait. Where Claude asks for a longer one, the caller is told instead.
pub const START_BACK_OFF_MAX: Millis = 8_000;
/// The longest wait between two looks for evidence, while the payment can still be settled.
pub const RECONCILE_WAIT_MAX: Millis = 60 * 1000;
/// How long after a payment's end the chain may still tell of it.
pub const EVIDENCE_LAG: Millis = 120 * 1000;
/// The wait between two looks after that.
pub const RECONCILE_WAIT_LATE: Millis = 60 * 60 * 1000;
/// A refund that nobody took the report of is reported again after this; each time four times longer.
pub const REPORT_AGAIN: Millis = 30 * 1000;
/// The longest such wait.
pub const REPORT_AGAIN_MAX: Millis = 2 * 60 * 60 * 1000;
/// A payment that was never verified is forgotten after this: nothing is known of who presented it.
pub const RETENTION_UNVERIFIED: Millis = 60 * 1000;
/// A ledger row that could not be written is tried again after this.
pub const RECORD_AGAIN: Millis = 30 * 1000;

/// What the clock and the jitter say as something happens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Moment {
    /// The time.
    pub now: Millis,
    /// Any number, drawn anew each time: it spreads waits.
    pub jitter: u16,
}

/// What is agreed when a run is presented, and stays so.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Terms {
    /// When money moves.
    pub policy: Policy,
    /// When text is shown.
    pub release: Release,
    /// Claude calls allowed before the run is paid.
    pub start_attempts: u8,
    /// Claude calls allowed once it is paid.
    pub paid_attempts: u8,
    /// When the payment can be settled no more.
    pub valid_until: Millis,
    /// It goes on without callers (a contract's): nobody leaves it.
    #[serde(default)]
    pub detached: bool,
    /// From then on its result is worth nothing.
    #[serde(default)]
    pub due_by: Option<Millis>,
    /// Until then it is known that it came to nothing.
    #[serde(default)]
    pub kept_until: Option<Millis>,
}

impl Terms {
    /// Of a run that nobody pays for.
    pub const fn free() -> Self {
        Self {
            policy: Policy::Free,
            release: Release::Settled,
            start_attempts: 1,
            paid_attempts: 0,
            valid_until: 0,
            detached: false,
            due_by: None,
            kept_until: None,
        }
    }
}

/// When the text of a stream is shown.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Release {
    /// When its payment is settled.
    #[default]
    Settled,
    /// As soon as its payment is verified, and Claude writes: the creator bears the risk.
    Verified,
}

/// When money moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Policy {
    /// Never: the owner tests.
    Free,
    /// When Claude has begun (streams).
    OnStart,
    /// When the whole answer is there (JSON).
    OnResult,
}

/// Proof that money moved.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Receipt {
    /// The settlement's transaction. Empty where it is known to have happened, but not in which one.
    pub transaction: String,
    /// CAIP-2.
    pub network: String,
    /// The same network in v1's words.
    pub network_v1: String,
    /// Who paid.
    pub payer: String,
}

/// What was found out about a settlement whose answer was lost.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Evidence {
    /// The chain shows the transfer.
    Paid(Receipt),
    /// The authorization is spent; how, nobody says.
    Spent(Receipt),
    /// It is not spent, and can still be.
    Unspent,
    /// It was not spent on this and cannot be any more: with x402's code for why.
    Never(Option<String>),
    /// Nobody could be asked, or had anything to say.
    Nothing,
}

/// What the world tells the machine.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Event {
    /// A caller presents the payment, for the first time or again.
    Presented,
    /// The facilitator says the payment is good.
    Verified,
    /// It says the payment is not good, or says nothing usable.
    VerifyRefused(Refusal),
    /// `message_start`.
    Began,
    /// The first text of this edition.
    FirstText,
    /// [`GRACE`] is over.
    GraceElapsed,
    /// `message_stop`.
    Ended,
    /// Claude gave no (whole) answer.
    Broke {
        /// Why.
        error: ModelError,
        /// No text has come in this edition of the answer.
        no_text: bool,
    },
    /// The money moved.
    Settled(Receipt),
    /// The facilitator says definitely that it did not.
    SettleRejected(Option<String>),
    /// No answer, or none that can be read.
    SettleUnanswered,
    /// Nobody was asked, or whoever was did not take the request.
    SettleNotSent,
    /// An answer that is neither a yes nor a definite no: what was submitted has failed, or may still.
    SettleFailed,
    /// The facilitator says that the authorization is spent already.
    SettleSpent,
    /// The driver did not ask: the answer had broken off before.
    SettleWithheld,
    /// The wait of [`Effect::BackOff`] is over.
    BackOffElapsed,
    /// The last caller who waited for the run or followed it has gone.
    Abandoned,
    /// [`Terms::due_by`] has passed.
    DeadlineMissed,
    /// The answer to [`Effect::Reconcile`].
    Reconciled(Evidence),
    /// The facilitator has taken the report of a refund.
    Reported,
    /// The ledger holds the row.
    LedgerRowWritten,
    /// The object was loaded from its storage: whatever was under way is not any more.
    Restarted,
    /// The alarm rang.
    AlarmFired,
}

/// What the machine wants done. In the order of a run's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Forget the text so far, and a wait of [`Effect::StartGrace`]: a new edition begins.
    Clear,
    /// Make the state and the text so far durable, before anything that follows.
    Save,
    /// CallModel the facilitator to verify.
    Verify,
    /// CallModel Claude.
    CallModel,
    /// Come back with [`Event::GraceElapsed`] after [`GRACE`].
    StartGrace,
    /// Come back with [`Event::BackOffElapsed`] after [`Run::back_off`].
    BackOff,
    /// CallModel the facilitator to settle, unless the answer has broken off.
    Settle,
    /// Reconcile for evidence of a settlement whose answer was lost.
    Reconcile,
    /// Stop Claude.
    CancelModelCall,
    /// Report a refund. Without an answer it is asked for again.
    Report,
    /// Write the ledger's row.
    WriteLedgerRow,
}

/// What a caller who holds this run's payment is told now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum View {
    /// Nothing yet: wait.
    Wait,
    /// This refusal, and no text.
    Refuse(Refusal),
    /// The text, as far as it has come.
    Show,
}

/// How the text ends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Ending {
    /// Whole.
    Done,
    /// With this refusal.
    Error(Refusal),
}

/// What was being written when the object died is lost; what was whole had been saved.
pub(super) fn after_restart(answer: Answer) -> Answer {
    match answer {
        Answer::Writing => Answer::Broken(ModelError::CutOff),
        whole_or_broken => whole_or_broken,
    }
}

/// Four times longer each time, up to `most`, of which the jitter may take off half: what failed together does
/// not come back together.
pub(super) fn back_off(base: Millis, times: u8, most: Millis, moment: Moment) -> Millis {
    let longest = base.saturating_mul(4u64.saturating_pow(u32::from(times))).min(most);
    let half = longest / 2;
    half.saturating_add(half.saturating_mul(u64::from(moment.jitter)) / u64::from(u16::MAX))
}

/// Effects, with Claude stopped before them.
pub(super) fn cancelling_model_call(effects: Vec<Effect>) -> Vec<Effect> {
    [vec![Effect::CancelModelCall], effects].concat()
}
