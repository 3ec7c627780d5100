//! `GET /healthz`: version, config, and what can be reached.

use super::{Answer, Call};
use crate::edge::vault::Vault;
use crate::edge::{claude, clock, config, facilitator, fault, files, ledger};
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
pub async fn show(call: Call<'_>) -> Answer {
    let now = clock::now();
    let last = LAST.with_borrow(|last| last.clone());
    let body = match last {
        Some((at, body)) if now.saturating_sub(at) < FRESH => body,
        _ => {
            let body = probe(&call).await?;
            LAST.with_borrow_mut(|last| *last = Some((now, body.clone())));
            body
        }
    };
    let response = Response::from_json(&body).map_err(fault("health"))?;
    response.headers().set("cache-control", "no-store").map_err(fault("health"))?;
    Ok(response)
}

async fn probe(call: &Call<'_>) -> Result<Value, crate::rules::refusal::Refusal> {
    let config = config::load(call.env).await?;
    let kv = async {
        match call.env.kv("KV") {
            Ok(kv) => kv.get("config").text().await.is_ok(),
            Err(_) => false,
        }
    };
    let (d1, kv, facilitator, claude) = join4(
        ledger::is_reachable(call.env),
        kv,
        facilitator::is_reachable(&config, LIMIT),
        claude::is_reachable(&config, LIMIT),
    )
    .await;
    let vault = Vault::new(call.env).is_ok();
    let runs = call.env.durable_object("RUNS").is_ok();
    let jwt = !config.jwt.issuers.is_empty();
    Ok(json!({
        "ok": d1 && kv && facilitator && claude && vault && runs && !config.paused,
        "version": env!("CARGO_PKG_VERSION"),
        "config": {"revision": config.revision, "paused": config.paused},
        "configured": {"vault": vault, "runs": runs, "jwt": jwt, "files": files::are_kept(call.env)},
        "hire": {"network": config.hire.network, "allowLoopback": config.hire.allow_loopback},
        "reachable": {"d1": d1, "kv": kv, "facilitator": facilitator, "claude": claude},
    }))
}
