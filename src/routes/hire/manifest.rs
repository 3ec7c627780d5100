//! `/.well-known/hire.json`: what can be hired here, of all creators or of one.

use crate::edge::d1::templates;
use crate::edge::d1::templates::CapabilityQuery;
use crate::edge::kv::config;
use crate::routes::reply;
use crate::routes::reply::Reply;
use crate::routes::request::RequestContext;
use crate::rules::hire::manifest::{manifest, ManifestScope};
use crate::rules::refusal::Refusal;

/// The manifest of all creators; with `handle`, of one. Without a capability there is none.
pub(crate) async fn show(context: RequestContext<'_>, handle: Option<&str>) -> Reply {
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
    let manifest = manifest(scope, &capabilities, config.hire.wallet, &context.origin(), decimals, latency);
    reply::json(&manifest.ok_or(Refusal::NotFound)?, "public, max-age=60")
}
