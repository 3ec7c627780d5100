//! Calls to the facilitators: `/verify`, `/settle`, `/supported` and the claims endpoint. What an answer means is
//! decided in `rules/payment/facilitator.rs`; here each call is bounded in time and logged where it fails.
//!
//! The facilitators are asked one after the other. The next one is asked to verify where one gives no usable answer,
//! and to settle only where one cannot have submitted anything.

use super::CallError;
use crate::edge::http;
use crate::edge::{clock, fault};
use crate::rules::config::{Config, Facilitator};
use crate::rules::payment::breaker::{Breaker, Failure};
use crate::rules::payment::facilitator::{
    candidates, claim, claims_facilitator, is_reported, may_settle, read_verify, settle_event, verify_event,
    verify_evidence,
};
use crate::rules::payment::Payment;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Evidence, Millis};
use crate::wire::x402::{FacilitatorRequest, SettleResponse, Supported, VerifyResponse};
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::time::Duration;
use worker::{Headers, Method};

/// How long an answer to `/supported` is used.
const SUPPORTED_FRESH: Millis = 10 * 60 * 1000;
/// When `/supported` is called again after it has failed.
const SUPPORTED_RETRY: Millis = 60 * 1000;
/// The limit of one call of `/supported`, and of one report of a refund.
const SUPPORTED_LIMIT: Duration = Duration::from_secs(5);

/// What this isolate knows of one facilitator.
#[derive(Default)]
struct FacilitatorState {
    breaker: Breaker,
    supported: Option<Supported>,
    refresh_supported_at: Millis,
}

thread_local! {
    static STATES: RefCell<BTreeMap<String, FacilitatorState>> = const { RefCell::new(BTreeMap::new()) };
}

fn with_state<T>(url: &str, work: impl FnOnce(&mut FacilitatorState) -> T) -> T {
    STATES.with_borrow_mut(|states| work(states.entry(url.to_owned()).or_default()))
}

fn candidates_for<'a>(config: &'a Config, payment: &Payment, asked_before: Option<&str>) -> Vec<&'a Facilitator> {
    let may_settle = |url: &str| with_state(url, |state| may_settle(state.supported.as_ref(), payment));
    let now = clock::now();
    let is_open = |url: &str| with_state(url, |state| state.breaker.is_open(now));
    candidates(&config.facilitators, asked_before, may_settle, is_open)
}

/// Asks whether the payment is good, until one facilitator gives a usable answer. Returns that facilitator's URL too.
pub(crate) async fn verify(config: &Config, payment: &Payment) -> (Event, Option<String>) {
    match call_verify(config, payment, None).await {
        Some((answer, facilitator)) => (verify_event(&answer), Some(facilitator)),
        None => (Event::VerifyRefused(Refusal::FacilitatorUnavailable), None),
    }
}

/// Asks what became of a payment whose settlement was not answered.
pub(crate) async fn find_evidence(config: &Config, payment: &Payment, asked_before: Option<&str>) -> Evidence {
    let answer = call_verify(config, payment, asked_before).await;
    answer.map_or(Evidence::Nothing, |(answer, _)| verify_evidence(&answer, payment))
}

/// Calls `/verify` of one facilitator after the other, until one gives a usable answer.
async fn call_verify(
    config: &Config,
    payment: &Payment,
    asked_before: Option<&str>,
) -> Option<(VerifyResponse, String)> {
    let limit = Duration::from_secs(config.limits.verify_seconds);
    let mut failed = Vec::new();
    for Facilitator { url, .. } in candidates_for(config, payment, asked_before) {
        refresh_supported(url);
        let answer = match call(url, "/verify", payment, limit).await {
            Ok((status, text)) => {
                read_verify(status, &text, payment).ok_or_else(|| (Failure::NoVerdict, format!("HTTP {status}")))
            }
            Err(error) => Err((Failure::NoAnswer, error.to_string())),
        };
        match answer {
            Ok(answer) => {
                if answer.is_valid {
                    note_accepted(url, &failed, payment);
                }
                return Some((answer, url.clone()));
            }
            Err((failure, error)) => {
                worker::console_error!("facilitator: verify: no usable answer: {error}");
                failed.push((url, failure));
            }
        }
    }
    None
}

/// Notes who has accepted a payment, and who had given no usable answer to it before.
fn note_accepted(url: &str, failed: &[(&String, Failure)], payment: &Payment) {
    with_state(url, |state| state.breaker.accepted());
    if payment.by_key {
        let now = clock::now();
        for (url, failure) in failed {
            with_state(url, |state| state.breaker.failed(*failure, payment.payer, now));
        }
    }
}

/// Asks for the money to be moved: first the facilitator that verified the payment, then others only where it cannot
/// have submitted anything. Returns the URL of the facilitator that took the request too.
pub(crate) async fn settle(config: &Config, payment: &Payment, verified_by: Option<&str>) -> (Event, Option<String>) {
    for facilitator in candidates_for(config, payment, verified_by) {
        let event = call_settle(config, &facilitator.url, payment).await;
        if event != Event::SettleNotSent {
            return (event, Some(facilitator.url.clone()));
        }
    }
    (Event::SettleNotSent, None)
}

async fn call_settle(config: &Config, url: &str, payment: &Payment) -> Event {
    let limit = Duration::from_secs(config.limits.settle_seconds);
    let (status, text) = match call(url, "/settle", payment, limit).await {
        Ok(answer) => answer,
        Err(error) => {
            worker::console_error!("facilitator: settle: {error}");
            return Event::SettleUnanswered;
        }
    };
    let answer = serde_json::from_str::<SettleResponse>(&text).ok();
    let event = settle_event(status, answer.as_ref(), payment);
    match (&answer, &event) {
        (None, _) => worker::console_error!("facilitator: settle: HTTP {status} without a settle response"),
        (Some(_), Event::SettleFailed) => {
            worker::console_error!("facilitator: settle: neither a yes nor a definite no");
        }
        (Some(_), Event::SettleUnanswered) => {
            worker::console_error!("facilitator: settle: pending, or an answer that does not fit the payment");
        }
        _ => {}
    }
    event
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

/// Calls `/supported` in the background, where no answer is known or the known one is old. No payment waits for it.
fn refresh_supported(url: &str) {
    let now = clock::now();
    let is_due = with_state(url, |state| {
        let is_due = now >= state.refresh_supported_at;
        if is_due {
            state.refresh_supported_at = now.saturating_add(SUPPORTED_RETRY);
        }
        is_due
    });
    if !is_due {
        return;
    }
    let url = url.to_owned();
    wasm_bindgen_futures::spawn_local(async move {
        if let Some(supported) = call_supported(&url, SUPPORTED_LIMIT).await {
            with_state(&url, |state| {
                state.refresh_supported_at = now.saturating_add(SUPPORTED_FRESH);
                state.supported = Some(supported);
            });
        }
    });
}

async fn call_supported(url: &str, limit: Duration) -> Option<Supported> {
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
    let calls = config.facilitators.iter().map(|facilitator| call_supported(&facilitator.url, limit));
    futures::future::join_all(calls).await.iter().any(Option::is_some)
}

/// Reports a run that was paid and could not be finished, for refund. True where a facilitator has registered it.
pub(crate) async fn report(
    env: &worker::Env,
    config: &Config,
    payment: &Payment,
    settled_by: Option<&str>,
    transaction: &str,
    reason: &str,
) -> bool {
    let Some((url, secret)) = claims_facilitator(&config.facilitators, settled_by) else {
        return false;
    };
    match env.secret(secret).map_err(fault("the secret for claims")) {
        Ok(key) => report_to(url, &key.to_string(), &claim(payment, transaction, reason).to_string()).await,
        Err(_) => false,
    }
}

async fn report_to(url: &str, key: &str, claim: &str) -> bool {
    let headers = Headers::new();
    let set = |name: &str, value: &str| headers.set(name, value).is_ok();
    if !(set("content-type", "application/json") && set("x-server-api-key", key)) {
        return false;
    }
    let url = http::join(url, "/claims/report-failure");
    // A redirect would carry the key to another host.
    let answer = http::read_unredirected(Method::Post, &url, headers, Some(claim), SUPPORTED_LIMIT).await;
    let is_reported = answer.as_ref().is_ok_and(|(status, text)| is_reported(*status, text));
    if !is_reported {
        let answer = answer.map_or_else(|error| error.to_string(), |(status, _)| format!("HTTP {status}"));
        worker::console_error!("facilitator: claims: not registered: {answer}");
    }
    is_reported
}
