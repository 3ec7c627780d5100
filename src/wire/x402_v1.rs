//! x402 version 1: what older clients read from the 402's body and send in `X-PAYMENT`.

use crate::wire::amount::Amount;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One way to pay (v1 `PaymentRequirements`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirements {
    /// `exact`.
    pub scheme: String,
    /// A name, not CAIP-2: `base`, `base-sepolia`.
    pub network: String,
    /// Atomic units.
    pub max_amount_required: Amount,
    /// The URL that was called.
    pub resource: String,
    /// One line for people.
    pub description: String,
    /// Of the paid answer.
    pub mime_type: String,
    /// Who is paid.
    pub pay_to: String,
    /// Seconds that a payment stays valid.
    pub max_timeout_seconds: u64,
    /// The token's contract address.
    pub asset: String,
    /// How to call the resource, for indexers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// The token's EIP-712 domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// The body of the 402. `error` is text in v1; what coinslot says in other errors is not here.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// 1.
    pub x402_version: u8,
    /// Why payment is asked for.
    pub error: String,
    /// The offers.
    pub accepts: Vec<PaymentRequirements>,
}

/// A payment from `X-PAYMENT`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// 1.
    pub x402_version: u8,
    /// `exact`.
    pub scheme: String,
    /// A v1 name; some clients write CAIP-2 here.
    pub network: String,
    /// The scheme's own part: see [`crate::wire::evm`].
    pub payload: Map<String, Value>,
}
