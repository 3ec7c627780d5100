//! x402 version 2: the challenge, the payment, and the answers of a facilitator.
//!
//! Specification: x402 v2, sections 5 (types) and 7 (facilitator), and the HTTP transport
//! (`PAYMENT-REQUIRED`, `PAYMENT-SIGNATURE`, `PAYMENT-RESPONSE`: base64 of JSON).

use super::base64;
use super::lenient::{self, Count};
use crate::wire::amount::Amount;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The longest payment header that is read, in bytes of base64. (A signed EIP-3009 payment has about 1.5 KB.)
pub const MAX_HEADER: usize = 16 * 1024;

/// The resource that is paid for (v2, 5.1.1 `ResourceInfo`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Resource {
    /// The exact URL that was called.
    pub url: String,
    /// A line for people.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub description: Option<String>,
    /// The media type of the paid response.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mime_type: Option<String>,
}

/// One of the ways to pay (v2, 5.1.2).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequirements {
    /// `exact` is the only scheme that we offer.
    pub scheme: String,
    /// The CAIP-2 id, such as `eip155:8453`.
    pub network: String,
    pub amount: Amount,
    /// The address of the token's contract.
    pub asset: String,
    /// The address of the recipient.
    pub pay_to: String,
    /// For how many seconds a payment stays valid, which covers generation and settlement.
    pub max_timeout_seconds: u64,
    /// For `exact` on EVM: the `name` and `version` of the token's EIP-712 domain.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub extra: Option<Map<String, Value>>,
}

/// The challenge in the header `PAYMENT-REQUIRED` (v2, 5.1).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentRequired {
    /// The version, which is always 2.
    pub x402_version: u8,
    /// Why payment is required, or what is wrong with the payment that was presented.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    pub resource: Resource,
    /// The offers, the preferred one first.
    pub accepts: Vec<PaymentRequirements>,
    /// The extensions that a payment may use, by their names.
    #[serde(default, skip_serializing_if = "Map::is_empty")]
    pub extensions: Map<String, Value>,
}

/// The payment in the header `PAYMENT-SIGNATURE` (v2, 5.2). The facilitator gets what the payer has
/// signed, and our own `resource` and `accepted`.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct PaymentPayload {
    /// The version, which is always 2.
    pub x402_version: u8,
    /// The resource of the challenge, repeated.
    #[serde(default)]
    pub resource: Option<Resource>,
    /// The offer that the payer has chosen, repeated.
    pub accepted: PaymentRequirements,
    /// The part that depends on the scheme: see [`crate::wire::evm`].
    pub payload: Map<String, Value>,
}

/// The body of `POST /verify` and `POST /settle` (v2, 7.1 and 7.2; it is the same in v1).
#[derive(Debug, Serialize)]
#[serde(rename_all = "camelCase")]
pub struct FacilitatorRequest<'a> {
    /// The version of the payment.
    pub x402_version: u8,
    /// What the payer has signed, and our own terms beside it.
    pub payment_payload: &'a Value,
    /// Our own terms, and not those that the payer has repeated.
    pub payment_requirements: &'a Value,
}

/// The answer to `POST /verify` (v2, 7.1).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct VerifyResponse {
    pub is_valid: bool,
    /// The code of the reason, where the payment is not valid.
    #[serde(default, deserialize_with = "lenient::text")]
    pub invalid_reason: Option<String>,
    /// The address of the payer.
    #[serde(default, deserialize_with = "lenient::strict_text")]
    pub payer: Option<String>,
}

/// The answer to `POST /settle` (v2, 7.2), and the content of the header `PAYMENT-RESPONSE` (5.3).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct SettleResponse {
    /// Whether the money has moved.
    pub success: bool,
    /// The code of the reason, where it has not.
    #[serde(default, deserialize_with = "lenient::text", skip_serializing_if = "Option::is_none")]
    pub error_reason: Option<String>,
    /// The hash of the transaction; empty where none was submitted.
    #[serde(default, deserialize_with = "lenient::strict_text_or_empty")]
    pub transaction: String,
    /// The CAIP-2 id in v2, a name in v1.
    #[serde(default, deserialize_with = "lenient::strict_text_or_empty")]
    pub network: String,
    /// The address of the payer.
    #[serde(default, deserialize_with = "lenient::strict_text", skip_serializing_if = "Option::is_none")]
    pub payer: Option<String>,
}

/// The answer to `GET /supported` (v2, 7.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Supported {
    #[serde(deserialize_with = "lenient::objects")]
    pub kinds: Vec<SupportedKind>,
}

/// One kind of payment that a facilitator settles. What it does not say in a readable form excludes no payment.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct SupportedKind {
    pub x402_version: Count,
    #[serde(deserialize_with = "lenient::text")]
    pub scheme: Option<String>,
    /// The CAIP-2 id in v2 (`eip155:*` stands for all EVM networks), a name in v1.
    #[serde(deserialize_with = "lenient::text")]
    pub network: Option<String>,
}

impl Supported {
    /// Whether payments of this version and scheme are settled on a network, which is named by its id or its name in
    /// v1.
    pub fn covers(&self, version: u8, scheme: &str, network: &str, network_v1: &str) -> bool {
        let all = network.split_once(':').map(|(kind, _)| format!("{kind}:*"));
        let named =
            |name: &str| name == network || all.as_deref() == Some(name) || (version == 1 && name == network_v1);
        self.kinds.iter().any(|kind| {
            kind.x402_version.0.is_none_or(|number| number == u64::from(version))
                && kind.scheme.as_deref().is_none_or(|name| name == scheme)
                && kind.network.as_deref().is_none_or(named)
        })
    }
}

/// Why a header is not the expected JSON in base64.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum HeaderError {
    /// The header is longer than [`MAX_HEADER`].
    #[error("the header is too long")]
    TooLong,
    #[error("the header is not base64")]
    NotBase64,
    #[error("the header does not hold the expected JSON")]
    NotJson,
}

/// Writes an x402 header, which is JSON in base64.
pub fn encode_header(value: &impl Serialize) -> String {
    // This cannot fail: the keys of our types are strings, and none of their serializers fails.
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

/// Keeps the reason of a facilitator only where it has the form of the specification's codes (`insufficient_funds`).
/// Texts of others are not passed on.
pub fn reason_code(reason: Option<&str>) -> Option<String> {
    let code = reason?;
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_';
    (!code.is_empty() && code.len() <= 80 && code.bytes().all(plain)).then(|| code.to_owned())
}
