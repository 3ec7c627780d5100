//! Tasks: the execution of a contract, and what its seeker is told (HIRE, "Execution").

use super::contract::Agreed;
use super::dossier::{is_drawn, Dossier, Tally};
use super::output::{self, FileKind, Item, OutputType};
use super::refusal::{ClaudeFault, Refusal, Retry};
use super::run::{Ending, Millis, Run, State, View};
use crate::wire::anthropic::StopReason;
use crate::wire::canonical::sha256_hex;
use crate::wire::hire::{Contract, RefundCondition};
use crate::wire::timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{json, Map, Value};

/// Before an object's name: it is a contract's, and not a payment's.
pub const OBJECT_PREFIX: &str = "hire_";

/// What a run knows of the contract that it executes.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Engagement {
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

impl Engagement {
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
    pub fn items(&self, text: &str, stop_reason: Option<&StopReason>) -> Result<Vec<Item>, Unfit> {
        let cut = is_cut(stop_reason);
        // Of a stream, all there is has been delivered already.
        if cut && !self.allow_partial && self.output != OutputType::Stream {
            return Err(Unfit::Truncated);
        }
        if text.trim().is_empty() {
            return Err(Unfit::Mismatch("It is empty.".to_owned()));
        }
        let items = output::items(self.output, self.output_schema.as_ref(), &self.file, text);
        items.map_err(|wrong| if cut { Unfit::Truncated } else { Unfit::Mismatch(wrong) })
    }

    /// The items of a text that was held against the contract before.
    pub fn delivered(&self, text: &str) -> Vec<Item> {
        output::items(self.output, None, &self.file, text).unwrap_or_default()
    }

    fn url(&self, path: &str) -> String {
        format!("{}{path}", self.origin)
    }
}

/// Why Claude's text is no result.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Unfit {
    /// It ends at Claude's limit.
    Truncated,
    /// It has another form.
    Mismatch(String),
}

fn is_cut(stop_reason: Option<&StopReason>) -> bool {
    matches!(stop_reason, Some(StopReason::MaxTokens | StopReason::ContextWindowExceeded))
}

/// The object of a contract's runs.
pub fn object_of_contract(contract_id: &str) -> String {
    let digest = sha256_hex(format!("contract|{contract_id}").as_bytes());
    format!("{OBJECT_PREFIX}{}", digest.get(..32).unwrap_or_default())
}

/// A contract's task; `random` is drawn once, when the contract is registered.
pub fn task_id(contract_id: &str, random: &str) -> String {
    let object = object_of_contract(contract_id);
    format!("task_{}_{random}", object.strip_prefix(OBJECT_PREFIX).unwrap_or_default())
}

/// The object that a task's id leads to; `None` where it is none.
pub fn object_of_task(task_id: &str) -> Option<String> {
    let (object, random) = task_id.strip_prefix("task_")?.rsplit_once('_')?;
    (is_drawn(object) && is_drawn(random)).then(|| format!("{OBJECT_PREFIX}{object}"))
}

/// How a task stands.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct Told {
    /// HIRE's document.
    pub document: Value,
    /// `None`: it is done, or under way.
    pub refusal: Option<Refusal>,
    /// It is under way.
    pub pending: bool,
    /// Headers that go with it: the run's id, and the settlement.
    pub headers: Vec<(String, String)>,
}

impl Told {
    fn new(document: Value, refusal: Option<Refusal>, pending: bool) -> Self {
        Self { document, refusal, pending, headers: Vec::new() }
    }
}

/// What the seeker is told of a task at `now`. `link` gives the URL of a file.
pub fn told(
    dossier: &Dossier,
    engagement: &Engagement,
    run: &Run,
    tally: &Tally,
    text: &str,
    now: Millis,
    link: impl Fn(usize, &Item) -> String,
) -> Told {
    let refusal = match (run.ending(), run.view()) {
        (Some(Ending::Done), _) => None,
        (Some(Ending::Error(refusal)), _) if run.is_final() => Some(refusal),
        (_, View::Refuse(refusal)) if run.is_final() => Some(refusal),
        _ => return Told::new(pending(dossier, engagement, run, now), None, true),
    };
    if let Some(refusal) = refusal {
        let document = failed(engagement, run, &refusal, now);
        return Told::new(document, Some(refusal), false);
    }
    // It was in order when it was settled.
    let items = engagement.delivered(text);
    let described = items.iter().enumerate();
    let described = described.map(|(n, item)| item.describe(item.content.is_none().then(|| link(n, item))));
    let described: Vec<Map<String, Value>> = described.collect();
    let status = if is_cut(tally.stop_reason.as_ref()) { "partial" } else { "completed" };
    let receipt = run.receipt();
    let document = json!({
        "status": status,
        "contract_id": engagement.contract_id,
        "task_id": engagement.task_id,
        "deliverables": described,
        "output": output_of(engagement, &described),
        "metadata": {
            "execution_time_ms": run.rested_at().saturating_sub(dossier.started_at),
            "model_used": dossier.model,
            "execution": engagement.execution,
            "stop_reason": tally.stop_reason,
            "usage": tally.all(),
            "run": dossier.run_id,
            "transaction": receipt.map(|r| &r.transaction),
            "network": receipt.map(|r| &r.network),
        },
    });
    Told::new(document, None, false)
}

fn output_of(engagement: &Engagement, described: &[Map<String, Value>]) -> Value {
    match engagement.output {
        OutputType::Multiple => json!({"type": "multiple", "items": described}),
        OutputType::Stream => {
            let checksum = described.first().and_then(|item| item.get("checksum"));
            json!({"type": "stream", "url": stream_url(engagement), "format": "sse", "checksum": checksum})
        }
        OutputType::Text | OutputType::Json | OutputType::File => json!(described.first()),
    }
}

fn stream_url(engagement: &Engagement) -> String {
    engagement.url(&format!("/stream/{}", engagement.task_id))
}

fn pending(dossier: &Dossier, engagement: &Engagement, run: &Run, now: Millis) -> Value {
    let usual = engagement.usual_ms.unwrap_or(UNKNOWN_MS);
    let estimate = dossier.started_at.saturating_add(usual).min(engagement.due_by(dossier.started_at));
    // What has taken longer than usual is expected at any moment.
    let estimate = estimate.max(now.saturating_add(SOON));
    let mut document = json!({
        "status": "pending",
        "contract_id": engagement.contract_id,
        "task_id": engagement.task_id,
        "poll_url": engagement.url(&format!("/tasks/{}", engagement.task_id)),
        "estimated_completion": timestamp::format(estimate),
        "execution": engagement.execution,
        "settlement": match run.receipt() {
            Some(_) => "settled",
            None if run.is_settling() => "under way",
            None => "not begun",
        },
    });
    if let (OutputType::Stream, Some(map)) = (engagement.output, document.as_object_mut()) {
        let output = json!({"type": "stream", "url": stream_url(engagement), "format": "sse"});
        map.insert("output".to_owned(), output);
    }
    document
}

/// The least that a pending task is expected to take, in milliseconds.
const SOON: Millis = 1_000;
/// The estimate for a template that nothing is known of, in milliseconds.
const UNKNOWN_MS: u64 = 15_000;

fn failed(engagement: &Engagement, run: &Run, refusal: &Refusal, now: Millis) -> Value {
    let charged = run.receipt().is_some();
    let left = if charged { 0 } else { engagement.attempts.saturating_sub(engagement.execution) };
    let mut document = refused(refusal, &engagement.contract_id);
    if let Some(map) = document.as_object_mut() {
        map.insert("task_id".to_owned(), engagement.task_id.clone().into());
        map.insert("attempts_left".to_owned(), left.into());
        let condition = condition_of(refusal);
        let reported = matches!(run.state(), State::Reported(_));
        let agreed = condition.is_some_and(|condition| engagement.refund_conditions.contains(&condition));
        // Nothing is settled before delivery: the refund of what was not delivered is that it was not charged.
        let refund = json!({"condition": condition, "agreed": agreed, "charged": charged, "reported": reported});
        map.insert("refund".to_owned(), refund);
    }
    let late = matches!(refusal, Refusal::Claude(ClaudeFault::DeadlineMissed));
    let passes = late || matches!(refusal.retry(), Retry::After(_));
    if let Some(error) = document.get_mut("error").and_then(Value::as_object_mut) {
        let again = passes && left > 0 && now < engagement.deadline;
        error.insert("retryable".to_owned(), again.into());
        error.insert("message".to_owned(), refusal.message_when(charged).into());
        error.insert("charged".to_owned(), json!(refusal.knows_charge().then_some(charged)));
    }
    document
}

/// A refusal in HIRE's form.
pub fn refused(refusal: &Refusal, contract_id: &str) -> Value {
    let mut error = json!({
        "code": refusal.code(),
        "message": refusal.message(),
        "retryable": matches!(refusal.retry(), Retry::After(_)),
    });
    if let (Some(detail), Some(map)) = (refusal.detail(), error.as_object_mut()) {
        map.insert("details".to_owned(), json!(detail));
    }
    json!({"status": "failed", "contract_id": contract_id, "error": error})
}

/// The contract's own word for a failure.
fn condition_of(refusal: &Refusal) -> Option<RefundCondition> {
    match refusal {
        Refusal::Claude(ClaudeFault::DeadlineMissed) => Some(RefundCondition::DeadlineMissed),
        Refusal::Claude(ClaudeFault::OutputMismatch { .. }) => Some(RefundCondition::OutputSchemaInvalid),
        Refusal::Claude(_) | Refusal::Refundable => Some(RefundCondition::NoResponse),
        _ => None,
    }
}
