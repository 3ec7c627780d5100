//! Who a token speaks for: everything about it but the signature, which `edge::jwt` checks.

use crate::rules::config::Issuer;
use crate::wire::jwt::{Algorithm, Claims, Jwk, JwkSet, Token};

/// Seconds by which other people's clocks may differ from ours.
const LEEWAY: f64 = 30.0;

/// The issuer that the token names, where it is one of ours.
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

/// Whether a shared secret may check this token. A public key never serves as an HMAC secret, and
/// the other way round: the key's kind decides, never the token (RFC 8725, 3.1).
pub fn takes_secret(token: &Token) -> bool {
    token.algorithm == Algorithm::HS256
}

/// The keys of a set that may check this token: of its algorithm, and of its name where it has one.
pub fn candidates<'a>(token: &'a Token, set: &'a JwkSet) -> impl Iterator<Item = (&'a Jwk, Algorithm)> {
    set.keys.iter().filter_map(move |key| {
        let named = token.key_id.is_none() || token.key_id == key.kid;
        let algorithm = key.algorithm().filter(|a| *a == token.algorithm)?;
        named.then_some((key, algorithm))
    })
}
