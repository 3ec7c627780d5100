//! The payer objects' protocol. There is one for each payer, and it knows what concerns several of their payments:
//! which payment an identifier belongs to, which runs show text before they are settled, and which executions of
//! contracts are not paid.

use crate::edge::objects::runs;
use crate::edge::objects::runs::RunSummary;
use crate::edge::{clock, fault};
use crate::rules::payment::identifier::Claim;
use crate::rules::payment::Payment;
use crate::rules::record::run_request::RunRequest;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Millis, Release, RETENTION_UNVERIFIED};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use worker::{Env, Method, Request, RequestInit, Stub};

/// The binding of the objects' namespace.
const NAMESPACE: &str = "PAYERS";

/// A call to a payer's object.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PayerQuery {
    /// Claims an identifier for a payment.
    Claim {
        claim: Claim,
        /// The object of a payment that may lose the identifier, because its run has failed.
        instead_of: Option<String>,
    },
    /// Counts an execution of a contract among the unpaid ones of the last day.
    CountExecution {
        /// The name of the contract's object.
        object: String,
        execution: u32,
        #[serde(rename = "most")]
        limit: u32,
    },
    /// The executions of this contract are paid and do not count any more.
    ExecutionsPaid {
        /// The name of the contract's object.
        object: String,
    },
    /// Takes one of the slots for runs whose text is shown before they are settled.
    TakeSlot {
        /// The name of the run's object.
        object: String,
        /// How many slots there are.
        slots: u32,
        /// Objects that do not need their slots any more.
        freed: Vec<String>,
    },
}

#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PayerReply {
    Granted,
    /// The identifier stands for another payment, or another request.
    Held {
        /// The name of the payment's object.
        object: String,
        since: Millis,
    },
    /// All slots are taken: by which objects, and since when.
    Taken(Vec<(String, Millis)>),
}

/// Claims an identifier for a payment. Another payment gets it only if the run of this one has failed.
pub(crate) async fn claim(env: &Env, payment: &Payment, claim: &Claim) -> std::result::Result<(), Refusal> {
    let payer = &name(payment);
    let query_of = |instead_of| PayerQuery::Claim { claim: claim.clone(), instead_of };
    let (object, since) = match send(env, payer, &query_of(None)).await? {
        PayerReply::Granted => return Ok(()),
        PayerReply::Held { object, since } => (object, since),
        PayerReply::Taken(_) => return Err(Refusal::IdentifierReused),
    };
    let summary = runs::summary(env, &object).await?;
    match summary.failed || is_expired(summary, since) {
        false => Err(Refusal::IdentifierReused),
        true => match send(env, payer, &query_of(Some(object))).await? {
            PayerReply::Granted => Ok(()),
            PayerReply::Held { .. } | PayerReply::Taken(_) => Err(Refusal::IdentifierReused),
        },
    }
}

/// Whether an object knows no payment although it has had a slot or an identifier for a minute. Before that, the
/// payment may still be on its way to the object.
fn is_expired(summary: RunSummary, since: Millis) -> bool {
    summary.new && clock::now() > since.saturating_add(RETENTION_UNVERIFIED)
}

/// When this run's text may be shown: before it is settled, if the payer has a slot left for that.
pub(crate) async fn release(env: &Env, run_request: &RunRequest, slots: u32) -> Release {
    let Some(payment) = run_request.payment.as_ref().filter(|p| p.by_key) else { return Release::Settled };
    let payer = name(payment);
    let query_of = |freed| PayerQuery::TakeSlot { object: run_request.object.clone(), slots, freed };
    let taken = match send(env, &payer, &query_of(Vec::new())).await {
        Ok(PayerReply::Granted) => return Release::Verified,
        Ok(PayerReply::Taken(objects)) => objects,
        Ok(PayerReply::Held { .. }) | Err(_) => return Release::Settled,
    };
    let checks = taken.into_iter().map(|(object, since)| async move {
        let summary = runs::summary(env, &object).await.ok()?;
        (summary.cleared || is_expired(summary, since)).then_some(object)
    });
    let freed: Vec<String> = join_all(checks).await.into_iter().flatten().collect();
    if freed.is_empty() {
        return Release::Settled;
    }
    match send(env, &payer, &query_of(freed)).await {
        Ok(PayerReply::Granted) => Release::Verified,
        _ => Release::Settled,
    }
}

/// The name of the payer's object. A payment whose signature has not been checked may be anybody's: it has an object
/// beside the payer's own, where only who has the payer's key can write.
fn name(payment: &Payment) -> String {
    let suffix = if payment.by_key { "" } else { "?" };
    format!("{}{suffix}", payment.payer)
}

/// Counts an execution of a contract for its payer. The number of unpaid ones in a day is limited, because the creator
/// pays Claude for them.
pub(crate) async fn count_execution(
    env: &Env,
    payment: &Payment,
    object: &str,
    execution: u32,
    limit: u32,
) -> std::result::Result<(), Refusal> {
    let query_of = PayerQuery::CountExecution { object: object.to_owned(), execution, limit };
    match send(env, &name(payment), &query_of).await? {
        PayerReply::Granted => Ok(()),
        PayerReply::Held { .. } | PayerReply::Taken(_) => Err(Refusal::TooManyUnpaidExecutions),
    }
}

/// Takes the executions of a contract's object out of the count of unpaid ones.
pub(crate) async fn executions_paid(env: &Env, payment: &Payment, object: &str) -> std::result::Result<(), Refusal> {
    send(env, &name(payment), &PayerQuery::ExecutionsPaid { object: object.to_owned() }).await.map(drop)
}

async fn send(env: &Env, payer: &str, query: &PayerQuery) -> std::result::Result<PayerReply, Refusal> {
    let stub = stub(env, payer)?;
    let mut init = RequestInit::new();
    let json = serde_json::to_string(query).map_err(fault("payer object"))?;
    init.with_method(Method::Post).with_body(Some(json.into()));
    let request = Request::new_with_init("https://payer", &init).map_err(fault("payer object"))?;
    let mut response = stub.fetch_with_request(request).await.map_err(fault("payer object"))?;
    response.json().await.map_err(fault("payer object"))
}

fn stub(env: &Env, payer: &str) -> std::result::Result<Stub, Refusal> {
    let namespace = env.durable_object(NAMESPACE).map_err(fault("PAYERS binding"))?;
    namespace.get_by_name(payer).map_err(fault("payer object"))
}
