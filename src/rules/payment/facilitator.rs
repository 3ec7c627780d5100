//! Facilitators: which of them are asked about a payment, and what their answers to `/verify`, `/settle` and the claims
//! endpoint mean.
//!
//! An answer is believed only where it fits the payment. One that does not fit, or that cannot be read, is treated as
//! no answer, and never as a success.

use super::quote::SCHEME;
use super::reconcile::receipt;
use super::Payment;
use crate::rules::config::Facilitator;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Evidence, Receipt};
use crate::wire::evm::{is_hash, Address};
use crate::wire::lenient;
use crate::wire::x402::{reason_code, SettleResponse, Supported, VerifyResponse};
use serde_json::{json, Value};

/// The facilitators that are asked about a payment, one after the other: first `asked_before`, which knows the payment
/// already, then the others in the operator's order, and last those that `is_open` says not to answer at present.
pub fn candidates<'a>(
    facilitators: &'a [Facilitator],
    asked_before: Option<&str>,
    may_settle: impl Fn(&str) -> bool,
    is_open: impl Fn(&str) -> bool,
) -> Vec<&'a Facilitator> {
    let mut candidates: Vec<_> = facilitators.iter().filter(|facilitator| may_settle(&facilitator.url)).collect();
    candidates.sort_by_cached_key(|facilitator| match facilitator.url.as_str() {
        url if Some(url) == asked_before => 0,
        url => 1 + u8::from(is_open(url)),
    });
    candidates
}

/// Whether a facilitator settles such payments, by its answer to `/supported`. Until that is known, it is asked as if
/// it settled everything.
pub fn may_settle(supported: Option<&Supported>, payment: &Payment) -> bool {
    let covers = |s: &Supported| s.covers(payment.x402_version, SCHEME, &payment.network, &payment.network_v1);
    supported.is_none_or(covers)
}

/// Reads an answer to `/verify`; `None` where it cannot be believed.
pub fn read_verify(status: u16, text: &str, payment: &Payment) -> Option<VerifyResponse> {
    let answer: VerifyResponse = serde_json::from_str(text).ok()?;
    // A yes comes with 200; a no may come with a 4xx.
    let fits_status = (status == 200 || !answer.is_valid) && status < 500;
    let fits_payer = !answer.is_valid || is_payer(answer.payer.as_deref(), payment);
    (fits_status && fits_payer).then_some(answer)
}

/// What an answer to `/verify` means for a payment that has just been presented.
pub fn verify_event(answer: &VerifyResponse) -> Event {
    match answer.is_valid {
        true => Event::Verified,
        // Whoever received it, the payer has paid with it before. A refusal that asks for another payment would let
        // them pay twice.
        false if names_spent_nonce(answer.invalid_reason.as_deref()) => Event::VerifyRefused(Refusal::PaymentReused),
        false => {
            let reason = reason_code(answer.invalid_reason.as_deref());
            Event::VerifyRefused(Refusal::PaymentInvalid { reason })
        }
    }
}

/// What an answer to `/verify` means for a payment that has been sent to be settled, to this facilitator or another.
pub fn verify_evidence(answer: &VerifyResponse, payment: &Payment) -> Evidence {
    match answer {
        VerifyResponse { is_valid: true, .. } => Evidence::Unspent,
        VerifyResponse { invalid_reason, .. } if names_spent_nonce(invalid_reason.as_deref()) => {
            Evidence::Spent(receipt(payment, String::new()))
        }
        // A payment that is no longer valid may have been settled while it was.
        _ => Evidence::Nothing,
    }
}

/// What an answer to `/settle` means; `None` where its body is not a settle response. Anything but a clear yes or a
/// clear no leaves open whether the money has moved.
pub fn settle_event(status: u16, answer: Option<&SettleResponse>, payment: &Payment) -> Event {
    match answer {
        None if is_not_submitted(status) => Event::SettleNotSent,
        None => Event::SettleUnanswered,
        Some(answer) if answer.success && status == 200 && is_settlement_of(answer, payment) => {
            Event::Settled(receipt(payment, answer.transaction.clone()))
        }
        Some(answer) if is_definite_no(answer) => Event::SettleRejected(reason_code(answer.error_reason.as_deref())),
        Some(answer) if says_spent(answer) => Event::SettleSpent,
        Some(answer) if is_failure(answer) => Event::SettleFailed,
        // Pending, or a yes that does not fit the payment.
        Some(_) => Event::SettleUnanswered,
    }
}

/// Whether the chain must confirm what a facilitator has answered.
pub fn needs_chain(event: &Event) -> bool {
    matches!(event, Event::SettleRejected(_))
}

/// A facilitator's no, after the chain was asked. A transfer that the chain shows contradicts it. Where the chain shows
/// nothing that confirms it (`None`), it is no definite no.
pub fn checked_on_chain(no: Event, outcome: Option<Result<(), Receipt>>) -> Event {
    match outcome {
        Some(Ok(())) => no,
        Some(Err(receipt)) => Event::Settled(receipt),
        None => Event::SettleFailed,
    }
}

fn is_settlement_of(answer: &SettleResponse, payment: &Payment) -> bool {
    let network = [&payment.network, &payment.network_v1].contains(&&answer.network);
    is_hash(&answer.transaction) && network && is_payer(answer.payer.as_deref(), payment)
}

/// A facilitator need not name the payer. If it does, it must be the payment's.
fn is_payer(named: Option<&str>, payment: &Payment) -> bool {
    named.is_none_or(|payer| Address::parse(payer) == Some(payment.payer))
}

/// Whether a failed settlement says for certain that the money has not moved.
///
/// Only what a facilitator finds before it submits a transaction is certain. A transaction that it names may still be
/// mined, and a confirmation that timed out may still come. A spent nonce was spent on paying the creator, by whoever
/// submitted it first.
pub fn is_definite_no(answer: &SettleResponse) -> bool {
    let reason = answer.error_reason.as_deref().unwrap_or_default();
    let found_before = ["invalid_", "insufficient_", "unsupported_"].iter().any(|start| reason.starts_with(start));
    let submitted = ["nonce", "transaction", "settlement", "pending"].iter().any(|word| reason.contains(word));
    !answer.success && answer.transaction.is_empty() && found_before && !submitted
}

/// Whether a settlement was submitted and has failed, in so many words. Other reasons do not count, because some
/// facilitators pass on whatever their node told them, also about a transaction that is still pending.
pub fn is_failure(answer: &SettleResponse) -> bool {
    let reason = answer.error_reason.as_deref().unwrap_or_default().to_ascii_lowercase();
    let failed =
        ["transaction_failed", "simulation_failed", "deployment_failed", "event_mismatch", "failed_onchain", "revert"];
    let coded = ["invalid_", "insufficient_", "unsupported_"].iter().any(|start| reason.starts_with(start));
    let open = ["pending", "timeout", "timed"].iter().any(|word| reason.contains(word));
    !answer.success && !open && (coded || failed.iter().any(|word| reason.contains(word)))
}

/// Whether a failed settlement says that the nonce was spent before.
pub fn says_spent(answer: &SettleResponse) -> bool {
    !answer.success && answer.transaction.is_empty() && names_spent_nonce(answer.error_reason.as_deref())
}

/// Whether a facilitator that answers with this status cannot have submitted anything: it did not accept the request,
/// or was not reached. (Cloudflare answers 521 to 530 itself where it cannot connect to the facilitator.)
pub const fn is_not_submitted(status: u16) -> bool {
    matches!(status, 401 | 403 | 404 | 405 | 415 | 429 | 501 | 521 | 523 | 525 | 526 | 530)
}

/// Whether a reason says that the nonce is spent.
pub fn names_spent_nonce(reason: Option<&str>) -> bool {
    reason.is_some_and(|r| r.contains("nonce") && (r.contains("used") || r.contains("spent")))
}

/// Where a refund is reported: the facilitator's URL, and the name of the Worker secret with the key for its claims.
///
/// The one that settled, where it takes claims, else the first that does. No other is tried after that, because an
/// answer that was lost may have been a yes.
pub fn claims_facilitator<'a>(facilitators: &'a [Facilitator], settled_by: Option<&str>) -> Option<(&'a str, &'a str)> {
    let takes_claims = facilitators.iter().filter_map(|f| Some((f.url.as_str(), f.claims_secret.as_deref()?)));
    takes_claims.min_by_key(|(url, _)| Some(*url) != settled_by)
}

/// The report of a run that was paid and could not be finished. No standard says how; this is the body of
/// OpenFacilitator's `POST /claims/report-failure`.
pub fn claim(payment: &Payment, transaction: &str, reason: &str) -> Value {
    json!({
        "originalTxHash": transaction,
        "userWallet": payment.payer,
        "amount": payment.amount,
        "asset": payment.asset,
        "network": payment.network_v1,
        "reason": reason,
    })
}

/// Whether an answer of the claims endpoint says that the claim is registered, by this report or an earlier one.
pub fn is_reported(status: u16, text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default, deserialize_with = "lenient::is_true")]
        success: bool,
        #[serde(default, deserialize_with = "lenient::text_or_empty")]
        error: String,
    }
    let Ok(answer) = serde_json::from_str::<Answer>(text) else { return false };
    (status < 300 && answer.success) || answer.error.to_ascii_lowercase().contains("already exists")
}
