//! x402 version 1: older clients read the challenge from the body of the 402, and send the payment in `X-PAYMENT`.

use crate::wire::amount::Amount;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// One of the ways to pay (v1 `PaymentRequirements`).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirements {
    /// `exact` is the only scheme that we offer.
    pub scheme: String,
    /// A name, not CAIP-2: `base`, `base-sepolia`.
    pub network: String,
    pub max_amount_required: Amount,
    /// The URL that was called.
    pub resource: String,
    /// A line for people.
    pub description: String,
    /// The media type of the paid response.
    pub mime_type: String,
    /// The address of the recipient.
    pub pay_to: String,
    /// For how many seconds a payment stays valid.
    pub max_timeout_seconds: u64,
    /// The address of the token's contract.
    pub asset: String,
    /// How to call the resource. Indexers read it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub output_schema: Option<Value>,
    /// The `name` and `version` of the token's EIP-712 domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// The x402 members of the body of a 402. `error` is a text here, while it is an object in the body of other errors.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// The version, which is always 1.
    pub x402_version: u8,
    /// Why payment is required.
    pub error: String,
    pub accepts: Vec<PaymentRequirements>,
}

/// The payment in the header `X-PAYMENT`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// The version, which is always 1.
    pub x402_version: u8,
    pub scheme: String,
    /// A v1 name; some clients write CAIP-2 here.
    pub network: String,
    /// The part that depends on the scheme: see [`crate::wire::evm`].
    pub payload: Map<String, Value>,
}
