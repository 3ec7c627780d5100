//! `/tasks/{id}`: how a contract's task stands. `/stream/{id}`: its events.

use super::{problem, Answer, RequestContext};
use crate::edge::fault;
use crate::edge::objects::runs;
use crate::edge::objects::runs::Answer as RunAnswer;
use crate::routes::execute::{header, task};
use crate::rules::refusal::Refusal;
use crate::wire::hire;

/// Where the task stands. Another contract's is nothing.
pub(crate) async fn show(context: RequestContext<'_>, id: &str) -> Answer {
    let contract = header(&context.request, "x-contract-id")?.unwrap_or_default().trim().to_owned();
    let found = match hire::is_contract_id(&contract) {
        true => runs::task(context.env, id, &contract).await,
        false => Err(Refusal::ContractIdMissing),
    };
    let refusal = match found {
        Ok(RunAnswer::Task(told)) => return task(&told, None),
        Ok(RunAnswer::Refused(refused)) => refused.refusal,
        Ok(RunAnswer::Ready(_) | RunAnswer::Ended) => Refusal::NotFound,
        Err(refusal) => refusal,
    };
    problem::of_contract(&refusal, &contract).map_err(fault("problem"))
}

/// The task's events, from the start or from after `Last-Event-ID`. (An `EventSource` sends no other header, so
/// the task's id is enough.)
pub(crate) async fn follow(context: RequestContext<'_>, id: &str) -> Answer {
    let last_event_id = header(&context.request, "last-event-id")?.and_then(|id| id.trim().parse().ok());
    match runs::follow_task(context.env, id, last_event_id).await? {
        RunAnswer::Ready(response) => Ok(response),
        RunAnswer::Ended => problem::ended().map_err(fault("answer")),
        RunAnswer::Refused(refused) => problem::of_run(&refused, None).map_err(fault("problem")),
        RunAnswer::Task(told) => task(&told, None),
    }
}
