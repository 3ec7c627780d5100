//! `/.well-known/refund-policy.json`: what happens to the money of a run that could not be finished.

use super::reply;
use super::reply::Reply;
use super::request::RequestContext;
use crate::edge::kv::config;
use crate::rules::run::{Millis, RETENTION};
use serde::Serialize;

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct RefundPolicy<'a> {
    version: u8,
    charged: &'static str,
    not_charged: &'static str,
    paid_and_broken: PaidAndBroken<'a>,
    same_payment_same_run: SamePaymentSameRun,
    operator: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct PaidAndBroken<'a> {
    attempts: u8,
    then: &'static str,
    reported_to: Option<&'a str>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct SamePaymentSameRun {
    for_seconds: Millis,
    charged: &'static str,
}

/// What the software does by itself, and what the operator promises besides.
pub(crate) async fn show(context: RequestContext<'_>) -> Reply {
    let config = config::load(context.env).await?;
    let facilitator = config.facilitators.iter().find(|facilitator| facilitator.claims_secret.is_some());
    let policy = RefundPolicy {
        version: 1,
        charged: "once Claude has begun to answer (streams), or when the whole answer exists (JSON)",
        not_charged: "input that is refused, a payment that is not settled, a run that fails before it is charged",
        paid_and_broken: PaidAndBroken {
            attempts: config.limits.paid_attempts,
            then: "the run is refundable: the caller is told RUN_REFUNDABLE, the creator sees it in the ledger",
            reported_to: facilitator.map(|facilitator| facilitator.url.as_str()),
        },
        same_payment_same_run: SamePaymentSameRun { for_seconds: RETENTION / 1000, charged: "never again" },
        operator: config.refund_policy.as_deref(),
    };
    reply::json(&policy, "public, max-age=300")
}
