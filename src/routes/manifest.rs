//! `/.well-known/hire.json`: what can be hired here, of all creators or of one.

use super::{Answer, RequestContext};
use crate::edge::d1::templates;
use crate::edge::d1::templates::CapabilityQuery;
use crate::edge::fault;
use crate::edge::kv::config;
use crate::rules::hire::manifest::{manifest, ManifestScope};
use crate::rules::refusal::Refusal;
use worker::Response;

/// The manifest of all creators; with `handle`, of one. Without a capability there is none.
pub(crate) async fn show(context: RequestContext<'_>, handle: Option<&str>) -> Answer {
    let config = config::load(context.env).await?;
    let decimals = config.hire_network().ok_or(Refusal::NotFound)?.decimals;
    let wanted = handle.map_or(CapabilityQuery::All, |handle| CapabilityQuery::Of { handle });
    let (capabilities, names): (Vec<_>, Vec<_>) =
        templates::capabilities(context.env, wanted).await?.into_iter().unzip();
    let scope = match (handle, names.first()) {
        (Some(_), Some(display_name)) => ManifestScope::Creator { display_name },
        _ => ManifestScope::AllCreators,
    };
    let latency = config.limits.claude_total_seconds.saturating_mul(1000);
    let origin = crate::routes::origin(&context.request);
    let manifest = manifest(scope, &capabilities, config.hire.wallet, &origin, decimals, latency);
    let manifest = manifest.ok_or(Refusal::NotFound)?;
    let response = Response::from_json(&manifest).map_err(fault("manifest"))?;
    response.headers().set("cache-control", "public, max-age=60").map_err(fault("manifest"))?;
    Ok(response)
}
