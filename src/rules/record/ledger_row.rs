//! The ledger's row of a run: what is remembered of it once it has come to rest. No text of the
//! prompt, the input or the answer.

use crate::rules::refusal::Refusal;
use crate::rules::run::{Policy, Run, State};
use crate::wire::anthropic::{StopReason, Usage};

/// What a row says that the machine does not know.
#[derive(Clone, Debug)]
pub struct Facts<'a> {
    /// The run's id.
    pub run_id: &'a str,
    /// Whose template, and which.
    pub template_id: &'a str,
    /// The template's owner.
    pub creator_id: &'a str,
    /// The model asked.
    pub model: &'a str,
    /// Who pays; `None` for an owner's test.
    pub payer: Option<String>,
    /// CAIP-2, asset and amount asked for; `None` for an owner's test.
    pub price: Option<(&'a str, String, String)>,
    /// Tokens of all editions of the answer.
    pub usage: Usage,
    /// Why Claude stopped.
    pub stop_reason: Option<&'a StopReason>,
    /// Unix milliseconds.
    pub started_at: u64,
    /// From run_request to rest.
    pub duration_ms: u64,
}

/// One row of the table `runs`, in the columns' order.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// Unique: a row told twice counts once.
    pub id: String,
    /// Which template.
    pub template_id: String,
    /// Whose.
    pub creator_id: String,
    /// Free, and not counted as earnings.
    pub owner_test: bool,
    /// `None`: owner test.
    pub payer: Option<String>,
    /// CAIP-2.
    pub network: Option<String>,
    /// The token.
    pub asset: Option<String>,
    /// Atomic units charged.
    pub amount: String,
    /// The settlement.
    pub transaction: Option<String>,
    /// delivered, failed, refused, unknown, interrupted, refundable, reported.
    pub status: &'static str,
    /// The refusal's code.
    pub code: Option<String>,
    /// The model asked.
    pub model: String,
    /// Why Claude stopped.
    pub stop_reason: Option<String>,
    /// Tokens read, from wherever.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Unix milliseconds.
    pub started_at: u64,
    /// Milliseconds.
    pub duration_ms: u64,
}

/// The row of a run at rest.
pub fn row(run: &Run, facts: Facts<'_>) -> Row {
    let (status, refusal) = match run.state() {
        State::Delivered => ("delivered", None),
        State::Failed(fault) => ("failed", Some(Refusal::Claude(*fault))),
        State::Refused(refusal) => ("refused", Some(refusal.clone())),
        State::SettlementUnknown { .. } => ("unknown", Some(Refusal::SettlementUnknown)),
        State::Interrupted(fault) => ("interrupted", Some(Refusal::Claude(*fault))),
        State::Refundable(fault) => ("refundable", Some(Refusal::Claude(*fault))),
        State::Reported(fault) => ("reported", Some(Refusal::Claude(*fault))),
        State::New | State::Presented | State::Verified => ("running", None),
        State::Answering { .. } | State::Streaming => ("running", None),
    };
    let (network, asset, asked) = match facts.price {
        Some((network, asset, amount)) => (Some(network.to_owned()), Some(asset), amount),
        None => (None, None, "0".to_owned()),
    };
    let charged = run.receipt().is_some();
    Row {
        id: facts.run_id.to_owned(),
        template_id: facts.template_id.to_owned(),
        creator_id: facts.creator_id.to_owned(),
        owner_test: run.terms().policy == Policy::Free,
        payer: facts.payer,
        network,
        asset,
        amount: if charged { asked } else { "0".to_owned() },
        transaction: run.receipt().map(|r| r.transaction.clone()),
        status,
        code: refusal.map(|r| r.code().to_owned()),
        model: facts.model.to_owned(),
        stop_reason: facts.stop_reason.cloned().map(String::from),
        input_tokens: facts.usage.all_input(),
        output_tokens: facts.usage.output_tokens,
        started_at: facts.started_at,
        duration_ms: facts.duration_ms,
    }
}
