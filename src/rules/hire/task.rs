//! Tasks: the report that a seeker gets of a contract's execution (HIRE, "Execution").

use super::context::{is_truncated, ContractContext};
use super::deliverables::Deliverable;
use super::output::OutputType;
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::{ModelError, Refusal, Retry};
use crate::rules::run::{Ending, Millis, Run, State, View};
use crate::wire::anthropic::{StopReason, Usage};
use crate::wire::hire::RefundCondition;
use crate::wire::timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

/// The least time that a pending task is expected to take still.
const MIN_ESTIMATE: Millis = 1_000;
/// The estimate for a template without recent runs.
const DEFAULT_ESTIMATE: Millis = 15_000;

#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// The document as HIRE defines it.
    pub document: Value,
    /// Why the task failed; `None` where it is completed or pending.
    pub refusal: Option<Refusal>,
    /// The execution has not ended.
    pub pending: bool,
    /// Headers of the response that carries this document: the run's id, and the settlement.
    pub headers: Vec<(String, String)>,
}

impl TaskReport {
    fn new(document: Value, refusal: Option<Refusal>, pending: bool) -> Self {
        Self { document, refusal, pending, headers: Vec::new() }
    }
}

/// What a report says of the run behind a task.
pub struct TaskFacts<'a> {
    pub run_id: &'a str,
    pub model: &'a str,
    /// When the execution began.
    pub started_at: Millis,
    /// Tokens of all calls of Claude.
    pub usage: Usage,
    pub stop_reason: Option<&'a StopReason>,
}

/// The report of a task at `now`. `link` makes the URL of the n-th deliverable, which is a file.
pub fn task_report(
    facts: &TaskFacts<'_>,
    contract_context: &ContractContext,
    run: &Run,
    text: &str,
    now: Millis,
    link: impl Fn(usize, &Deliverable) -> String,
) -> TaskReport {
    let refusal = match (run.ending(), run.view()) {
        (Some(Ending::Done), _) => None,
        (Some(Ending::Error(refusal)), _) if run.is_final() => Some(refusal),
        (_, View::Refuse(refusal)) if run.is_final() => Some(refusal),
        _ => return TaskReport::new(pending(facts, contract_context, run, now), None, true),
    };
    match refusal {
        Some(refusal) => {
            let document = failed(contract_context, run, &refusal, now);
            TaskReport::new(document, Some(refusal), false)
        }
        None => TaskReport::new(delivered(facts, contract_context, run, text, link), None, false),
    }
}

fn delivered(
    facts: &TaskFacts<'_>,
    contract_context: &ContractContext,
    run: &Run,
    text: &str,
    link: impl Fn(usize, &Deliverable) -> String,
) -> Value {
    let deliverables = contract_context.accepted_deliverables(text);
    let described = deliverables.iter().enumerate();
    let described = described.map(|(n, one)| one.describe(one.content.is_none().then(|| link(n, one))));
    let described: Vec<Map<String, Value>> = described.collect();
    let receipt = run.receipt();
    json!({
        "status": if is_truncated(facts.stop_reason) { "partial" } else { "completed" },
        "contract_id": contract_context.contract_id,
        "task_id": contract_context.task_id,
        "deliverables": described,
        "output": output_of(contract_context, &described),
        "metadata": {
            "execution_time_ms": run.rested_at().saturating_sub(facts.started_at),
            "model_used": facts.model,
            "execution": contract_context.execution,
            "stop_reason": facts.stop_reason,
            "usage": facts.usage,
            "run": facts.run_id,
            "transaction": receipt.map(|r| &r.transaction),
            "network": receipt.map(|r| &r.network),
        },
    })
}

fn output_of(contract_context: &ContractContext, described: &[Map<String, Value>]) -> Value {
    match contract_context.output {
        OutputType::Multiple => json!({"type": "multiple", "items": described}),
        OutputType::Stream => {
            let checksum = described.first().and_then(|one| one.get("checksum"));
            json!({"type": "stream", "url": stream_url(contract_context), "format": "sse", "checksum": checksum})
        }
        OutputType::Text | OutputType::Json | OutputType::File => json!(described.first()),
    }
}

fn stream_url(contract_context: &ContractContext) -> String {
    contract_context.url(&format!("/stream/{}", contract_context.task_id))
}

fn pending(facts: &TaskFacts<'_>, contract_context: &ContractContext, run: &Run, now: Millis) -> Value {
    let duration = contract_context.usual_ms.unwrap_or(DEFAULT_ESTIMATE);
    let estimate = facts.started_at.saturating_add(duration).min(contract_context.due_by(facts.started_at));
    // A run that has taken longer than usual may end at any moment.
    let estimate = estimate.max(now.saturating_add(MIN_ESTIMATE));
    let mut document = json!({
        "status": "pending",
        "contract_id": contract_context.contract_id,
        "task_id": contract_context.task_id,
        "poll_url": contract_context.url(&format!("/tasks/{}", contract_context.task_id)),
        "estimated_completion": timestamp::format(estimate),
        "execution": contract_context.execution,
        "settlement": match run.receipt() {
            Some(_) => "settled",
            None if run.is_settling() => "under way",
            None => "not begun",
        },
    });
    if let (OutputType::Stream, Some(members)) = (contract_context.output, document.as_object_mut()) {
        let output = json!({"type": "stream", "url": stream_url(contract_context), "format": "sse"});
        members.insert("output".to_owned(), output);
    }
    document
}

fn failed(contract_context: &ContractContext, run: &Run, refusal: &Refusal, now: Millis) -> Value {
    let charged = run.receipt().is_some();
    let attempts_left = match charged {
        true => 0,
        false => contract_context.attempts.saturating_sub(contract_context.execution),
    };
    let late = matches!(refusal, Refusal::Claude(ModelError::DeadlineMissed));
    let may_succeed_later = late || matches!(refusal.retry(), Retry::After(_));
    let retryable = may_succeed_later && attempts_left > 0 && now < contract_context.deadline;
    json!({
        "status": "failed",
        "contract_id": contract_context.contract_id,
        "error": ErrorBody::of_task(refusal, charged, retryable),
        "task_id": contract_context.task_id,
        "attempts_left": attempts_left,
        "refund": refund(contract_context, run, refusal),
    })
}

/// Which of HIRE's refund conditions is met, and what comes of it. Payment is settled on delivery, so for most
/// failures the refund is that nothing was charged.
fn refund(contract_context: &ContractContext, run: &Run, refusal: &Refusal) -> Value {
    let condition = refund_condition(refusal);
    json!({
        "condition": condition,
        "agreed": condition.is_some_and(|condition| contract_context.refund_conditions.contains(&condition)),
        "charged": run.receipt().is_some(),
        "reported": matches!(run.state(), State::Reported(_)),
    })
}

/// A refusal as the document that HIRE has for failures.
#[derive(Debug, Serialize)]
pub struct RefusalDocument<'a> {
    status: &'static str,
    contract_id: &'a str,
    error: ErrorBody<'a>,
}

impl<'a> RefusalDocument<'a> {
    pub fn new(refusal: &Refusal, contract_id: &'a str) -> Self {
        Self { status: "failed", contract_id, error: ErrorBody::new(refusal) }
    }
}

fn refund_condition(refusal: &Refusal) -> Option<RefundCondition> {
    match refusal {
        Refusal::Claude(ModelError::DeadlineMissed) => Some(RefundCondition::DeadlineMissed),
        Refusal::Claude(ModelError::OutputMismatch { .. }) => Some(RefundCondition::OutputSchemaInvalid),
        Refusal::Claude(_) | Refusal::Refundable => Some(RefundCondition::NoResponse),
        _ => None,
    }
}
