//! Identifiers of payments: x402's extension `payment-identifier`, and the header `Idempotency-Key`. An identifier
//! belongs to one payer and stands for one run of one request. It proves nothing.

use crate::rules::refusal::Refusal;
use crate::wire::canonical::sha256_hex;
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

/// The name of the extension.
pub const EXTENSION: &str = "payment-identifier";
/// The longest `Idempotency-Key`, in bytes.
const MAX_KEY: usize = 255;

/// The extension as the challenge declares it (x402 `payment_identifier`).
pub fn declaration(required: bool) -> Value {
    json!({
        "info": {"required": required},
        "schema": {
            "$schema": "https://json-schema.org/draft/2020-12/schema",
            "type": "object",
            "properties": {
                "required": {"type": "boolean"},
                "id": {"type": "string", "minLength": 16, "maxLength": 128, "pattern": "^[a-zA-Z0-9_-]+$"},
            },
            "required": ["required"],
        },
    })
}

/// The identifier in a payment's `extensions`, if there is one: 16 to 128 characters of `[A-Za-z0-9_-]`.
pub fn of_extensions(payment: &Value) -> Result<Option<String>, Refusal> {
    let Some(id) = payment.pointer("/extensions/payment-identifier/info/id").filter(|id| !id.is_null()) else {
        return Ok(None);
    };
    let plain = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-');
    let valid = |id: &&str| (16..=128).contains(&id.len()) && id.bytes().all(plain);
    let id = id.as_str().filter(valid).ok_or(Refusal::IdentifierInvalid)?;
    Ok(Some(format!("{EXTENSION}:{id}")))
}

/// The identifier in an `Idempotency-Key` header: printable ASCII, with or without the quotes of a structured field.
pub fn of_header(header: Option<&str>) -> Result<Option<String>, Refusal> {
    let Some(text) = header.map(str::trim) else {
        return Ok(None);
    };
    let key = text.strip_prefix('"').and_then(|t| t.strip_suffix('"')).unwrap_or(text);
    let valid = !key.is_empty() && key.len() <= MAX_KEY && key.bytes().all(|b| (b' '..=b'~').contains(&b));
    valid.then(|| Some(format!("idempotency-key:{key}"))).ok_or(Refusal::IdentifierInvalid)
}

/// The idempotency key of a request: another payment of the same wallet with the same key and the same request gets the
/// run that the first has bought. The price is not part of it, because it may change between two tries.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct IdempotencyKey {
    /// The digest of the identifier.
    pub key: String,
    /// The digest of the request: method, path, query, body.
    pub request: String,
}

impl IdempotencyKey {
    /// The key of a request. A caller who sends both identifiers means the header, which stays the same when the client
    /// signs another payment.
    pub fn new(header: Option<&str>, extension: Option<&str>, request: &str) -> Option<Self> {
        let identifier = header.or(extension)?;
        Some(Self { key: sha256_hex(identifier.as_bytes()), request: request.to_owned() })
    }
}
