//! A node of the chain, asked for one thing only: what became of a payment whose settlement was not
//! answered.

use crate::edge::clock;
use crate::edge::http;
use crate::rules::config::Network;
use crate::rules::payment::reconcile::{of_spent, of_unspent, Spending};
use crate::rules::payment::Payment;
use crate::rules::run::{Evidence, Millis};
use crate::wire::evm_rpc;
use crate::wire::evm_rpc::{Block, Log, Quantity, TransactionReceipt};
use serde::Deserialize;
use std::time::Duration;

/// What one call may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Blocks looked through before the run's own time, for clocks that differ.
const SLACK: u64 = 300;
/// The fastest chains have a block every quarter second.
const BLOCKS_PER_SECOND: u64 = 4;
/// Nodes refuse to look through more at a time.
const MAX_BLOCKS: u64 = 9_000;

/// What the chain shows of a payment that was first presented at `since`; `None` where there is no node to
/// ask, or no usable answer from it.
pub(crate) async fn find_evidence(network: &Network, payment: &Payment, since: Millis) -> Option<Evidence> {
    let url = network.rpc_url.as_deref()?;
    let evidence = find_evidence_at(url, network.chain_id(), payment, since).await;
    if evidence.is_none() {
        worker::console_error!("chain: the node of {} gives no usable answer", network.id);
    }
    evidence
}

async fn find_evidence_at(url: &str, chain_id: u64, payment: &Payment, since: Millis) -> Option<Evidence> {
    // On another chain nothing of this is ever spent.
    let chain: Quantity = ask(url, &evm_rpc::chain_id()).await?;
    if chain.0 != chain_id {
        return None;
    }
    let block: Block = ask(url, &evm_rpc::latest_block()).await?;
    let (asset, payer, nonce) = (payment.asset, payment.payer, payment.nonce.as_str());
    let state: String = ask(url, &evm_rpc::authorization_state(asset, payer, nonce, block.number.0)).await?;
    match state.trim_start_matches("0x").trim_start_matches('0') {
        "" if state.len() > 2 => return Some(of_unspent(payment, &block)),
        "1" => {}
        _ => return None,
    }
    let seconds = clock::now().saturating_sub(since) / 1000;
    let blocks = seconds.saturating_mul(BLOCKS_PER_SECOND).saturating_add(SLACK).min(MAX_BLOCKS);
    let from = block.number.0.saturating_sub(blocks);
    let query = evm_rpc::spending_of(asset, payer, nonce, from, block.number.0);
    // A node that refuses the query has not said that there is nothing.
    let logs: Vec<Log> = ask(url, &query).await?;
    let Some(log) = logs.into_iter().next() else {
        // Spent, and not in the time of this run, as far as this node can look back: not by us.
        return Some(Evidence::Nothing);
    };
    let receipt: TransactionReceipt = ask(url, &evm_rpc::receipt_of(&log.transaction_hash)).await?;
    let mined: Block = ask(url, &evm_rpc::block(receipt.block_number.0)).await?;
    let spending = Spending { transaction: log.transaction_hash, logs: receipt.logs, at: mined.timestamp.0 };
    Some(of_spent(payment, since / 1000, &spending))
}

async fn ask<T: for<'de> Deserialize<'de>>(url: &str, request: &str) -> Option<T> {
    let (_, text) = http::post_json(url, request, LIMIT).await.ok().filter(|(status, _)| *status == 200)?;
    evm_rpc::result(&text)
}
