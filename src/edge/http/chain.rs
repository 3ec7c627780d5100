//! Calls to a node of the chain, which show what became of a payment whose settlement was not answered. What the
//! answers mean is decided in `rules/payment/reconcile.rs`.

use crate::edge::clock;
use crate::edge::http;
use crate::rules::config::Network;
use crate::rules::payment::reconcile::{of_spent, of_unspent, search_from, Spending};
use crate::rules::payment::Payment;
use crate::rules::run::{Evidence, Millis};
use crate::wire::evm_rpc;
use crate::wire::evm_rpc::{Block, Log, Quantity, TransactionReceipt};
use serde::Deserialize;
use std::time::Duration;

/// The limit of one call.
const LIMIT: Duration = Duration::from_secs(5);

/// What the chain shows of a payment that was first presented at `since`; `None` where no node is configured, or the
/// node gives no usable answer.
pub(crate) async fn find_evidence(network: &Network, payment: &Payment, since: Millis) -> Option<Evidence> {
    let url = network.rpc_url.as_deref()?;
    let evidence = find_evidence_at(url, network.chain_id(), payment, since).await;
    if evidence.is_none() {
        worker::console_error!("chain: the node of {} gives no usable answer", network.id);
    }
    evidence
}

async fn find_evidence_at(url: &str, chain_id: u64, payment: &Payment, since: Millis) -> Option<Evidence> {
    // A node of another chain would answer that the nonce is not spent, always.
    let chain: Quantity = call(url, &evm_rpc::chain_id()).await?;
    if chain.0 != chain_id {
        return None;
    }
    let latest: Block = call(url, &evm_rpc::latest_block()).await?;
    let (asset, payer, nonce) = (payment.asset, payment.payer, payment.nonce.as_str());
    let word: String = call(url, &evm_rpc::authorization_state(asset, payer, nonce, latest.number.0)).await?;
    if !evm_rpc::read_bool(&word)? {
        return Some(of_unspent(payment, &latest));
    }
    let from = search_from(latest.number.0, clock::now().saturating_sub(since));
    let query = evm_rpc::spending_of(asset, payer, nonce, from, latest.number.0);
    // A node that refuses the query does not say that there are no logs, so this is no answer at all.
    let logs: Vec<Log> = call(url, &query).await?;
    let Some(log) = logs.into_iter().next() else {
        // The nonce was spent earlier than the node searches. That may have been before this run, so it proves neither
        // that we were paid nor that we were not.
        return Some(Evidence::Nothing);
    };
    let receipt: TransactionReceipt = call(url, &evm_rpc::receipt_of(&log.transaction_hash)).await?;
    let mined: Block = call(url, &evm_rpc::block(receipt.block_number.0)).await?;
    let spending = Spending { transaction: log.transaction_hash, logs: receipt.logs, at: mined.timestamp.0 };
    Some(of_spent(payment, since / 1000, &spending))
}

pub(super) async fn call<T: for<'de> Deserialize<'de>>(url: &str, request: &str) -> Option<T> {
    let (_, text) = http::post_json(url, request, LIMIT).await.ok().filter(|(status, _)| *status == 200)?;
    evm_rpc::result(&text)
}
