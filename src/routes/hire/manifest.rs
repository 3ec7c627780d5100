//! `/.well-known/hire.json`: what can be hired here, of all creators or of one, in pages.

use crate::edge::cache;
use crate::edge::cache::Cache;
use crate::edge::d1::capabilities;
use crate::edge::fault;
use crate::edge::kv::config;
use crate::routes::reply::Reply;
use crate::routes::request::{query_value, RequestContext};
use crate::rules::config::Config;
use crate::rules::hire::manifest::{manifest, Cursor, ManifestScope, Page};
use crate::rules::refusal::Refusal;
use serde_json::Value;
use worker::{Env, Response};

/// How many pages in a row that offer nothing are passed over. Each is full of names that several capabilities share.
const MAX_EMPTY_PAGES: usize = 50;

/// A page of a manifest.
struct Document {
    json: String,
    next: Option<String>,
}

thread_local! {
    static DOCUMENTS: Cache<Document> = const { Cache::new(|document| document.json.len()) };
}

/// The manifest of all creators; with `handle`, of one. Without a capability there is none.
pub(crate) async fn show(context: RequestContext<'_>, handle: Option<&str>) -> Reply {
    let config = config::load(context.env).await?;
    let (origin, query) = (context.origin(), context.query());
    let cursor = query_value(&query, "cursor").unwrap_or_default();
    let after = match cursor {
        "" => Cursor::default(),
        cursor => Cursor::decode(cursor).ok_or(Refusal::NotFound)?,
    };
    let path = handle.map_or_else(String::new, |handle| format!("/@{handle}"));
    let url = format!("{origin}{path}/.well-known/hire.json");
    let name = format!("{url}?{cursor} {}", config.revision);
    let read = read(context.env, &config, &origin, &url, handle, after);
    let document =
        cache::recent(&DOCUMENTS, &name, config.limits.cache_time(), read).await?.ok_or(Refusal::NotFound)?;
    reply(&document).map_err(fault("reply"))
}

fn reply(document: &Document) -> worker::Result<Response> {
    let response = Response::ok(document.json.clone())?;
    response.headers().set("content-type", "application/json")?;
    response.headers().set("cache-control", "public, max-age=60")?;
    if let Some(next) = &document.next {
        response.headers().set("link", &format!("<{next}>; rel=\"next\""))?;
    }
    Ok(response)
}

async fn read(
    env: &Env,
    config: &Config,
    origin: &str,
    url: &str,
    handle: Option<&str>,
    first: Cursor,
) -> Result<Option<Document>, Refusal> {
    let decimals = config.hire_network().ok_or(Refusal::NotFound)?.decimals;
    let latency = config.limits.claude_total_seconds.saturating_mul(1000);
    let is_first = first == Cursor::default();
    let mut after = first;
    for _ in 0..MAX_EMPTY_PAGES {
        let found = capabilities::page(env, handle, &after).await?;
        let next = found.next.as_ref().map(|next| format!("{url}?cursor={}", next.encode()));
        let scope = match (handle, &found.creator) {
            (Some(_), Some(display_name)) => ManifestScope::Creator { display_name },
            _ => ManifestScope::AllCreators,
        };
        let page = Page {
            capabilities: &found.capabilities,
            shared_names: &found.shared_names,
            is_whole: is_first && next.is_none(),
            next: next.as_deref(),
        };
        let manifest = manifest(scope, page, config.hire.wallet, origin, decimals, latency);
        match (manifest, found.next) {
            (Some(manifest), _) => return Ok(Some(document(&manifest, next))),
            (None, Some(next)) => after = next,
            (None, None) => break,
        }
    }
    Ok(None)
}

fn document(manifest: &Value, next: Option<String>) -> Document {
    Document { json: manifest.to_string(), next }
}
