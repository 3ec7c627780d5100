//! Refusals in HIRE's form: `status` and `contract_id` stand around the error.

use crate::edge::fault;
use crate::edge::objects::wallets::Refused;
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::config::Config;
    use crate::rules::payment::quote::QuoteTerms;
    use crate::wire::evm::Address;

    #[test]
    fn a_402_is_x402s_first_and_hires_error_is_in_its_details() {
        let config = Config::built_in();
        let price = "0.05".parse().unwrap();
        let terms = QuoteTerms {
            payees: vec![(&config.networks[0], Address::from([7; 20]))],
            price: &price,
            max_timeout_seconds: 300,
            mime: "application/json",
            description: "Haiku".to_owned(),
            body_fields: serde_json::Map::new(),
            require_identifier: false,
        };
        let quote = Quote::new(terms, "https://coinslot.example/execute").unwrap();
        let refusal = Refusal::PaymentRequired;
        let (terms, _) = quote.challenge_of(&refusal);
        let accepts = serde_json::to_string(&quote.challenge_v1(String::new()).accepts).unwrap();
        let body =
            ExecutionChallenge { terms, status: "failed", contract_id: "ctr_1", details: ErrorBody::new(&refusal) };
        let message = "Pay with x402: see the PAYMENT-REQUIRED header, or `accepts` in this body.";
        let expected = format!(r#"{{"x402Version":1,"error":"Payment required","accepts":{accepts},"#)
            + &format!(r#""code":"PAYMENT_REQUIRED","message":"{message}","status":"failed","contract_id":"ctr_1","#)
            + &format!(r#""details":{{"code":"PAYMENT_REQUIRED","message":"{message}","retryable":false}}}}"#);
        assert_eq!(serde_json::to_string(&body).unwrap(), expected);
    }
}
