//! What the chain shows of a payment whose settlement was not answered.
//!
//! Such a settlement may have happened. That the nonce is spent does not mean that this payment was made: the payer may
//! cancel the authorization, or spend its nonce on a transfer to themselves, and a run that takes "spent" for "paid" is
//! given away. The chain shows which of these it was; a facilitator's `/verify` does not.
//!
//! Where a node is configured, it is the only witness that counts for a payment. As long as it does not answer, or has
//! not come as far as the facilitator whom it is to confirm, it is asked again.

use crate::rules::payment::Payment;
use crate::rules::run::{Evidence, Millis, Receipt, BACK_OFF, RETENTION};
use crate::wire::evm_rpc::{Block, Log, Quantity, AUTHORIZATION_CANCELED, AUTHORIZATION_USED, TRANSFER};
use serde::{Deserialize, Serialize};

/// How many blocks are searched before the time of the run, because clocks differ.
const EARLIER_BLOCKS: u64 = 300;
/// The fastest chains have a block every quarter of a second.
const BLOCKS_PER_SECOND: u64 = 4;
/// Nodes refuse to search more blocks in one call.
const MAX_BLOCKS: u64 = 9_000;
/// By how many seconds the chain's clock and ours may differ. It is generous, because a payer who is wrongly told that
/// their payment will never settle pays twice.
const CLOCKS_DIFFER: u64 = 15 * 60;
/// How many blocks after the first look are enough where the chain's clock is too far behind ours to compare them.
const LATER_BLOCKS: u64 = 2;
/// From how many seconds on it is. By less, a node may be behind the facilitator.
const CLOCK_BEHIND: u64 = 60;
/// The longest wait before the chain is asked again to confirm a settlement.
const CONFIRM_WAIT_MAX: Millis = 60 * 1000;
/// The longest wait of a wallet whose node does not answer.
const NO_ANSWER_WAIT_MAX: Millis = 15 * 60 * 1000;
/// A run asks the chain for less time than this: it makes a few calls, each of which is limited.
const TURN_MAX: Millis = 2 * 60 * 1000;

/// What a node of the chain shows of a payment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ChainView {
    /// No node is configured for the payment's network.
    NoNode,
    /// There is a node, and it gives no usable answer.
    NoAnswer,
    /// The evidence, as of this block.
    Shown(Evidence, Block),
}

/// What is known of a settlement that was not answered. `told` is what a facilitator says, where the chain shows nothing.
/// A facilitator cannot tell who has spent a nonce on what, so its "spent" is no evidence where a node can tell.
pub fn evidence(view: ChainView, told: Evidence) -> Evidence {
    match (view, told) {
        (ChainView::Shown(evidence, _), _) => evidence,
        (ChainView::NoAnswer, Evidence::Spent(_)) => Evidence::Nothing,
        (ChainView::NoAnswer | ChainView::NoNode, told) => told,
    }
}

/// The search for what contradicts a facilitator's no. A facilitator that takes the money and answers no would be paid a
/// second time by the payer's next payment.
#[derive(Clone, Debug)]
pub struct NoCheck {
    /// When the facilitator has said no, in Unix milliseconds.
    said_at: Millis,
    /// The block of the first look.
    first: Option<u64>,
}

impl NoCheck {
    pub fn new(said_at: Millis) -> Self {
        Self { said_at, first: None }
    }

    /// Whether the no is confirmed. `None`: the node has to be asked again. It may be behind the facilitator, so an
    /// unspent nonce counts only as of a block that is later than the no.
    pub fn outcome(&mut self, view: &ChainView) -> Option<Result<(), Receipt>> {
        match view {
            ChainView::NoNode => Some(Ok(())),
            ChainView::Shown(Evidence::Paid(receipt), _) => Some(Err(receipt.clone())),
            ChainView::Shown(Evidence::Never(_), _) => Some(Ok(())),
            ChainView::Shown(Evidence::Unspent, block) => {
                let Block { number: Quantity(number), timestamp: Quantity(at) } = *block;
                let first = *self.first.get_or_insert(number);
                let is_later = number > first && at > self.said_at / 1000;
                let is_behind = at.saturating_add(CLOCK_BEHIND) < self.said_at / 1000;
                (is_later || (is_behind && number >= first.saturating_add(LATER_BLOCKS))).then_some(Ok(()))
            }
            ChainView::NoAnswer | ChainView::Shown(Evidence::Nothing | Evidence::Spent(_), _) => None,
        }
    }
}

/// What the books say of a settlement that a facilitator has told.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub enum Confirmation {
    /// The chain has not been asked, or has not shown it yet.
    #[default]
    Awaited,
    /// The facilitator's word counts, because there is no node.
    Unchecked,
    /// The chain shows the transfer, in this transaction.
    Paid(String),
    /// The chain shows that there was none, and that there can be none any more.
    Refuted,
}

impl Confirmation {
    /// What the chain shows of a payment that is settled by a facilitator's word.
    pub fn of(view: &ChainView) -> Self {
        match view {
            ChainView::NoNode => Self::Unchecked,
            ChainView::Shown(Evidence::Paid(receipt), _) => Self::Paid(receipt.transaction.clone()),
            ChainView::Shown(Evidence::Never(_), _) => Self::Refuted,
            ChainView::NoAnswer | ChainView::Shown(_, _) => Self::Awaited,
        }
    }

    /// Whether the run counts as paid.
    pub fn is_paid(&self) -> bool {
        matches!(self, Self::Unchecked | Self::Paid(_))
    }
}

/// How long to wait before the chain is asked again to confirm a settlement, after `looks` in vain, for a run that came
/// to rest at `rested_at`. `None`: the run was kept for as long as it is, and its payment stays unknown.
pub fn confirmation_wait(looks: u8, rested_at: Millis, now: Millis) -> Option<Millis> {
    (now < rested_at.saturating_add(RETENTION)).then(|| back_off_of(looks, CONFIRM_WAIT_MAX))
}

/// Which of a wallet's runs may ask the chain to confirm its settlement. One asks at a time: a node that does not answer
/// one of them does not answer the others either, so they all wait.
#[derive(Debug, Default)]
pub struct ConfirmationTurns {
    /// A turn that has not ended by then counts as lost.
    taken_until: Millis,
    /// How often in succession the node has not answered.
    failures: u8,
    /// When a run may ask again, in Unix milliseconds.
    not_before: Millis,
}

/// The answer to a run that wants to ask the chain.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Turn {
    /// It may ask. It has to call [`ConfirmationTurns::end`] afterwards.
    Now,
    /// Another one is asking.
    Taken,
    /// The node does not answer, and it is too early to try again.
    TooEarly,
}

impl ConfirmationTurns {
    pub fn take(&mut self, now: Millis) -> Turn {
        match (now < self.taken_until, now < self.not_before) {
            (true, _) => Turn::Taken,
            (false, true) => Turn::TooEarly,
            (false, false) => {
                self.taken_until = now.saturating_add(TURN_MAX);
                Turn::Now
            }
        }
    }

    /// Ends a turn. `view`: what the chain has shown in it; `None` where it was not asked to the end.
    pub fn end(&mut self, view: Option<&ChainView>, now: Millis) {
        self.taken_until = 0;
        match view {
            Some(ChainView::NoAnswer) => {
                self.not_before = now.saturating_add(back_off_of(self.failures, NO_ANSWER_WAIT_MAX));
                self.failures = self.failures.saturating_add(1);
            }
            Some(ChainView::NoNode | ChainView::Shown(..)) => (self.failures, self.not_before) = (0, 0),
            None => {}
        }
    }

    /// How long every run of the wallet has to wait.
    pub fn wait(&self, now: Millis) -> Millis {
        self.not_before.saturating_sub(now)
    }
}

fn back_off_of(times: u8, max: Millis) -> Millis {
    BACK_OFF.saturating_mul(4u64.saturating_pow(u32::from(times))).min(max)
}

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
        known && log.address == Some(payment.asset) && *payer == payment.payer.to_topic() && *nonce == payment.nonce
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
    let transfer =
        logs.iter().skip(position + 1).find(|log| log.address.is_none_or(|address| address == payment.asset));
    match transfer {
        Some(log) if is_transfer_of(log, payment) => Evidence::Paid(receipt(payment, transaction.clone())),
        // It may be the transfer.
        Some(log) if !log.is_readable() => Evidence::Nothing,
        _ => used_elsewhere(),
    }
}

fn is_transfer_of(log: &Log, payment: &Payment) -> bool {
    let topics = [TRANSFER.topic(), payment.payer.to_topic(), payment.pay_to.to_topic()];
    log.address == Some(payment.asset) && log.topics == topics && log.data == payment.amount.to_word()
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
