//! Payer objects, seen from outside: one Durable Object for each payer, which keeps what is true of several
//! of their payments at once. Which payment an identifier belongs to, and whose text is out unpaid.

use super::runs;
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

/// What is asked of a payer's object.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PayerQuery {
    /// An identifier for a payment; in the place of `instead_of`, where that is the payment that has it.
    Claim {
        /// What is claimed.
        claim: Claim,
        /// A payment that has come to nothing.
        instead_of: Option<String>,
    },
    /// An execution of a contract, among those of the last day that came to nothing or are under way.
    CountExecution {
        /// Its run's object.
        object: String,
        /// Which execution.
        execution: u32,
        /// How many there may be.
        most: u32,
    },
    /// Executions of that object were paid for.
    ExecutionsPaid {
        /// The object.
        object: String,
    },
    /// A place among those whose text is out unpaid.
    TakeSlot {
        /// The run's object.
        object: String,
        /// How many slots there are.
        slots: u32,
        /// Objects whose slots are free again.
        freed: Vec<String>,
    },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) enum PayerReply {
    /// It is yours.
    Granted,
    /// The identifier stands for another payment, or another request.
    Held {
        /// The payment's object.
        object: String,
        /// Since when.
        since: Millis,
    },
    /// All slots are taken, by these objects, each since when.
    Taken(Vec<(String, Millis)>),
}

/// Claims an identifier for a payment. It stays claimed as long as something has come of that payment.
pub(crate) async fn claim(env: &Env, payment: &Payment, claim: &Claim) -> std::result::Result<(), Refusal> {
    let payer = &name(payment);
    let query_of = |instead_of| PayerQuery::Claim { claim: claim.clone(), instead_of };
    let (object, since) = match query(env, payer, &query_of(None)).await? {
        PayerReply::Granted => return Ok(()),
        PayerReply::Held { object, since } => (object, since),
        PayerReply::Taken(_) => return Err(Refusal::IdentifierReused),
    };
    let summary = runs::summary(env, &object).await?;
    match summary.failed || is_expired(summary, since) {
        false => Err(Refusal::IdentifierReused),
        true => match query(env, payer, &query_of(Some(object))).await? {
            PayerReply::Granted => Ok(()),
            PayerReply::Held { .. } | PayerReply::Taken(_) => Err(Refusal::IdentifierReused),
        },
    }
}

/// An object that knows of nothing may hear of its payment this very moment; not a minute later.
fn is_expired(summary: RunSummary, since: Millis) -> bool {
    summary.new && clock::now() > since.saturating_add(RETENTION_UNVERIFIED)
}

/// When this run's text may be shown: at once if the payer has a place left among those not settled yet.
pub(crate) async fn release(env: &Env, run_request: &RunRequest, slots: u32) -> Release {
    let Some(payment) = run_request.payment.as_ref().filter(|p| p.by_key) else { return Release::Settled };
    let payer = name(payment);
    let query_of = |freed| PayerQuery::TakeSlot { object: run_request.object.clone(), slots, freed };
    let taken = match query(env, &payer, &query_of(Vec::new())).await {
        Ok(PayerReply::Granted) => return Release::Verified,
        Ok(PayerReply::Taken(by)) => by,
        Ok(PayerReply::Held { .. }) | Err(_) => return Release::Settled,
    };
    let looks = taken.into_iter().map(|(object, since)| async move {
        let summary = runs::summary(env, &object).await.ok()?;
        (summary.cleared || is_expired(summary, since)).then_some(object)
    });
    let freed: Vec<String> = join_all(looks).await.into_iter().flatten().collect();
    if freed.is_empty() {
        return Release::Settled;
    }
    match query(env, &payer, &query_of(freed)).await {
        Ok(PayerReply::Granted) => Release::Verified,
        _ => Release::Settled,
    }
}

/// The name of the payer's object. Whose signature has not been checked yet may be anybody: they have one
/// beside it, so that nobody writes into a payer's own who has not their key.
fn name(payment: &Payment) -> String {
    let suffix = if payment.by_key { "" } else { "?" };
    format!("{}{suffix}", payment.payer)
}

/// An execution of a contract for this payer. Of those that came to nothing, or are under way, there are only so many
/// in a day: Claude is paid by the creator.
pub(crate) async fn count_execution(
    env: &Env,
    payment: &Payment,
    object: &str,
    execution: u32,
    most: u32,
) -> std::result::Result<(), Refusal> {
    let query_of = PayerQuery::CountExecution { object: object.to_owned(), execution, most };
    match query(env, &name(payment), &query_of).await? {
        PayerReply::Granted => Ok(()),
        PayerReply::Held { .. } | PayerReply::Taken(_) => Err(Refusal::TooManyUnpaidExecutions),
    }
}

/// The object's executions were paid for.
pub(crate) async fn executions_paid(env: &Env, payment: &Payment, object: &str) -> std::result::Result<(), Refusal> {
    query(env, &name(payment), &PayerQuery::ExecutionsPaid { object: object.to_owned() }).await.map(drop)
}

async fn query(env: &Env, payer: &str, query_of: &PayerQuery) -> std::result::Result<PayerReply, Refusal> {
    let stub = stub(env, payer)?;
    let mut init = RequestInit::new();
    let json = serde_json::to_string(query_of).map_err(fault("payer object"))?;
    init.with_method(Method::Post).with_body(Some(json.into()));
    let request = Request::new_with_init("https://payer", &init).map_err(fault("payer object"))?;
    let mut response = stub.fetch_with_request(request).await.map_err(fault("payer object"))?;
    response.json().await.map_err(fault("payer object"))
}

fn stub(env: &Env, payer: &str) -> std::result::Result<Stub, Refusal> {
    let namespace = env.durable_object(NAMESPACE).map_err(fault("PAYERS binding"))?;
    namespace.get_by_name(payer).map_err(fault("payer object"))
}
