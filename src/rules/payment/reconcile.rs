//! What became of a payment, from what facilitators and the chain say of it.
//!
//! A settlement whose answer was lost may have happened. Whoever takes "spent" for "paid" can be made to
//! give away a run: the payer may cancel the authorization, or spend its nonce on themselves. The chain
//! tells these apart; a facilitator's `verify` does not.

use crate::rules::payment::Payment;
use crate::rules::run::{Evidence, Receipt};
use crate::wire::evm_rpc::{Block, Log, AUTHORIZATION_CANCELED, AUTHORIZATION_USED, TRANSFER};
use crate::wire::x402::{SettleResponse, VerifyResponse};

/// Whether a failed settlement says for certain that the money has not moved.
///
/// Only what a facilitator finds before it submits anything is certain. A transaction that it names may
/// still be mined; a confirmation that timed out may still come; and a nonce that is spent was spent on
/// paying the creator, by whoever was first to submit it.
pub fn is_definite_no(answer: &SettleResponse) -> bool {
    let reason = answer.error_reason.as_deref().unwrap_or_default();
    let found_before = ["invalid_", "insufficient_", "unsupported_"].iter().any(|start| reason.starts_with(start));
    let submitted = ["nonce", "transaction", "settlement", "pending"].iter().any(|word| reason.contains(word));
    !answer.success && answer.transaction.is_empty() && found_before && !submitted
}

/// Whether it says in so many words that what was submitted has failed. Not that it is still under way, nor
/// anything else: some pass on whatever their own node told them.
pub fn is_failure(answer: &SettleResponse) -> bool {
    let reason = answer.error_reason.as_deref().unwrap_or_default().to_ascii_lowercase();
    let failed =
        ["transaction_failed", "simulation_failed", "deployment_failed", "event_mismatch", "failed_onchain", "revert"];
    let coded = ["invalid_", "insufficient_", "unsupported_"].iter().any(|start| reason.starts_with(start));
    let open = ["pending", "timeout", "timed"].iter().any(|word| reason.contains(word));
    !answer.success && !open && (coded || failed.iter().any(|word| reason.contains(word)))
}

/// Whether it says that the nonce is spent already.
pub fn says_spent(answer: &SettleResponse) -> bool {
    !answer.success && answer.transaction.is_empty() && names_spent_nonce(answer.error_reason.as_deref())
}

/// Whether a facilitator that answers so cannot have submitted anything: it did not take the request, or
/// was not reached. (521 to 530 are the edge's own words for an origin that it could not connect to.)
pub const fn is_not_submitted(status: u16) -> bool {
    matches!(status, 401 | 403 | 404 | 405 | 415 | 429 | 501 | 521 | 523 | 525 | 526 | 530)
}

/// What a facilitator's `verify` tells of a payment that it, or another, was asked to settle.
pub fn of_verify(answer: &VerifyResponse, payment: &Payment) -> Evidence {
    match answer {
        VerifyResponse { is_valid: true, .. } => Evidence::Unspent,
        VerifyResponse { invalid_reason, .. } if names_spent_nonce(invalid_reason.as_deref()) => {
            Evidence::Spent(receipt(payment, String::new()))
        }
        // That it is too late says nothing of what happened before.
        _ => Evidence::Nothing,
    }
}

/// How far the chain's clock and ours may be apart, in seconds: rather too much, for who is wrongly told
/// "never" pays twice.
const CLOCKS_DIFFER: u64 = 15 * 60;

/// Whether a reason says that the nonce is spent.
pub fn names_spent_nonce(reason: Option<&str>) -> bool {
    reason.is_some_and(|r| r.contains("nonce") && (r.contains("used") || r.contains("spent")))
}

/// What the chain tells of a nonce that is not spent as of `block`.
pub fn of_unspent(payment: &Payment, block: &Block) -> Evidence {
    match block.timestamp.0 >= payment.valid_before {
        true => Evidence::Never(Some("invalid_exact_evm_payload_authorization_valid_before".to_owned())),
        false => Evidence::Unspent,
    }
}

/// Where the nonce was spent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Spending {
    /// The transaction.
    pub transaction: String,
    /// Its logs, in their order.
    pub logs: Vec<Log>,
    /// Its block's time, in Unix seconds.
    pub at: u64,
}

/// What the chain tells of a nonce that is spent, for a run that was first presented at `since` (Unix
/// seconds). A transfer from before that has bought something else: another shop of the same creator may
/// take the same signature.
pub fn of_spent(payment: &Payment, since: u64, spending: &Spending) -> Evidence {
    let Spending { transaction, logs, at } = spending;
    let about_it = |log: &&Log| {
        let [event, payer, nonce] = log.topics.as_slice() else { return false };
        let known = [AUTHORIZATION_USED, AUTHORIZATION_CANCELED].iter().any(|known| known.topic() == *event);
        known && log.address == payment.asset && *payer == payment.payer.to_topic() && *nonce == payment.nonce
    };
    let Some(position) = logs.iter().position(|log| about_it(&log)) else {
        return Evidence::Nothing;
    };
    let used = || Evidence::Never(Some("invalid_exact_evm_nonce_already_used".to_owned()));
    if at.saturating_add(CLOCKS_DIFFER) < since {
        return used();
    }
    let spent = logs.get(position).and_then(|log| log.topics.first());
    if spent.is_some_and(|event| *event == AUTHORIZATION_CANCELED.topic()) {
        return Evidence::Never(Some("authorization_canceled".to_owned()));
    }
    // The token writes the transfer right after the nonce. Any other one may belong to another payment.
    let transfer = logs.iter().skip(position + 1).find(|log| log.address == payment.asset);
    match transfer.is_some_and(|log| is_transfer_of(log, payment)) {
        true => Evidence::Paid(receipt(payment, transaction.clone())),
        false => used(),
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

/// Whether an answer of the claims endpoint says that the claim is there: now, or since before.
pub fn is_reported(status: u16, text: &str) -> bool {
    #[derive(serde::Deserialize)]
    struct Answer {
        #[serde(default)]
        success: bool,
        #[serde(default)]
        error: String,
    }
    let Ok(answer) = serde_json::from_str::<Answer>(text) else { return false };
    (status < 300 && answer.success) || answer.error.to_ascii_lowercase().contains("already exists")
}
