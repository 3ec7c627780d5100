//! The configuration that applies now: KV's `config` document over the deployment's vars, cached per isolate.

use crate::edge::{clock, fault};
use crate::rules::config::{Config, ConfigError, Document};
use crate::rules::refusal::Refusal;
use crate::rules::run::Millis;
use crate::wire::canonical::sha256_hex;
use std::cell::RefCell;
use std::rc::Rc;
use worker::Env;

/// The document's name in KV.
const KEY: &str = "config";
/// After this long an isolate reads KV again.
const FRESH: Millis = 5_000;
/// How many seconds KV's own edge cache may keep the document. KV accepts no less than 30.
const KV_CACHE_SECONDS: u64 = 30;

struct Cached {
    config: Rc<Config>,
    /// When it was read, or when a request began to read it anew. Meanwhile the other requests are given the old one.
    read_at: Millis,
    /// The digest of the document that was read last, valid or not: an invalid one is logged once.
    digest: Option<String>,
}

thread_local! {
    static CACHE: RefCell<Option<Cached>> = const { RefCell::new(None) };
}

/// The configuration that applies now. Where KV cannot be read, or its document is invalid, the last valid one keeps
/// applying. An isolate that knows no valid one sells nothing.
pub(crate) async fn load(env: &Env) -> Result<Rc<Config>, Refusal> {
    let now = clock::now();
    let fresh = CACHE.with_borrow(|cache| {
        let cached = cache.as_ref().filter(|cached| now.saturating_sub(cached.read_at) < FRESH);
        cached.map(|cached| cached.config.clone())
    });
    if let Some(config) = fresh {
        return Ok(config);
    }
    let (last_valid, digest) = CACHE.with_borrow_mut(|cache| match cache {
        Some(cached) => {
            cached.read_at = now;
            (Some(cached.config.clone()), cached.digest.clone())
        }
        None => (None, None),
    });
    let (config, digest) = refresh(env, last_valid, digest).await?;
    let cached = Cached { config: config.clone(), read_at: now, digest };
    CACHE.with_borrow_mut(|cache| *cache = Some(cached));
    Ok(config)
}

/// The `cache_time` of the configuration that this isolate has seen last. An isolate that has seen none has read nothing
/// else either.
pub(crate) fn last_cache_time() -> Millis {
    CACHE.with_borrow(|cache| cache.as_ref().map_or(0, |cached| cached.config.limits.cache_time()))
}

/// The configuration, and the digest of the document it was read from.
type Refreshed = (Rc<Config>, Option<String>);

async fn refresh(env: &Env, last_valid: Option<Rc<Config>>, last_digest: Option<String>) -> Result<Refreshed, Refusal> {
    let text = match env.kv("KV") {
        Ok(kv) => kv.get(KEY).cache_ttl(KV_CACHE_SECONDS).text().await,
        // Without a KV namespace the vars apply. (Runs need KV in any case: creators' keys are there.)
        Err(_) => Ok(None),
    };
    let text = match (text, &last_valid) {
        (Ok(text), _) => text,
        (Err(error), Some(config)) => {
            worker::console_error!("config: KV cannot be read, the last valid config still applies: {error}");
            return Ok((config.clone(), last_digest));
        }
        (Err(error), None) => {
            worker::console_error!("config: KV cannot be read, and no valid config is known: {error}");
            return Err(Refusal::Internal);
        }
    };
    let digest = text.as_deref().map(|t| sha256_hex(t.as_bytes()));
    if let (Some(config), true) = (&last_valid, digest == last_digest) {
        return Ok((config.clone(), last_digest));
    }
    let vars = from_vars(env).map_err(fault("vars"))?;
    let (Some(text), Some(digest)) = (text, digest) else {
        return Ok((Rc::new(vars), None));
    };
    match vars.clone().with_text(&text, &digest) {
        Ok(config) => Ok((Rc::new(config), Some(digest))),
        Err(error) => {
            worker::console_error!("config: the document in KV is invalid and changes nothing: {error}");
            Ok((last_valid.unwrap_or_else(|| Rc::new(vars.closed())), Some(digest)))
        }
    }
}

/// The deployment's vars over the built-in configuration.
fn from_vars(env: &Env) -> Result<Config, ConfigError> {
    let var = |name: &str| env.var(name).ok().map(|value| value.to_string());
    let has_secret = |name: &str| env.secret(name).is_ok();
    Config::built_in().with_document(Document::from_vars(var, has_secret)?)
}
