//! Contracts of HIRE/1.0, after its contract schema and its page on execution.
//!
//! The protocol leaves open which bytes of a contract are hashed and signed. Here they are the canonical form (RFC
//! 8785) of the document without `hash` and `signatures`. `hash` is `sha256:` and the SHA-256 of these bytes. Both
//! parties sign that string with their wallets (EIP-191), the worker first. Members that the schema does not know are
//! kept, and hashed too.

use super::canonical;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The protocol's version, as contracts and manifests spell it.
pub const VERSION: &str = "HIRE/1.0";
/// The schema of a contract (draft 2020-12), as the protocol publishes it.
pub const CONTRACT_SCHEMA: &str = include_str!("hire/contract.schema.json");

/// The schema of the members that coinslot adds to a contract.
pub const EXTENSIONS_SCHEMA: &str = include_str!("hire/extensions.schema.json");

/// The members of a contract that coinslot uses. Read it only from a document that satisfies [`CONTRACT_SCHEMA`].
#[derive(Clone, Debug, Deserialize)]
pub struct Contract {
    pub version: String,
    /// The contract's id, such as `ctr_1`.
    pub contract_id: String,
    /// A date-time of RFC 3339.
    pub created_at: String,
    pub parties: Parties,
    pub task: Task,
    pub terms: ContractTerms,
    #[serde(default)]
    pub sla: Sla,
    pub signatures: Signatures,
    /// `sha256:` and 64 hex digits.
    pub hash: String,
}

/// The two parties of a contract.
#[derive(Clone, Debug, Deserialize)]
pub struct Parties {
    /// The party that pays.
    pub seeker: Party,
    /// The party that works and is paid: one of our agents.
    pub worker: Party,
}

/// One party of a contract.
#[derive(Clone, Debug, Deserialize)]
pub struct Party {
    /// The agent's id, such as `agent_1`.
    pub agent_id: String,
    /// The address that pays or is paid, and whose key signs the contract.
    pub wallet: String,
    /// An extension of ours: the URL that is called when a task has ended.
    #[serde(default)]
    pub webhook_url: Option<String>,
}

/// The task that the contract is about.
#[derive(Clone, Debug, Deserialize)]
pub struct Task {
    /// An extension of ours: the form of the result.
    #[serde(default)]
    pub output_type: Option<String>,
    /// The JSON Schema of the input.
    #[serde(default)]
    pub input_schema: Option<Value>,
    /// The JSON Schema of the result.
    #[serde(default)]
    pub output_schema: Option<Value>,
}

/// Price, deadline and payment of a contract.
#[derive(Clone, Debug, Deserialize)]
pub struct ContractTerms {
    pub price: ContractPrice,
    /// A date-time of RFC 3339.
    pub deadline: String,
    pub payment_trigger: String,
}

/// The price of one execution.
#[derive(Clone, Debug, Deserialize)]
pub struct ContractPrice {
    /// A decimal in units of the currency.
    pub amount: String,
    /// The currency, which is always `USDC`.
    pub currency: String,
    /// The network's name, which is always `base`.
    pub network: String,
}

/// The service level that the worker promises.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Sla {
    /// The longest time from the first call to the result.
    #[serde(default, deserialize_with = "whole")]
    pub max_latency_ms: Option<u64>,
    /// A text, which [`Sla::attempts`] reads.
    #[serde(default)]
    pub retry_policy: Option<String>,
    /// The cases in which the seeker owes nothing.
    #[serde(default)]
    pub refund_conditions: Vec<RefundCondition>,
    /// An extension of ours: an answer that Claude cut off at `max_tokens` is accepted, as `partial`.
    #[serde(default)]
    pub allow_partial: bool,
}

/// A case in which the seeker owes nothing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundCondition {
    DeadlineMissed,
    /// The result does not satisfy `output_schema`.
    OutputSchemaInvalid,
    NoResponse,
    /// The seeker rejects the result.
    QualityRejected,
}

/// The signatures of both parties.
#[derive(Clone, Debug, Deserialize)]
pub struct Signatures {
    pub seeker: String,
    pub worker: String,
    /// A date-time of RFC 3339. It is not signed.
    pub timestamp: String,
}

impl Sla {
    /// The most executions of the task. `retry_policy` says it in a small grammar: `none`, `3`, `1 attempt`, `3
    /// attempts`, from 1 to 10. `None`: it is another text.
    pub fn attempts(&self) -> Option<u32> {
        let Some(policy) = &self.retry_policy else {
            return Some(DEFAULT_ATTEMPTS);
        };
        let number = match policy.as_str() {
            "none" | "1 attempt" => "1",
            other => other.strip_suffix(" attempts").unwrap_or(other),
        };
        let plain = number.bytes().all(|b| b.is_ascii_digit()) && !number.starts_with('0');
        number.parse().ok().filter(|n| plain && (1..=MAX_ATTEMPTS).contains(n))
    }
}

/// Reads a whole number in any spelling, because `30000.0` is an integer to JSON Schema too.
fn whole<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(d)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked: whole, and not negative
    let of_float = |n: f64| (n >= 0.0 && n.fract() == 0.0).then_some(n as u64);
    Ok(number.and_then(|number| number.as_u64().or_else(|| number.as_f64().and_then(of_float))))
}

/// The most executions of a contract without a `retry_policy`.
const DEFAULT_ATTEMPTS: u32 = 3;
const MAX_ATTEMPTS: u32 = 10;

/// The hash of a contract's document, whatever its member `hash` says.
pub fn hash(document: &Value) -> String {
    let mut signed = document.clone();
    if let Some(members) = signed.as_object_mut() {
        members.remove("hash");
        members.remove("signatures");
    }
    format!("sha256:{}", canonical::digest(&signed))
}

/// Whether a text has the form of a contract's id.
pub fn is_contract_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let id = text.strip_prefix("ctr_");
    id.is_some_and(|id| (1..=64).contains(&id.len()) && id.bytes().all(plain))
}
