//! The facilitators: `/verify`, `/settle`, `/supported` and the claims. Every answer is validated before
//! it is believed; what does not fit is a fault of theirs, not a success.
//!
//! They are asked in the operator's order. The next one is asked to verify where one gives no usable
//! answer, and to settle only where one cannot have submitted anything.

use super::CallError;
use crate::edge::http;
use crate::edge::{clock, fault};
use crate::rules::config::{Config, Facilitator};
use crate::rules::payment::breaker::Breaker;
use crate::rules::payment::quote::SCHEME;
use crate::rules::payment::reconcile;
use crate::rules::payment::reconcile::{is_definite_no, is_failure, is_not_submitted, names_spent_nonce, says_spent};
use crate::rules::payment::Payment;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Evidence, Millis};
use crate::wire::evm::{is_hash, Address};
use crate::wire::x402::{reason_code, FacilitatorRequest, SettleResponse, Supported, VerifyResponse};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;
use worker::{Headers, Method};

/// How long a facilitator's `/supported` is believed.
const SUPPORTED_FRESH: Millis = 10 * 60 * 1000;
/// How long until it is asked again, where it did not answer.
const SUPPORTED_AGAIN: Millis = 60 * 1000;
/// What it may take to answer that.
const SUPPORTED_LIMIT: Duration = Duration::from_secs(5);

/// What this isolate knows of one facilitator.
#[derive(Default)]
struct Known {
    breaker: Breaker,
    supported: Option<Supported>,
    ask_again_at: Millis,
}

thread_local! {
    static KNOWN: RefCell<BTreeMap<String, Known>> = const { RefCell::new(BTreeMap::new()) };
}

fn known<T>(url: &str, look: impl FnOnce(&mut Known) -> T) -> T {
    KNOWN.with_borrow_mut(|known| look(known.entry(url.to_owned()).or_default()))
}

/// Those that may be asked about the payment: first `before`, which has been asked already, then in the
/// operator's order.
fn candidates<'a>(config: &'a Config, payment: &Payment, before: Option<&str>) -> Vec<&'a Facilitator> {
    let settles = |f: &&Facilitator| known(&f.url, |known| known.supported.as_ref().is_none_or(|s| covers(s, payment)));
    let mut all: Vec<_> = config.facilitators.iter().filter(settles).collect();
    all.sort_by_key(|f| Some(f.url.as_str()) != before);
    all
}

fn covers(supported: &Supported, payment: &Payment) -> bool {
    supported.covers(payment.x402_version, SCHEME, &payment.network, &payment.network_v1)
}

/// Asks whether the payment is good, one facilitator after the other until one says something usable. Tells
/// which one.
pub(crate) async fn verify(config: &Config, payment: &Payment) -> (Event, Option<String>) {
    for facilitator in candidates(config, payment, None) {
        let Some(answer) = ask_verify(config, facilitator, payment).await else { continue };
        let event = match answer.is_valid {
            true => Event::Verified,
            // Paid with before, whoever took it: to ask for another payment would be to ask for it twice.
            false if names_spent_nonce(answer.invalid_reason.as_deref()) => {
                Event::VerifyRefused(Refusal::PaymentReused)
            }
            false => {
                let reason = reason_code(answer.invalid_reason.as_deref());
                Event::VerifyRefused(Refusal::PaymentInvalid { reason })
            }
        };
        return (event, Some(facilitator.url.clone()));
    }
    (Event::VerifyRefused(Refusal::FacilitatorUnavailable), None)
}

/// What the facilitators know of a payment whose settlement was not answered: one that calls it good says
/// that it is not spent yet.
pub(crate) async fn find_evidence(config: &Config, payment: &Payment, before: Option<&str>) -> Evidence {
    for facilitator in candidates(config, payment, before) {
        if let Some(answer) = ask_verify(config, facilitator, payment).await {
            return reconcile::of_verify(&answer, payment);
        }
    }
    Evidence::Nothing
}

/// One `/verify`; `None` where there is no answer that can be believed.
async fn ask_verify(config: &Config, facilitator: &Facilitator, payment: &Payment) -> Option<VerifyResponse> {
    let url = &facilitator.url;
    if !known(url, |known| known.breaker.allows(clock::now())) {
        return None;
    }
    learn(url);
    let limit = Duration::from_secs(config.limits.verify_seconds);
    let answer = match call(url, "/verify", payment, limit).await {
        // A yes comes with 200; a no may come with a 4xx.
        Ok((status, text)) => {
            let answer: Option<VerifyResponse> = serde_json::from_str(&text).ok();
            answer.filter(|a| (status == 200 || !a.is_valid) && status < 500)
        }
        Err(error) => {
            worker::console_error!("facilitator: verify: {error}");
            None
        }
    };
    let answer = answer.filter(|a| !a.is_valid || is_payer(a.payer.as_deref(), payment));
    if answer.is_none() {
        worker::console_error!("facilitator: verify: no usable answer");
    }
    known(url, |known| known.breaker.note(answer.is_some(), clock::now()));
    answer
}

/// Asks for the money to be moved: the facilitator that verified it, and others only where it cannot have
/// submitted anything. Anything but a clear yes or a clear no is no answer: the money may have moved.
pub(crate) async fn settle(config: &Config, payment: &Payment, before: Option<&str>) -> (Event, Option<String>) {
    for facilitator in candidates(config, payment, before) {
        let event = ask_settle(config, &facilitator.url, payment).await;
        if event != Event::SettleNotSent {
            return (event, Some(facilitator.url.clone()));
        }
    }
    (Event::SettleNotSent, None)
}

async fn ask_settle(config: &Config, url: &str, payment: &Payment) -> Event {
    let limit = Duration::from_secs(config.limits.settle_seconds);
    let (status, text) = match call(url, "/settle", payment, limit).await {
        Ok(answer) => answer,
        Err(error) => {
            worker::console_error!("facilitator: settle: {error}");
            return Event::SettleUnanswered;
        }
    };
    let Ok(answer) = serde_json::from_str::<SettleResponse>(&text) else {
        worker::console_error!("facilitator: settle: HTTP {status} without a settle response");
        return match is_not_submitted(status) {
            true => Event::SettleNotSent,
            false => Event::SettleUnanswered,
        };
    };
    match &answer {
        SettleResponse { success: true, .. } if status == 200 && fits(&answer, payment) => {
            Event::Settled(reconcile::receipt(payment, answer.transaction))
        }
        answer if is_definite_no(answer) => Event::SettleRejected(reason_code(answer.error_reason.as_deref())),
        answer if says_spent(answer) => Event::SettleSpent,
        answer if is_failure(answer) => {
            worker::console_error!("facilitator: settle: neither a yes nor a definite no");
            Event::SettleFailed
        }
        _ => {
            worker::console_error!("facilitator: settle: pending, or an answer that does not fit the payment");
            Event::SettleUnanswered
        }
    }
}

fn fits(answer: &SettleResponse, payment: &Payment) -> bool {
    let network = [&payment.network, &payment.network_v1].contains(&&answer.network);
    is_hash(&answer.transaction) && network && is_payer(answer.payer.as_deref(), payment)
}

/// The facilitator need not name the payer; where it does, it must be ours.
fn is_payer(named: Option<&str>, payment: &Payment) -> bool {
    named.is_none_or(|payer| Address::parse(payer) == Some(payment.payer))
}

async fn call(url: &str, path: &str, payment: &Payment, limit: Duration) -> Result<(u16, String), CallError> {
    let request = FacilitatorRequest {
        x402_version: payment.x402_version,
        payment_payload: &payment.payload,
        payment_requirements: &payment.requirements,
    };
    let json = serde_json::to_string(&request).unwrap_or_default();
    http::post_json(&http::join(url, path), &json, limit).await
}

/// Learns what a facilitator settles, where that is not known or too old. Nobody waits for it: until then
/// it is asked as if it settled everything.
fn learn(url: &str) {
    let now = clock::now();
    let due = known(url, |known| {
        let due = now >= known.ask_again_at;
        if due {
            known.ask_again_at = now.saturating_add(SUPPORTED_AGAIN);
        }
        due
    });
    if !due {
        return;
    }
    let url = url.to_owned();
    wasm_bindgen_futures::spawn_local(async move {
        if let Some(supported) = supported(&url, SUPPORTED_LIMIT).await {
            known(&url, |known| {
                known.ask_again_at = now.saturating_add(SUPPORTED_FRESH);
                known.supported = Some(supported);
            });
        }
    });
}

async fn supported(url: &str, limit: Duration) -> Option<Supported> {
    let answer = http::read(Method::Get, &http::join(url, "/supported"), Headers::new(), None, limit).await;
    let (_, text) = answer.ok().filter(|(status, _)| *status == 200)?;
    let supported = serde_json::from_str(&text).ok();
    if supported.is_none() {
        worker::console_error!("facilitator: /supported: no usable answer");
    }
    supported
}

/// Whether any facilitator answers at all.
pub(crate) async fn is_reachable(config: &Config, limit: Duration) -> bool {
    let each = config.facilitators.iter().map(|f| supported(&f.url, limit));
    futures::future::join_all(each).await.iter().any(Option::is_some)
}

/// Reports a run that was paid and could not be finished, for refund. True where somebody has it now.
///
/// No standard says how; this is OpenFacilitator's `POST /claims/report-failure`.
///
/// It goes to the facilitator that settled, where that takes claims, else to the first that does; and to no
/// other after that, for an answer that was lost may have been a yes.
pub(crate) async fn report(
    env: &worker::Env,
    config: &Config,
    payment: &Payment,
    settled_by: Option<&str>,
    transaction: &str,
    reason: &str,
) -> bool {
    let takes_claims = config.facilitators.iter().filter_map(|f| Some((f.url.as_str(), f.claims_secret.as_deref()?)));
    let Some((url, secret)) = takes_claims.min_by_key(|(url, _)| Some(*url) != settled_by) else {
        return false;
    };
    match env.secret(secret).map_err(fault("the secret for claims")) {
        Ok(key) => report_to(url, &key.to_string(), payment, transaction, reason).await,
        Err(_) => false,
    }
}

async fn report_to(url: &str, key: &str, payment: &Payment, transaction: &str, reason: &str) -> bool {
    let headers = Headers::new();
    let set = |name: &str, value: &str| headers.set(name, value).is_ok();
    if !(set("content-type", "application/json") && set("x-server-api-key", key)) {
        return false;
    }
    let claim = serde_json::json!({
        "originalTxHash": transaction,
        "userWallet": payment.payer,
        "amount": payment.amount,
        "asset": payment.asset,
        "network": payment.network_v1,
        "reason": reason,
    });
    let url = http::join(url, "/claims/report-failure");
    // It carries a key: not redirected.
    let answer = http::read_unredirected(Method::Post, &url, headers, Some(&claim.to_string()), SUPPORTED_LIMIT).await;
    let taken = answer.as_ref().is_ok_and(|(status, text)| reconcile::is_reported(*status, text));
    if !taken {
        let what = answer.map_or_else(|e| e.to_string(), |(status, _)| format!("HTTP {status}"));
        worker::console_error!("facilitator: claims: not taken: {what}");
    }
    taken
}
