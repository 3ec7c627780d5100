//! Reports of tasks: pending, completed, partial and failed; what is refunded; and the links in them.

use super::context::{context, context_of};
use super::contract_state::{begun_and, broke, receipt, run_after};
use super::{DAY, NOW};
use coinslot::testing::rules::hire::context::ContractContext;
use coinslot::testing::rules::hire::deliverables::Deliverable;
use coinslot::testing::rules::hire::output::OutputType;
use coinslot::testing::rules::hire::task::{task_report, RefusalDocument, TaskFacts, TaskReport};
use coinslot::testing::rules::refusal::{ContractError, InputError, ModelError, Refusal};
use coinslot::testing::rules::run::{Event, Policy, Run};
use coinslot::testing::wire::anthropic::{StopReason, Usage};
use coinslot::testing::wire::canonical::sha256_hex;
use coinslot::testing::wire::hire::RefundCondition;
use coinslot::testing::wire::timestamp;
use serde_json::{json, Value};

const STARTED: u64 = NOW - 2_000;
const TEXT: &str = "Coin falls, light rings";

fn link(number: usize, deliverable: &Deliverable) -> String {
    format!("https://files.example/{number}/{}", deliverable.name)
}

fn report_at(context: &ContractContext, run: &Run, text: &str, stop: Option<&StopReason>, now: u64) -> TaskReport {
    let usage = Usage { input_tokens: 25, output_tokens: 7, ..Usage::default() };
    let facts = TaskFacts { run_id: "run_1", model: "claude-haiku-5-5", started_at: STARTED, usage, stop_reason: stop };
    task_report(&facts, context, run, text, now, link)
}

fn report(context: &ContractContext, run: &Run, text: &str) -> TaskReport {
    report_at(context, run, text, Some(&StopReason::EndTurn), NOW)
}

fn delivered() -> Run {
    run_after(Policy::OnResult, &begun_and(&[Event::Ended, Event::Settled(receipt())]))
}

fn streamed() -> Run {
    run_after(Policy::OnStart, &begun_and(&[Event::FirstText, Event::Settled(receipt()), Event::Ended]))
}

fn failed_with(error: ModelError) -> Run {
    run_after(Policy::OnResult, &begun_and(&[Event::Broke { error, no_text: true }]))
}

/// Paid, and given up.
fn refundable() -> Vec<Event> {
    begun_and(&[Event::FirstText, Event::Settled(receipt()), broke()])
}

fn members(value: &Value) -> Vec<&str> {
    value.as_object().unwrap().keys().map(String::as_str).collect()
}

fn document_of(refusal: &Refusal, contract_id: &str) -> Value {
    serde_json::to_value(RefusalDocument::new(refusal, contract_id)).unwrap()
}

#[test]
fn a_delivered_run_is_a_completed_task() {
    let report = report(&context(), &delivered(), TEXT);
    assert_eq!((report.pending, report.refusal, report.headers), (false, None, vec![]));
    let described = json!({
        "name": "output.txt", "type": "text", "mime": "text/plain; charset=utf-8", "size": 23,
        "checksum": format!("sha256:{}", sha256_hex(TEXT.as_bytes())), "content": TEXT,
    });
    let expected = json!({
        "status": "completed",
        "contract_id": super::CONTRACT_ID,
        "task_id": "task_1",
        "deliverables": [described],
        "output": described,
        "metadata": {
            "execution_time_ms": 2_000,
            "model_used": "claude-haiku-5-5",
            "execution": 1,
            "stop_reason": "end_turn",
            "usage": {
                "input_tokens": 25, "output_tokens": 7, "cache_creation_input_tokens": 0, "cache_read_input_tokens": 0,
            },
            "run": "run_1",
            "transaction": "0x1",
            "network": "eip155:8453",
        },
    });
    assert_eq!(report.document, expected);
}

#[test]
fn a_text_that_claude_broke_off_at_its_limit_is_partial() {
    for (stop, status) in [
        (StopReason::MaxTokens, "partial"),
        (StopReason::ContextWindowExceeded, "partial"),
        (StopReason::EndTurn, "completed"),
    ] {
        let report = report_at(&context(), &delivered(), TEXT, Some(&stop), NOW);
        assert_eq!(report.document["status"], status);
        assert_eq!(report.document["output"]["content"], TEXT);
    }
}

#[test]
fn each_output_type_has_its_own_output() {
    let json = report(&context_of(OutputType::Json), &delivered(), "{\"b\":1,\"a\":2}");
    assert_eq!(
        (&json.document["output"]["type"], &json.document["output"]["content"]),
        (&json!("json"), &json!({"a": 2, "b": 1}))
    );

    let file = report(&context_of(OutputType::File), &delivered(), TEXT).document;
    assert_eq!(file["output"], file["deliverables"][0]);
    assert_eq!(file["output"]["url"], "https://files.example/0/haiku.txt");
    assert_eq!(file["output"].get("content"), None);

    let text = json!({"items": [
        {"name": "a.txt", "type": "text", "content": "x"},
        {"name": "b.svg", "type": "file", "mime": "image/svg+xml", "content": "<svg/>"},
    ]});
    let several = report(&context_of(OutputType::Multiple), &delivered(), &text.to_string()).document;
    assert_eq!(several["output"], json!({"type": "multiple", "items": several["deliverables"]}));
    // Only a file has a link, with its place among all deliverables.
    assert_eq!(several["deliverables"][0].get("url"), None);
    assert_eq!(several["deliverables"][1]["url"], "https://files.example/1/b.svg");

    let stream = report(&context_of(OutputType::Stream), &streamed(), TEXT).document;
    let url = "https://coinslot.example/stream/task_1";
    let checksum = format!("sha256:{}", sha256_hex(TEXT.as_bytes()));
    assert_eq!(stream["output"], json!({"type": "stream", "url": url, "format": "sse", "checksum": checksum}));
    assert_eq!(stream["deliverables"][0]["content"], TEXT);
}

#[test]
fn a_run_that_has_not_ended_is_a_pending_task_with_the_state_of_its_settlement() {
    let settled = Event::Settled(receipt());
    for (policy, events, settlement) in [
        (Policy::OnResult, vec![Event::Presented], "not begun"),
        (Policy::OnResult, begun_and(&[]), "not begun"),
        (Policy::OnResult, begun_and(&[Event::Ended]), "under way"),
        (Policy::OnResult, begun_and(&[Event::Ended, Event::SettleUnanswered]), "under way"),
        (Policy::OnStart, begun_and(&[Event::FirstText, settled]), "settled"),
    ] {
        let report = report(&context(), &run_after(policy, &events), "");
        assert!(report.pending && report.refusal.is_none(), "{events:?}");
        let expected = json!({
            "status": "pending",
            "contract_id": super::CONTRACT_ID,
            "task_id": "task_1",
            "poll_url": "https://coinslot.example/tasks/task_1",
            "estimated_completion": timestamp::format(STARTED + 15_000),
            "execution": 1,
            "settlement": settlement,
        });
        assert_eq!(report.document, expected, "{events:?}");
    }
}

#[test]
fn a_pending_stream_says_where_it_can_be_read() {
    let run = run_after(Policy::OnStart, &begun_and(&[]));
    let output = &report(&context_of(OutputType::Stream), &run, "").document["output"];
    assert_eq!(*output, json!({"type": "stream", "url": "https://coinslot.example/stream/task_1", "format": "sse"}));
}

#[test]
fn a_pending_task_is_expected_after_the_usual_time_and_never_in_the_past() {
    let estimate = |context: ContractContext, now: u64| {
        let run = run_after(Policy::OnResult, &begun_and(&[]));
        let document = report_at(&context, &run, "", None, now).document;
        timestamp::parse(document["estimated_completion"].as_str().unwrap()).unwrap()
    };
    let usual = |usual_ms| ContractContext { usual_ms, ..context() };
    assert_eq!(estimate(usual(Some(8_000)), NOW), STARTED + 8_000);
    assert_eq!(estimate(usual(None), NOW), STARTED + 15_000);
    // It has taken longer than usual.
    assert_eq!(estimate(usual(Some(8_000)), NOW + 60_000), NOW + 61_000);
    // It has to be there by then, or it is none.
    let hurried = ContractContext { max_latency_ms: Some(5_000), ..usual(Some(8_000)) };
    assert_eq!(estimate(hurried, NOW), STARTED + 5_000);
}

#[test]
fn a_run_that_failed_unpaid_is_a_failed_task_that_costs_nothing() {
    let report = report(&context(), &failed_with(ModelError::Overloaded), "");
    assert_eq!(report.refusal, Some(Refusal::Claude(ModelError::Overloaded)));
    assert!(!report.pending);
    let expected = json!({
        "status": "failed",
        "contract_id": super::CONTRACT_ID,
        "task_id": "task_1",
        "error": {
            "code": "CLAUDE_OVERLOADED",
            "message": "Claude is overloaded. Try again in a moment. Nothing was charged.",
            "retryable": true,
            "charged": false,
        },
        "attempts_left": 2,
        "refund": {"condition": "no_response", "agreed": false, "charged": false, "reported": false},
    });
    assert_eq!(report.document, expected);
}

#[test]
fn a_refused_payment_is_a_failed_task() {
    let refused = [Event::Presented, Event::VerifyRefused(Refusal::PaymentReused)];
    let report = report(&context(), &run_after(Policy::OnResult, &refused), "");
    assert_eq!(report.refusal, Some(Refusal::PaymentReused));
    assert_eq!(report.document["error"]["code"], "PAYMENT_REUSED");
    // Another run may have been charged with it.
    assert_eq!(report.document["error"]["charged"], Value::Null);
    assert_eq!(report.document["refund"]["condition"], Value::Null);
}

#[test]
fn a_failed_task_says_whether_it_can_be_executed_again() {
    let failed = |error, execution, now| {
        let context = ContractContext { execution, ..context() };
        let document = report_at(&context, &failed_with(error), "", None, now).document;
        (document["attempts_left"].as_u64().unwrap(), document["error"]["retryable"].as_bool().unwrap())
    };
    let (passing, lasting) = (ModelError::Overloaded, ModelError::Declined);
    assert_eq!(failed(passing, 1, NOW), (2, true));
    assert_eq!(failed(passing, 2, NOW), (1, true));
    assert_eq!(failed(passing, 3, NOW), (0, false));
    assert_eq!(failed(passing, 4, NOW), (0, false));
    assert_eq!(failed(passing, 1, NOW + DAY - 1), (2, true));
    assert_eq!(failed(passing, 1, NOW + DAY), (2, false), "the contract's deadline is over");
    assert_eq!(failed(lasting, 1, NOW), (2, false));
    // This execution was too late. Another has its own time.
    assert_eq!(failed(ModelError::DeadlineMissed, 1, NOW), (2, true));
    assert_eq!(failed(ModelError::DeadlineMissed, 1, NOW + DAY), (2, false));
}

#[test]
fn each_failure_meets_one_refund_condition_and_the_contract_says_whether_it_counts() {
    use RefundCondition::{DeadlineMissed, NoResponse, OutputSchemaInvalid};
    let mismatch = ModelError::OutputMismatch { repair: false };
    for (error, condition, name) in [
        (ModelError::DeadlineMissed, DeadlineMissed, "deadline_missed"),
        (mismatch, OutputSchemaInvalid, "output_schema_invalid"),
        (ModelError::Overloaded, NoResponse, "no_response"),
        (ModelError::Truncated, NoResponse, "no_response"),
        (ModelError::Declined, NoResponse, "no_response"),
    ] {
        let run = failed_with(error);
        for agreed in [true, false] {
            let others = [DeadlineMissed, OutputSchemaInvalid, NoResponse, RefundCondition::QualityRejected];
            let refund_conditions = match agreed {
                true => vec![condition],
                false => others.into_iter().filter(|other| *other != condition).collect(),
            };
            let refund = &report(&ContractContext { refund_conditions, ..context() }, &run, "").document["refund"];
            let expected = json!({"condition": name, "agreed": agreed, "charged": false, "reported": false});
            assert_eq!(*refund, expected, "{error:?}");
        }
    }
}

#[test]
fn a_run_that_was_paid_and_given_up_is_marked_for_refund() {
    let context =
        ContractContext { refund_conditions: vec![RefundCondition::NoResponse], ..context_of(OutputType::Stream) };
    for (more, reported) in [(vec![], false), (vec![Event::Reported], true)] {
        let run = run_after(Policy::OnStart, &[refundable(), more].concat());
        let report = report(&context, &run, "");
        assert!(!report.pending);
        let document = report.document;
        assert_eq!(document["status"], "failed");
        assert_eq!((&document["error"]["charged"], &document["error"]["retryable"]), (&json!(true), &json!(false)));
        let message = document["error"]["message"].as_str().unwrap();
        assert!(message.ends_with("The run is marked for refund."), "{message}");
        assert_eq!(document["attempts_left"], 0, "a paid contract is not executed again");
        let refund = json!({"condition": "no_response", "agreed": true, "charged": true, "reported": reported});
        assert_eq!(document["refund"], refund);
    }
}

#[test]
fn a_refusal_is_a_failed_document_that_names_its_contract() {
    let refusal = Refusal::contract(ContractError::Deadline, "terms.deadline", "sooner", "later");
    let document = document_of(&refusal, "ctr_1");
    let expected = json!({
        "status": "failed",
        "contract_id": "ctr_1",
        "error": {
            "code": "DEADLINE_NOT_ACCEPTED",
            "message": "`terms.deadline`: expected sooner, received later.",
            "retryable": false,
            "details": {"field": "terms.deadline", "expected": "sooner", "received": "later"},
        },
    });
    assert_eq!(document, expected);
    let of_input = document_of(&Refusal::input(InputError::TooLong, "topic", "less", "more"), "");
    assert_eq!(of_input["error"]["details"]["field"], "topic");
    let passing = document_of(&Refusal::SigningKeyMissing, "");
    assert_eq!(members(&passing["error"]), ["code", "message", "retryable"]);
    assert_eq!(passing["error"]["retryable"], true);
}
