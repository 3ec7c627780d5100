//! `GET /healthz`: version, config, and what can be reached.

use super::{Answer, RequestContext};
use crate::edge::d1::ledger;
use crate::edge::http::{claude, facilitator};
use crate::edge::kv::config;
use crate::edge::vault::Vault;
use crate::edge::{clock, fault, files};
use crate::rules::run::Millis;
use futures::future::join4;
use serde_json::{json, Value};
use std::cell::RefCell;
use std::time::Duration;
use worker::Response;

/// Each probe's time.
const LIMIT: Duration = Duration::from_secs(2);
/// An answer is given again for this long: a health check must not become a way to knock on others.
const FRESH: Millis = 2_000;

thread_local! {
    static LAST: RefCell<Option<(Millis, Value)>> = const { RefCell::new(None) };
}

/// Says how we are. 200 as long as this Worker answers; `ok` tells whether runs can be sold.
pub(crate) async fn show(context: RequestContext<'_>) -> Answer {
    let now = clock::now();
    let last = LAST.with_borrow(|last| last.clone());
    let body = match last {
        Some((at, body)) if now.saturating_sub(at) < FRESH => body,
        _ => {
            let body = probe(&context).await?;
            LAST.with_borrow_mut(|last| *last = Some((now, body.clone())));
            body
        }
    };
    let response = Response::from_json(&body).map_err(fault("health"))?;
    response.headers().set("cache-control", "no-store").map_err(fault("health"))?;
    Ok(response)
}

async fn probe(context: &RequestContext<'_>) -> Result<Value, crate::rules::refusal::Refusal> {
    let config = config::load(context.env).await?;
    let kv = async {
        match context.env.kv("KV") {
            Ok(kv) => kv.get("config").text().await.is_ok(),
            Err(_) => false,
        }
    };
    let (d1, kv, facilitator, claude) = join4(
        ledger::is_reachable(context.env),
        kv,
        facilitator::is_reachable(&config, LIMIT),
        claude::is_reachable(&config, LIMIT),
    )
    .await;
    let vault = Vault::new(context.env).is_ok();
    let runs = context.env.durable_object("RUNS").is_ok();
    let jwt = !config.jwt.issuers.is_empty();
    Ok(json!({
        "ok": d1 && kv && facilitator && claude && vault && runs && !config.paused,
        "version": env!("CARGO_PKG_VERSION"),
        "config": {"revision": config.revision, "paused": config.paused},
        "configured": {"vault": vault, "runs": runs, "jwt": jwt, "files": files::are_kept(context.env)},
        "hire": {"network": config.hire.network, "allowLoopback": config.hire.allow_loopback},
        "reachable": {"d1": d1, "kv": kv, "facilitator": facilitator, "claude": claude},
    }))
}
