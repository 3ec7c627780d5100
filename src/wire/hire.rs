//! HIRE/1.0, as its contract schema and its page on execution say it: the contract, and what a contract is
//! hashed and signed as.
//!
//! The protocol leaves open how a contract becomes bytes. Here: RFC 8785 over the document without `hash` and
//! `signatures`; `hash` is `sha256:` and its SHA-256; both parties sign that string with their wallets
//! (EIP-191), the worker first. Members that the schema does not know are kept, and are part of the hash.

use super::canonical;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// The protocol's version, as contracts and manifests name it.
pub const VERSION: &str = "HIRE/1.0";
/// The schema of a contract (draft 2020-12), as the protocol publishes it.
pub const CONTRACT_SCHEMA: &str = include_str!("hire/contract.schema.json");

/// The members that are ours, in the same language.
pub const EXTENSIONS_SCHEMA: &str = include_str!("hire/extensions.schema.json");

/// A contract, as far as we act on it. Read it only from a document that satisfies [`CONTRACT_SCHEMA`].
#[derive(Clone, Debug, Deserialize)]
pub struct Contract {
    /// The protocol's version.
    pub version: String,
    /// `ctr_…`.
    pub contract_id: String,
    /// RFC 3339.
    pub created_at: String,
    /// Who agrees.
    pub parties: Parties,
    /// On what.
    pub task: Task,
    /// For what.
    pub terms: ContractTerms,
    /// How well.
    #[serde(default)]
    pub sla: Sla,
    /// See the module's text.
    pub signatures: Signatures,
    /// `sha256:` and 64 hex digits.
    pub hash: String,
}

/// Both sides.
#[derive(Clone, Debug, Deserialize)]
pub struct Parties {
    /// Who pays.
    pub seeker: Party,
    /// Who works.
    pub worker: Party,
}

/// One side.
#[derive(Clone, Debug, Deserialize)]
pub struct Party {
    /// `agent_…`.
    pub agent_id: String,
    /// Pays or is paid, and signs.
    pub wallet: String,
    /// Ours: where the seeker hears that a task has ended.
    #[serde(default)]
    pub webhook_url: Option<String>,
}

/// What is to be done.
#[derive(Clone, Debug, Deserialize)]
pub struct Task {
    /// Ours: in which form the result is wanted.
    #[serde(default)]
    pub output_type: Option<String>,
    /// JSON Schema of the input.
    #[serde(default)]
    pub input_schema: Option<Value>,
    /// JSON Schema of the result.
    #[serde(default)]
    pub output_schema: Option<Value>,
}

/// Price and time.
#[derive(Clone, Debug, Deserialize)]
pub struct ContractTerms {
    /// What it costs.
    pub price: ContractPrice,
    /// RFC 3339.
    pub deadline: String,
    /// When payment is due.
    pub payment_trigger: String,
}

/// A price.
#[derive(Clone, Debug, Deserialize)]
pub struct ContractPrice {
    /// Decimal units of the currency.
    pub amount: String,
    /// `USDC`.
    pub currency: String,
    /// `base`.
    pub network: String,
}

/// What is promised besides.
#[derive(Clone, Debug, Default, Deserialize)]
pub struct Sla {
    /// From the first call to the result.
    #[serde(default, deserialize_with = "whole")]
    pub max_latency_ms: Option<u64>,
    /// In words; see [`Sla::attempts`].
    #[serde(default)]
    pub retry_policy: Option<String>,
    /// When nothing is owed.
    #[serde(default)]
    pub refund_conditions: Vec<RefundCondition>,
    /// Ours: an answer that Claude broke off at its limit is taken, as `partial`.
    #[serde(default)]
    pub allow_partial: bool,
}

/// When nothing is owed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RefundCondition {
    /// Too late.
    DeadlineMissed,
    /// Not what `output_schema` asks for.
    OutputSchemaInvalid,
    /// No result.
    NoResponse,
    /// The seeker does not like it.
    QualityRejected,
}

/// Both signatures.
#[derive(Clone, Debug, Deserialize)]
pub struct Signatures {
    /// By the seeker's wallet.
    pub seeker: String,
    /// By the worker's wallet.
    pub worker: String,
    /// RFC 3339. Not part of what is signed.
    pub timestamp: String,
}

impl Sla {
    /// How often the task may be executed in all, by a small strict grammar of `retry_policy`: `none`, `3`,
    /// `1 attempt`, `3 attempts`; 1 to 10. `None`: another text.
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

/// A whole number in any spelling: to JSON Schema `30000.0` is an integer too.
fn whole<'de, D: Deserializer<'de>>(d: D) -> Result<Option<u64>, D::Error> {
    let number = Option::<serde_json::Number>::deserialize(d)?;
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // checked: whole, and not negative
    let of_float = |n: f64| (n >= 0.0 && n.fract() == 0.0).then_some(n as u64);
    Ok(number.and_then(|number| number.as_u64().or_else(|| number.as_f64().and_then(of_float))))
}

/// Executions of a contract that says nothing of retries.
const DEFAULT_ATTEMPTS: u32 = 3;
const MAX_ATTEMPTS: u32 = 10;

/// The hash of a contract's document, whatever it says itself.
pub fn hash(document: &Value) -> String {
    let mut signed = document.clone();
    if let Some(members) = signed.as_object_mut() {
        members.remove("hash");
        members.remove("signatures");
    }
    format!("sha256:{}", canonical::digest(&signed))
}

/// Whether a text is a contract's id.
pub fn is_contract_id(text: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let id = text.strip_prefix("ctr_");
    id.is_some_and(|id| (1..=64).contains(&id.len()) && id.bytes().all(plain))
}
