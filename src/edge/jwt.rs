//! Checks owners' tokens: the signature by WebCrypto, everything else by `rules::owner`.

use super::{clock, fault, http};
use crate::edge::lookup::{look_up, Lookups, Times};
use crate::edge::vault::{subtle, usages};
use crate::rules::config::{Config, Issuer};
use crate::rules::owner;
use crate::rules::refusal::Refusal;
use crate::rules::run::Millis;
use crate::wire::jwt;
use crate::wire::jwt::{Algorithm, Jwk, JwkSet, Token};
use js_sys::{Object, Reflect, Uint8Array, JSON};
use std::rc::Rc;
use std::time::Duration;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{CryptoKey, EcKeyImportParams, EcdsaParams, HmacImportParams, RsaHashedImportParams};
use worker::{Env, Headers, Method};

/// How long published keys are used, and when they are fetched again after a failure, or for a token of a new key. As
/// long as the issuer does not answer, its old keys stay good.
const JWKS_TIMES: Times = Times { fresh: 300_000, stale: Millis::MAX, retry: 5_000, newer: 1_000, limit: 6_000 };
/// The limit of one call for published keys.
const JWKS_LIMIT: Duration = Duration::from_secs(5);
/// The shortest shared secret that is used, in bytes. With an empty one anybody could sign.
const MIN_SECRET_BYTES: usize = 16;

/// The creator's id in the token of an `Authorization` header, once that token is known to be valid.
pub(crate) async fn bearer(env: &Env, config: &Config, header: Option<&str>) -> Result<String, Refusal> {
    let header = header.ok_or(Refusal::TokenMissing)?;
    let token = jwt::bearer(header).and_then(jwt::parse).ok_or(Refusal::TokenInvalid)?;
    let issuer = owner::issuer(&token, &config.jwt.issuers).ok_or(Refusal::TokenInvalid)?;
    #[allow(clippy::cast_precision_loss)] // seconds since 1970 are exact in a double
    let claims_hold = owner::claims_hold(&token.claims, issuer, clock::seconds() as f64);
    match claims_hold && is_signed(env, &token, issuer).await? {
        true => Ok(token.claims.sub),
        false => Err(Refusal::TokenInvalid),
    }
}

async fn is_signed(env: &Env, token: &Token, issuer: &Issuer) -> Result<bool, Refusal> {
    if let Some(name) = &issuer.secret {
        let secret = env.secret(name).map_err(fault("JWT secret"))?.to_string();
        return Ok(owner::takes_secret(token)
            && secret.len() >= MIN_SECRET_BYTES
            && check_hmac(token, secret.as_bytes()).await.unwrap_or(false));
    }
    match (&issuer.jwks, &issuer.jwks_url) {
        (Some(set), _) => Ok(is_signed_by_one_of(token, set).await),
        (None, Some(url)) => is_signed_by_published(token, url).await,
        (None, None) => Ok(false),
    }
}

async fn is_signed_by_one_of(token: &Token, set: &JwkSet) -> bool {
    for (key, algorithm) in owner::candidates(token, set) {
        if check_public_key(token, key, algorithm).await.unwrap_or(false) {
            return true;
        }
    }
    false
}

/// Whether one of the keys that are published at `url` has signed the token. Where none of them can be its key, the
/// issuer may have published a new one since they were fetched.
async fn is_signed_by_published(token: &Token, url: &str) -> Result<bool, Refusal> {
    let arrived_at = clock::now();
    let set = published_keys(url, None).await?;
    if is_signed_by_one_of(token, &set).await {
        return Ok(true);
    }
    if !owner::may_be_signed_by_new_key(token, &set) {
        return Ok(false);
    }
    let newer = published_keys(url, Some(arrived_at)).await?;
    Ok(!Rc::ptr_eq(&newer, &set) && is_signed_by_one_of(token, &newer).await)
}

thread_local! {
    static PUBLISHED: Lookups<JwkSet> = const { Lookups::new() };
}

/// The keys that are published at `url`. Old ones stay in use where it does not answer.
async fn published_keys(url: &str, newer_than: Option<Millis>) -> Result<Rc<JwkSet>, Refusal> {
    let found = look_up(&PUBLISHED, url, &JWKS_TIMES, newer_than, || fetch_keys(url)).await;
    found.ok_or(Refusal::Internal)
}

/// Fetches the keys; `None`, which is logged, where there is no usable answer.
async fn fetch_keys(url: &str) -> Option<JwkSet> {
    let answer = http::read(Method::Get, url, Headers::new(), None, JWKS_LIMIT).await;
    let set = match answer {
        Ok((200, text)) => JwkSet::read(&text).ok_or_else(|| "no key set".to_owned()),
        Ok((status, _)) => Err(format!("HTTP {status}")),
        Err(error) => Err(error.to_string()),
    };
    set.inspect_err(|error| worker::console_error!("jwks: cannot be fetched: {error}")).ok()
}

async fn check_hmac(token: &Token, secret: &[u8]) -> Result<bool, JsValue> {
    let subtle = subtle().map_err(|_| JsValue::NULL)?;
    let algorithm = HmacImportParams::new_with_str("HMAC", "SHA-256");
    let data: Object = Uint8Array::from(secret).into();
    let work = subtle.import_key_with_object("raw", &data, &algorithm, false, &usages(&["verify"]))?;
    let key: CryptoKey = JsFuture::from(work).await?.unchecked_into();
    let work = subtle.verify_with_str_and_u8_array_and_u8_array("HMAC", &key, &token.signature, &token.signed)?;
    Ok(JsFuture::from(work).await?.is_truthy())
}

async fn check_public_key(token: &Token, jwk: &Jwk, algorithm: Algorithm) -> Result<bool, JsValue> {
    const RSA: &str = "RSASSA-PKCS1-v1_5";
    let subtle = subtle().map_err(|_| JsValue::NULL)?;
    let (import, verify): (Object, Object) = match algorithm {
        Algorithm::ES256 => {
            let import = EcKeyImportParams::new("ECDSA");
            import.set_named_curve("P-256");
            (import.into(), EcdsaParams::new_with_str("ECDSA", "SHA-256").into())
        }
        Algorithm::RS256 => {
            let import: Object = RsaHashedImportParams::new_with_str("SHA-256").into();
            let verify = Object::new();
            Reflect::set(&import, &"name".into(), &RSA.into())?;
            Reflect::set(&verify, &"name".into(), &RSA.into())?;
            (import, verify)
        }
        Algorithm::HS256 => return Ok(false),
    };
    let json = serde_json::to_string(jwk).unwrap_or_default();
    let data: Object = JSON::parse(&json)?.unchecked_into();
    let work = subtle.import_key_with_object("jwk", &data, &import, false, &usages(&["verify"]))?;
    let key: CryptoKey = JsFuture::from(work).await?.unchecked_into();
    let work = subtle.verify_with_object_and_u8_array_and_u8_array(&verify, &key, &token.signature, &token.signed)?;
    Ok(JsFuture::from(work).await?.is_truthy())
}
