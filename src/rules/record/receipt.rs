//! Receipts as x402 writes them: in JSON, and in the headers `PAYMENT-RESPONSE` and `X-PAYMENT-RESPONSE`.

use crate::rules::payment::Payment;
use crate::rules::run::Receipt;
use crate::wire::x402::encode_header;
use serde_json::{json, Value};

/// The headers that tell of a settlement: v2's and v1's, each with the network in its own words.
fn payment_response(settlement: &Value, network_v1: &str) -> Vec<(String, String)> {
    let mut v1 = settlement.clone();
    if let Some(map) = v1.as_object_mut() {
        map.insert("network".to_owned(), network_v1.into());
    }
    let header = |name: &str, json: &Value| (name.to_owned(), encode_header(json));
    vec![header("payment-response", settlement), header("x-payment-response", &v1)]
}

/// The headers of a settlement that was made.
pub fn settled_headers(receipt: &Receipt) -> Vec<(String, String)> {
    payment_response(&receipt_json(receipt), &receipt.network_v1)
}

/// The headers of a settlement that was refused, with x402's code for why.
pub fn rejected_headers(payment: &Payment, reason: String) -> Vec<(String, String)> {
    let settlement = json!({
        "success": false,
        "errorReason": reason,
        "transaction": "",
        "network": payment.network,
        "payer": payment.payer,
    });
    payment_response(&settlement, &payment.network_v1)
}

/// A receipt as x402 v2 says it (5.3).
pub fn receipt_json(receipt: &Receipt) -> Value {
    json!({
        "success": true,
        "transaction": receipt.transaction,
        "network": receipt.network,
        "payer": receipt.payer,
    })
}
