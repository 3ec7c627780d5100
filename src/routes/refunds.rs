//! `/.well-known/refund-policy.json`: what becomes of money for a run that could not be finished.

use super::{Answer, RequestContext};
use crate::edge::fault;
use crate::edge::kv::config;
use crate::rules::run::RETENTION;
use serde_json::json;
use worker::Response;

/// What the software does by itself, and what the operator adds.
pub(crate) async fn policy(context: RequestContext<'_>) -> Answer {
    let config = config::load(context.env).await?;
    let claims = config.facilitators.iter().find(|f| f.claims_secret.is_some());
    let body = json!({
        "version": 1,
        "charged": "once Claude has begun to answer (streams), or when the whole answer exists (JSON)",
        "notCharged": "input that is refused, a payment that is not settled, a run that fails before it is charged",
        "paidAndBroken": {
            "attempts": config.limits.paid_attempts,
            "then": "the run is refundable: the caller is told RUN_REFUNDABLE, the creator sees it in the ledger",
            "reportedTo": claims.map(|f| &f.url),
        },
        "samePaymentSameRun": {"forSeconds": RETENTION / 1000, "charged": "never again"},
        "operator": config.refund_policy,
    });
    let response = Response::from_json(&body).map_err(fault("refund policy"))?;
    response.headers().set("cache-control", "public, max-age=300").map_err(fault("refund policy"))?;
    Ok(response)
}
