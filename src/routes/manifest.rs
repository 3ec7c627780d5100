//! `/.well-known/hire.json`: what can be hired here, of all creators or of one.

use super::{Answer, Call};
use crate::edge::templates::{self, Wanted};
use crate::edge::{config, fault};
use crate::rules::capability::{manifest, Publisher};
use crate::rules::refusal::Refusal;
use worker::Response;

/// The manifest of all creators; with `handle`, of one. Without a capability there is none.
pub async fn show(call: Call<'_>, handle: Option<&str>) -> Answer {
    let config = config::load(call.env).await?;
    let decimals = config.hire_network().ok_or(Refusal::NotFound)?.decimals;
    let wanted = handle.map_or(Wanted::All, |handle| Wanted::Of { handle });
    let (capabilities, names): (Vec<_>, Vec<_>) = templates::capabilities(call.env, wanted).await?.into_iter().unzip();
    let publisher = match (handle, names.first()) {
        (Some(_), Some(name)) => Publisher::Creator(name),
        _ => Publisher::House,
    };
    let latency = config.limits.claude_total_seconds.saturating_mul(1000);
    let origin = super::origin(&call.request);
    let manifest = manifest(&publisher, &capabilities, config.hire.wallet, &origin, decimals, latency);
    let manifest = manifest.ok_or(Refusal::NotFound)?;
    let response = Response::from_json(&manifest).map_err(fault("manifest"))?;
    response.headers().set("cache-control", "public, max-age=60").map_err(fault("manifest"))?;
    Ok(response)
}
