//! What a run carries with it: what the front door hands to the run object, and what the object keeps.

use super::receipt::receipt_json;
use super::run_request::{RequestIdentity, RunRequest};
use crate::rules::hire::context::ContractContext;
use crate::rules::hire::task::TaskFacts;
use crate::rules::payment::Payment;
use crate::rules::record::ledger_row::{row, Facts, Row};
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::Refusal;
use crate::rules::run::{Ending, Millis, Receipt, Run, View};
use crate::wire::anthropic::{StopReason, Usage};
use serde::{Deserialize, Serialize};
use serde_json::{json, Value};

/// What the object keeps of a run in clear: nothing secret.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct RunRecord {
    /// The run's id: who holds it may look at the run.
    pub run_id: String,
    /// Which template.
    pub template_id: String,
    /// Whose.
    pub creator_id: String,
    /// The model asked.
    pub model: String,
    /// Upper bound of the answer, in tokens.
    pub max_tokens: u32,
    /// `None`: an owner's test.
    pub payment: Option<Payment>,
    /// See [`RunRequest::digest`].
    pub digest: String,
    /// When it was first presented.
    pub started_at: Millis,
    /// The contract that it executes.
    #[serde(default)]
    pub contract_context: Option<ContractContext>,
}

/// What a run has used so far.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub struct RunStats {
    /// Tokens of this edition of the answer.
    pub usage: Usage,
    /// Tokens of the editions before it: the creator pays Anthropic for those too.
    pub before: Usage,
    /// Why Claude stopped.
    pub stop_reason: Option<StopReason>,
    /// The facilitator that was asked last, by its URL.
    pub facilitator: Option<String>,
    /// Claude was asked to mend an answer.
    #[serde(default)]
    pub repaired: bool,
}

impl RunStats {
    /// A new edition begins.
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
    /// What is kept of a request whose run begins at `now`.
    pub fn of(request: RunRequest, run_id: String, now: Millis) -> Self {
        Self {
            run_id,
            template_id: request.template_id,
            creator_id: request.creator_id,
            model: request.model,
            max_tokens: request.max_tokens,
            payment: request.payment,
            digest: request.digest,
            started_at: now,
            contract_context: request.contract_context,
        }
    }

    /// See [`RequestIdentity`].
    pub fn identity(&self) -> RequestIdentity {
        RequestIdentity::of(&self.payment, &self.digest, &self.contract_context)
    }

    /// What a task's report says of this run.
    pub fn task_facts<'a>(&'a self, stats: &'a RunStats) -> TaskFacts<'a> {
        TaskFacts {
            run_id: &self.run_id,
            model: &self.model,
            started_at: self.started_at,
            usage: stats.all(),
            stop_reason: stats.stop_reason.as_ref(),
        }
    }

    /// The ledger's row of this run, at rest since `now`.
    pub fn row(&self, run: &Run, stats: &RunStats, now: Millis) -> Row {
        let payment = self.payment.as_ref();
        row(
            run,
            Facts {
                run_id: &self.run_id,
                template_id: &self.template_id,
                creator_id: &self.creator_id,
                model: &self.model,
                payer: payment.map(|p| p.payer.to_string()),
                price: payment.map(|p| (p.network.as_str(), p.asset.to_string(), p.amount.to_string())),
                usage: stats.all(),
                stop_reason: stats.stop_reason.as_ref(),
                started_at: self.started_at,
                duration_ms: now.saturating_sub(self.started_at),
            },
        )
    }

    /// The event that ends a whole answer.
    pub fn done_event(&self, stats: &RunStats, receipt: Option<&Receipt>) -> Value {
        json!({
            "type": "done",
            "usage": stats.usage,
            "stop_reason": stats.stop_reason,
            "run": self.run_id,
            "receipt": receipt.map(receipt_json),
        })
    }

    /// The whole answer as one document.
    pub fn document(&self, text: &str, stats: &RunStats, receipt: Option<&Receipt>) -> Value {
        json!({
            "run": self.run_id,
            "status": "delivered",
            "model": self.model,
            "output": text,
            "stop_reason": stats.stop_reason,
            "usage": stats.usage,
            "receipt": receipt.map(receipt_json),
        })
    }
}

impl RunRecord {
    /// Where the run stands, for who holds its id.
    pub fn status(&self, run: &Run, stats: &RunStats, text: &str) -> Value {
        let charged = run.receipt().is_some();
        let refusal = match (run.view(), run.ending()) {
            (_, Some(Ending::Error(refusal))) | (View::Refuse(refusal), _) => Some(refusal),
            _ => None,
        };
        let known = refusal.as_ref().is_none_or(Refusal::knows_charge) && !run.is_settling();
        let error = refusal.map(|refusal| ErrorBody::in_status(&refusal, charged));
        let row = self.row(run, stats, self.started_at);
        json!({
            "run": self.run_id,
            "status": row.status,
            "model": self.model,
            "startedAt": self.started_at,
            "charged": known.then_some(charged),
            "amount": row.amount,
            "asset": row.asset,
            "network": row.network,
            "receipt": run.receipt().map(receipt_json),
            "output": (run.ending() == Some(Ending::Done)).then_some(text),
            "stop_reason": stats.stop_reason,
            "usage": stats.usage,
            "error": error,
            "stream": format!("/runs/{}/stream", self.run_id),
        })
    }
}
