//! Refusals: whatever coinslot says no to, by name. Theirs to know: each has a code, a friendly
//! text, and an answer to "may the same request succeed later?". Its HTTP status is given by
//! `routes::problem` alone. What is our own fault is no refusal: it is logged, and the caller sees
//! [`Refusal::Internal`].
//!
//! The order of the variants is their precedence: a request with several faults hears of the first.

use serde::{Deserialize, Serialize};

/// What was wrong with one field of the input.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Detail {
    /// Its name; `body` for the whole.
    pub field: String,
    /// What would have been accepted.
    pub expected: String,
    /// What came: a kind and a size, never the value itself.
    pub received: String,
}

/// The ways in which an input can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InputFault {
    /// The body is not JSON.
    NotJson,
    /// The body is JSON, but not an object.
    NotAnObject,
    /// A field that the template does not declare.
    UnknownParameter,
    /// A value that is not a string.
    NotAString,
    /// A required parameter is absent or empty.
    MissingParameter,
    /// A value is longer than allowed.
    TooLong,
    /// `user_message` where the template takes none.
    UserMessageNotAllowed,
    /// Any other form error of a body that is not a run's input.
    Malformed,
}

/// Why Claude gave no (whole) answer. The upstream's own text is never part of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ClaudeFault {
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
    /// The answer is not what the contract's `output_schema` asks for.
    OutputMismatch {
        /// Claude is to be shown what is wrong, once.
        repair: bool,
    },
    /// Claude stopped at its limit, and the contract takes no part of an answer.
    Truncated,
    /// The answer is there, and its file could not be stored.
    NotStored,
}

/// What coinslot says no to.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// No such route, template, creator or run; or not for this caller's eyes. All alike.
    NotFound,
    /// The route exists, with other methods.
    MethodNotAllowed {
        /// For the `Allow` header.
        allow: String,
    },
    /// The operator has paused new runs.
    Paused,
    /// The body is larger than the limit, in bytes.
    BodyTooLarge {
        /// The limit.
        limit: usize,
    },
    /// The input is wrong.
    Input(InputFault, Detail),
    /// No token where one is needed.
    TokenMissing,
    /// The token does not check out. Why is not said: it would help only a forger.
    TokenInvalid,
    /// The token is good, and its bearer is not the owner.
    NotOwner,
    /// The creator has stored no Claude key.
    KeyMissing,
    /// The creator has switched the key off.
    KeyDisabled,
    /// The template's model is retired or unknown to the operator's config.
    ModelUnavailable,
    /// The creator has no wallet on any configured network, or the price has no exact amount there.
    NotForSale,
    /// Payment is asked for.
    PaymentRequired,
    /// The payment header cannot be read.
    PaymentMalformed {
        /// Which part.
        what: String,
    },
    /// The payment is for other terms than ours.
    PaymentMismatch {
        /// The field that differs.
        field: String,
    },
    /// Too late, or too close to its end to be settled in time.
    PaymentExpired,
    /// Not valid yet.
    PaymentNotYetValid,
    /// An identifier of the payment is not of the form it must have.
    IdentifierInvalid,
    /// The operator wants an identifier with every payment.
    IdentifierMissing,
    /// The identifier belongs to another payment, or another request.
    IdentifierReused,
    /// The same payment has been used with another request, or by someone else.
    PaymentReused,
    /// The facilitator says the payment is not valid.
    PaymentInvalid {
        /// The facilitator's code.
        reason: Option<String>,
    },
    /// No usable answer from the facilitator while verifying: the payment is untouched.
    FacilitatorUnavailable,
    /// Claude gave no (whole) answer.
    Claude(ClaudeFault),
    /// The facilitator did not settle: nothing was charged, nothing is delivered.
    SettlementRejected {
        /// The facilitator's code.
        reason: Option<String>,
    },
    /// Whether the payment was settled is not known (yet). Never a 402: the payer would sign again.
    SettlementUnknown,
    /// The run was paid for and broke off; the same payment gets it again.
    Interrupted,
    /// The run was paid for and could not be finished.
    Refundable,
    /// The creator's key does not have the form of an Anthropic key, or Anthropic says it is invalid.
    ApiKeyRejected,
    /// Ours: logged with its details, told without.
    Internal,
}

/// Whether the same request can succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not unless the request changes.
    Never,
    /// Yes, after some seconds: the value of `Retry-After`.
    After(u32),
}

impl ClaudeFault {
    const fn code(self) -> &'static str {
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

    const fn message(self) -> &'static str {
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
            Self::DeadlineMissed => "The result was not there by the contract's deadline.",
            Self::OutputMismatch { .. } => "Claude's answer does not satisfy the contract's output schema.",
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
            Self::DeadlineMissed | Self::OutputMismatch { .. } => Retry::After(1),
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

impl Refusal {
    /// The stable name that programs match on.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed { .. } => "METHOD_NOT_ALLOWED",
            Self::Paused => "PAUSED",
            Self::BodyTooLarge { .. } => "BODY_TOO_LARGE",
            Self::Input(InputFault::NotJson, _) => "INVALID_JSON",
            Self::Input(InputFault::NotAnObject | InputFault::Malformed, _) => "INVALID_INPUT",
            Self::Input(InputFault::UnknownParameter, _) => "UNKNOWN_PARAMETER",
            Self::Input(InputFault::NotAString, _) => "INVALID_TYPE",
            Self::Input(InputFault::MissingParameter, _) => "MISSING_PARAMETER",
            Self::Input(InputFault::TooLong, _) => "VALUE_TOO_LONG",
            Self::Input(InputFault::UserMessageNotAllowed, _) => "USER_MESSAGE_NOT_ALLOWED",
            Self::TokenMissing => "TOKEN_MISSING",
            Self::TokenInvalid => "TOKEN_INVALID",
            Self::NotOwner => "NOT_OWNER",
            Self::KeyMissing => "CREATOR_KEY_MISSING",
            Self::KeyDisabled => "CREATOR_KEY_DISABLED",
            Self::ModelUnavailable => "MODEL_UNAVAILABLE",
            Self::NotForSale => "NOT_FOR_SALE",
            Self::PaymentRequired => "PAYMENT_REQUIRED",
            Self::PaymentMalformed { .. } => "PAYMENT_MALFORMED",
            Self::PaymentMismatch { .. } => "PAYMENT_MISMATCH",
            Self::PaymentExpired => "PAYMENT_EXPIRED",
            Self::PaymentNotYetValid => "PAYMENT_NOT_YET_VALID",
            Self::IdentifierInvalid => "IDENTIFIER_INVALID",
            Self::IdentifierMissing => "IDENTIFIER_MISSING",
            Self::IdentifierReused => "IDENTIFIER_REUSED",
            Self::PaymentReused => "PAYMENT_REUSED",
            Self::PaymentInvalid { .. } => "PAYMENT_INVALID",
            Self::FacilitatorUnavailable => "FACILITATOR_UNAVAILABLE",
            Self::Claude(fault) => fault.code(),
            Self::SettlementRejected { .. } => "SETTLEMENT_REJECTED",
            Self::SettlementUnknown => "SETTLEMENT_UNKNOWN",
            Self::Interrupted => "RUN_INTERRUPTED",
            Self::Refundable => "RUN_REFUNDABLE",
            Self::ApiKeyRejected => "API_KEY_REJECTED",
            Self::Internal => "INTERNAL",
        }
    }

    /// One or two sentences for a person.
    pub fn message(&self) -> String {
        match self {
            Self::NotFound => "There is nothing here.".to_owned(),
            Self::MethodNotAllowed { allow } => format!("Use one of: {allow}."),
            Self::Paused => "New runs are paused by the operator. Nothing was charged.".to_owned(),
            Self::BodyTooLarge { limit } => format!("The body is larger than {limit} bytes."),
            Self::Input(fault, detail) => input_message(*fault, detail),
            Self::TokenMissing => "Send a token: Authorization: Bearer <JWT>.".to_owned(),
            Self::TokenInvalid => "The token is not valid.".to_owned(),
            Self::NotOwner => "Only the template's owner may do this.".to_owned(),
            Self::KeyMissing => "There is no usable Claude key for this template. Nothing was charged.".to_owned(),
            Self::KeyDisabled => "The creator has switched this off for now. Nothing was charged.".to_owned(),
            Self::ModelUnavailable => {
                "The model behind this template is not available any more. Nothing was charged.".to_owned()
            }
            Self::NotForSale => "The creator takes no payments on any network offered here.".to_owned(),
            Self::PaymentRequired => {
                "Pay with x402: see the PAYMENT-REQUIRED header, or `accepts` in this body.".to_owned()
            }
            Self::PaymentMalformed { what } => format!("The payment cannot be read: {what}."),
            Self::PaymentMismatch { field } => {
                format!("The payment does not match the terms asked for: {field} differs.")
            }
            Self::PaymentExpired => "The payment's time window is over, or too short to finish in.".to_owned(),
            Self::PaymentNotYetValid => "The payment is not valid yet.".to_owned(),
            Self::IdentifierInvalid => {
                "A payment-identifier is 16 to 128 of A-Z, a-z, 0-9, _ and -; an Idempotency-Key at most 255 of ASCII."
                    .to_owned()
            }
            Self::IdentifierMissing => {
                "Send x402's payment-identifier with the payment, or an Idempotency-Key.".to_owned()
            }
            Self::IdentifierReused => {
                "This identifier belongs to another payment or another request: present that payment again, or use \
                 another identifier. This request was not run."
                    .to_owned()
            }
            Self::PaymentReused => "This payment belongs to another request.".to_owned(),
            Self::PaymentInvalid { .. } => "The facilitator does not accept this payment.".to_owned(),
            Self::FacilitatorUnavailable => {
                "The payment cannot be verified at the moment. Nothing was charged; present the same payment again."
                    .to_owned()
            }
            Self::Claude(fault) => fault.message().to_owned(),
            Self::SettlementRejected { .. } => {
                "The payment was not settled. Nothing was charged, and nothing is delivered.".to_owned()
            }
            Self::SettlementUnknown => {
                "Whether the payment was settled is not known yet. Do not sign another: present the same payment again."
                    .to_owned()
            }
            Self::Interrupted => {
                "The run broke off after it was paid. Present the same payment again: it will not be charged twice."
                    .to_owned()
            }
            Self::Refundable => "The run was paid for and could not be finished. It is marked for refund.".to_owned(),
            Self::ApiKeyRejected => "Anthropic does not accept this key. It was not stored.".to_owned(),
            Self::Internal => "Something went wrong on our side.".to_owned(),
        }
    }

    /// The message, with what a payer must know where money has moved.
    pub fn message_when(&self, charged: bool) -> String {
        let message = self.message();
        match (self, charged) {
            (Self::Claude(ClaudeFault::Declined), true) => format!("{message} The run is marked for refund."),
            (Self::Claude(_), false) => format!("{message} Nothing was charged."),
            (Self::Claude(_), true) => {
                format!("{message} The run is paid: present the same payment again, and do not sign another.")
            }
            _ => message,
        }
    }

    /// Whether a caller can be told that they were charged, or were not: where it is in doubt, or is another
    /// run's matter, neither is true.
    pub const fn knows_charge(&self) -> bool {
        !matches!(self, Self::SettlementUnknown | Self::PaymentReused | Self::IdentifierReused)
    }

    /// Field, expected, received, where the refusal is about one field.
    pub fn detail(&self) -> Option<Detail> {
        match self {
            Self::Input(_, detail) => Some(detail.clone()),
            Self::PaymentMismatch { field } => Some(Detail {
                field: field.clone(),
                expected: "the value in the terms".to_owned(),
                received: "another".to_owned(),
            }),
            _ => None,
        }
    }

    /// Whether the same request can succeed later.
    pub const fn retry(&self) -> Retry {
        match self {
            Self::Claude(fault) => fault.retry(),
            Self::Paused => Retry::After(60),
            Self::FacilitatorUnavailable | Self::SettlementUnknown => Retry::After(5),
            Self::PaymentNotYetValid | Self::Interrupted => Retry::After(1),
            Self::KeyMissing | Self::KeyDisabled => Retry::After(600),
            Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::BodyTooLarge { .. }
            | Self::Input(..)
            | Self::TokenMissing
            | Self::TokenInvalid
            | Self::NotOwner
            | Self::ModelUnavailable
            | Self::NotForSale
            | Self::PaymentRequired
            | Self::PaymentMalformed { .. }
            | Self::PaymentMismatch { .. }
            | Self::PaymentExpired
            | Self::IdentifierInvalid
            | Self::IdentifierMissing
            | Self::IdentifierReused
            | Self::PaymentReused
            | Self::PaymentInvalid { .. }
            | Self::SettlementRejected { .. }
            | Self::Refundable
            | Self::ApiKeyRejected
            | Self::Internal => Retry::Never,
        }
    }

    /// The code of the x402 specification that goes into `error` or `errorReason`, where one fits.
    pub fn x402_reason(&self) -> String {
        let known = match self {
            Self::PaymentInvalid { reason } | Self::SettlementRejected { reason } => reason.clone(),
            Self::PaymentMismatch { .. } => Some("invalid_payment_requirements".to_owned()),
            Self::PaymentExpired => Some("invalid_exact_evm_payload_authorization_valid_before".to_owned()),
            Self::PaymentNotYetValid => Some("invalid_exact_evm_payload_authorization_valid_after".to_owned()),
            _ => None,
        };
        known.unwrap_or_else(|| self.code().to_ascii_lowercase())
    }
}

fn input_message(fault: InputFault, detail: &Detail) -> String {
    let Detail { field, expected, received } = detail;
    match fault {
        InputFault::NotJson => "The body is not valid JSON.".to_owned(),
        InputFault::NotAnObject => "The body must be a JSON object.".to_owned(),
        InputFault::UnknownParameter => format!("The template has no parameter `{field}`."),
        InputFault::MissingParameter => format!("The parameter `{field}` is required."),
        InputFault::UserMessageNotAllowed => "This template takes no user message.".to_owned(),
        InputFault::NotAString | InputFault::TooLong | InputFault::Malformed => {
            format!("`{field}` must be {expected}, and was {received}.")
        }
    }
}
