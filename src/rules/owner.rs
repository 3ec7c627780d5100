//! Owners' tokens: every check of a token but its signature, which `edge::jwt` does.

use crate::rules::config::Issuer;
use crate::wire::jwt::{Algorithm, Claims, Jwk, JwkSet, Token};

/// How much an issuer's clock may differ from ours, in seconds.
const LEEWAY: f64 = 30.0;

/// The issuer that the token names, where the operator trusts it.
pub fn issuer<'a>(token: &Token, issuers: &'a [Issuer]) -> Option<&'a Issuer> {
    issuers.iter().find(|i| i.issuer == token.claims.iss)
}

/// Whether the claims hold for `issuer` at `now` (Unix seconds). RFC 7519, 4.1.
pub fn claims_hold(claims: &Claims, issuer: &Issuer, now: f64) -> bool {
    claims.iss == issuer.issuer
        && claims.aud.contains(&issuer.audience)
        && !claims.sub.is_empty()
        && now < claims.exp + LEEWAY
        && claims.nbf.is_none_or(|nbf| nbf <= now + LEEWAY)
}

/// Whether this token may be checked with a shared secret. A public key must never serve as an HMAC secret, so the
/// issuer's kind of key decides, and never the token (RFC 8725, 3.1).
pub fn takes_secret(token: &Token) -> bool {
    token.algorithm == Algorithm::HS256
}

/// The keys of a set that this token may be checked with: those of its algorithm, and of its `kid` where it has one.
pub fn candidates<'a>(token: &'a Token, set: &'a JwkSet) -> impl Iterator<Item = (&'a Jwk, Algorithm)> {
    set.keys.iter().filter_map(move |key| {
        let named = token.key_id.is_none() || token.key_id == key.kid;
        let algorithm = key.algorithm().filter(|a| *a == token.algorithm)?;
        named.then_some((key, algorithm))
    })
}

/// Whether a token that no key of the set has signed may be signed by a key that was published later. Where the set has
/// the key that the token names, it is not.
pub fn may_be_signed_by_new_key(token: &Token, set: &JwkSet) -> bool {
    let is_named = |key: &Jwk| token.key_id.is_some() && token.key_id == key.kid;
    token.algorithm != Algorithm::HS256 && !set.keys.iter().any(is_named)
}
