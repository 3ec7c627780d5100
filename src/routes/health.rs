//! `GET /healthz`: version, config, and what can be reached.

use super::reply;
use super::reply::{Reply, NO_STORE};
use super::request::RequestContext;
use crate::edge::d1::ledger;
use crate::edge::http::{claude, facilitator};
use crate::edge::kv::config;
use crate::edge::vault::Vault;
use crate::edge::{clock, files};
use crate::rules::refusal::Refusal;
use crate::rules::run::Millis;
use futures::future::join4;
use serde::Serialize;
use std::cell::RefCell;
use std::time::Duration;

/// Time limit of each probe.
const LIMIT: Duration = Duration::from_secs(2);
/// A report is given again for this long, so that a health check cannot be used to flood what it probes.
const FRESH: Millis = 2_000;

#[derive(Clone, Serialize)]
struct Health {
    /// Whether runs can be sold.
    ok: bool,
    version: &'static str,
    config: ConfigState,
    configured: Configured,
    hire: HireState,
    reachable: Reachable,
}

#[derive(Clone, Serialize)]
struct ConfigState {
    revision: String,
    paused: bool,
}

#[derive(Clone, Serialize)]
struct Configured {
    vault: bool,
    runs: bool,
    jwt: bool,
    files: bool,
}

#[derive(Clone, Serialize)]
#[serde(rename_all = "camelCase")]
struct HireState {
    network: String,
    allow_loopback: bool,
}

#[derive(Clone, Serialize)]
struct Reachable {
    d1: bool,
    kv: bool,
    facilitator: bool,
    claude: bool,
}

thread_local! {
    static LAST: RefCell<Option<(Millis, Health)>> = const { RefCell::new(None) };
}

/// A 200 as long as this Worker answers and has a configuration.
pub(crate) async fn show(context: RequestContext<'_>) -> Reply {
    let now = clock::now();
    let last = LAST.with_borrow(|last| last.clone());
    let health = match last {
        Some((at, health)) if now.saturating_sub(at) < FRESH => health,
        _ => {
            let health = probe(&context).await?;
            LAST.with_borrow_mut(|last| *last = Some((now, health.clone())));
            health
        }
    };
    reply::json(&health, NO_STORE)
}

async fn probe(context: &RequestContext<'_>) -> Result<Health, Refusal> {
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
    let runs = context.env.durable_object("WALLETS").is_ok();
    Ok(Health {
        ok: d1 && kv && facilitator && claude && vault && runs && !config.paused,
        version: env!("CARGO_PKG_VERSION"),
        config: ConfigState { revision: config.revision.clone(), paused: config.paused },
        configured: Configured {
            vault,
            runs,
            jwt: !config.jwt.issuers.is_empty(),
            files: files::are_kept(context.env),
        },
        hire: HireState { network: config.hire.network.clone(), allow_loopback: config.hire.allow_loopback },
        reachable: Reachable { d1, kv, facilitator, claude },
    })
}
