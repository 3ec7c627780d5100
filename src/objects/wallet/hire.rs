//! What a wallet's object does for contracts: all executions of a contract are runs of its seeker.

use super::responses::{refused, stream, wait_until};
use super::{Outcome, WalletObject};
use crate::edge::d1::ledger;
use crate::edge::kv::config;
use crate::edge::objects::wallets;
use crate::edge::{clock, fault};
use crate::engine::{hire, Session};
use crate::rules::admission::{next_execution, reusable_payment};
use crate::rules::config::Config;
use crate::rules::record::receipt::settled_headers;
use crate::rules::record::run_request::RunRequest;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Millis, Policy, Run, State, View};
use std::future::Future;
use std::rc::Rc;
use std::time::Duration;

/// The shortest wait for a task's report, in milliseconds: a caller who wants it at once still learns that the payment
/// is not valid.
const MIN_WAIT: Millis = 2_000;

// Presenting: a contract is executed.

/// Executes the contract, or joins the execution that is under way, and reports how the task stands.
pub(super) async fn present(object: &WalletObject, mut request: RunRequest) -> Outcome {
    let config = config::load(&object.env).await?;
    reuse_payment(object, &mut request, &config)?;
    if let Some(contract) = &mut request.contract_context {
        // Only the estimate of the completion depends on it, and there is a default for that.
        contract.usual_ms = ledger::usual_duration(&object.env, &request.template_id).await.ok().flatten();
    }
    let answer_by = request.answer_by;
    let (session, _caller) = object.join_or_begin(request, &config).await?;
    report_by(&session, answer_by).await
}

/// Fills in the payment of the last execution where the request has none and that payment is still good.
fn reuse_payment(object: &WalletObject, request: &mut RunRequest, config: &Config) -> Outcome<()> {
    if request.begin_refusal != Some(Refusal::PaymentRequired) {
        return Ok(());
    }
    let last = object.loaded()?.find_named(&request.name).map_err(fault("wallet storage"))?;
    let Some(last) = last else { return Ok(()) };
    let data = last.data.borrow();
    let good_until = clock::seconds().saturating_add(config.limits.window_needed());
    if let Some(payment) = reusable_payment(Some(last.known(&data)), good_until) {
        (request.payment, request.begin_refusal) = (Some(payment.clone()), None);
    }
    Ok(())
}

/// Gives an execution of a contract its number.
pub(super) fn number_execution(last: Option<&Session>, request: &mut RunRequest) {
    let Some(contract) = &mut request.contract_context else { return };
    contract.execution = match last {
        Some(last) => next_execution(Some(last.known(&last.data.borrow()))),
        None => 1,
    };
}

// Queries about tasks.

/// How the task of a contract stands.
pub(super) fn task(object: &WalletObject, task: &str, contract: &str) -> Outcome {
    let session = find_task(object, task)?;
    let context = session.record.contract_context.as_ref();
    match context.is_some_and(|context| context.contract_id == contract) {
        true => task_report(&session),
        false => Err(Refusal::NotFound.into()),
    }
}

/// The events of the task's last execution.
pub(super) async fn follow(object: &WalletObject, task: &str, last_event_id: Option<u64>) -> Outcome {
    let session = find_task(object, task)?;
    let caller = object.caller(&session)?;
    stream(&session, caller, last_event_id).await
}

fn find_task(object: &WalletObject, task: &str) -> Outcome<Rc<Session>> {
    let found = object.loaded()?.find_named(task).map_err(fault("wallet storage"))?;
    Ok(found.ok_or(Refusal::NotFound)?)
}

// The reports.

/// Waits for the end of a task, but not longer than until `answer_by`, and reports how it stands.
async fn report_by(session: &Rc<Session>, answer_by: Millis) -> Outcome {
    let left = || answer_by.saturating_sub(clock::now());
    let is_verified = |run: &Run| !matches!(run.state(), State::New | State::Presented);
    within(left().max(MIN_WAIT), wait_until(session, is_verified)).await;
    // From here on a report may say that the task is pending.
    session.handle_event(Event::ToldPending);
    let is_ready = |run: &Run| match run.terms().policy {
        // The report of a stream says where to follow it, so it is due when the stream begins.
        Policy::OnStart => !matches!(run.view(), View::Wait),
        Policy::OnResult | Policy::Free => run.is_final(),
    };
    within(left(), wait_until(session, is_ready)).await;
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
async fn within(limit: Millis, wait: impl Future<Output = ()>) {
    clock::within(Duration::from_millis(limit), wait).await.unwrap_or(());
}

fn task_report(session: &Session) -> Outcome {
    let internal = |e: &str| refused(session, fault("task")(e));
    let mut report = hire::task_report(session).ok_or_else(|| internal("no contract"))?;
    report.headers.push(("x-run-id".to_owned(), session.record.run_id.clone()));
    report.headers.extend(session.data.borrow().run.receipt().into_iter().flat_map(settled_headers));
    wallets::task_report(&report).map_err(|e| internal(&e.to_string()))
}
