//! Why a contract of HIRE is refused.

use super::Detail;
use serde::{Deserialize, Serialize};

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum ContractError {
    /// It does not satisfy the schema, or holds a date, a wallet or a name that is none.
    Malformed,
    /// Its hash is not that of its text.
    HashMismatch,
    /// The worker's wallet has not signed it.
    WorkerSignature,
    /// The seeker's wallet has not signed it.
    SeekerSignature,
    /// Its worker is no agent of this deployment.
    UnknownWorker,
    /// The worker has no such capability.
    UnknownCapability,
    /// It wants payment at another time than on delivery.
    Trigger,
    /// It pays less than the capability costs.
    Price,
    /// Its deadline is too near, too far away, or has passed.
    Deadline,
    /// The capability does not deliver results of that form.
    Output,
    /// Its input or output schema cannot be checked in full.
    Schema,
    /// It asks for a latency, for retries or for refunds that cannot be promised.
    Sla,
    /// Its webhook has a URL that nothing is sent to.
    Webhook,
    /// Another contract has its id.
    Exists,
    /// Its seeker has too many contracts that were not executed.
    TooMany,
}

impl ContractError {
    /// The stable name that programs match on.
    pub const fn code(self) -> &'static str {
        match self {
            Self::Malformed => "CONTRACT_MALFORMED",
            Self::HashMismatch => "CONTRACT_HASH_MISMATCH",
            Self::WorkerSignature => "WORKER_SIGNATURE_INVALID",
            Self::SeekerSignature => "SEEKER_SIGNATURE_INVALID",
            Self::UnknownWorker => "WORKER_UNKNOWN",
            Self::UnknownCapability => "CAPABILITY_UNKNOWN",
            Self::Trigger => "PAYMENT_TRIGGER_UNSUPPORTED",
            Self::Price => "PRICE_NOT_ACCEPTED",
            Self::Deadline => "DEADLINE_NOT_ACCEPTED",
            Self::Output => "OUTPUT_NOT_OFFERED",
            Self::Schema => "SCHEMA_UNSUPPORTED",
            Self::Sla => "SLA_NOT_OFFERED",
            Self::Webhook => "WEBHOOK_REFUSED",
            Self::Exists => "CONTRACT_EXISTS",
            Self::TooMany => "TOO_MANY_CONTRACTS",
        }
    }

    /// A sentence for people.
    pub fn message(self, detail: &Detail) -> String {
        let Detail { field, expected, received } = detail;
        match self {
            Self::HashMismatch => "The contract's hash is not that of its text: it was changed.".to_owned(),
            Self::WorkerSignature => "The worker's signature is not its wallet's signature of the hash.".to_owned(),
            Self::SeekerSignature => "The seeker's signature is not its wallet's signature of the hash.".to_owned(),
            Self::UnknownWorker => format!("No such worker agent: {field} is not ours."),
            Self::UnknownCapability => format!("The worker agent has no such capability. Expected {expected}."),
            Self::Exists => "Another contract is registered under this id.".to_owned(),
            Self::TooMany => format!("Too many contracts are open. Expected {expected}."),
            Self::Malformed | Self::Trigger | Self::Price | Self::Deadline => {
                format!("`{field}`: expected {expected}, received {received}.")
            }
            Self::Output | Self::Schema | Self::Sla | Self::Webhook => {
                format!("`{field}`: expected {expected}, received {received}.")
            }
        }
    }
}
