//! Problems: the one place that gives responses their HTTP status, and refusals their form.

use crate::edge::objects::wallets::Refused;
use crate::rules::ids::run_path;
use crate::rules::payment::quote::Quote;
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::{ContractError, InputError, ModelError, Refusal, Retry};
use serde::Serialize;
use worker::{Headers, Response, Result};

/// The status of a refusal.
///
/// 402 only where another payment, or the same one a moment later, is the right thing to do. What the creator has to
/// correct is a 503, whatever Anthropic's own status was.
const fn status(refusal: &Refusal) -> u16 {
    match refusal {
        Refusal::NotFound => 404,
        Refusal::MethodNotAllowed { .. } => 405,
        Refusal::RateLimited => 429,
        Refusal::Paused => 503,
        Refusal::BodyTooLarge { .. } => 413,
        Refusal::ContractIdMissing => 400,
        Refusal::Contract(error, _) => contract_status(*error),
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
        Refusal::ModelUnavailable | Refusal::NotForSale | Refusal::TemplateTooLong => 503,
        Refusal::PaymentRequired => 402,
        Refusal::PaymentMalformed { .. } => 400,
        Refusal::PaymentMismatch { .. } => 402,
        Refusal::PaymentExpired | Refusal::PaymentNotYetValid => 402,
        Refusal::IdentifierInvalid | Refusal::IdentifierMissing => 400,
        Refusal::TooManyUnpaidRuns { .. } | Refusal::TooManyOwnerTests { .. } => 429,
        Refusal::ContractInputDiffers | Refusal::RetriesExhausted | Refusal::ContractEnded => 409,
        Refusal::IdentifierReused | Refusal::PaymentReused => 409,
        Refusal::PaymentInvalid { .. } => 402,
        Refusal::FacilitatorUnavailable => 503,
        Refusal::Claude(error) => model_status(*error),
        Refusal::SettlementRejected { .. } => 402,
        Refusal::SettlementUnknown => 503,
        Refusal::Interrupted => 503,
        Refusal::Refundable => 502,
        Refusal::ApiKeyRejected => 422,
        Refusal::Internal => 500,
    }
}

/// 400: it is no signed contract. 422: it is one, on terms that we do not accept.
const fn contract_status(error: ContractError) -> u16 {
    match error {
        ContractError::Malformed | ContractError::HashMismatch => 400,
        ContractError::WorkerSignature | ContractError::SeekerSignature => 400,
        ContractError::UnknownWorker | ContractError::UnknownCapability => 404,
        ContractError::Trigger | ContractError::Price | ContractError::Deadline => 422,
        ContractError::Output | ContractError::Schema | ContractError::Sla | ContractError::Webhook => 422,
        ContractError::Exists => 409,
        ContractError::TooMany => 429,
    }
}

const fn model_status(error: ModelError) -> u16 {
    match error {
        ModelError::KeyInvalid | ModelError::Permission | ModelError::Billing => 503,
        ModelError::ModelRetired | ModelError::Overloaded => 503,
        ModelError::TooLong => 413,
        ModelError::RateLimited { .. } => 429,
        ModelError::Rejected | ModelError::Upstream | ModelError::Unreachable => 502,
        ModelError::Broken | ModelError::CutOff | ModelError::Empty | ModelError::CallerGone => 502,
        ModelError::OutputMismatch { .. } | ModelError::Truncated => 502,
        ModelError::NotStored => 503,
        ModelError::TimedOut | ModelError::WindowOver | ModelError::DeadlineMissed => 504,
        ModelError::Declined => 422,
    }
}

/// The kinds of responses that are no refusals.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Success {
    Done,
    Created,
    /// It is still being worked on.
    Pending,
    /// A range of a file.
    Part,
    /// The caller has the current version already.
    Unchanged,
    /// The file does not have the range that was asked for.
    NoSuchRange,
}

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

/// Gives a response, whose body tells of the refusal already, its status.
pub(crate) fn fail(response: Response, refusal: &Refusal) -> Response {
    response.with_status(status(refusal))
}

/// Whether the refusal is a 402.
pub(crate) const fn asks_for_payment(refusal: &Refusal) -> bool {
    status(refusal) == 402
}

#[derive(Serialize)]
struct Problem<'a> {
    error: ErrorBody<'a>,
}

/// A refusal as a response.
pub(crate) fn response(refusal: &Refusal) -> Result<Response> {
    respond(refusal, &Problem { error: ErrorBody::new(refusal) })
}

/// A refusal of a run: with the run's id and, where a settlement was rejected, its `PAYMENT-RESPONSE`.
pub(crate) fn of_run(refused: &Refused, quote: Option<&Quote>) -> Result<Response> {
    let refusal = &refused.refusal;
    let response = match quote.filter(|_| asks_for_payment(refusal)) {
        Some(quote) => challenge(refusal, quote)?,
        None => {
            let error = ErrorBody::of_run(refusal, refused.run.as_deref(), refused.charged);
            respond(refusal, &Problem { error })?
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

/// A 402: v2's terms in the header, v1's in the body.
pub(crate) fn challenge(refusal: &Refusal, quote: &Quote) -> Result<Response> {
    let (body, header) = quote.challenge_of(refusal);
    let response = respond(refusal, &body)?;
    response.headers().set("payment-required", &header)?;
    Ok(response)
}

/// 204: an `EventSource` that gets it does not come back.
pub(crate) fn ended() -> Result<Response> {
    Ok(Response::empty()?.with_status(204))
}

/// A refusal as a response with this body.
pub(crate) fn respond(refusal: &Refusal, body: &impl Serialize) -> Result<Response> {
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    const ERRORS_PAGE: &str = include_str!("../../docs/errors.md");
    /// One of each refusal: `tests/rules/refusals.rs` checks that none is missing.
    const REFUSALS: &str = include_str!("../../tests/golden/refusals.json");

    /// The codes of the page, each with its status.
    fn documented() -> BTreeMap<&'static str, u16> {
        let rows = ERRORS_PAGE.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
        rows.map(|(code, rest)| (code, rest.split(' ').next().unwrap().parse().unwrap())).collect()
    }

    #[test]
    fn the_errors_page_has_every_code_with_its_status_and_no_other() {
        let refusals: Vec<Refusal> = serde_json::from_str(REFUSALS).unwrap();
        let statuses: BTreeMap<_, _> = refusals.iter().map(|refusal| (refusal.code(), status(refusal))).collect();
        assert!(statuses.len() > 60, "only {} codes were found", statuses.len());
        assert_eq!(documented(), statuses);
    }
}
