//! `/tasks/{id}`: how a contract's task stands. `/stream/{id}`: its events.

use super::{contract_id, problem, reply};
use crate::edge::objects::wallets;
use crate::edge::objects::wallets::Answer as RunAnswer;
use crate::routes::reply::Reply;
use crate::routes::request::RequestContext;
use crate::rules::refusal::Refusal;
use crate::wire::hire;

/// Where the task stands. A task of another contract does not exist.
pub(crate) async fn show(context: RequestContext<'_>, id: &str) -> Reply {
    let contract = contract_id(&context)?;
    let found = match hire::is_contract_id(&contract) {
        true => wallets::task(context.env, id, &contract).await,
        false => Err(Refusal::ContractIdMissing),
    };
    let refusal = match found {
        Ok(RunAnswer::Task(report)) => return reply::of_task(&report),
        Ok(RunAnswer::Refused(refused)) => refused.refusal,
        Ok(RunAnswer::Ready(_) | RunAnswer::Ended | RunAnswer::VerifyFirst) => Refusal::NotFound,
        Err(refusal) => refusal,
    };
    problem::of_contract(&refusal, &contract)
}

/// The task's events, from the start or from after `Last-Event-ID`. (An `EventSource` sends no other header, so the
/// task's id is enough.)
pub(crate) async fn follow(context: RequestContext<'_>, id: &str) -> Reply {
    match wallets::follow_task(context.env, id, context.last_event_id()?).await? {
        RunAnswer::Task(report) => reply::of_task(&report),
        answer => crate::routes::reply::of_run(answer, None),
    }
}
