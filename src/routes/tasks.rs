//! `/tasks/{id}`: how a contract's task stands. `/stream/{id}`: its events.

use super::execute::{header, task};
use super::{problem, Answer, Call};
use crate::edge::fault;
use crate::edge::runs::{self, Answer as RunAnswer};
use crate::rules::refusal::Refusal;
use crate::wire::hire;

/// Where the task stands. Another contract's is nothing.
pub async fn show(call: Call<'_>, id: &str) -> Answer {
    let contract = header(&call.request, "x-contract-id")?.unwrap_or_default().trim().to_owned();
    let found = match hire::is_contract_id(&contract) {
        true => runs::task(call.env, id, &contract).await,
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
pub async fn follow(call: Call<'_>, id: &str) -> Answer {
    let last_event_id = header(&call.request, "last-event-id")?.and_then(|id| id.trim().parse().ok());
    match runs::follow_task(call.env, id, last_event_id).await? {
        RunAnswer::Ready(response) => Ok(response),
        RunAnswer::Ended => problem::ended().map_err(fault("answer")),
        RunAnswer::Refused(refused) => problem::of_run(&refused, None).map_err(fault("problem")),
        RunAnswer::Task(told) => task(&told, None),
    }
}
