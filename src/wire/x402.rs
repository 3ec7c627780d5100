//! x402 version 2: the challenge, the payment, and the facilitator's answers.
//!
//! Specification: x402 v2, sections 5 (types) and 7 (facilitator), and the HTTP transport
//! (`PAYMENT-REQUIRED`, `PAYMENT-SIGNATURE`, `PAYMENT-RESPONSE`: base64 of JSON).

use super::base64;
use crate::wire::amount::Amount;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest payment header we read, in bytes of base64. A signed EIP-3009 payment is about 1.5 KB.
pub const MAX_HEADER: usize = 16 * 1024;

/// What is being bought (v2, 5.1.1 `ResourceInfo`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// The URL that was called, exactly.
    pub url: String,
    /// One line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// Of the paid answer.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
}

/// One way to pay (v2, 5.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirements {
    /// `exact` is the one we offer.
    pub scheme: String,
    /// CAIP-2: `eip155:8453`.
    pub network: String,
    /// Atomic units.
    pub amount: Amount,
    /// The token's contract address.
    pub asset: String,
    /// Who is paid.
    pub pay_to: String,
    /// Seconds that a payment stays valid: covers generation and settlement.
    pub max_timeout_seconds: u64,
    /// For `exact` on EVM: the token's EIP-712 domain `name` and `version`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// The challenge in `PAYMENT-REQUIRED` (v2, 5.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// 2.
    pub x402_version: u8,
    /// Why payment is asked for, or what was wrong with the one that came.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// What is being bought.
    pub resource: Resource,
    /// The offers, in order of preference.
    pub accepts: Vec<PaymentRequirements>,
    /// What else a payment may carry, by the extension's name.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extensions: Map<String, Value>,
}

/// A payment from `PAYMENT-SIGNATURE` (v2, 5.2). The raw JSON goes to the facilitator beside it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// 2.
    pub x402_version: u8,
    /// The echo of the challenge's resource.
    #[serde(default)]
    pub resource: Option<Resource>,
    /// The offer that the payer chose, as it was made.
    pub accepted: PaymentRequirements,
    /// The scheme's own part: see [`crate::wire::evm`].
    pub payload: Map<String, Value>,
}

/// Body of `POST /verify` and `POST /settle` (v2, 7.1 and 7.2; v1 has the same shape).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FacilitatorRequest<'a> {
    /// The version that the payment itself is in.
    pub x402_version: u8,
    /// The payment as it came.
    pub payment_payload: &'a Value,
    /// Our own terms, never the payer's echo of them.
    pub payment_requirements: &'a Value,
}

/// Answer of `POST /verify` (v2, 7.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResponse {
    /// The facilitator's verdict.
    pub is_valid: bool,
    /// A code, where the verdict is no.
    #[serde(default)]
    pub invalid_reason: Option<String>,
    /// Who pays.
    #[serde(default)]
    pub payer: Option<String>,
}

/// Answer of `POST /settle` (v2, 7.2), and the content of `PAYMENT-RESPONSE` (5.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettleResponse {
    /// Whether the money has moved.
    pub success: bool,
    /// A code, where it has not.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// The transaction's hash; empty where nothing was submitted.
    #[serde(default)]
    pub transaction: String,
    /// Where: CAIP-2 in v2, a name in v1.
    #[serde(default)]
    pub network: String,
    /// Who paid.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
}

/// Answer of `GET /supported` (v2, 7.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Supported {
    /// What it settles.
    pub kinds: Vec<SupportedKind>,
}

/// One thing that a facilitator settles.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SupportedKind {
    /// The version of the payments.
    pub x402_version: u8,
    /// `exact`.
    pub scheme: String,
    /// CAIP-2 in v2 (`eip155:*` stands for all of a kind), a name in v1.
    pub network: String,
}

impl Supported {
    /// Whether payments of this version and scheme are settled on the network: its id, or its name in v1.
    pub fn covers(&self, version: u8, scheme: &str, network: &str, network_v1: &str) -> bool {
        let all = network.split_once(':').map(|(kind, _)| format!("{kind}:*"));
        let named =
            |name: &str| name == network || all.as_deref() == Some(name) || (version == 1 && name == network_v1);
        self.kinds.iter().any(|k| k.x402_version == version && k.scheme == scheme && named(&k.network))
    }
}

/// A header that is not base64 of the expected JSON.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// Over [`MAX_HEADER`].
    #[error("the header is too long")]
    TooLong,
    /// Not base64.
    #[error("the header is not base64")]
    NotBase64,
    /// Not the expected JSON.
    #[error("the header does not hold the expected JSON")]
    NotJson,
}

/// JSON, then base64: how every x402 header is written.
pub fn encode_header(value: &impl Serialize) -> String {
    // Our own types have string keys and no failing serializers, so this cannot fail.
    base64::encode(&serde_json::to_vec(value).unwrap_or_default())
}

/// Reads an x402 header.
pub fn decode_header<T: DeserializeOwned>(text: &str) -> Result<T, HeaderError> {
    if text.len() > MAX_HEADER {
        return Err(HeaderError::TooLong);
    }
    let json = base64::decode(text).ok_or(HeaderError::NotBase64)?;
    serde_json::from_slice(&json).map_err(|_| HeaderError::NotJson)
}

/// Keeps a facilitator's reason only where it looks like the codes of the specification
/// (`insufficient_funds`): other people's prose is not passed on.
pub fn reason_code(reason: Option<&str>) -> Option<String> {
    let code = reason?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (!code.is_empty() && code.len() <= 80 && code.bytes().all(plain)).then(|| code.to_owned())
}
