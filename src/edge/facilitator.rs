//! The facilitator over fetch: verify and settle. Its answers are held against the payment before
//! they are believed; one that does not fit is no answer.

use super::http::{self, CallError};
use crate::rules::config::Config;
use crate::rules::quote::{is_definite_no, Payment};
use crate::rules::refusal::Refusal;
use crate::rules::run::{Event, Receipt};
use crate::wire::evm::{is_hash, Address};
use crate::wire::x402::{reason_code, FacilitatorRequest, SettleResponse, VerifyResponse};
use std::time::Duration;

/// Asks whether the payment is good.
pub async fn verify(config: &Config, payment: &Payment) -> Event {
    let limit = Duration::from_secs(config.limits.verify_seconds);
    let answer = match call(config, "/verify", payment, limit).await {
        // A yes comes with 200; a no may come with a 4xx.
        Ok((status, text)) => {
            serde_json::from_str::<VerifyResponse>(&text).ok().filter(|answer| status == 200 || !answer.is_valid)
        }
        Err(error) => {
            worker::console_error!("facilitator: verify: {error}");
            None
        }
    };
    match answer {
        Some(answer) if answer.is_valid && is_payer(answer.payer.as_deref(), payment) => Event::Verified,
        Some(answer) if !answer.is_valid => {
            Event::VerifyRefused(Refusal::PaymentInvalid { reason: reason_code(answer.invalid_reason.as_deref()) })
        }
        Some(_) => {
            worker::console_error!("facilitator: verify names another payer");
            Event::VerifyRefused(Refusal::FacilitatorUnavailable)
        }
        None => Event::VerifyRefused(Refusal::FacilitatorUnavailable),
    }
}

/// Asks for the money to be moved. Anything but a clear yes or a clear no is no answer: the money
/// may have moved.
pub async fn settle(config: &Config, payment: &Payment) -> Event {
    let limit = Duration::from_secs(config.limits.settle_seconds);
    let (status, text) = match call(config, "/settle", payment, limit).await {
        Ok(answer) => answer,
        Err(error) => {
            worker::console_error!("facilitator: settle: {error}");
            return Event::SettleUnanswered;
        }
    };
    let Ok(answer) = serde_json::from_str::<SettleResponse>(&text) else {
        worker::console_error!("facilitator: settle: HTTP {status} without a settle response");
        return Event::SettleUnanswered;
    };
    match answer {
        SettleResponse { success: true, .. } if status == 200 && fits(&answer, payment) => Event::Settled(Receipt {
            transaction: answer.transaction,
            network: payment.network.clone(),
            network_v1: payment.network_v1.clone(),
            payer: payment.payer.to_string(),
        }),
        SettleResponse { success: false, .. } if is_definite_no(&answer) => {
            Event::SettleRejected(reason_code(answer.error_reason.as_deref()))
        }
        _ => {
            worker::console_error!("facilitator: settle: an answer that does not fit the payment");
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

/// Of the first facilitator: a valid config has one.
fn address(config: &Config, path: &str) -> String {
    http::join(config.facilitators.first().map(|f| f.url.as_str()).unwrap_or_default(), path)
}

async fn call(config: &Config, path: &str, payment: &Payment, limit: Duration) -> Result<(u16, String), CallError> {
    let request = FacilitatorRequest {
        x402_version: payment.x402_version,
        payment_payload: &payment.payload,
        payment_requirements: &payment.requirements,
    };
    let json = serde_json::to_string(&request).unwrap_or_default();
    http::post_json(&address(config, path), &json, limit).await
}

/// Whether the first facilitator answers at all.
pub async fn is_reachable(config: &Config, limit: Duration) -> bool {
    let answer =
        http::read(worker::Method::Get, &address(config, "/supported"), worker::Headers::new(), None, limit).await;
    answer.is_ok_and(|(status, _)| status == 200)
}
