//! The configuration in a deployment's `[vars]`, for operators who need no document in KV.

use super::{anthropic_version, Anthropic, ConfigError, Document, Facilitator, Issuer, Jwt};
use serde::de::DeserializeOwned;

/// The Worker secret with the API key for the first facilitator's claims.
const CLAIMS_SECRET: &str = "CLAIMS_API_KEY";
/// The Worker secret that signs the tokens of `JWT_ISSUER`, where the vars name no public keys.
const JWT_SECRET: &str = "JWT_SECRET";

impl Document {
    /// Reads the vars, of which an empty one counts as absent. `NETWORKS`, `MODELS`, `LIMITS` and `HIRE` are JSON, in
    /// the form that they have in the document.
    pub fn from_vars(
        var: impl Fn(&str) -> Option<String>,
        has_secret: impl Fn(&str) -> bool,
    ) -> Result<Self, ConfigError> {
        let var = |name: &str| var(name).filter(|text| !text.is_empty());
        let claims_secret = has_secret(CLAIMS_SECRET).then(|| CLAIMS_SECRET.to_owned());
        Ok(Document {
            revision: Some("vars".to_owned()),
            facilitators: var("FACILITATOR_URL").map(|urls| facilitators(&urls, claims_secret)),
            anthropic: var("ANTHROPIC_BASE_URL").map(|base_url| {
                let version = var("ANTHROPIC_VERSION").unwrap_or_else(anthropic_version);
                Anthropic { base_url, version }
            }),
            jwt: jwt(&var, has_secret(JWT_SECRET))?,
            networks: json(&var, "NETWORKS")?,
            models: json(&var, "MODELS")?,
            limits: json(&var, "LIMITS")?,
            paused: var("PAUSED").map(|text| text == "true"),
            require_payment_identifier: None,
            refund_policy: var("REFUND_POLICY"),
            hire: json(&var, "HIRE")?,
        })
    }
}

/// Of several facilitators, only the first has the key for claims, which is sent nowhere else.
fn facilitators(urls: &str, claims_secret: Option<String>) -> Vec<Facilitator> {
    let secrets = std::iter::once(claims_secret).chain(std::iter::repeat(None));
    let urls = urls.split(',').map(|url| url.trim().to_owned());
    urls.zip(secrets).map(|(url, claims_secret)| Facilitator { url, claims_secret }).collect()
}

/// The one issuer of owners' tokens. Its keys are `JWT_JWKS`, else those at `JWT_JWKS_URL`, else the shared secret;
/// without any of them nobody's tokens are valid.
fn jwt(var: &impl Fn(&str) -> Option<String>, has_secret: bool) -> Result<Option<Jwt>, ConfigError> {
    let jwks = json(var, "JWT_JWKS")?;
    let jwks_url = var("JWT_JWKS_URL").filter(|_| jwks.is_none());
    let has_public_keys = jwks.is_some() || jwks_url.is_some();
    let secret = (!has_public_keys && has_secret).then(|| JWT_SECRET.to_owned());
    let issuer = var("JWT_ISSUER").filter(|_| has_public_keys || secret.is_some());
    Ok(issuer.map(|issuer| {
        let audience = var("JWT_AUDIENCE").unwrap_or_else(|| "coinslot".to_owned());
        Jwt { issuers: vec![Issuer { issuer, audience, secret, jwks, jwks_url }] }
    }))
}

fn json<T: DeserializeOwned>(var: &impl Fn(&str) -> Option<String>, name: &str) -> Result<Option<T>, ConfigError> {
    let error = |error: serde_json::Error| ConfigError::Form(format!("{name}: {error}"));
    var(name).map(|text| serde_json::from_str(&text)).transpose().map_err(error)
}
