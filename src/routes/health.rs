//! `GET /healthz`: version, config, and what can be reached.

use super::reply;
use super::reply::{Reply, NO_STORE};
use super::request::RequestContext;
use crate::edge::d1::ledger;
use crate::edge::files;
use crate::edge::http::{claude, facilitator};
use crate::edge::kv::config;
use crate::edge::lookup::{look_up, Lookups, Times};
use crate::edge::vault::Vault;
use crate::rules::refusal::Refusal;
use futures::future::join4;
use serde::Serialize;
use std::time::Duration;

/// Time limit of each probe.
const LIMIT: Duration = Duration::from_secs(2);
/// A report is given again for two seconds, so that a health check cannot be used to flood what it probes.
const TIMES: Times = Times { fresh: 2_000, stale: 4_000, retry: 2_000, newer: 2_000, limit: 3_000 };

#[derive(Serialize)]
struct Health {
    /// Whether runs can be sold.
    ok: bool,
    version: &'static str,
    config: ConfigState,
    configured: Configured,
    hire: HireState,
    reachable: Reachable,
}

#[derive(Serialize)]
struct ConfigState {
    revision: String,
    paused: bool,
}

#[derive(Serialize)]
struct Configured {
    vault: bool,
    runs: bool,
    jwt: bool,
    files: bool,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct HireState {
    network: String,
    allow_loopback: bool,
}

#[derive(Serialize)]
struct Reachable {
    d1: bool,
    kv: bool,
    facilitator: bool,
    claude: bool,
}

thread_local! {
    static HEALTH: Lookups<Health> = const { Lookups::new() };
}

/// A 200 as long as this Worker answers and has a configuration.
pub(crate) async fn show(context: RequestContext<'_>) -> Reply {
    let probe = || async { probe(&context).await.ok() };
    let health = look_up(&HEALTH, "", &TIMES, None, probe).await.ok_or(Refusal::Internal)?;
    reply::json(&*health, NO_STORE)
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
