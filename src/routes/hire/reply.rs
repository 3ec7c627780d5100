//! Replies about contracts and tasks.

use super::problem;
use crate::edge::fault;
use crate::routes::problem::{fail, succeed, Success};
use crate::routes::reply;
use crate::routes::reply::{Reply, PRIVATE};
use crate::rules::hire::task::TaskReport;
use crate::rules::refusal::{Refusal, Retry};
use crate::rules::run::Millis;
use crate::wire::prefer::Prefer;
use serde::Serialize;
use serde_json::Value;

/// HIRE's connection limit is 30 s. Within this time, in milliseconds, every call is answered.
pub(super) const MAX_WAIT: Millis = 27_000;

/// A document about a contract, or a refusal in HIRE's form.
pub(super) fn of_contract<T: Serialize>(
    answer: Result<T, Refusal>,
    contract_id: &str,
    success: impl FnOnce(&T) -> Success,
) -> Reply {
    match answer {
        Ok(document) => Ok(succeed(reply::json(&document, PRIVATE)?, success(&document))),
        Err(refusal) => problem::of_contract(&refusal, contract_id),
    }
}

/// How a task stands, for who polls it: that is a 200, whatever the report says.
pub(super) fn of_task(report: &TaskReport) -> Reply {
    Ok(succeed(task(report)?, Success::Done))
}

/// How a task stands, for who has called `/execute`.
pub(super) fn of_execution(report: &TaskReport, prefer: Prefer) -> Reply {
    let response = task(report)?;
    let applied = match prefer {
        Prefer { at_once: true, .. } if report.pending => Some("respond-async".to_owned()),
        Prefer { wait: Some(seconds), .. } => Some(format!("wait={}", Millis::from(seconds).min(MAX_WAIT / 1000))),
        _ => None,
    };
    if let Some(applied) = applied {
        response.headers().set("preference-applied", &applied).map_err(fault("task"))?;
    }
    Ok(match &report.refusal {
        Some(refusal) => fail(response, refusal),
        None if report.pending => succeed(response, Success::Pending),
        None => succeed(response, Success::Done),
    })
}

fn task(report: &TaskReport) -> Reply {
    let response = reply::json(&report.document, PRIVATE)?;
    let set = |name: &str, value: &str| response.headers().set(name, value).map_err(fault("task"));
    for (name, value) in &report.headers {
        set(name, value)?;
    }
    // The report knows the contract: where that allows no other execution, nothing is retryable.
    let retryable = report.document.pointer("/error/retryable") == Some(&Value::Bool(true));
    if let Some(Retry::After(seconds)) = report.refusal.as_ref().map(Refusal::retry).filter(|_| retryable) {
        set("retry-after", &seconds.to_string())?;
    }
    if report.pending {
        set("retry-after", "1")?;
        if let Some(url) = report.document.get("poll_url").and_then(Value::as_str) {
            set("location", url)?;
        }
    }
    Ok(response)
}
