//! The run machine's vocabulary: what it is told, what it wants done, what it says of itself.

use crate::rules::refusal::{ClaudeFault, Refusal};
use serde::{Deserialize, Serialize};

/// Unix milliseconds.
pub type Millis = u64;

/// An ended run, and what it holds, is kept this long.
pub const KEEP: Millis = 24 * 60 * 60 * 1000;
/// While a run is under way, its alarm joins it this often: it keeps the object alive without callers.
pub const HEARTBEAT: Millis = 20 * 1000;
/// How long a stream's settlement waits, after `message_start`, for the first text. An answer that breaks
/// off at once is not charged; one that is slow to speak is settled while it thinks.
pub const GRACE: Millis = 250;
/// How long a paid run waits before Claude is asked a third time; each time after that four times longer.
pub const BACK_OFF: Millis = 2_000;
/// The longest such wait.
pub const BACK_OFF_MOST: Millis = 30_000;
/// A payment that was never verified is forgotten after this: nothing is known of who presented it.
pub const KEEP_UNVERIFIED: Millis = 60 * 1000;
/// A ledger row that could not be written is tried again after this.
pub const RECORD_AGAIN: Millis = 30 * 1000;

/// When money moves.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Policy {
    /// Never: the owner tests.
    Free,
    /// When Claude has begun (streams).
    OnStart,
    /// When the whole answer is there (JSON).
    OnResult,
}

/// Proof that money moved.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Receipt {
    /// The settlement's transaction.
    pub transaction: String,
    /// CAIP-2.
    pub network: String,
    /// The same network in v1's words.
    pub network_v1: String,
    /// Who paid.
    pub payer: String,
}

/// What the world tells the machine.
#[derive(Clone, Debug, PartialEq, Eq)]
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
    Wrote,
    /// [`GRACE`] is over.
    Lingered,
    /// `message_stop`.
    Ended,
    /// Claude gave no (whole) answer.
    Broke {
        /// Why.
        fault: ClaudeFault,
        /// No text has come in this edition of the answer.
        silent: bool,
    },
    /// The money moved.
    Settled(Receipt),
    /// The facilitator says definitely that it did not.
    SettleRejected(Option<String>),
    /// No definite answer.
    SettleUnanswered,
    /// The driver did not ask: the answer had broken off before.
    SettleWithheld,
    /// The wait of [`Effect::BackOff`] is over.
    BackedOff,
    /// The ledger holds the row.
    Recorded,
    /// The object was loaded from its storage: whatever was under way is not any more.
    Restarted,
    /// The alarm rang.
    Woken,
}

/// What the machine wants done. In the order of a run's life.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Effect {
    /// Forget the text so far, and a wait of [`Effect::Linger`]: a new edition begins.
    Clear,
    /// Make the state and the text so far durable, before anything that follows.
    Save,
    /// Ask the facilitator to verify.
    Verify,
    /// Ask Claude.
    Ask,
    /// Come back with [`Event::Lingered`] after [`GRACE`].
    Linger,
    /// Come back with [`Event::BackedOff`] after [`Run::back_off`].
    BackOff,
    /// Ask the facilitator to settle, unless the answer has broken off.
    Settle,
    /// Stop Claude.
    Hush,
    /// Write the ledger's row.
    Record,
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
