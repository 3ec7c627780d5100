//! A node of the chain, asked for one thing only: what became of a payment whose settlement was not
//! answered.

use super::clock;
use super::http;
use crate::rules::config::Network;
use crate::rules::evidence::{of_spent, of_unspent};
use crate::rules::quote::Payment;
use crate::rules::run::{Evidence, Millis};
use crate::wire::evm_rpc::{self, Block, Log, Quantity, TransactionReceipt};
use serde::Deserialize;
use std::time::Duration;

/// What one call may take.
const LIMIT: Duration = Duration::from_secs(5);
/// Blocks looked through before the run's own time, for clocks that differ.
const SLACK: u64 = 300;
/// The fastest chains have a block every quarter second.
const BLOCKS_PER_SECOND: u64 = 4;
/// Nodes refuse to look through more at a time.
const MOST_BLOCKS: u64 = 9_000;

/// What the chain shows of a payment that was first presented at `since`.
pub async fn look(network: &Network, payment: &Payment, since: Millis) -> Evidence {
    let Some(url) = network.rpc_url.as_deref() else {
        return Evidence::Nothing;
    };
    look_at(url, network.chain_id(), payment, since).await.unwrap_or_else(|| {
        worker::console_error!("chain: the node of {} gives no usable answer", network.id);
        Evidence::Nothing
    })
}

async fn look_at(url: &str, chain_id: u64, payment: &Payment, since: Millis) -> Option<Evidence> {
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
    let blocks = seconds.saturating_mul(BLOCKS_PER_SECOND).saturating_add(SLACK).min(MOST_BLOCKS);
    let from = block.number.0.saturating_sub(blocks);
    let query = evm_rpc::spending_of(asset, payer, nonce, from, block.number.0);
    // A node that refuses the query has not said that there is nothing.
    let logs: Vec<Log> = ask(url, &query).await?;
    let Some(log) = logs.first() else {
        return Some(of_spent(payment, "", &[]));
    };
    let receipt: TransactionReceipt = ask(url, &evm_rpc::receipt_of(&log.transaction_hash)).await?;
    Some(of_spent(payment, &log.transaction_hash, &receipt.logs))
}

async fn ask<T: for<'de> Deserialize<'de>>(url: &str, request: &str) -> Option<T> {
    let (_, text) = http::post_json(url, request, LIMIT).await.ok().filter(|(status, _)| *status == 200)?;
    evm_rpc::result(&text)
}
