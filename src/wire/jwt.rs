//! JSON Web Tokens in compact form (RFC 7519, RFC 7515 3.1) and the keys that check them (RFC 7517).
//! This module reads; whether a token is believed is decided in `rules::owner` and `edge::jwt`.

use super::base64;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Longest token read, in bytes.
pub const MAX_TOKEN: usize = 8 * 1024;

/// The algorithms coinslot knows. There is no `none`.
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
    /// Extensions that must be understood (RFC 7515, 4.1.11): we understand none.
    #[serde(default)]
    crit: Option<Value>,
}

/// The registered claims that matter here (RFC 7519, 4.1). Times are Unix seconds.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Claims {
    /// Who issued the token.
    pub iss: String,
    /// Whom it speaks of: the creator's id.
    pub sub: String,
    /// For whom it is meant.
    pub aud: Audience,
    /// Not valid from this second on. May carry a fraction (NumericDate).
    pub exp: f64,
    /// Not valid before this second.
    #[serde(default)]
    pub nbf: Option<f64>,
}

/// `aud` is one name or several (RFC 7519, 4.1.3).
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Audience {
    /// One.
    One(String),
    /// Several.
    Many(Vec<String>),
}

impl Audience {
    /// Whether `name` is among them.
    pub fn contains(&self, name: &str) -> bool {
        match self {
            Audience::One(one) => one == name,
            Audience::Many(many) => many.iter().any(|one| one == name),
        }
    }
}

/// A token taken apart, its signature not yet checked.
#[derive(Clone, Debug)]
pub struct Token {
    /// What the header says it was signed with. Believed only where it equals the key's own.
    pub algorithm: Algorithm,
    /// Which key the header names.
    pub key_id: Option<String>,
    /// The payload.
    pub claims: Claims,
    /// The bytes under the signature.
    pub signed: Vec<u8>,
    /// The signature.
    pub signature: Vec<u8>,
}

/// The token in an `Authorization` header of the scheme `Bearer` (RFC 6750, 2.1).
pub fn bearer(header: &str) -> Option<&str> {
    let (scheme, token) = header.trim().split_once(' ')?;
    scheme.eq_ignore_ascii_case("bearer").then(|| token.trim())
}

/// Takes a compact token apart. `None` where it is malformed, unsigned, or uses another algorithm.
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
    /// The keys. Those of other kinds are passed over when one is looked up.
    pub keys: Vec<Jwk>,
}

/// One public key. The members that WebCrypto needs stay as they came.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Jwk {
    /// `EC` or `RSA`; never `oct`, a shared secret has no place in a public set.
    pub kty: String,
    /// The key's name.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub kid: Option<String>,
    /// `P-256`, for `EC`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub crv: Option<String>,
    /// What it may be used with, where it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub alg: Option<String>,
    /// `sig`, where it says.
    #[serde(default, rename = "use", skip_serializing_if = "Option::is_none")]
    pub usage: Option<String>,
    /// x, y, n, e.
    #[serde(flatten)]
    pub rest: serde_json::Map<String, Value>,
}

impl Jwk {
    /// The one algorithm this key checks, from its own kind. `None`: not a signing key we can use.
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
