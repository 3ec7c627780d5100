//! What the run object keeps of a run, and the documents that callers read of it.

use super::events;
use super::events::json_text;
use super::receipt::settled;
use super::run_request::{RequestIdentity, RunRequest};
use crate::rules::hire::context::ContractContext;
use crate::rules::hire::task::TaskFacts;
use crate::rules::ids::run_path;
use crate::rules::payment::identifier::IdempotencyKey;
use crate::rules::payment::reconcile::Confirmation;
use crate::rules::payment::Payment;
use crate::rules::record::ledger_row::{row, Facts, Row};
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::{ModelError, Refusal};
use crate::rules::run::{Ending, Millis, Receipt, Run, View};
use crate::wire::anthropic::{StopReason, Usage};
use crate::wire::x402::SettleResponse;
use serde::{Deserialize, Serialize};

/// What the object keeps of a run in clear: nothing secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// Whoever has this id may look at the run.
    pub run_id: String,
    pub template_id: String,
    pub creator_id: String,
    pub model: String,
    /// Upper bound of the answer, in tokens.
    pub max_tokens: u32,
    /// `None`: an owner's test.
    pub payment: Option<Payment>,
    /// The payment is by a wallet of the template's creator.
    #[serde(default)]
    pub own_payment: bool,
    pub digest: String,
    /// `None`: the request had none.
    #[serde(default)]
    pub key: Option<IdempotencyKey>,
    /// When the payment was presented.
    pub started_at: Millis,
    /// `None`: the run executes no contract.
    #[serde(default)]
    pub contract_context: Option<ContractContext>,
}

/// What a run has used so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunStats {
    /// Tokens of this edition of the answer.
    pub usage: Usage,
    /// Tokens of the editions before it, which the creator pays Anthropic for too.
    pub before: Usage,
    pub stop_reason: Option<StopReason>,
    /// The URL of the facilitator that was asked last.
    pub facilitator: Option<String>,
    /// Claude was shown what is wrong with an answer, and asked again.
    #[serde(default)]
    pub repaired: bool,
    /// What the chain says of the settlement.
    #[serde(default)]
    pub confirmation: Confirmation,
    /// Claude's own failure has delayed the run, or ended it.
    #[serde(default)]
    pub model_failed: bool,
    /// The same, and Claude has not begun to answer since.
    #[serde(default)]
    pub model_is_failing: bool,
    /// Anthropic has refused the schema for structured outputs, so Claude is asked without them.
    #[serde(default)]
    pub without_format: bool,
}

impl RunStats {
    /// Claude has begun to answer. Who hangs up from now on does not hang up on Claude's failure.
    pub fn note_begun(&mut self) {
        self.model_is_failing = false;
    }

    /// The answer has ended before it was complete.
    pub fn note_broken(&mut self, error: ModelError) {
        self.model_failed |= error.is_claudes();
        self.model_is_failing |= error.is_claudes();
    }

    /// Counts from zero for a new edition of the answer.
    pub fn next_edition(&mut self) {
        self.before = self.all();
        self.usage = Usage::default();
        self.stop_reason = None;
    }

    /// Tokens of all editions.
    pub fn all(&self) -> Usage {
        let (a, b) = (self.before, self.usage);
        Usage {
            input_tokens: a.input_tokens.saturating_add(b.input_tokens),
            output_tokens: a.output_tokens.saturating_add(b.output_tokens),
            cache_creation_input_tokens: a.cache_creation_input_tokens.saturating_add(b.cache_creation_input_tokens),
            cache_read_input_tokens: a.cache_read_input_tokens.saturating_add(b.cache_read_input_tokens),
        }
    }
}

impl RunRecord {
    /// The record of a request whose run begins at `now`.
    pub fn of(request: RunRequest, run_id: String, now: Millis) -> Self {
        Self {
            run_id,
            template_id: request.template_id,
            creator_id: request.creator_id,
            model: request.model,
            max_tokens: request.max_tokens,
            payment: request.payment,
            own_payment: request.own_payment,
            digest: request.digest,
            key: request.key,
            started_at: now,
            contract_context: request.contract_context,
        }
    }

    pub fn identity(&self) -> RequestIdentity {
        RequestIdentity::of(&self.payment, &self.digest, &self.contract_context)
    }

    /// The facts for the report of a contract's task.
    pub fn task_facts<'a>(&'a self, stats: &'a RunStats) -> TaskFacts<'a> {
        TaskFacts {
            run_id: &self.run_id,
            model: &self.model,
            started_at: self.started_at,
            usage: stats.all(),
            stop_reason: stats.stop_reason.as_ref(),
        }
    }

    /// The row of this run in the ledger, which came to rest at `now`.
    pub fn row(&self, run: &Run, stats: &RunStats, now: Millis) -> Row {
        let payment = self.payment.as_ref();
        row(
            run,
            Facts {
                run_id: &self.run_id,
                template_id: &self.template_id,
                creator_id: &self.creator_id,
                model: &self.model,
                own_payment: self.own_payment,
                payer: payment.map(|p| p.payer.to_string()),
                price: payment.map(|p| (p.network.as_str(), p.asset.to_string(), p.amount.to_string())),
                usage: stats.all(),
                stop_reason: stats.stop_reason.as_ref(),
                started_at: self.started_at,
                duration_ms: now.saturating_sub(self.started_at),
            },
        )
    }

    /// The row as it goes into the ledger: a settlement that the chain has to confirm is not counted before that.
    pub fn ledger_row(&self, run: &Run, stats: &RunStats, now: Millis) -> Row {
        self.row(run, stats, now).confirmed(&stats.confirmation)
    }

    /// The event that ends a whole answer.
    pub fn done_event(&self, stats: &RunStats, receipt: Option<&Receipt>) -> String {
        events::done(stats.usage, stats.stop_reason.as_ref(), &self.run_id, receipt)
    }

    /// The whole answer as one JSON document.
    pub fn document(&self, text: &str, stats: &RunStats, receipt: Option<&Receipt>) -> String {
        json_text(&RunDocument {
            run: &self.run_id,
            status: "delivered",
            model: &self.model,
            output: text,
            stop_reason: stats.stop_reason.as_ref(),
            usage: stats.usage,
            receipt: receipt.map(settled),
        })
    }

    /// Where the run stands, as a JSON document for whoever has its id.
    pub fn status(&self, run: &Run, stats: &RunStats, text: &str) -> String {
        let charged = run.receipt().is_some();
        let refusal = match (run.view(), run.ending()) {
            (_, Some(Ending::Error(refusal))) | (View::Refuse(refusal), _) => Some(refusal),
            _ => None,
        };
        let charge_is_known = refusal.as_ref().is_none_or(Refusal::knows_charge) && !run.is_settling();
        let row = self.row(run, stats, self.started_at);
        json_text(&RunStatus {
            run: &self.run_id,
            status: &row.status,
            model: &self.model,
            started_at: self.started_at,
            charged: charge_is_known.then_some(charged),
            amount: &row.amount,
            asset: row.asset.as_deref(),
            network: row.network.as_deref(),
            receipt: run.receipt().map(settled),
            output: (run.ending() == Some(Ending::Done)).then_some(text),
            stop_reason: stats.stop_reason.as_ref(),
            usage: stats.usage,
            error: refusal.map(|refusal| ErrorBody::in_status(&refusal, charged)),
            stream: format!("{}/stream", run_path(&self.run_id)),
        })
    }
}

/// A whole answer. Callers read the members in this order.
#[derive(Serialize)]
struct RunDocument<'a> {
    run: &'a str,
    status: &'static str,
    model: &'a str,
    output: &'a str,
    stop_reason: Option<&'a StopReason>,
    usage: Usage,
    receipt: Option<SettleResponse>,
}

/// Where a run stands. Callers read the members in this order.
#[derive(Serialize)]
struct RunStatus<'a> {
    run: &'a str,
    status: &'a str,
    model: &'a str,
    #[serde(rename = "startedAt")]
    started_at: Millis,
    /// `None` while it is in doubt.
    charged: Option<bool>,
    amount: &'a str,
    asset: Option<&'a str>,
    network: Option<&'a str>,
    receipt: Option<SettleResponse>,
    /// `None` until the answer is whole.
    output: Option<&'a str>,
    stop_reason: Option<&'a StopReason>,
    usage: Usage,
    error: Option<ErrorBody<'a>>,
    stream: String,
}
