//! Refusals: every reason to turn a request down, by name. A refusal is the caller's to know: it has a code, a message,
//! and says whether the same request may succeed later. `routes::problem` alone gives it an HTTP status. A fault of our
//! own is no refusal: it is logged, and the caller gets [`Refusal::Internal`].
//!
//! The variants stand roughly in the order of a request's checks; which one a request gets is decided where it is checked.

pub use contract::ContractError;
pub use model::ModelError;
use serde::{Deserialize, Serialize};

pub mod body;
mod contract;
mod model;

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Detail {
    /// Its path; `body` for the whole.
    pub field: String,
    pub expected: String,
    /// A kind and a size, never the value itself.
    pub received: String,
}

impl Detail {
    fn new(field: &str, expected: &str, received: &str) -> Self {
        Self { field: field.to_owned(), expected: expected.to_owned(), received: received.to_owned() }
    }
}

/// What can be wrong with an input.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InputError {
    /// The body is not JSON.
    NotJson,
    /// The body is JSON, but not an object.
    NotAnObject,
    /// The template does not declare such a parameter.
    UnknownParameter,
    NotAString,
    /// A required parameter is absent or empty.
    MissingParameter,
    TooLong,
    /// `user_message` was sent, and the template takes none.
    UserMessageNotAllowed,
    /// Anything else that is wrong with the form of a body.
    Malformed,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Refusal {
    /// There is no such route, template, creator or run, or this caller may not know of it.
    NotFound,
    /// The route exists, with the methods of the `Allow` header.
    MethodNotAllowed { allow: String },
    /// The caller's address has sent too many requests without a valid payment.
    RateLimited,
    /// The operator has paused new runs.
    Paused,
    /// The body is larger than `limit` bytes.
    BodyTooLarge { limit: usize },
    /// `X-Contract-ID` is missing, or has not the form of a contract's id.
    ContractIdMissing,
    /// The contract is not accepted.
    Contract(ContractError, Detail),
    /// The input is wrong.
    Input(InputError, Detail),
    /// The route needs a token, and none came.
    TokenMissing,
    /// The token is not accepted. The reason is not told: it would help only a forger.
    TokenInvalid,
    /// The token is valid, and its bearer is not the owner.
    NotOwner,
    /// The link to a file was changed, or has expired.
    LinkInvalid,
    /// A stored file is not the one that its link names.
    FileDamaged,
    /// The creator has stored no key to sign contracts with.
    SigningKeyMissing,
    /// The creator has stored no Claude key.
    KeyMissing,
    /// The creator has switched the key off.
    KeyDisabled,
    /// The template's model is retired, or not in the operator's config.
    ModelUnavailable,
    /// The creator has no wallet on any configured network, or the price has no exact amount there.
    NotForSale,
    /// Some input could make the template's prompt longer than one may be.
    TemplateTooLong,
    /// The request has to be paid for.
    PaymentRequired,
    /// The payment header cannot be read; `what` says which part of it.
    PaymentMalformed { what: String },
    /// The payment differs from our terms in this field.
    PaymentMismatch { field: String },
    /// The payment has expired, or will before it can be settled.
    PaymentExpired,
    /// The payment is not valid yet.
    PaymentNotYetValid,
    /// An identifier of the payment has not the form that it must have.
    IdentifierInvalid,
    /// The operator requires an identifier with every payment.
    IdentifierMissing,
    /// The identifier belongs to a run of another request.
    IdentifierReused,
    /// The payer is not the contract's seeker.
    SeekerMismatch,
    /// The contract has been executed, or is being executed, with another input.
    ContractInputDiffers,
    /// The contract allows no other execution.
    RetriesExhausted,
    /// The wallet has too many runs that are not settled, or that came to nothing within a day. `Retry-After` is in
    /// seconds.
    TooManyUnpaidRuns { retry_after: u32 },
    /// The owner has had as many free tests within a day as the operator allows.
    TooManyOwnerTests { retry_after: u32 },
    /// The contract has ended, and its result is not kept any more.
    ContractEnded,
    /// The payment has been used with another request, or by someone else.
    PaymentReused,
    /// The facilitator says that the payment is not valid; `reason` is its code.
    PaymentInvalid { reason: Option<String> },
    /// No facilitator gave a usable answer to `verify`, or none took the `settle`. The payment is untouched.
    FacilitatorUnavailable,
    /// Claude gave no answer, or no whole one.
    Claude(ModelError),
    /// The facilitator did not settle. Nothing was charged, nothing is delivered; `reason` is its code.
    SettlementRejected { reason: Option<String> },
    /// Whether the payment was settled is not known, at least not yet. Never a 402: the payer would sign again.
    SettlementUnknown,
    /// The run was paid for and broke off. The same payment gets it again.
    Interrupted,
    /// The run was paid for and could not be finished.
    Refundable,
    /// The creator's key has not the form of an Anthropic key, or Anthropic does not accept it.
    ApiKeyRejected,
    /// A fault of ours. It is logged with its details, and the caller gets none of them.
    Internal,
}

/// Whether the same request can succeed later.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Retry {
    /// Not unless the request changes.
    Never,
    /// After some seconds, which are the value of `Retry-After`.
    After(u32),
}

impl Refusal {
    /// A refusal for one field of the input.
    pub fn input(error: InputError, field: &str, expected: &str, received: &str) -> Self {
        Self::Input(error, Detail::new(field, expected, received))
    }

    /// A refusal for one member of a contract.
    pub fn contract(error: ContractError, field: &str, expected: &str, received: &str) -> Self {
        Self::Contract(error, Detail::new(field, expected, received))
    }

    /// The stable name that programs match on.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed { .. } => "METHOD_NOT_ALLOWED",
            Self::RateLimited => "RATE_LIMITED",
            Self::Paused => "PAUSED",
            Self::BodyTooLarge { .. } => "BODY_TOO_LARGE",
            Self::ContractIdMissing => "CONTRACT_ID_MISSING",
            Self::Contract(error, _) => error.code(),
            Self::Input(InputError::NotJson, _) => "INVALID_JSON",
            Self::Input(InputError::NotAnObject | InputError::Malformed, _) => "INVALID_INPUT",
            Self::Input(InputError::UnknownParameter, _) => "UNKNOWN_PARAMETER",
            Self::Input(InputError::NotAString, _) => "INVALID_TYPE",
            Self::Input(InputError::MissingParameter, _) => "MISSING_PARAMETER",
            Self::Input(InputError::TooLong, _) => "VALUE_TOO_LONG",
            Self::Input(InputError::UserMessageNotAllowed, _) => "USER_MESSAGE_NOT_ALLOWED",
            Self::TokenMissing => "TOKEN_MISSING",
            Self::TokenInvalid => "TOKEN_INVALID",
            Self::NotOwner => "NOT_OWNER",
            Self::LinkInvalid => "LINK_INVALID",
            Self::FileDamaged => "FILE_DAMAGED",
            Self::SigningKeyMissing => "SIGNING_KEY_MISSING",
            Self::KeyMissing => "CREATOR_KEY_MISSING",
            Self::KeyDisabled => "CREATOR_KEY_DISABLED",
            Self::ModelUnavailable => "MODEL_UNAVAILABLE",
            Self::NotForSale => "NOT_FOR_SALE",
            Self::TemplateTooLong => "TEMPLATE_TOO_LONG",
            Self::PaymentRequired => "PAYMENT_REQUIRED",
            Self::PaymentMalformed { .. } => "PAYMENT_MALFORMED",
            Self::PaymentMismatch { .. } => "PAYMENT_MISMATCH",
            Self::PaymentExpired => "PAYMENT_EXPIRED",
            Self::PaymentNotYetValid => "PAYMENT_NOT_YET_VALID",
            Self::IdentifierInvalid => "IDENTIFIER_INVALID",
            Self::IdentifierMissing => "IDENTIFIER_MISSING",
            Self::IdentifierReused => "IDENTIFIER_REUSED",
            Self::SeekerMismatch => "SEEKER_MISMATCH",
            Self::ContractInputDiffers => "CONTRACT_INPUT_DIFFERS",
            Self::RetriesExhausted => "RETRIES_EXHAUSTED",
            Self::TooManyUnpaidRuns { .. } => "TOO_MANY_UNPAID_RUNS",
            Self::TooManyOwnerTests { .. } => "TOO_MANY_OWNER_TESTS",
            Self::ContractEnded => "CONTRACT_ENDED",
            Self::PaymentReused => "PAYMENT_REUSED",
            Self::PaymentInvalid { .. } => "PAYMENT_INVALID",
            Self::FacilitatorUnavailable => "FACILITATOR_UNAVAILABLE",
            Self::Claude(error) => error.code(),
            Self::SettlementRejected { .. } => "SETTLEMENT_REJECTED",
            Self::SettlementUnknown => "SETTLEMENT_UNKNOWN",
            Self::Interrupted => "RUN_INTERRUPTED",
            Self::Refundable => "RUN_REFUNDABLE",
            Self::ApiKeyRejected => "API_KEY_REJECTED",
            Self::Internal => "INTERNAL",
        }
    }

    /// One or two sentences for people.
    pub fn message(&self) -> String {
        match self {
            Self::NotFound => "There is nothing here.".to_owned(),
            Self::MethodNotAllowed { allow } => format!("Use one of: {allow}."),
            Self::RateLimited => {
                "Too many requests from your address had no valid payment. Try again in a few seconds.".to_owned()
            }
            Self::Paused => "New runs are paused by the operator. Nothing was charged.".to_owned(),
            Self::BodyTooLarge { limit } => format!("The body is larger than {limit} bytes."),
            Self::ContractIdMissing => "Send the signed contract's id: X-Contract-ID: ctr_….".to_owned(),
            Self::Contract(error, detail) => error.message(detail),
            Self::Input(error, detail) => input_message(*error, detail),
            Self::TokenMissing => "Send a token: Authorization: Bearer <JWT>.".to_owned(),
            Self::TokenInvalid => "The token is not valid.".to_owned(),
            Self::NotOwner => "Only the template's owner may do this.".to_owned(),
            Self::LinkInvalid => "This link was changed, or its time is up. Ask for the task again.".to_owned(),
            Self::FileDamaged => "The stored file is not the one that was delivered. It is not handed out.".to_owned(),
            Self::SigningKeyMissing => "The creator signs no contracts at the moment.".to_owned(),
            Self::KeyMissing => "There is no usable Claude key for this template. Nothing was charged.".to_owned(),
            Self::KeyDisabled => "The creator has switched this off for now. Nothing was charged.".to_owned(),
            Self::ModelUnavailable => {
                "The model behind this template is not available any more. Nothing was charged.".to_owned()
            }
            Self::NotForSale => "The creator takes no payments on any network offered here.".to_owned(),
            Self::TemplateTooLong => {
                "The template's prompt could become too long; its creator has to give parameters a maxLength.".to_owned()
            }
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
                "This identifier belongs to a run of another request: see `run`, or use another identifier. This \
                 request was not run, and this payment is untouched."
                    .to_owned()
            }
            Self::SeekerMismatch => "The payment is not of the contract's seeker. Nothing was charged.".to_owned(),
            Self::ContractInputDiffers => {
                "This contract is executed with another input already. One contract is one task.".to_owned()
            }
            Self::RetriesExhausted => "The contract's retry_policy allows no other execution.".to_owned(),
            Self::TooManyUnpaidRuns { .. } => {
                "Too many runs of this wallet are not settled yet, or came to nothing within a day. Nothing was charged; \
                 present the same payment again later."
                    .to_owned()
            }
            Self::TooManyOwnerTests { .. } => "You have used up your free tests for today.".to_owned(),
            Self::ContractEnded => {
                "This contract has come to its end (see its state). This request was not executed.".to_owned()
            }
            Self::PaymentReused => "This payment belongs to another request.".to_owned(),
            Self::PaymentInvalid { .. } => "The facilitator does not accept this payment.".to_owned(),
            Self::FacilitatorUnavailable => {
                "The payment cannot be verified at the moment. Nothing was charged; present the same payment again."
                    .to_owned()
            }
            Self::Claude(error) => error.message().to_owned(),
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

    /// The message, with what a payer has to know of the money.
    pub fn message_when(&self, charged: bool) -> String {
        let message = self.message();
        match (self, charged) {
            (Self::Claude(ModelError::Declined), true) => format!("{message} The run is marked for refund."),
            (Self::Claude(_), false) => format!("{message} Nothing was charged."),
            (Self::Claude(_), true) => {
                format!("{message} The run is paid: present the same payment again, and do not sign another.")
            }
            _ => message,
        }
    }

    /// Whether a caller can be told that they were charged, or were not. Where the settlement is in doubt or belongs to
    /// another run, they can be told neither.
    pub const fn knows_charge(&self) -> bool {
        !matches!(self, Self::SettlementUnknown | Self::PaymentReused | Self::IdentifierReused | Self::Internal)
    }

    /// Whether it says nothing about the work that was asked for: with another payment, or the same one later, the
    /// request may succeed.
    pub const fn is_about_payment(&self) -> bool {
        matches!(
            self,
            Self::PaymentInvalid { .. }
                | Self::PaymentReused
                | Self::FacilitatorUnavailable
                | Self::SettlementRejected { .. }
                | Self::Internal
        )
    }

    /// What is wrong with the field, where the refusal is about one field.
    pub fn detail(&self) -> Option<Detail> {
        match self {
            Self::Input(_, detail) | Self::Contract(_, detail) => Some(detail.clone()),
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
            Self::Claude(error) => error.retry(),
            Self::RateLimited => Retry::After(10),
            Self::Paused | Self::Contract(ContractError::TooMany, _) => Retry::After(60),
            Self::FacilitatorUnavailable | Self::SettlementUnknown => Retry::After(5),
            Self::PaymentNotYetValid | Self::Interrupted => Retry::After(1),
            Self::KeyMissing | Self::KeyDisabled | Self::SigningKeyMissing => Retry::After(600),
            Self::TooManyUnpaidRuns { retry_after } | Self::TooManyOwnerTests { retry_after } => {
                Retry::After(*retry_after)
            }
            Self::NotFound
            | Self::MethodNotAllowed { .. }
            | Self::BodyTooLarge { .. }
            | Self::ContractIdMissing
            | Self::Contract(..)
            | Self::Input(..)
            | Self::LinkInvalid
            | Self::FileDamaged
            | Self::SeekerMismatch
            | Self::ContractInputDiffers
            | Self::RetriesExhausted
            | Self::ContractEnded
            | Self::TokenMissing
            | Self::TokenInvalid
            | Self::NotOwner
            | Self::ModelUnavailable
            | Self::NotForSale
            | Self::TemplateTooLong
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

    /// The code for x402's `error` or `errorReason`: the specification's where one fits, else our own.
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

fn input_message(error: InputError, detail: &Detail) -> String {
    let Detail { field, expected, received } = detail;
    match error {
        InputError::NotJson => "The body is not valid JSON.".to_owned(),
        InputError::NotAnObject => "The body must be a JSON object.".to_owned(),
        InputError::UnknownParameter => format!("The template has no parameter `{field}`."),
        InputError::MissingParameter => format!("The parameter `{field}` is required."),
        InputError::UserMessageNotAllowed => "This template takes no user message.".to_owned(),
        InputError::NotAString | InputError::TooLong | InputError::Malformed => {
            format!("`{field}` must be {expected}, and was {received}.")
        }
    }
}
