//! Receipts as x402 writes them (v2, 5.3): in JSON, and in the headers `PAYMENT-RESPONSE` and `X-PAYMENT-RESPONSE`.

use crate::rules::payment::Payment;
use crate::rules::run::Receipt;
use crate::wire::x402::{encode_header, SettleResponse};

/// What callers read of a settlement that was made.
pub fn settled(receipt: &Receipt) -> SettleResponse {
    SettleResponse {
        success: true,
        error_reason: None,
        transaction: receipt.transaction.clone(),
        network: receipt.network.clone(),
        payer: Some(receipt.payer.clone()),
    }
}

pub fn settled_headers(receipt: &Receipt) -> Vec<(String, String)> {
    headers(settled(receipt), &receipt.network_v1)
}

/// The headers of a settlement that was rejected. `reason` is x402's code for why.
pub fn rejected_headers(payment: &Payment, reason: String) -> Vec<(String, String)> {
    let settlement = SettleResponse {
        success: false,
        error_reason: Some(reason),
        transaction: String::new(),
        network: payment.network.clone(),
        payer: Some(payment.payer.to_string()),
    };
    headers(settlement, &payment.network_v1)
}

/// The headers of both versions: v1 has another name for the same network.
fn headers(settlement: SettleResponse, network_v1: &str) -> Vec<(String, String)> {
    let header = |name: &str, settlement: &SettleResponse| (name.to_owned(), encode_header(settlement));
    let v2 = header("payment-response", &settlement);
    let v1 = header("x-payment-response", &SettleResponse { network: network_v1.to_owned(), ..settlement });
    vec![v2, v1]
}
