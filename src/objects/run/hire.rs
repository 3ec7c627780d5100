//! What the run object does for contracts. A contract's runs are in the contract's object, whatever payments they are
//! executed with; the payment's own object only reserves the payment for it.

use super::responses::{refused, stream, wait_until};
use super::{milliseconds_until, Outcome, RunObject};
use crate::edge::d1::ledger;
use crate::edge::kv::config;
use crate::edge::objects::payers;
use crate::edge::objects::runs;
use crate::edge::objects::runs::ContractQuery;
use crate::edge::{clock, fault};
use crate::engine::{hire, CallerGuard, Session};
use crate::rules::admission::{next_execution, reusable_payment};
use crate::rules::config::Config;
use crate::rules::hire::context::ContractContext;
use crate::rules::record::receipt::settled_headers;
use crate::rules::record::replay::Viewer;
use crate::rules::record::run_request::RunRequest;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Millis, Policy, Run, State, View, RETENTION, RETENTION_IN_DOUBT};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;
use worker::Response;

/// The shortest wait for a task's report, in milliseconds: a caller who wants it at once still learns that the payment
/// is not valid.
const MIN_WAIT: Millis = 2_000;

// Presenting: a contract is executed.

/// Executes the contract, or joins the execution that is under way, and reports how the task stands.
pub(super) async fn present(object: &RunObject, mut request: RunRequest) -> Outcome {
    reuse_payment(object, &mut request).await?;
    let (viewer, answer_by) = (Viewer::Presenter(request.identity()), request.answer_by);
    let (session, _caller) = object.join_or_begin(request).await?;
    report_by(&session, &viewer, answer_by).await
}

/// Fills in the payment of the last execution where the request has none and that payment is still good.
async fn reuse_payment(object: &RunObject, request: &mut RunRequest) -> Outcome<()> {
    if request.begin_refusal != Some(Refusal::PaymentRequired) {
        return Ok(());
    }
    let config = config::load(&object.env).await?;
    let session = object.session()?;
    let data = session.data.borrow();
    let good_until = clock::seconds().saturating_add(config.limits.window_needed());
    if let Some(payment) = reusable_payment(&data.run, data.record.as_deref(), good_until) {
        (request.payment, request.begin_refusal) = (Some(payment.clone()), None);
    }
    Ok(())
}

/// Prepares an execution: reserves the payment in its own object and counts the execution for its payer. `None`: the
/// request executes no contract.
pub(super) async fn prepare(
    object: &RunObject,
    session: &Session,
    request: &RunRequest,
    config: &Config,
) -> Result<Option<ContractContext>, Refusal> {
    let Some(mut contract) = request.contract_context.clone() else { return Ok(None) };
    let payment = request.payment.as_ref().ok_or(Refusal::PaymentRequired)?;
    // Longer than a settlement can be in doubt.
    let until = clock::now().saturating_add(RETENTION_IN_DOUBT + RETENTION);
    if !runs::reserve(&object.env, &payment.name, &request.object, until).await? {
        return Err(Refusal::PaymentReused);
    }
    // Only the estimate of the completion depends on it, and there is a default for that.
    contract.usual_ms = ledger::usual_duration(&object.env, &request.template_id).await.ok().flatten();
    contract.execution = {
        let data = session.data.borrow();
        next_execution(&data.run, data.record.as_deref())
    };
    let limit = config.limits.unpaid_executions_per_payer;
    payers::count_execution(&object.env, payment, &request.object, contract.execution, limit).await?;
    Ok(Some(contract))
}

// Queries about tasks and payments.

pub(super) async fn answer(object: &RunObject, query: ContractQuery) -> Outcome {
    match query {
        ContractQuery::Task { task, contract } => {
            task_report(session_of_task(object, &task, Some(&contract)).await?.as_ref())
        }
        ContractQuery::FollowTask { task, last_event_id } => {
            let session = session_of_task(object, &task, None).await?;
            let caller = CallerGuard::new(&session);
            stream(&session, caller, Viewer::Seeker(task), last_event_id).await
        }
        ContractQuery::Reserve { to, until } => reserve(object, &to, until).await,
    }
}

async fn session_of_task(object: &RunObject, task: &str, contract: Option<&str>) -> Outcome<Rc<Session>> {
    let is_it = |c: &ContractContext| c.task_id == task && contract.is_none_or(|id| c.contract_id == id);
    object.find_session(|record| record.contract_context.as_ref().is_some_and(is_it)).await
}

/// Reserves this object's payment for a contract's object.
async fn reserve(object: &RunObject, to: &str, until: Millis) -> Outcome {
    let internal = fault::<worker::Error>;
    let (session, now) = (object.session()?, clock::now());
    let reserved = hire::reserve(&session, to, until, now).map_err(internal("run storage"))?;
    if reserved && session.deadline(now).is_none() {
        let alarm = object.state.storage().set_alarm(milliseconds_until(until, now)).await;
        alarm.map_err(internal("run storage"))?;
    }
    Ok(Response::from_json(&reserved).map_err(internal("run storage"))?)
}

// The reports.

/// Waits for the end of a task, but not longer than until `answer_by`, and reports how it stands.
async fn report_by(session: &Rc<Session>, viewer: &Viewer, answer_by: Millis) -> Outcome {
    let left = || answer_by.saturating_sub(clock::now());
    let is_verified = |run: &Run| !matches!(run.state(), State::New | State::Presented);
    within(left().max(MIN_WAIT), wait_until(session, viewer, is_verified)).await?;
    let is_ready = |run: &Run| match run.terms().policy {
        // The report of a stream says where to follow it, so it is due when the stream begins.
        Policy::OnStart => !matches!(run.view(), View::Wait),
        Policy::OnResult | Policy::Free => run.is_final(),
    };
    within(left(), wait_until(session, viewer, is_ready)).await?;
    let view = session.data.borrow().run.view();
    match view {
        // The task has not failed: it may be executed with another payment.
        View::Refuse(refusal) if session.data.borrow().run.is_replaceable() && refusal.is_about_payment() => {
            Err(refused(session, refusal))
        }
        _ => task_report(session),
    }
}

/// Waits, but not longer than some milliseconds. That the time is up is no error.
async fn within(limit: Millis, wait: impl Future<Output = Outcome<()>>) -> Outcome<()> {
    clock::within(Duration::from_millis(limit), wait).await.unwrap_or(Ok(()))
}

fn task_report(session: &Session) -> Outcome {
    let internal = |e: &str| refused(session, fault("task")(e));
    let mut report = hire::task_report(session).ok_or_else(|| internal("no contract"))?;
    {
        let data = session.data.borrow();
        let run_id = data.record.as_ref().map(|record| ("x-run-id".to_owned(), record.run_id.clone()));
        report.headers.extend(run_id);
        report.headers.extend(data.run.receipt().into_iter().flat_map(settled_headers));
    }
    runs::task_report(&report).map_err(|e| internal(&e.to_string()))
}
