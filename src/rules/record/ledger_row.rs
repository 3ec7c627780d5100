//! The row of a run in the ledger. It holds no text of the prompt, the input or the answer.

use crate::rules::ids::ledger_id;
use crate::rules::payment::reconcile::Confirmation;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Policy, Run, State};
use crate::wire::anthropic::{StopReason, Usage};
use serde::{Deserialize, Serialize};
use std::borrow::Cow;

/// What a row says beyond the state of the run machine.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    pub run_id: &'a str,
    pub template_id: &'a str,
    pub creator_id: &'a str,
    pub model: &'a str,
    /// The payment is by a wallet of the template's creator.
    pub own_payment: bool,
    /// `None`: an owner's free test.
    pub payer: Option<String>,
    /// Network (CAIP-2), asset and amount of the quote. `None`: an owner's test.
    pub price: Option<(&'a str, String, String)>,
    /// Tokens of all editions of the answer.
    pub usage: Usage,
    pub stop_reason: Option<&'a StopReason>,
    /// The time in Unix milliseconds.
    pub started_at: u64,
    /// From the presented payment until the run came to rest.
    pub duration_ms: u64,
}

/// One row of the table `runs`, in the order of its columns.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Row {
    /// The digest of the run's id. A row that is written twice counts once.
    pub id: String,
    pub template_id: String,
    pub creator_id: String,
    /// A test by the owner, free or paid by a wallet of theirs, is not counted as a run or as earnings.
    pub owner_test: bool,
    /// `None`: an owner's test.
    pub payer: Option<String>,
    pub network: Option<String>,
    pub asset: Option<String>,
    /// What was charged, in atomic units.
    pub amount: String,
    /// The transaction of the settlement.
    pub transaction: Option<String>,
    /// delivered, failed, refused, unknown, interrupted, refundable, reported or running.
    pub status: Cow<'static, str>,
    /// The code of the refusal, if any.
    pub code: Option<String>,
    pub model: String,
    pub stop_reason: Option<String>,
    /// Tokens read, those from the cache included.
    pub input_tokens: u64,
    pub output_tokens: u64,
    /// The time in Unix milliseconds.
    pub started_at: u64,
    pub duration_ms: u64,
}

impl Row {
    /// The row of a run that a facilitator says is paid, by what the chain says of it.
    pub fn confirmed(self, confirmation: &Confirmation) -> Self {
        let (status, refusal) = match (&self.transaction, confirmation) {
            (None, _) | (_, Confirmation::Unchecked) => return self,
            (Some(_), Confirmation::Paid(transaction)) => {
                return Self { transaction: Some(transaction.clone()), ..self };
            }
            (Some(_), Confirmation::Awaited) => ("unknown", Refusal::SettlementUnknown),
            (Some(_), Confirmation::Refuted) => ("refused", Refusal::SettlementRejected { reason: None }),
        };
        Self {
            transaction: None,
            amount: "0".to_owned(),
            status: Cow::Borrowed(status),
            code: Some(refusal.code().to_owned()),
            ..self
        }
    }
}

/// Makes the row of a run. Only a run at rest has a final one.
pub fn row(run: &Run, facts: Facts<'_>) -> Row {
    let (status, refusal) = match run.state() {
        State::Delivered => ("delivered", None),
        State::Failed(error) => ("failed", Some(Refusal::Claude(*error))),
        State::Refused(refusal) => ("refused", Some(refusal.clone())),
        State::SettlementUnknown { .. } => ("unknown", Some(Refusal::SettlementUnknown)),
        State::Interrupted(error) => ("interrupted", Some(Refusal::Claude(*error))),
        State::Refundable(error) => ("refundable", Some(Refusal::Claude(*error))),
        State::Reported(error) => ("reported", Some(Refusal::Claude(*error))),
        State::New | State::Presented | State::Verified => ("running", None),
        State::Answering { .. } | State::Streaming => ("running", None),
    };
    let (network, asset, price) = match facts.price {
        Some((network, asset, amount)) => (Some(network.to_owned()), Some(asset), amount),
        None => (None, None, "0".to_owned()),
    };
    let charged = run.receipt().is_some();
    Row {
        id: ledger_id(facts.run_id),
        template_id: facts.template_id.to_owned(),
        creator_id: facts.creator_id.to_owned(),
        owner_test: run.terms().policy == Policy::Free || facts.own_payment,
        payer: facts.payer,
        network,
        asset,
        amount: if charged { price } else { "0".to_owned() },
        transaction: run.receipt().map(|r| r.transaction.clone()),
        status: Cow::Borrowed(status),
        code: refusal.map(|r| r.code().to_owned()),
        model: facts.model.to_owned(),
        stop_reason: facts.stop_reason.cloned().map(String::from),
        input_tokens: facts.usage.all_input(),
        output_tokens: facts.usage.output_tokens,
        started_at: facts.started_at,
        duration_ms: facts.duration_ms,
    }
}
