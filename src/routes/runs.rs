//! `/runs/{id}` and `/runs/{id}/stream`: a run, for who holds its id. `/@{user}/{slug}/runs`: a template's
//! runs, for its owner.

use super::{problem, Answer, RequestContext};
use crate::edge::d1::{ledger, templates};
use crate::edge::kv::config;
use crate::edge::objects::runs;
use crate::edge::objects::runs::Answer as RunAnswer;
use crate::edge::{fault, jwt};
use crate::rules::ids::object_of;
use crate::rules::refusal::Refusal;
use serde_json::json;
use worker::Response;

/// Rows on one page.
const PAGE: u32 = 100;

/// Where the run stands, and its output when it is whole. After the object has forgotten it: its row in the
/// ledger.
pub(crate) async fn show(context: RequestContext<'_>, run: &str) -> Answer {
    object_of(run).ok_or(Refusal::NotFound)?;
    match runs::status(context.env, run).await? {
        RunAnswer::Ready(response) => Ok(response),
        RunAnswer::Refused(refused) if refused.refusal != Refusal::NotFound => {
            problem::of_run(&refused, None).map_err(fault("problem"))
        }
        RunAnswer::Ended | RunAnswer::Task(_) | RunAnswer::Refused(_) => {
            let entry = ledger::find(context.env, run).await?.ok_or(Refusal::NotFound)?;
            told(&json!({"run": run, "status": entry.status, "ledger": entry}))
        }
    }
}

/// The run's events, from the start or from after `Last-Event-ID`.
pub(crate) async fn follow(context: RequestContext<'_>, run: &str) -> Answer {
    let header = context.request.headers().get("last-event-id").map_err(fault("headers"))?;
    let last_event_id = header.and_then(|id| id.trim().parse().ok());
    match runs::follow(context.env, run, last_event_id).await? {
        RunAnswer::Ready(response) => Ok(response),
        RunAnswer::Ended | RunAnswer::Task(_) => problem::ended().map_err(fault("answer")),
        RunAnswer::Refused(refused) => problem::of_run(&refused, None).map_err(fault("problem")),
    }
}

/// The template's ledger, newest first. `?status=` shows one kind, `?before=` (milliseconds) what is older.
pub(crate) async fn list(context: RequestContext<'_>, user: &str, slug: &str) -> Answer {
    let config = config::load(context.env).await?;
    let header = context.request.headers().get("authorization").map_err(fault("headers"))?;
    let creator = jwt::bearer(context.env, &config, header.as_deref()).await?;
    let template = templates::find(context.env, user, slug).await?.ok_or(Refusal::NotFound)?;
    if template.creator_id != creator {
        // A draft is nothing to strangers, token or no token.
        return Err(if template.published { Refusal::NotOwner } else { Refusal::NotFound });
    }
    let url = context.request.inner().url();
    let query = url.split_once('?').map_or("", |(_, query)| query);
    let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
    let before = value("before").and_then(|b| b.parse().ok());
    let entries = ledger::list(context.env, &template.id, value("status"), before, PAGE).await?;
    told(&json!({"template": format!("/@{user}/{slug}"), "runs": entries}))
}

fn told(json: &serde_json::Value) -> Answer {
    let response = Response::from_json(json).map_err(fault("runs"))?;
    response.headers().set("cache-control", "private, no-store").map_err(fault("runs"))?;
    Ok(response)
}
