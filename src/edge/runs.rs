//! Run objects, seen from outside: how the front door reaches the object of a payment.

use super::fault;
use crate::rules::dossier::Presentation;
use crate::rules::refusal::Refusal;
use serde::{Deserialize, Serialize};
use worker::{Env, Request, Response, Result, Stub};

/// The binding of the objects' namespace.
const NAMESPACE: &str = "RUNS";
/// Tells the front door what the object's body is.
pub const KIND: &str = "x-coinslot-kind";

/// It is a [`Refused`].
pub const REFUSED: &str = "refused";

/// What the object answers where it has no text to show.
#[derive(Debug, Serialize, Deserialize)]
pub struct Refused {
    /// Why.
    pub refusal: Refusal,
    /// The run, where one exists.
    pub run: Option<String>,
    /// `PAYMENT-RESPONSE` in both versions, where a settlement was asked for: names and values.
    pub settlement: Vec<(String, String)>,
    /// The run was paid for all the same.
    pub charged: bool,
}

/// What the run object answers to a presentation.
pub enum Answer {
    /// Ready for the caller.
    Ready(Response),
    /// To be told as a problem.
    Refused(Refused),
}

/// Presents a payment (or an owner's test) to its object.
pub async fn present(env: &Env, presentation: &Presentation) -> std::result::Result<Answer, Refusal> {
    let name = match &presentation.payment {
        Some(payment) => payment.name.clone(),
        None => format!("test-{}", random_hex()?),
    };
    let namespace = env.durable_object(NAMESPACE).map_err(fault("RUNS binding"))?;
    let stub = namespace.get_by_name(&name).map_err(fault("run object"))?;
    let mut response = call(&stub, presentation).await.map_err(fault("run object"))?;
    let kind = response.headers().get(KIND).map_err(fault("run object"))?;
    if kind.as_deref() == Some(REFUSED) {
        return response.json().await.map(Answer::Refused).map_err(fault("run object"));
    }
    Ok(Answer::Ready(response))
}

async fn call(stub: &Stub, presentation: &Presentation) -> Result<Response> {
    let mut init = worker::RequestInit::new();
    let json = serde_json::to_string(presentation)?;
    init.with_method(worker::Method::Post).with_body(Some(json.into()));
    stub.fetch_with_request(Request::new_with_init("https://run/present", &init)?).await
}

/// 128 random bits.
pub fn random_hex() -> std::result::Result<String, Refusal> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes).map_err(fault("random source"))?;
    Ok(hex::encode(bytes))
}
