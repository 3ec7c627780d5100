//! The live configuration: KV's `config` document over the deployment's vars, cached per isolate.

use crate::edge::{clock, fault};
use crate::rules::config::{anthropic_version, Anthropic, Config, ConfigError, Document, Facilitator, Issuer, Jwt};
use crate::rules::refusal::Refusal;
use crate::rules::run::Millis;
use crate::wire::canonical::sha256_hex;
use serde::de::DeserializeOwned;
use std::cell::RefCell;
use std::rc::Rc;
use worker::Env;

/// The key in KV.
const KEY: &str = "config";
/// The secret that holds the key for the first facilitator's claims, where the vars name it.
const CLAIMS_SECRET: &str = "CLAIMS_API_KEY";
/// This isolate asks KV again after this long.
const FRESH: Millis = 5_000;
/// How long KV's own edge cache may hold the document, in seconds: 30 is the least it takes.
const KV_CACHE: u64 = 30;

struct Cached {
    config: Rc<Config>,
    read_at: Millis,
    /// The digest of the last document looked at, good or bad: a bad one is logged once.
    seen: Option<String>,
}

thread_local! {
    static CACHE: RefCell<Option<Cached>> = const { RefCell::new(None) };
}

/// The configuration in force. Where KV cannot be read, or holds a document that does not validate,
/// the last good one stays in force; an isolate that has seen none sells nothing.
pub(crate) async fn load(env: &Env) -> Result<Rc<Config>, Refusal> {
    let now = clock::now();
    let cached = CACHE.with_borrow(|cache| {
        let cached = cache.as_ref()?;
        Some((cached.config.clone(), now.saturating_sub(cached.read_at) < FRESH, cached.seen.clone()))
    });
    if let Some((config, true, _)) = cached {
        return Ok(config);
    }
    let (last_good, seen) = match cached {
        Some((config, _, seen)) => (Some(config), seen),
        None => (None, None),
    };
    let (config, seen) = refresh(env, last_good, seen).await?;
    let cached = Cached { config: config.clone(), read_at: now, seen };
    CACHE.with_borrow_mut(|cache| *cache = Some(cached));
    Ok(config)
}

type Refreshed = (Rc<Config>, Option<String>);

async fn refresh(env: &Env, last_good: Option<Rc<Config>>, seen: Option<String>) -> Result<Refreshed, Refusal> {
    let text = match env.kv("KV") {
        Ok(kv) => kv.get(KEY).cache_ttl(KV_CACHE).text().await,
        // Without KV the config lives on the vars. (Runs need KV all the same: the keys are there.)
        Err(_) => Ok(None),
    };
    let text = match (text, &last_good) {
        (Ok(text), _) => text,
        (Err(error), Some(good)) => {
            worker::console_error!("config: KV cannot be read, the last good config stays: {error}");
            return Ok((good.clone(), seen));
        }
        (Err(error), None) => {
            worker::console_error!("config: KV cannot be read, and there is no last good config: {error}");
            return Err(Refusal::Internal);
        }
    };
    let digest = text.as_deref().map(|t| sha256_hex(t.as_bytes()));
    if let (Some(good), true) = (&last_good, digest == seen) {
        return Ok((good.clone(), seen));
    }
    let vars = from_vars(env).map_err(fault("vars"))?;
    let (Some(text), Some(digest)) = (text, digest) else {
        return Ok((Rc::new(vars), None));
    };
    match Config::read_document(&text).and_then(|document| lay(vars.clone(), document, &digest)) {
        Ok(config) => Ok((Rc::new(config), Some(digest))),
        Err(error) => {
            worker::console_error!("config: the document in KV is invalid and changes nothing: {error}");
            // What the operator wanted is not known: better nothing is sold than on other terms.
            let closed = Config { paused: true, revision: "invalid".to_owned(), ..vars };
            Ok((last_good.unwrap_or_else(|| Rc::new(closed)), Some(digest)))
        }
    }
}

fn lay(vars: Config, mut document: Document, digest: &str) -> Result<Config, ConfigError> {
    let short = digest.get(..12).unwrap_or(digest);
    document.revision.get_or_insert_with(|| short.to_owned());
    vars.with_document(document)
}

/// The deployment's vars over the built-in config. `NETWORKS`, `MODELS`, `LIMITS` and `HIRE` are JSON, in the
/// form they have in the document.
fn from_vars(env: &Env) -> Result<Config, ConfigError> {
    let var = |name: &str| env.var(name).ok().map(|v| v.to_string()).filter(|v| !v.is_empty());
    let facilitators = var("FACILITATOR_URL").map(|urls| {
        let claims_secret = env.secret(CLAIMS_SECRET).is_ok().then(|| CLAIMS_SECRET.to_owned());
        let one = |url: &str| Facilitator { url: url.trim().to_owned(), claims_secret: claims_secret.clone() };
        // Of several, the first takes the claims: a key is sent nowhere else.
        let first = urls.split(',').take(1).map(one);
        let others = urls.split(',').skip(1).map(|url| Facilitator { claims_secret: None, ..one(url) });
        first.chain(others).collect()
    });
    let anthropic = var("ANTHROPIC_BASE_URL")
        .map(|base_url| Anthropic { base_url, version: var("ANTHROPIC_VERSION").unwrap_or_else(anthropic_version) });
    let jwks = json_var(var("JWT_JWKS"), "JWT_JWKS")?;
    let jwks_url = var("JWT_JWKS_URL");
    let public = jwks.is_some() || jwks_url.is_some();
    let secret = (!public && env.secret("JWT_SECRET").is_ok()).then(|| "JWT_SECRET".to_owned());
    let jwt = var("JWT_ISSUER").filter(|_| public || secret.is_some()).map(|issuer| Jwt {
        issuers: vec![Issuer {
            issuer,
            audience: var("JWT_AUDIENCE").unwrap_or_else(|| "coinslot".to_owned()),
            secret,
            jwks_url: jwks_url.filter(|_| jwks.is_none()),
            jwks,
        }],
    });
    let document = Document {
        revision: Some("vars".to_owned()),
        facilitators,
        anthropic,
        jwt,
        networks: json_var(var("NETWORKS"), "NETWORKS")?,
        models: json_var(var("MODELS"), "MODELS")?,
        limits: json_var(var("LIMITS"), "LIMITS")?,
        paused: var("PAUSED").map(|v| v == "true"),
        require_payment_identifier: None,
        refund_policy: var("REFUND_POLICY"),
        hire: json_var(var("HIRE"), "HIRE")?,
    };
    Config::built_in().with_document(document)
}

fn json_var<T: DeserializeOwned>(text: Option<String>, name: &str) -> Result<Option<T>, ConfigError> {
    let read = |text: String| serde_json::from_str(&text);
    let named = |e: serde_json::Error| ConfigError::Form(format!("{name}: {e}"));
    text.map(read).transpose().map_err(named)
}
