//! Refusals in HIRE's form: `status` and `contract_id` stand around the error.

use crate::edge::fault;
use crate::edge::objects::runs::Refused;
use crate::routes::problem;
use crate::routes::reply::Reply;
use crate::rules::hire::task::RefusalDocument;
use crate::rules::payment::quote::{ChallengeBody, Quote};
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::Refusal;
use crate::wire::hire::ContractPrice;
use serde::Serialize;

/// A refusal of anything about a contract. `contract_id` is what the caller sent.
pub(super) fn of_contract(refusal: &Refusal, contract_id: &str) -> Reply {
    problem::respond(refusal, &RefusalDocument::new(refusal, contract_id)).map_err(fault("problem"))
}

/// x402 v1 fixes `error` to a text, so HIRE's error is in `details`.
#[derive(Serialize)]
struct ExecutionChallenge<'a> {
    #[serde(flatten)]
    terms: ChallengeBody,
    status: &'static str,
    contract_id: &'a str,
    details: ErrorBody<'a>,
}

/// A refusal of a contract's execution. A 402 has HIRE's headers and x402's.
pub(super) fn of_execution(refused: &Refused, contract_id: &str, quote: &Quote, price: &ContractPrice) -> Reply {
    let refusal = &refused.refusal;
    if !problem::asks_for_payment(refusal) {
        let response = of_contract(refusal, contract_id)?;
        if let Some(run) = &refused.run {
            response.headers().set("x-run-id", run).map_err(fault("problem"))?;
        }
        return Ok(response);
    }
    let (terms, challenge) = quote.challenge_of(refusal);
    let body = ExecutionChallenge { terms, status: "failed", contract_id, details: ErrorBody::new(refusal) };
    let response = problem::respond(refusal, &body).map_err(fault("problem"))?;
    let pay_to = quote.offers().first().map(|offer| offer.v2.pay_to.as_str());
    let headers = [
        ("payment-required", challenge.as_str()),
        ("x-payment-address", pay_to.unwrap_or_default()),
        ("x-payment-amount", &price.amount),
        ("x-payment-currency", &price.currency),
        ("x-payment-network", &price.network),
    ];
    let settlement = refused.settlement.iter().map(|(name, value)| (name.as_str(), value.as_str()));
    for (name, value) in headers.into_iter().chain(settlement) {
        response.headers().set(name, value).map_err(fault("problem"))?;
    }
    Ok(response)
}
