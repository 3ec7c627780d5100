//! `/runs/{id}` and `/runs/{id}/stream`: a run, for whoever has its id. `/@{user}/{slug}/runs`: a template's runs, for
//! its owner.

use super::problem;
use super::reply;
use super::reply::{Reply, PRIVATE};
use super::request::{query_value, RequestContext};
use crate::edge::d1::ledger::Entry;
use crate::edge::d1::{ledger, templates};
use crate::edge::fault;
use crate::edge::kv::config;
use crate::edge::objects::wallets;
use crate::edge::objects::wallets::Answer as RunAnswer;
use crate::rules::ids::object_of;
use crate::rules::refusal::Refusal;
use serde::Serialize;

/// Rows on one page.
const PAGE: u32 = 100;

/// A run that its object has forgotten.
#[derive(Serialize)]
struct FormerRun<'a> {
    run: &'a str,
    status: &'a str,
    ledger: &'a Entry,
}

#[derive(Serialize)]
struct RunList {
    template: String,
    runs: Vec<Entry>,
}

/// Where the run stands, and its output when it is whole. Once the object has forgotten it: its row in the ledger.
pub(crate) async fn show(context: RequestContext<'_>, run: &str) -> Reply {
    object_of(run).ok_or(Refusal::NotFound)?;
    match wallets::status(context.env, run).await? {
        RunAnswer::Ready(response) => Ok(response),
        RunAnswer::Refused(refused) if refused.refusal != Refusal::NotFound => {
            problem::of_run(&refused, None).map_err(fault("problem"))
        }
        RunAnswer::Ended | RunAnswer::Task(_) | RunAnswer::VerifyFirst | RunAnswer::Refused(_) => {
            let entry = ledger::find(context.env, run).await?.ok_or(Refusal::NotFound)?;
            reply::json(&FormerRun { run, status: &entry.status, ledger: &entry }, PRIVATE)
        }
    }
}

/// The run's events, from the start or from after `Last-Event-ID`.
pub(crate) async fn follow(context: RequestContext<'_>, run: &str) -> Reply {
    let answer = wallets::follow(context.env, run, context.last_event_id()?).await?;
    reply::of_run(answer, None)
}

/// The template's ledger, newest first. `?status=` shows one kind, `?before=` (milliseconds) what is older.
pub(crate) async fn list(context: RequestContext<'_>, user: &str, slug: &str) -> Reply {
    let config = config::load(context.env).await?;
    let creator = context.creator(&config).await?;
    let template = templates::find(context.env, user, slug, Some(&creator)).await?.ok_or(Refusal::NotFound)?;
    if template.creator_id != creator {
        return Err(Refusal::NotOwner);
    }
    let query = context.query();
    let before = query_value(&query, "before").and_then(|before| before.parse().ok());
    let runs = ledger::list(context.env, &template.id, query_value(&query, "status"), before, PAGE).await?;
    reply::json(&RunList { template: format!("/@{user}/{slug}"), runs }, PRIVATE)
}
