//! Problems: the one place that gives refusals their HTTP status, and their form on the wire.

use crate::edge::objects::runs::Refused;
use crate::rules::hire::task::RefusalDocument;
use crate::rules::ids::run_path;
use crate::rules::payment::quote::{ChallengeBody, Quote};
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::{ContractError, InputError, ModelError, Refusal, Retry};
use crate::wire::hire::ContractPrice;
use serde::Serialize;
use worker::{Headers, Response, Result};

/// The status of a refusal.
///
/// 402 is said only where another payment is the right thing to do, or the same one a moment later. What is the creator's to
/// mend is a 503, whatever Anthropic's own status was.
pub(crate) const fn status(refusal: &Refusal) -> u16 {
    match refusal {
        Refusal::NotFound => 404,
        Refusal::MethodNotAllowed { .. } => 405,
        Refusal::Paused => 503,
        Refusal::BodyTooLarge { .. } => 413,
        Refusal::ContractIdMissing => 400,
        Refusal::Contract(fault, _) => contract_status(*fault),
        Refusal::Input(
            InputError::NotJson
            | InputError::NotAnObject
            | InputError::UnknownParameter
            | InputError::NotAString
            | InputError::MissingParameter
            | InputError::TooLong
            | InputError::UserMessageNotAllowed
            | InputError::Malformed,
            _,
        ) => 400,
        Refusal::TokenMissing | Refusal::TokenInvalid => 401,
        Refusal::NotOwner | Refusal::LinkInvalid | Refusal::SeekerMismatch => 403,
        Refusal::FileDamaged => 502,
        Refusal::KeyMissing | Refusal::KeyDisabled | Refusal::SigningKeyMissing => 503,
        Refusal::ModelUnavailable | Refusal::NotForSale => 503,
        Refusal::PaymentRequired => 402,
        Refusal::PaymentMalformed { .. } => 400,
        Refusal::PaymentMismatch { .. } => 402,
        Refusal::PaymentExpired | Refusal::PaymentNotYetValid => 402,
        Refusal::IdentifierInvalid | Refusal::IdentifierMissing => 400,
        Refusal::TooManyUnpaidExecutions => 429,
        Refusal::ContractInputDiffers | Refusal::RetriesExhausted | Refusal::ContractEnded => 409,
        Refusal::IdentifierReused | Refusal::PaymentReused => 409,
        Refusal::PaymentInvalid { .. } => 402,
        Refusal::FacilitatorUnavailable => 503,
        Refusal::Claude(fault) => claude_status(*fault),
        Refusal::SettlementRejected { .. } => 402,
        Refusal::SettlementUnknown => 503,
        Refusal::Interrupted => 503,
        Refusal::Refundable => 502,
        Refusal::ApiKeyRejected => 422,
        Refusal::Internal => 500,
    }
}

/// 400: it is no signed contract. 422: it is one, on other terms than ours.
const fn contract_status(fault: ContractError) -> u16 {
    match fault {
        ContractError::Malformed | ContractError::HashMismatch => 400,
        ContractError::WorkerSignature | ContractError::SeekerSignature => 400,
        ContractError::UnknownWorker | ContractError::UnknownCapability => 404,
        ContractError::Trigger | ContractError::Price | ContractError::Deadline => 422,
        ContractError::Output | ContractError::Schema | ContractError::Sla | ContractError::Webhook => 422,
        ContractError::Exists => 409,
    }
}

const fn claude_status(fault: ModelError) -> u16 {
    match fault {
        ModelError::KeyInvalid | ModelError::Permission | ModelError::Billing => 503,
        ModelError::ModelRetired | ModelError::Overloaded => 503,
        ModelError::TooLong => 413,
        ModelError::RateLimited { .. } => 429,
        ModelError::Rejected | ModelError::Upstream | ModelError::Unreachable => 502,
        ModelError::Broken | ModelError::CutOff | ModelError::CallerGone => 502,
        ModelError::OutputMismatch { .. } | ModelError::Truncated => 502,
        ModelError::NotStored => 503,
        ModelError::TimedOut | ModelError::DeadlineMissed => 504,
        ModelError::Declined => 422,
    }
}

/// What an answer is that is no refusal.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Success {
    /// All there is to say.
    Done,
    /// Something new is there.
    Created,
    /// It is being worked on.
    Pending,
    /// A range of a file.
    Part,
    /// The caller has it already.
    Unchanged,
    /// The file has no such range.
    NoSuchRange,
}

/// An answer that is no refusal.
pub(crate) fn succeed(response: Response, success: Success) -> Response {
    response.with_status(match success {
        Success::Done => 200,
        Success::Created => 201,
        Success::Pending => 202,
        Success::Part => 206,
        Success::Unchanged => 304,
        Success::NoSuchRange => 416,
    })
}

/// An answer about what was refused, in words of its own.
pub(crate) fn fail(response: Response, refusal: &Refusal) -> Response {
    response.with_status(status(refusal))
}

/// A refusal as a response.
pub(crate) fn response(refusal: &Refusal) -> Result<Response> {
    build(refusal, &Body { error: ErrorBody::new(refusal) })
}

/// A refusal of a run: with the run's id and, where a settlement was refused, its `PAYMENT-RESPONSE`.
pub(crate) fn of_run(refused: &Refused, quote: Option<&Quote>) -> Result<Response> {
    let refusal = &refused.refusal;
    let response = match quote.filter(|_| status(refusal) == 402) {
        Some(quote) => challenge(refusal, quote)?,
        None => {
            let error = ErrorBody::of_run(refusal, refused.run.as_deref(), refused.charged);
            build(refusal, &Body { error })?
        }
    };
    let headers = response.headers();
    if let Some(run) = &refused.run {
        headers.set("x-run-id", run)?;
        headers.set("content-location", &run_path(run))?;
    }
    for (name, value) in &refused.settlement {
        headers.set(name, value)?;
    }
    Ok(response)
}

/// A refusal in HIRE's form.
pub(crate) fn of_contract(refusal: &Refusal, contract_id: &str) -> Result<Response> {
    build(refusal, &RefusalDocument::new(refusal, contract_id))
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

/// A refusal of a contract's execution. A 402 is HIRE's and x402's at once.
pub(crate) fn of_execution(
    refused: &Refused,
    contract_id: &str,
    quote: &Quote,
    price: &ContractPrice,
) -> Result<Response> {
    let refusal = &refused.refusal;
    if status(refusal) != 402 {
        let response = of_contract(refusal, contract_id)?;
        if let Some(run) = &refused.run {
            response.headers().set("x-run-id", run)?;
        }
        return Ok(response);
    }
    let (terms, challenge) = quote.challenge_of(refusal);
    let body = ExecutionChallenge { terms, status: "failed", contract_id, details: ErrorBody::new(refusal) };
    let response = build(refusal, &body)?;
    let headers = response.headers();
    headers.set("payment-required", &challenge)?;
    let pay_to = quote.offers().first().map(|offer| offer.v2.pay_to.as_str());
    headers.set("x-payment-address", pay_to.unwrap_or_default())?;
    headers.set("x-payment-amount", &price.amount)?;
    headers.set("x-payment-currency", &price.currency)?;
    headers.set("x-payment-network", &price.network)?;
    for (name, value) in &refused.settlement {
        headers.set(name, value)?;
    }
    Ok(response)
}

/// A 402: v2's terms in the header, v1's in the body.
pub(crate) fn challenge(refusal: &Refusal, quote: &Quote) -> Result<Response> {
    let (body, header) = quote.challenge_of(refusal);
    let response = build(refusal, &body)?;
    response.headers().set("payment-required", &header)?;
    Ok(response)
}

/// 204: to an event stream, the word that there is nothing more to come back for.
pub(crate) fn ended() -> Result<Response> {
    Ok(Response::empty()?.with_status(204))
}

#[derive(Serialize)]
struct Body<'a> {
    error: ErrorBody<'a>,
}

fn build(refusal: &Refusal, body: &impl Serialize) -> Result<Response> {
    let headers = Headers::new();
    headers.set("content-type", "application/json")?;
    headers.set("cache-control", "no-store")?;
    if let Retry::After(seconds) = refusal.retry() {
        headers.set("retry-after", &seconds.to_string())?;
    }
    if let Refusal::MethodNotAllowed { allow } = refusal {
        headers.set("allow", allow)?;
    }
    if matches!(refusal, Refusal::TokenMissing | Refusal::TokenInvalid) {
        headers.set("www-authenticate", "Bearer")?;
    }
    let response = Response::from_bytes(serde_json::to_vec(body)?)?;
    Ok(response.with_status(status(refusal)).with_headers(headers))
}
