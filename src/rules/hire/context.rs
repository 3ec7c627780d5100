//! What a run knows of the contract that it executes.

use super::contract::Agreed;
use super::output::{self, Deliverable, FileKind, OutputType};
use crate::rules::run::Millis;
use crate::wire::anthropic::StopReason;
use crate::wire::hire::{Contract, RefundCondition};
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// What a run knows of the contract that it executes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ContractContext {
    /// The contract.
    pub contract_id: String,
    /// The task: the same for every execution of the contract. Who holds it may look.
    pub task_id: String,
    /// Where we were called: `https://host`.
    pub origin: String,
    /// The form of the result.
    pub output: OutputType,
    /// What it has to satisfy.
    pub output_schema: Option<Value>,
    /// Name and type, where it is a file.
    pub file: FileKind,
    /// Part of an answer will do.
    pub allow_partial: bool,
    /// The contract's deadline.
    pub deadline: Millis,
    /// From the first call of an execution to its result.
    pub max_latency_ms: Option<u64>,
    /// How often the contract may be executed.
    pub attempts: u32,
    /// Which execution this is, from 1.
    pub execution: u32,
    /// When nothing is owed.
    pub refund_conditions: Vec<RefundCondition>,
    /// Where the seeker hears that it has ended: the URL, and the secret as the vault has sealed it.
    pub webhook: Option<(String, String)>,
    /// How long such runs took lately.
    pub usual_ms: Option<u64>,
}

impl ContractContext {
    /// Of a registered contract.
    pub fn new(contract: &Contract, agreed: &Agreed, task_id: String, origin: String) -> Self {
        Self {
            contract_id: contract.contract_id.clone(),
            task_id,
            origin,
            output: agreed.output,
            output_schema: agreed.output_schema.clone(),
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

    /// Whether the contract allows no other execution at `now`.
    pub fn is_over(&self, now: Millis) -> bool {
        self.execution >= self.attempts || now >= self.deadline
    }

    /// What Claude's text amounts to. A fault is told apart from an answer that could be mended (`Err` with
    /// what Claude is shown).
    pub fn items(&self, text: &str, stop_reason: Option<&StopReason>) -> Result<Vec<Deliverable>, DeliverableError> {
        let cut = is_cut(stop_reason);
        // Of a stream, all there is has been delivered already.
        if cut && !self.allow_partial && self.output != OutputType::Stream {
            return Err(DeliverableError::Truncated);
        }
        if text.trim().is_empty() {
            return Err(DeliverableError::Mismatch("It is empty.".to_owned()));
        }
        let items = output::items(self.output, self.output_schema.as_ref(), &self.file, text);
        items.map_err(|wrong| if cut { DeliverableError::Truncated } else { DeliverableError::Mismatch(wrong) })
    }

    /// The items of a text that was held against the contract before.
    pub fn delivered(&self, text: &str) -> Vec<Deliverable> {
        output::items(self.output, None, &self.file, text).unwrap_or_default()
    }

    pub(super) fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }
}

/// Why Claude's text is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum DeliverableError {
    /// It ends at Claude's limit.
    Truncated,
    /// It has another form.
    Mismatch(String),
}

pub(super) fn is_cut(stop_reason: Option<&StopReason>) -> bool {
    matches!(stop_reason, Some(StopReason::MaxTokens | StopReason::ContextWindowExceeded))
}
