//! Refusals: whatever coinslot says no to, by name. Theirs to know: each has a code, a friendly
//! text, and an answer to "may the same request succeed later?". Its HTTP status is given by
//! `routes::problem` alone. What is our own fault is no refusal: it is logged, and the caller sees
//! [`Refusal::Internal`].
//!
//! The order of the variants is their precedence: a request with several faults hears of the first.

pub use contract::ContractError;
pub use model::ModelError;
use serde::{Deserialize, Serialize};

pub mod body;
mod contract;
mod model;

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

impl Detail {
    fn new(field: &str, expected: &str, received: &str) -> Self {
        Self { field: field.to_owned(), expected: expected.to_owned(), received: received.to_owned() }
    }
}

/// The ways in which an input can be wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum InputError {
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
    /// No `X-Contract-ID`, or none of a contract's form.
    ContractIdMissing,
    /// The contract is not taken.
    Contract(ContractError, Detail),
    /// The input is wrong.
    Input(InputError, Detail),
    /// No token where one is needed.
    TokenMissing,
    /// The token does not check out. Why is not said: it would help only a forger.
    TokenInvalid,
    /// The token is good, and its bearer is not the owner.
    NotOwner,
    /// A file's link was changed, or its time is up.
    LinkInvalid,
    /// A stored file is not what its link says.
    FileDamaged,
    /// The creator has stored no key to sign contracts with.
    SigningKeyMissing,
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
    /// The payer is not the contract's seeker.
    SeekerMismatch,
    /// The contract has been executed, or is, with another input.
    ContractInputDiffers,
    /// The contract allows no other execution.
    RetriesExhausted,
    /// Too many executions of this seeker are under way, or came to nothing lately.
    TooManyUnpaidExecutions,
    /// The contract has come to its end, and what became of it is not kept any more.
    ContractEnded,
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
    Claude(ModelError),
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

impl Refusal {
    /// The input is wrong in one field.
    pub fn input(error: InputError, field: &str, expected: &str, received: &str) -> Self {
        Self::Input(error, Detail::new(field, expected, received))
    }

    /// The contract is wrong in one member.
    pub fn contract(error: ContractError, field: &str, expected: &str, received: &str) -> Self {
        Self::Contract(error, Detail::new(field, expected, received))
    }

    /// The stable name that programs match on.
    pub const fn code(&self) -> &'static str {
        match self {
            Self::NotFound => "NOT_FOUND",
            Self::MethodNotAllowed { .. } => "METHOD_NOT_ALLOWED",
            Self::Paused => "PAUSED",
            Self::BodyTooLarge { .. } => "BODY_TOO_LARGE",
            Self::ContractIdMissing => "CONTRACT_ID_MISSING",
            Self::Contract(fault, _) => fault.code(),
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
            Self::TooManyUnpaidExecutions => "TOO_MANY_UNPAID_EXECUTIONS",
            Self::ContractEnded => "CONTRACT_ENDED",
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
            Self::ContractIdMissing => "Send the signed contract's id: X-Contract-ID: ctr_….".to_owned(),
            Self::Contract(fault, detail) => fault.message(detail),
            Self::Input(fault, detail) => input_message(*fault, detail),
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
            Self::SeekerMismatch => "The payment is not of the contract's seeker. Nothing was charged.".to_owned(),
            Self::ContractInputDiffers => {
                "This contract is executed with another input already. One contract is one task.".to_owned()
            }
            Self::RetriesExhausted => "The contract's retry_policy allows no other execution.".to_owned(),
            Self::TooManyUnpaidExecutions => {
                "Too many executions for this wallet are under way, or came to nothing within a day. Nothing was charged."
                    .to_owned()
            }
            Self::ContractEnded => {
                "This contract has come to its end (see its state). This request was not executed.".to_owned()
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
            (Self::Claude(ModelError::Declined), true) => format!("{message} The run is marked for refund."),
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

    /// Whether it is about the payment alone: another one, or the same later, may do.
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

    /// Field, expected, received, where the refusal is about one field.
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
            Self::Claude(fault) => fault.retry(),
            Self::Paused => Retry::After(60),
            Self::FacilitatorUnavailable | Self::SettlementUnknown => Retry::After(5),
            Self::PaymentNotYetValid | Self::Interrupted => Retry::After(1),
            Self::KeyMissing | Self::KeyDisabled | Self::SigningKeyMissing => Retry::After(600),
            Self::TooManyUnpaidExecutions => Retry::After(3600),
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

fn input_message(fault: InputError, detail: &Detail) -> String {
    let Detail { field, expected, received } = detail;
    match fault {
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
