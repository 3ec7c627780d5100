//! JSON Web Tokens in compact form (RFC 7519, RFC 7515 3.1), and the keys that check them (RFC 7517). They are only
//! read here; whether a token is valid is decided in `rules::owner` and `edge::jwt`.

use super::base64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// The longest token that is read, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// The algorithms that coinslot accepts. `none` is not among them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Algorithm {
    /// HMAC with SHA-256 (RFC 7518, 3.2).
    HS256,
    /// ECDSA on P-256 (RFC 7518, 3.4).
    ES256,
    /// RSASSA-PKCS1-v1_5 (RFC 7518, 3.3).
    RS256,
}

#[derive(Deserialize)]
struct Header {
    alg: Algorithm,
    #[serde(default)]
    kid: Option<String>,
    /// Extensions that a reader must understand (RFC 7515, 4.1.11). We understand none, so a token that has any is
    /// refused.
    #[serde(default)]
    crit: Option<Value>,
}

/// The registered claims that are read (RFC 7519, 4.1). Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Claims {
    /// The issuer of the token.
    pub iss: String,
    /// The subject, which is the creator's id.
    pub sub: String,
    /// The audience of the token.
    pub aud: Audience,
    /// The time from which the token is no longer valid. It may have a fraction (NumericDate).
    pub exp: f64,
    /// The time before which the token is not yet valid.
    #[serde(default)]
    pub nbf: Option<f64>,
}

/// `aud` is one name or several (RFC 7519, 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    One(String),
    Many(Vec<String>),
}

impl Audience {
    /// Whether `name` is one of the names.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Audience::One(one) => one == name,
            Audience::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

/// The parts of a token. Its signature has not been checked.
#[derive(Clone, Debug)]
pub struct Token {
    /// The algorithm that the header names. Only a key of the same algorithm checks the signature.
    pub algorithm: Algorithm,
    /// The key that the header names.
    pub key_id: Option<String>,
    pub claims: Claims,
    /// The bytes that the signature is over.
    pub signed: Vec<u8>,
    pub signature: Vec<u8>,
}

/// The token in an `Authorization` header of the scheme `Bearer` (RFC 6750, 2.1).
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Reads a compact token. `None`: it is malformed, unsigned, or uses another algorithm.
pub fn parse(token: &str) -> Option<Token> {
    if token.len() > MAX_TOKEN {
        return None;
    }
    let (signed, signature) = token.rsplit_once('.')?;
    let (header, payload) = signed.split_once('.')?;
    let header: Header = serde_json::from_slice(&base64::decode_url(header)?).ok()?;
    if header.crit.is_some() {
        return None;
    }
    Some(Token {
        algorithm: header.alg,
        key_id: header.kid,
        claims: serde_json::from_slice(&base64::decode_url(payload)?).ok()?,
        signed: signed.as_bytes().to_vec(),
        signature: base64::decode_url(signature)?,
    })
}

/// A set of public keys (RFC 7517, 5).
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct JwkSet {
    /// The keys, of any kind. A look-up ignores those of a kind that we do not use.
    pub keys: Vec<Jwk>,
}

impl JwkSet {
    /// Reads a published set. A key that cannot be read is left out, so that it does not hide the others (RFC 7517, 5).
    pub fn read(text: &str) -> Option<Self> {
        let set: Value = serde_json::from_str(text).ok()?;
        let keys = set.get("keys")?.as_array()?;
        let readable = |key: &Value| serde_json::from_value(key.clone()).ok();
        Some(Self { keys: keys.iter().filter_map(readable).collect() })
    }
}

/// One public key. The members that only WebCrypto reads are kept as they are.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Jwk {
    /// `EC` or `RSA`. `oct` is not used: a shared secret does not belong into a public set.
    pub kty: String,
    /// The id of the key.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// The curve of an `EC` key, `P-256`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// The algorithm that the key is for, if it is named.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// The use that the key is for, if it is named: `sig`.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// The numbers of the key: `x` and `y`, or `n` and `e`.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

impl Jwk {
    /// The algorithm that this key checks, which follows from its kind. `None`: it is no key that we can use.
    pub fn algorithm(&self) -> Option<Algorithm> {
        let algorithm = match (self.kty.as_str(), self.crv.as_deref()) {
            ("EC", Some("P-256")) => Algorithm::ES256,
            ("RSA", _) => Algorithm::RS256,
            _ => return None,
        };
        let says = |text: &Option<String>, what: &str| text.as_deref().is_none_or(|t| t == what);
        let named = match algorithm {
            Algorithm::ES256 => "ES256",
            _ => "RS256",
        };
        (says(&self.alg, named) && says(&self.usage, "sig")).then_some(algorithm)
    }
}

#[cfg(test)]
mod tests {
    use super::bearer;

    #[test]
    fn a_token_is_taken_from_a_bearer_header_only() {
        for header in ["Bearer a.b.c", "bearer a.b.c", " BEARER   a.b.c "] {
            assert_eq!(bearer(header), Some("a.b.c"), "{header}");
        }
        for header in ["", "a.b.c", "Bearer", "Bearera.b.c", "Basic a.b.c", "Bearer,a.b.c"] {
            assert_eq!(bearer(header), None, "{header}");
        }
    }
}
