//! Checks owners' tokens: the signature by WebCrypto, everything else by `rules::owner`.

use super::{clock, fault, http};
use crate::edge::vault::{subtle, usages};
use crate::rules::config::{Config, Issuer};
use crate::rules::owner;
use crate::rules::refusal::Refusal;
use crate::rules::run::Millis;
use crate::wire::jwt;
use crate::wire::jwt::{Algorithm, Jwk, JwkSet, Token};
use js_sys::{Object, Reflect, Uint8Array, JSON};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;
use wasm_bindgen::{JsCast, JsValue};
use wasm_bindgen_futures::JsFuture;
use web_sys::{CryptoKey, EcKeyImportParams, EcdsaParams, HmacImportParams, RsaHashedImportParams};
use worker::{Env, Headers, Method};

/// How long published keys are used before they are fetched again.
const JWKS_FRESH: Millis = 300_000;
/// The limit of one call for published keys.
const JWKS_LIMIT: Duration = Duration::from_secs(5);
/// The shortest shared secret that is used, in bytes. With an empty one anybody could sign.
const MIN_SECRET_BYTES: usize = 16;

/// The creator's id in the token of an `Authorization` header, once that token is known to be valid.
pub(crate) async fn bearer(env: &Env, config: &Config, header: Option<&str>) -> Result<String, Refusal> {
    let header = header.ok_or(Refusal::TokenMissing)?;
    let token = jwt::bearer(header).and_then(jwt::parse).ok_or(Refusal::TokenInvalid)?;
    let issuer = owner::issuer(&token, &config.jwt.issuers).ok_or(Refusal::TokenInvalid)?;
    let is_signed = is_signed(env, &token, issuer).await?;
    #[allow(clippy::cast_precision_loss)] // seconds since 1970 are exact in a double
    let claims_hold = owner::claims_hold(&token.claims, issuer, clock::seconds() as f64);
    match is_signed && claims_hold {
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
    let set = match (&issuer.jwks, &issuer.jwks_url) {
        (Some(set), _) => set.clone(),
        (None, Some(url)) => published_keys(url).await?,
        (None, None) => return Ok(false),
    };
    for (key, algorithm) in owner::candidates(token, &set) {
        if check_public_key(token, key, algorithm).await.unwrap_or(false) {
            return Ok(true);
        }
    }
    Ok(false)
}

thread_local! {
    static PUBLISHED: RefCell<BTreeMap<String, (Millis, JwkSet)>> = const { RefCell::new(BTreeMap::new()) };
}

/// The keys that are published at `url`. Old ones stay in use where it does not answer.
async fn published_keys(url: &str) -> Result<JwkSet, Refusal> {
    let now = clock::now();
    let cached = PUBLISHED.with_borrow(|all| all.get(url).cloned());
    if let Some((read_at, set)) = &cached {
        if now.saturating_sub(*read_at) < JWKS_FRESH {
            return Ok(set.clone());
        }
    }
    let answer = http::read(Method::Get, url, Headers::new(), None, JWKS_LIMIT).await;
    let fetched = match answer {
        Ok((200, text)) => serde_json::from_str::<JwkSet>(&text).map_err(|e| e.to_string()),
        Ok((status, _)) => Err(format!("HTTP {status}")),
        Err(error) => Err(error.to_string()),
    };
    match (fetched, cached) {
        (Ok(set), _) => {
            PUBLISHED.with_borrow_mut(|all| all.insert(url.to_owned(), (now, set.clone())));
            Ok(set)
        }
        (Err(error), Some((_, old_set))) => {
            worker::console_error!("jwks: not refreshed, the old keys stay in use: {error}");
            Ok(old_set)
        }
        (Err(error), None) => Err(fault("jwks")(error)),
    }
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
