//! Calls to a node of the chain, which show what became of a payment whose settlement was not answered. What the
//! answers mean is decided in `rules/payment/reconcile.rs`.

use crate::edge::clock;
use crate::edge::http;
use crate::rules::config::Network;
use crate::rules::payment::reconcile::{of_spent, of_unspent, search_from, ChainView, Spending};
use crate::rules::payment::Payment;
use crate::rules::run::{Evidence, Millis};
use crate::wire::evm_rpc;
use crate::wire::evm_rpc::{Block, Log, Quantity, TransactionReceipt};
use serde::Deserialize;
use std::time::Duration;

/// The limit of one call.
const LIMIT: Duration = Duration::from_secs(5);

/// What the chain shows of a payment that was first presented at `since`.
pub(crate) async fn find_evidence(network: &Network, payment: &Payment, since: Millis) -> ChainView {
    let Some(url) = network.rpc_url.as_deref() else { return ChainView::NoNode };
    let view = async {
        is_node_of(url, network).await?;
        find_evidence_at(url, payment, since).await
    };
    answered(network, view.await)
}

/// The same for a payment that was settled in `transaction`, by a facilitator's word. The receipt of the transaction
/// is looked at first.
pub(crate) async fn confirm(network: &Network, payment: &Payment, transaction: &str, since: Millis) -> ChainView {
    let Some(url) = network.rpc_url.as_deref() else { return ChainView::NoNode };
    let view = async {
        is_node_of(url, network).await?;
        match settled_in(url, payment, transaction, since).await {
            Some((Evidence::Paid(receipt), block)) => Some((Evidence::Paid(receipt), block)),
            // The node does not have it yet, or it is another payment's, or there is none.
            _ => find_evidence_at(url, payment, since).await,
        }
    };
    answered(network, view.await)
}

fn answered(network: &Network, view: Option<(Evidence, Block)>) -> ChainView {
    match view {
        Some((evidence, block)) => ChainView::Shown(evidence, block),
        None => {
            worker::console_error!("chain: the node of {} gives no usable answer", network.id);
            ChainView::NoAnswer
        }
    }
}

/// A node of another chain would answer that the nonce is not spent, always.
pub(super) async fn is_node_of(url: &str, network: &Network) -> Option<()> {
    let chain: Quantity = call(url, &evm_rpc::chain_id()).await?;
    (chain.0 == network.chain_id()).then_some(())
}

/// What a transaction says of the payment, as of its block.
async fn settled_in(url: &str, payment: &Payment, transaction: &str, since: Millis) -> Option<(Evidence, Block)> {
    let receipt: TransactionReceipt = call(url, &evm_rpc::receipt_of(transaction)).await?;
    let mined: Block = call(url, &evm_rpc::block(receipt.block_number.0)).await?;
    let spending = Spending { transaction: transaction.to_owned(), logs: receipt.logs, at: mined.timestamp.0 };
    Some((of_spent(payment, since / 1000, &spending), mined))
}

async fn find_evidence_at(url: &str, payment: &Payment, since: Millis) -> Option<(Evidence, Block)> {
    let latest: Block = call(url, &evm_rpc::latest_block()).await?;
    let (asset, payer, nonce) = (payment.asset, payment.payer, payment.nonce.as_str());
    let word: String = call(url, &evm_rpc::authorization_state(asset, payer, nonce, latest.number.0)).await?;
    if !evm_rpc::read_bool(&word)? {
        return Some((of_unspent(payment, &latest), latest));
    }
    let from = search_from(latest.number.0, clock::now().saturating_sub(since));
    let query = evm_rpc::spending_of(asset, payer, nonce, from, latest.number.0);
    // A node that refuses the query does not say that there are no logs, so this is no answer at all.
    let logs: Vec<Log> = call(url, &query).await?;
    let Some(log) = logs.into_iter().next() else {
        // The nonce was spent earlier than the node searches. That may have been before this run, so it proves neither
        // that we were paid nor that we were not.
        return Some((Evidence::Nothing, latest));
    };
    settled_in(url, payment, &log.transaction_hash, since).await
}

pub(super) async fn call<T: for<'de> Deserialize<'de>>(url: &str, request: &str) -> Option<T> {
    let (_, text) = http::post_json(url, request, LIMIT).await.ok().filter(|(status, _)| *status == 200)?;
    evm_rpc::result(&text)
}
