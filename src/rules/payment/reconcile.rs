//! What the chain shows of a payment whose settlement was not answered.
//!
//! Such a settlement may have happened. That the nonce is spent does not mean that this payment was made: the payer may
//! cancel the authorization, or spend its nonce on a transfer to themselves, and a run that takes "spent" for "paid" is
//! given away. The chain shows which of these it was; a facilitator's `/verify` does not.

use crate::rules::payment::Payment;
use crate::rules::run::{Evidence, Millis, Receipt};
use crate::wire::evm_rpc::{Block, Log, AUTHORIZATION_CANCELED, AUTHORIZATION_USED, TRANSFER};

/// How many blocks are searched before the time of the run, because clocks differ.
const EARLIER_BLOCKS: u64 = 300;
/// The fastest chains have a block every quarter of a second.
const BLOCKS_PER_SECOND: u64 = 4;
/// Nodes refuse to search more blocks in one call.
const MAX_BLOCKS: u64 = 9_000;
/// By how many seconds the chain's clock and ours may differ. It is generous, because a payer who is wrongly told that
/// their payment will never settle pays twice.
const CLOCKS_DIFFER: u64 = 15 * 60;

/// The first block to search for where a nonce was spent, for a run that was presented `age` ago.
pub fn search_from(latest_block: u64, age: Millis) -> u64 {
    let seconds = age / 1000;
    let blocks = seconds.saturating_mul(BLOCKS_PER_SECOND).saturating_add(EARLIER_BLOCKS).min(MAX_BLOCKS);
    latest_block.saturating_sub(blocks)
}

/// What a nonce that is not spent as of `block` says of its payment.
pub fn of_unspent(payment: &Payment, block: &Block) -> Evidence {
    match block.timestamp.0 >= payment.valid_before {
        true => Evidence::Never(Some("invalid_exact_evm_payload_authorization_valid_before".to_owned())),
        false => Evidence::Unspent,
    }
}

/// The transaction that spent a nonce.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spending {
    pub transaction: String,
    /// The transaction's logs, in their order.
    pub logs: Vec<Log>,
    /// The time of the transaction's block, in Unix seconds.
    pub at: u64,
}

/// What a spent nonce says of its payment, for a run that was first presented at `since` (Unix seconds). A transfer
/// from before that has bought something else: another service of the same creator may accept the same signature.
pub fn of_spent(payment: &Payment, since: u64, spending: &Spending) -> Evidence {
    let Spending { transaction, logs, at } = spending;
    let is_of_nonce = |log: &&Log| {
        let [event, payer, nonce] = log.topics.as_slice() else { return false };
        let known = [AUTHORIZATION_USED, AUTHORIZATION_CANCELED].iter().any(|known| known.topic() == *event);
        known && log.address == payment.asset && *payer == payment.payer.to_topic() && *nonce == payment.nonce
    };
    let Some(position) = logs.iter().position(|log| is_of_nonce(&log)) else {
        return Evidence::Nothing;
    };
    let used_elsewhere = || Evidence::Never(Some("invalid_exact_evm_nonce_already_used".to_owned()));
    if at.saturating_add(CLOCKS_DIFFER) < since {
        return used_elsewhere();
    }
    let event = logs.get(position).and_then(|log| log.topics.first());
    if event.is_some_and(|event| *event == AUTHORIZATION_CANCELED.topic()) {
        return Evidence::Never(Some("authorization_canceled".to_owned()));
    }
    // The token logs the transfer right after the nonce. A later transfer may belong to another payment.
    let transfer = logs.iter().skip(position + 1).find(|log| log.address == payment.asset);
    match transfer.is_some_and(|log| is_transfer_of(log, payment)) {
        true => Evidence::Paid(receipt(payment, transaction.clone())),
        false => used_elsewhere(),
    }
}

fn is_transfer_of(log: &Log, payment: &Payment) -> bool {
    let topics = [TRANSFER.topic(), payment.payer.to_topic(), payment.pay_to.to_topic()];
    log.topics == topics && log.data == payment.amount.to_word()
}

/// The receipt of a payment that was settled in `transaction`.
pub fn receipt(payment: &Payment, transaction: String) -> Receipt {
    Receipt {
        transaction,
        network: payment.network.clone(),
        network_v1: payment.network_v1.clone(),
        payer: payment.payer.to_string(),
    }
}
