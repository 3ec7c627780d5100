//! What keeps a run from a whole answer, once Claude is asked.

use super::Retry;
use serde::{Deserialize, Serialize};

/// Why Claude gave no (whole) answer. The upstream's own text is never part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ModelError {
    /// 401: the creator's key is not valid.
    KeyInvalid,
    /// 403: the creator's key may not use this model or feature.
    Permission,
    /// 402, or a spend limit: the creator's account cannot pay Anthropic.
    Billing,
    /// 404: the model does not exist any more.
    ModelRetired,
    /// 400 or 413: prompt and input together are too long for the model.
    TooLong,
    /// 400 for any other reason: the template cannot be run as it stands.
    Rejected,
    /// 429, with the seconds to wait where Anthropic said.
    RateLimited {
        /// From `retry-after`.
        retry_after: Option<u32>,
    },
    /// 529.
    Overloaded,
    /// 500 and other upstream errors.
    Upstream,
    /// No connection.
    Unreachable,
    /// 504, or silence beyond our own limit.
    TimedOut,
    /// An `error` event after the answer had begun.
    Broken,
    /// The stream ended without `message_stop`.
    CutOff,
    /// `stop_reason: refusal`.
    Declined,
    /// Not Claude's: nobody was there any more who had paid or wanted to, and Claude was stopped.
    CallerGone,
    /// The answer was not there when the contract wanted it.
    DeadlineMissed,
    /// The answer is not what the contract asks for: it does not satisfy `output_schema`, or is empty.
    OutputMismatch {
        /// Claude is to be shown what is wrong, once.
        repair: bool,
    },
    /// Claude stopped at its limit, and the contract takes no part of an answer.
    Truncated,
    /// The answer is there, and its file could not be stored.
    NotStored,
}

impl ModelError {
    /// The stable name that programs match on.
    pub const fn code(self) -> &'static str {
        match self {
            Self::KeyInvalid => "CLAUDE_KEY_INVALID",
            Self::Permission => "CLAUDE_PERMISSION_DENIED",
            Self::Billing => "CLAUDE_BILLING",
            Self::ModelRetired => "CLAUDE_MODEL_RETIRED",
            Self::TooLong => "CLAUDE_INPUT_TOO_LONG",
            Self::Rejected => "CLAUDE_REQUEST_REJECTED",
            Self::RateLimited { .. } => "CLAUDE_RATE_LIMITED",
            Self::Overloaded => "CLAUDE_OVERLOADED",
            Self::Upstream => "CLAUDE_ERROR",
            Self::Unreachable => "CLAUDE_UNREACHABLE",
            Self::TimedOut => "CLAUDE_TIMEOUT",
            Self::Broken => "CLAUDE_STREAM_ERROR",
            Self::CutOff => "CLAUDE_CUT_OFF",
            Self::Declined => "CLAUDE_REFUSED",
            Self::CallerGone => "CALLER_GONE",
            Self::DeadlineMissed => "DEADLINE_MISSED",
            Self::OutputMismatch { .. } => "OUTPUT_SCHEMA_MISMATCH",
            Self::Truncated => "OUTPUT_TRUNCATED",
            Self::NotStored => "FILE_STORE_UNAVAILABLE",
        }
    }

    /// A sentence or two for a person.
    pub const fn message(self) -> &'static str {
        match self {
            Self::KeyInvalid => "The creator's Claude key is not valid. The creator has to renew it.",
            Self::Permission => "The creator's Claude key may not use this model.",
            Self::Billing => "The creator's Claude account cannot be billed at the moment.",
            Self::ModelRetired => "The model behind this template is not available any more.",
            Self::TooLong => "The prompt and your input together are too long for the model. Shorten the input.",
            Self::Rejected => "Claude does not accept this template as it stands. The creator has to correct it.",
            Self::RateLimited { .. } => "The creator's Claude key has reached its rate limit. Try again later.",
            Self::Overloaded => "Claude is overloaded. Try again in a moment.",
            Self::Upstream => "Claude had an internal error. Try again in a moment.",
            Self::Unreachable => "Claude cannot be reached. Try again in a moment.",
            Self::TimedOut => "Claude did not answer in time. Try again in a moment.",
            Self::Broken => "Claude reported an error in the middle of its answer.",
            Self::CutOff => "Claude's answer broke off before its end.",
            Self::Declined => "Claude declined to answer this input.",
            Self::CallerGone => "The caller had gone before anything was paid.",
            Self::DeadlineMissed => "The result was not there in the time that the contract allows.",
            Self::OutputMismatch { .. } => "Claude's answer is not the result that the contract asks for.",
            Self::Truncated => "Claude's answer was longer than its limit, and the contract takes no part of it.",
            Self::NotStored => "The result could not be stored as a file. Try again in a moment.",
        }
    }

    /// See [`Retry`].
    pub const fn retry(self) -> Retry {
        match self {
            Self::KeyInvalid | Self::Permission | Self::Billing | Self::ModelRetired => Retry::Never,
            Self::TooLong | Self::Rejected | Self::Declined | Self::Truncated => Retry::Never,
            // Without `retry-after` a 429 is a spend cap: waiting does not help soon.
            Self::RateLimited { retry_after: None } => Retry::After(3600),
            Self::RateLimited { retry_after: Some(s) } => Retry::After(s),
            Self::Overloaded => Retry::After(15),
            Self::Upstream | Self::Unreachable | Self::TimedOut | Self::NotStored => Retry::After(5),
            Self::Broken | Self::CutOff | Self::CallerGone => Retry::After(1),
            // Once the contract's own deadline is over nothing helps; `rules::task` knows.
            Self::DeadlineMissed => Retry::Never,
            Self::OutputMismatch { .. } => Retry::After(1),
        }
    }

    /// How long to wait before asking again, where a fault of this kind passes by itself: `wait`
    /// milliseconds, or longer where Anthropic asks for that. `None`: asking again soon is no use.
    pub fn passes_in(self, wait: u64) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after: Some(seconds) } => Some(wait.max(u64::from(seconds).saturating_mul(1000))),
            Self::Overloaded | Self::Upstream | Self::Unreachable | Self::Broken | Self::CutOff => Some(wait),
            Self::NotStored => Some(wait),
            Self::OutputMismatch { repair } => repair.then_some(0),
            Self::KeyInvalid | Self::Permission | Self::Billing | Self::ModelRetired => None,
            Self::TooLong | Self::Rejected | Self::Declined | Self::CallerGone => None,
            Self::DeadlineMissed | Self::Truncated => None,
            // Without `retry-after` it is a spend cap. And who has waited for a time-out has waited enough.
            Self::RateLimited { retry_after: None } | Self::TimedOut => None,
        }
    }
}
