//! What a run keeps of the contract that it executes.

use super::contract::AgreedTerms;
use super::deliverables::{deliverables, Deliverable};
use super::output::{FileSpec, OutputType};
use super::shown_schema::ShownSchema;
use crate::rules::run::Millis;
use crate::wire::anthropic::StopReason;
use crate::wire::hire::{Contract, RefundCondition};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContractContext {
    pub contract_id: String,
    /// All executions of a contract have the same task id. Whoever knows it may read the task.
    pub task_id: String,
    /// `https://host` of the request that began the run, for the links of a report.
    pub origin: String,
    pub output: OutputType,
    /// JSON Schema that the result has to satisfy.
    pub output_schema: Option<Value>,
    /// How much of that schema Claude is shown.
    #[serde(default)]
    pub shown_schema: ShownSchema,
    /// Name and media type of a result that is a file.
    pub file: FileSpec,
    /// Whether an answer that Claude broke off at its limit is accepted.
    pub allow_partial: bool,
    /// The deadline that the contract names.
    pub deadline: Millis,
    /// The longest that an execution may take, from its first request to its result.
    pub max_latency_ms: Option<u64>,
    /// How often the contract may be executed.
    pub attempts: u32,
    /// The number of this execution, from 1.
    pub execution: u32,
    /// The seeker's conditions under which nothing is owed.
    pub refund_conditions: Vec<RefundCondition>,
    /// The URL of the seeker's webhook, and its secret as the vault has sealed it.
    pub webhook: Option<(String, String)>,
    /// The usual duration of this template's recent runs.
    pub usual_ms: Option<u64>,
}

impl ContractContext {
    /// The context of a registered contract's first execution.
    pub fn new(contract: &Contract, agreed: &AgreedTerms, task_id: String, origin: String) -> Self {
        Self {
            contract_id: contract.contract_id.clone(),
            task_id,
            origin,
            output: agreed.output,
            output_schema: agreed.output_schema.clone(),
            shown_schema: ShownSchema::of(agreed.own_schema, false),
            file: agreed.file.clone(),
            allow_partial: contract.sla.allow_partial,
            deadline: agreed.deadline,
            max_latency_ms: contract.sla.max_latency_ms,
            attempts: agreed.attempts,
            execution: 1,
            refund_conditions: contract.sla.refund_conditions.clone(),
            webhook: None,
            usual_ms: None,
        }
    }

    /// When the result of an execution that begins at `now` is due.
    pub fn due_by(&self, now: Millis) -> Millis {
        let latency = self.max_latency_ms.map(|latency| now.saturating_add(latency));
        latency.map_or(self.deadline, |due| due.min(self.deadline))
    }

    /// Whether the contract allows no execution after this one.
    pub fn is_over(&self, now: Millis) -> bool {
        self.execution >= self.attempts || now >= self.deadline
    }

    /// Reads Claude's text as the contract's deliverables.
    pub fn deliverables(
        &self,
        text: &str,
        stop_reason: Option<&StopReason>,
    ) -> Result<Vec<Deliverable>, DeliverableError> {
        let truncated = is_truncated(stop_reason);
        // A stream's text has been delivered already, truncated or not.
        if truncated && !self.allow_partial && self.output != OutputType::Stream {
            return Err(DeliverableError::Truncated);
        }
        if text.trim().is_empty() {
            return Err(DeliverableError::Mismatch("It is empty.".to_owned()));
        }
        let read = deliverables(self.output, self.output_schema.as_ref(), &self.file, text);
        // Claude cannot correct what its limit cut off.
        read.map_err(|wrong| match truncated {
            true => DeliverableError::Truncated,
            false => DeliverableError::Mismatch(self.what_is_wrong(text, wrong)),
        })
    }

    /// The part of the result's schema that Claude is shown.
    pub fn schema_for_model(&self) -> Option<Value> {
        self.output_schema.as_ref().and_then(|schema| self.shown_schema.part_of(schema))
    }

    /// What Claude is told of an answer where `wrong` is wrong with it. Of a seeker's schema it says no more than the
    /// part that is shown.
    fn what_is_wrong(&self, text: &str, wrong: String) -> String {
        if self.shown_schema == ShownSchema::Whole {
            return wrong;
        }
        let of_shown = deliverables(self.output, self.schema_for_model().as_ref(), &self.file, text);
        of_shown.err().unwrap_or_else(|| "It is not what was agreed.".to_owned())
    }

    /// The deliverables of a text that [`ContractContext::deliverables`] has accepted before. The schema is not
    /// checked again.
    pub fn accepted_deliverables(&self, text: &str) -> Vec<Deliverable> {
        deliverables(self.output, None, &self.file, text).unwrap_or_default()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }
}

/// Why Claude's text is not the result that the contract asks for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliverableError {
    /// The text ends at Claude's limit. Asking Claude to correct it does not help.
    Truncated,
    /// The text does not have the agreed form; the message tells Claude what to correct.
    Mismatch(String),
}

pub(super) fn is_truncated(stop_reason: Option<&StopReason>) -> bool {
    matches!(stop_reason, Some(StopReason::MaxTokens | StopReason::ContextWindowExceeded))
}
