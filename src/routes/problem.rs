//! Problems: the one place that gives refusals their HTTP status, and their form on the wire.

use crate::edge::runs::Refused;
use crate::rules::quote::Quote;
use crate::rules::refusal::{ClaudeFault, InputFault, Refusal, Retry};
use crate::wire::x402;
use serde_json::{json, Value};
use worker::{Headers, Response, Result};

/// The status of a refusal.
///
/// 402 is said only where another payment is the right thing to do, or the same one a moment later. What is the creator's to
/// mend is a 503, whatever Anthropic's own status was.
pub const fn status(refusal: &Refusal) -> u16 {
    match refusal {
        Refusal::NotFound => 404,
        Refusal::MethodNotAllowed { .. } => 405,
        Refusal::Paused => 503,
        Refusal::BodyTooLarge { .. } => 413,
        Refusal::Input(
            InputFault::NotJson
            | InputFault::NotAnObject
            | InputFault::UnknownParameter
            | InputFault::NotAString
            | InputFault::MissingParameter
            | InputFault::TooLong
            | InputFault::UserMessageNotAllowed
            | InputFault::Malformed,
            _,
        ) => 400,
        Refusal::TokenMissing | Refusal::TokenInvalid => 401,
        Refusal::NotOwner => 403,
        Refusal::KeyMissing | Refusal::KeyDisabled => 503,
        Refusal::ModelUnavailable | Refusal::NotForSale => 503,
        Refusal::PaymentRequired => 402,
        Refusal::PaymentMalformed { .. } => 400,
        Refusal::PaymentMismatch { .. } => 402,
        Refusal::PaymentExpired | Refusal::PaymentNotYetValid => 402,
        Refusal::IdentifierInvalid | Refusal::IdentifierMissing => 400,
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

const fn claude_status(fault: ClaudeFault) -> u16 {
    match fault {
        ClaudeFault::KeyInvalid | ClaudeFault::Permission | ClaudeFault::Billing => 503,
        ClaudeFault::ModelRetired | ClaudeFault::Overloaded => 503,
        ClaudeFault::TooLong => 413,
        ClaudeFault::RateLimited { .. } => 429,
        ClaudeFault::Rejected | ClaudeFault::Upstream | ClaudeFault::Unreachable => 502,
        ClaudeFault::Broken | ClaudeFault::CutOff | ClaudeFault::CallerGone => 502,
        ClaudeFault::OutputMismatch { .. } | ClaudeFault::Truncated => 502,
        ClaudeFault::NotStored => 503,
        ClaudeFault::TimedOut | ClaudeFault::DeadlineMissed => 504,
        ClaudeFault::Declined => 422,
    }
}

/// A refusal as a response.
pub fn response(refusal: &Refusal) -> Result<Response> {
    build(refusal, &error_of(refusal))
}

/// A refusal of a run: with the run's id and, where a settlement was refused, its `PAYMENT-RESPONSE`.
pub fn of_run(refused: &Refused, quote: Option<&Quote>) -> Result<Response> {
    let refusal = &refused.refusal;
    let response = match quote.filter(|_| status(refusal) == 402) {
        Some(quote) => challenge(refusal, quote)?,
        None => build(refusal, &error_of_run(refused))?,
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

/// A 402: v2's terms in the header, v1's in the body.
pub fn challenge(refusal: &Refusal, quote: &Quote) -> Result<Response> {
    let reason = match refusal {
        Refusal::PaymentRequired => "Payment required".to_owned(),
        other => other.x402_reason(),
    };
    let mut body = serde_json::to_value(quote.challenge_v1(reason.clone()))?;
    if let Some(map) = body.as_object_mut() {
        // v1 fixes `error` to a text, so what other errors say there stands beside it.
        map.insert("code".to_owned(), refusal.code().into());
        map.insert("message".to_owned(), refusal.message().into());
    }
    let response = build(refusal, &body)?;
    let header = x402::encode_header(&quote.challenge(Some(reason)));
    response.headers().set("payment-required", &header)?;
    Ok(response)
}

fn error_of_run(refused: &Refused) -> Value {
    let mut body = error_of(&refused.refusal);
    if let Some(error) = body.get_mut("error").and_then(Value::as_object_mut) {
        error.insert("run".to_owned(), json!(refused.run));
        error.insert("runUrl".to_owned(), json!(refused.run.as_deref().map(run_path)));
        let charged = refused.refusal.knows_charge().then_some(refused.charged);
        error.insert("charged".to_owned(), json!(charged));
        error.insert("message".to_owned(), refused.refusal.message_when(refused.charged).into());
    }
    body
}

/// Where the holder of a run's id sees what became of it.
fn run_path(run: &str) -> String {
    format!("/runs/{run}")
}

/// 204: to an event stream, the word that there is nothing more to come back for.
pub fn ended() -> Result<Response> {
    Ok(Response::empty()?.with_status(204))
}

fn error_of(refusal: &Refusal) -> Value {
    let mut error = json!({"code": refusal.code(), "message": refusal.message()});
    if let Some(map) = error.as_object_mut() {
        if let Some(detail) = refusal.detail() {
            map.insert("details".to_owned(), json!(detail));
        }
        let retryable = matches!(refusal.retry(), Retry::After(_));
        map.insert("retryable".to_owned(), retryable.into());
    }
    json!({ "error": error })
}

fn build(refusal: &Refusal, body: &Value) -> Result<Response> {
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
    let response = Response::from_bytes(body.to_string().into_bytes())?;
    Ok(response.with_status(status(refusal)).with_headers(headers))
}
