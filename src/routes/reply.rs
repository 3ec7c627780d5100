//! Replies of the forms that several routes give.

use super::problem;
use crate::edge::fault;
use crate::edge::objects::wallets::Answer as RunAnswer;
use crate::rules::payment::quote::Quote;
use crate::rules::refusal::Refusal;
use serde::Serialize;
use worker::Response;

/// What a route comes to.
pub(crate) type Reply = Result<Response, Refusal>;

/// Nobody keeps the reply.
pub(crate) const NO_STORE: &str = "no-store";
/// The reply is for this caller alone, and nobody keeps it.
pub(crate) const PRIVATE: &str = "private, no-store";

/// A JSON document, with its members in the order of its type.
pub(crate) fn json(document: &impl Serialize, cache_control: &str) -> Reply {
    let response = Response::from_json(document).map_err(fault("reply"))?;
    response.headers().set("cache-control", cache_control).map_err(fault("reply"))?;
    Ok(response)
}

/// The wallet object's answer. With a quote, a refusal that another payment could mend carries the terms.
pub(crate) fn of_run(answer: RunAnswer, quote: Option<&Quote>) -> Reply {
    match answer {
        RunAnswer::Ready(response) => Ok(response),
        RunAnswer::Ended | RunAnswer::Task(_) => problem::ended().map_err(fault("reply")),
        RunAnswer::Refused(refused) => problem::of_run(&refused, quote).map_err(fault("reply")),
        // `paid_run::send` has verified the payment, so no object asks for it again.
        RunAnswer::VerifyFirst => Err(Refusal::Internal),
    }
}
