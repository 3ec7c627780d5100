//! Tasks: the execution of a contract, and what its seeker is told (HIRE, "Execution").

use super::context::{is_cut, ContractContext};
use crate::rules::hire::output::{Deliverable, OutputType};
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::{ModelError, Refusal, Retry};
use crate::rules::run::{Ending, Millis, Run, State, View};
use crate::wire::anthropic::{StopReason, Usage};
use crate::wire::hire::RefundCondition;
use crate::wire::timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    /// HIRE's document.
    pub document: Value,
    /// `None`: it is done, or under way.
    pub refusal: Option<Refusal>,
    /// It is under way.
    pub pending: bool,
    /// Headers that go with it: the run's id, and the settlement.
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

/// What the seeker is told of a task at `now`. `link` gives the URL of a file.
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
    if let Some(refusal) = refusal {
        let document = failed(contract_context, run, &refusal, now);
        return TaskReport::new(document, Some(refusal), false);
    }
    // It was in order when it was settled.
    let items = contract_context.delivered(text);
    let described = items.iter().enumerate();
    let described = described.map(|(n, item)| item.describe(item.content.is_none().then(|| link(n, item))));
    let described: Vec<Map<String, Value>> = described.collect();
    let status = if is_cut(facts.stop_reason) { "partial" } else { "completed" };
    let receipt = run.receipt();
    let document = json!({
        "status": status,
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
    });
    TaskReport::new(document, None, false)
}

fn output_of(contract_context: &ContractContext, described: &[Map<String, Value>]) -> Value {
    match contract_context.output {
        OutputType::Multiple => json!({"type": "multiple", "items": described}),
        OutputType::Stream => {
            let checksum = described.first().and_then(|item| item.get("checksum"));
            json!({"type": "stream", "url": stream_url(contract_context), "format": "sse", "checksum": checksum})
        }
        OutputType::Text | OutputType::Json | OutputType::File => json!(described.first()),
    }
}

fn stream_url(contract_context: &ContractContext) -> String {
    contract_context.url(&format!("/stream/{}", contract_context.task_id))
}

fn pending(facts: &TaskFacts<'_>, contract_context: &ContractContext, run: &Run, now: Millis) -> Value {
    let usual = contract_context.usual_ms.unwrap_or(UNKNOWN_MS);
    let estimate = facts.started_at.saturating_add(usual).min(contract_context.due_by(facts.started_at));
    // What has taken longer than usual is expected at any moment.
    let estimate = estimate.max(now.saturating_add(SOON));
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
    if let (OutputType::Stream, Some(map)) = (contract_context.output, document.as_object_mut()) {
        let output = json!({"type": "stream", "url": stream_url(contract_context), "format": "sse"});
        map.insert("output".to_owned(), output);
    }
    document
}

/// The least that a pending task is expected to take, in milliseconds.
const SOON: Millis = 1_000;
/// The estimate for a template that nothing is known of, in milliseconds.
const UNKNOWN_MS: u64 = 15_000;

fn failed(contract_context: &ContractContext, run: &Run, refusal: &Refusal, now: Millis) -> Value {
    let charged = run.receipt().is_some();
    let left = if charged { 0 } else { contract_context.attempts.saturating_sub(contract_context.execution) };
    let condition = condition_of(refusal);
    let agreed = condition.is_some_and(|condition| contract_context.refund_conditions.contains(&condition));
    let late = matches!(refusal, Refusal::Claude(ModelError::DeadlineMissed));
    let passes = late || matches!(refusal.retry(), Retry::After(_));
    let retryable = passes && left > 0 && now < contract_context.deadline;
    json!({
        "status": "failed",
        "contract_id": contract_context.contract_id,
        "error": ErrorBody::of_task(refusal, charged, retryable),
        "task_id": contract_context.task_id,
        "attempts_left": left,
        // Nothing is settled before delivery: the refund of what was not delivered is that it was not charged.
        "refund": {
            "condition": condition,
            "agreed": agreed,
            "charged": charged,
            "reported": matches!(run.state(), State::Reported(_)),
        },
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

/// The contract's own word for a failure.
fn condition_of(refusal: &Refusal) -> Option<RefundCondition> {
    match refusal {
        Refusal::Claude(ModelError::DeadlineMissed) => Some(RefundCondition::DeadlineMissed),
        Refusal::Claude(ModelError::OutputMismatch { .. }) => Some(RefundCondition::OutputSchemaInvalid),
        Refusal::Claude(_) | Refusal::Refundable => Some(RefundCondition::NoResponse),
        _ => None,
    }
}
