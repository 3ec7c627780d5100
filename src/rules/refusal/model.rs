//! Why a run that Claude was asked for has no whole answer.

use super::Retry;
use serde::{Deserialize, Serialize};

/// Why there is no whole answer. Anthropic's own text is never part of it.
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
    /// 429, with the seconds of `retry-after` where Anthropic sent them.
    RateLimited { retry_after: Option<u32> },
    /// 529: Claude has no capacity.
    Overloaded,
    /// 500, and any error that has no variant of its own.
    Upstream,
    /// There was no connection to Anthropic.
    Unreachable,
    /// 504, or nothing came within our own limit.
    TimedOut,
    /// The payment's window was over before the answer could be settled.
    WindowOver,
    /// An `error` event after the answer had begun.
    Broken,
    /// The stream ended without `message_stop`, or Claude stopped before it had finished.
    CutOff,
    /// The answer ended, and holds nothing for the caller.
    Empty,
    /// Claude's `stop_reason` was `refusal`.
    Declined,
    /// Every caller had disconnected before anything was paid, and the call was cancelled.
    CallerGone,
    /// The answer did not come within the contract's time.
    DeadlineMissed,
    /// The answer is not what the contract asks for: it does not satisfy `output_schema`, or is empty.
    OutputMismatch {
        /// Claude is shown what is wrong and answers again, once.
        repair: bool,
    },
    /// The answer ended at the limit of tokens, and the contract does not take a part of one.
    Truncated,
    /// The answer is whole, and its file could not be stored.
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
            Self::WindowOver => "PAYMENT_WINDOW_OVER",
            Self::Broken => "CLAUDE_STREAM_ERROR",
            Self::CutOff => "CLAUDE_CUT_OFF",
            Self::Empty => "CLAUDE_EMPTY_ANSWER",
            Self::Declined => "CLAUDE_REFUSED",
            Self::CallerGone => "CALLER_GONE",
            Self::DeadlineMissed => "DEADLINE_MISSED",
            Self::OutputMismatch { .. } => "OUTPUT_SCHEMA_MISMATCH",
            Self::Truncated => "OUTPUT_TRUNCATED",
            Self::NotStored => "FILE_STORE_UNAVAILABLE",
        }
    }

    /// One or two sentences for people.
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
            Self::WindowOver => {
                "The payment's time window was over before the answer was whole. Sign one with a longer window."
            }
            Self::Broken => "Claude reported an error in the middle of its answer.",
            Self::CutOff => "Claude's answer broke off before its end.",
            Self::Empty => "Claude's answer was empty. Try again in a moment.",
            Self::Declined => "Claude declined to answer this input.",
            Self::CallerGone => "The caller had gone before anything was paid.",
            Self::DeadlineMissed => "The result was not there in the time that the contract allows.",
            Self::OutputMismatch { .. } => "Claude's answer is not the result that the contract asks for.",
            Self::Truncated => "Claude's answer was longer than its limit, and the contract takes no part of it.",
            Self::NotStored => "The result could not be stored as a file. Try again in a moment.",
        }
    }

    /// Whether the same request can succeed later.
    pub const fn retry(self) -> Retry {
        match self {
            Self::KeyInvalid | Self::Permission | Self::Billing | Self::ModelRetired => Retry::Never,
            Self::TooLong | Self::Rejected | Self::Declined | Self::Truncated | Self::WindowOver => Retry::Never,
            // Without `retry-after` a 429 is a spend cap: waiting does not help soon.
            Self::RateLimited { retry_after: None } => Retry::After(3600),
            Self::RateLimited { retry_after: Some(s) } => Retry::After(s),
            Self::Overloaded => Retry::After(15),
            Self::Upstream | Self::Unreachable | Self::TimedOut | Self::NotStored => Retry::After(5),
            Self::Broken | Self::CutOff | Self::Empty | Self::CallerGone => Retry::After(1),
            // Another execution may be in time, unless the contract's deadline is over: `rules::hire::task` decides.
            Self::DeadlineMissed => Retry::Never,
            Self::OutputMismatch { .. } => Retry::After(1),
        }
    }

    /// Whether Claude or the way to it has failed, and neither the caller nor the template.
    pub const fn is_claudes(self) -> bool {
        match self {
            Self::RateLimited { .. } | Self::Overloaded | Self::Upstream | Self::Unreachable | Self::TimedOut => true,
            Self::Broken | Self::CutOff => true,
            Self::KeyInvalid | Self::Permission | Self::Billing | Self::ModelRetired => true,
            Self::TooLong | Self::Rejected | Self::Empty | Self::Declined | Self::Truncated => false,
            Self::WindowOver | Self::CallerGone | Self::DeadlineMissed => false,
            Self::OutputMismatch { .. } | Self::NotStored => false,
        }
    }

    /// How long to wait before Claude is asked again, in milliseconds: `wait`, or longer where Anthropic asks for that.
    /// `None`: asking again soon does not help.
    pub fn passes_in(self, wait: u64) -> Option<u64> {
        match self {
            Self::RateLimited { retry_after: Some(seconds) } => Some(wait.max(u64::from(seconds).saturating_mul(1000))),
            Self::Overloaded | Self::Upstream | Self::Unreachable | Self::Broken | Self::CutOff => Some(wait),
            Self::NotStored | Self::Empty => Some(wait),
            Self::OutputMismatch { repair } => repair.then_some(0),
            Self::KeyInvalid | Self::Permission | Self::Billing | Self::ModelRetired => None,
            Self::TooLong | Self::Rejected | Self::Declined | Self::CallerGone => None,
            Self::DeadlineMissed | Self::Truncated | Self::WindowOver => None,
            // Without `retry-after` it is a spend cap. After a time-out the caller has waited long enough.
            Self::RateLimited { retry_after: None } | Self::TimedOut => None,
        }
    }
}
