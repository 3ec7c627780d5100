//! Payer objects, seen from outside: one Durable Object for each payer, which keeps what is true of several
//! of their payments at once. Which payment an identifier belongs to, and whose text is out unpaid.

use super::runs::{self, Glance};
use super::{clock, fault};
use crate::rules::dossier::Presentation;
use crate::rules::identifier::Claim;
use crate::rules::quote::Payment;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Millis, Release, KEEP_UNVERIFIED};
use futures::future::join_all;
use serde::{Deserialize, Serialize};
use worker::{Env, Method, Request, RequestInit, Stub};

/// The binding of the objects' namespace.
const NAMESPACE: &str = "PAYERS";

/// What is asked of a payer's object.
#[derive(Debug, Serialize, Deserialize)]
pub enum Ask {
    /// An identifier for a payment; in the place of `instead_of`, where that is the payment that has it.
    Claim {
        /// What is claimed.
        claim: Claim,
        /// A payment that has come to nothing.
        instead_of: Option<String>,
    },
    /// An execution of a contract, among those of the last day that came to nothing or are under way.
    Work {
        /// Its run's object.
        object: String,
        /// Which execution.
        execution: u32,
        /// How many there may be.
        most: u32,
    },
    /// Executions of that object were paid for.
    Worked {
        /// The object.
        object: String,
    },
    /// A place among those whose text is out unpaid.
    Place {
        /// The run's object.
        object: String,
        /// How many places there are.
        places: u32,
        /// Objects whose places are free again.
        freed: Vec<String>,
    },
}

/// What it answers.
#[derive(Debug, Serialize, Deserialize)]
pub enum Told {
    /// It is yours.
    Granted,
    /// The identifier stands for another payment, or another request.
    Held {
        /// The payment's object.
        object: String,
        /// Since when.
        since: Millis,
    },
    /// All places are taken, by these objects, each since when.
    Taken(Vec<(String, Millis)>),
}

/// Claims an identifier for a payment. It stays claimed as long as something has come of that payment.
pub async fn claim(env: &Env, payment: &Payment, claim: &Claim) -> std::result::Result<(), Refusal> {
    let payer = &name(payment);
    let ask = |instead_of| Ask::Claim { claim: claim.clone(), instead_of };
    let (object, since) = match tell(env, payer, &ask(None)).await? {
        Told::Granted => return Ok(()),
        Told::Held { object, since } => (object, since),
        Told::Taken(_) => return Err(Refusal::IdentifierReused),
    };
    let glance = runs::glance(env, &object).await?;
    match glance.failed || is_forgotten(glance, since) {
        false => Err(Refusal::IdentifierReused),
        true => match tell(env, payer, &ask(Some(object))).await? {
            Told::Granted => Ok(()),
            Told::Held { .. } | Told::Taken(_) => Err(Refusal::IdentifierReused),
        },
    }
}

/// An object that knows of nothing may hear of its payment this very moment; not a minute later.
fn is_forgotten(glance: Glance, since: Millis) -> bool {
    glance.new && clock::now() > since.saturating_add(KEEP_UNVERIFIED)
}

/// When this run's text may be shown: at once if the payer has a place left among those not settled yet.
pub async fn release(env: &Env, presentation: &Presentation, places: u32) -> Release {
    let Some(payment) = presentation.payment.as_ref().filter(|p| p.by_key) else { return Release::Settled };
    let payer = name(payment);
    let ask = |freed| Ask::Place { object: presentation.object.clone(), places, freed };
    let taken = match tell(env, &payer, &ask(Vec::new())).await {
        Ok(Told::Granted) => return Release::Verified,
        Ok(Told::Taken(by)) => by,
        Ok(Told::Held { .. }) | Err(_) => return Release::Settled,
    };
    let looks = taken.into_iter().map(|(object, since)| async move {
        let glance = runs::glance(env, &object).await.ok()?;
        (glance.cleared || is_forgotten(glance, since)).then_some(object)
    });
    let freed: Vec<String> = join_all(looks).await.into_iter().flatten().collect();
    if freed.is_empty() {
        return Release::Settled;
    }
    match tell(env, &payer, &ask(freed)).await {
        Ok(Told::Granted) => Release::Verified,
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
pub async fn work(
    env: &Env,
    payment: &Payment,
    object: &str,
    execution: u32,
    most: u32,
) -> std::result::Result<(), Refusal> {
    let ask = Ask::Work { object: object.to_owned(), execution, most };
    match tell(env, &name(payment), &ask).await? {
        Told::Granted => Ok(()),
        Told::Held { .. } | Told::Taken(_) => Err(Refusal::TooMuchInVain),
    }
}

/// The object's executions were paid for.
pub async fn worked(env: &Env, payment: &Payment, object: &str) -> std::result::Result<(), Refusal> {
    tell(env, &name(payment), &Ask::Worked { object: object.to_owned() }).await.map(drop)
}

async fn tell(env: &Env, payer: &str, ask: &Ask) -> std::result::Result<Told, Refusal> {
    let stub = stub(env, payer)?;
    let mut init = RequestInit::new();
    let json = serde_json::to_string(ask).map_err(fault("payer object"))?;
    init.with_method(Method::Post).with_body(Some(json.into()));
    let request = Request::new_with_init("https://payer", &init).map_err(fault("payer object"))?;
    let mut response = stub.fetch_with_request(request).await.map_err(fault("payer object"))?;
    response.json().await.map_err(fault("payer object"))
}

fn stub(env: &Env, payer: &str) -> std::result::Result<Stub, Refusal> {
    let namespace = env.durable_object(NAMESPACE).map_err(fault("PAYERS binding"))?;
    namespace.get_by_name(payer).map_err(fault("payer object"))
}
