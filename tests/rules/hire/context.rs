//! What a run keeps of its contract: when its result is due, whether another execution is allowed, and which texts of
//! Claude's are results.

use super::{haiku, register, sign, unsigned, DAY, NOW};
use coinslot::testing::rules::hire::context::{ContractContext, DeliverableError};
use coinslot::testing::rules::hire::contract::read;
use coinslot::testing::rules::hire::output::OutputType;
use coinslot::testing::rules::hire::shown_schema::ShownSchema;
use coinslot::testing::wire::anthropic::StopReason;
use serde_json::json;

pub(super) fn context() -> ContractContext {
    let document = sign(unsigned());
    let agreed = register(&document, &haiku()).unwrap();
    let (task_id, origin) = ("task_1".to_owned(), "https://coinslot.example".to_owned());
    ContractContext::new(&read(&document).unwrap(), &agreed, task_id, origin)
}

pub(super) fn context_of(output: OutputType) -> ContractContext {
    ContractContext { output, ..context() }
}

fn of_json() -> ContractContext {
    let output_schema = Some(json!({"type": "object", "required": ["score"]}));
    ContractContext { output_schema, ..context_of(OutputType::Json) }
}

#[test]
fn the_context_of_a_first_execution_is_the_contracts() {
    let context = context();
    assert_eq!(context.contract_id, super::CONTRACT_ID);
    assert_eq!((context.execution, context.attempts, context.deadline), (1, 3, NOW + DAY));
    assert_eq!((context.output, context.allow_partial, context.max_latency_ms), (OutputType::Text, false, None));
    assert_eq!((context.webhook, context.usual_ms), (None, None));
}

#[test]
fn the_context_is_stored_under_stable_names() {
    let stored = serde_json::to_value(context()).unwrap();
    let names: Vec<&str> = stored.as_object().unwrap().keys().map(String::as_str).collect();
    let expected = [
        "allow_partial",
        "attempts",
        "contract_id",
        "deadline",
        "execution",
        "file",
        "max_latency_ms",
        "origin",
        "output",
        "output_schema",
        "refund_conditions",
        "shown_schema",
        "task_id",
        "usual_ms",
        "webhook",
    ];
    assert_eq!(names, expected);
    assert_eq!(serde_json::from_value::<ContractContext>(stored.clone()).unwrap(), context());
    let mut older = stored;
    older.as_object_mut().unwrap().remove("shown_schema");
    assert_eq!(serde_json::from_value::<ContractContext>(older).unwrap().shown_schema, ShownSchema::NamesOnly);
}

#[test]
fn a_result_is_due_after_the_latency_and_at_the_deadline_at_the_latest() {
    let context = context();
    assert_eq!(context.due_by(NOW), context.deadline);
    let hurried = ContractContext { max_latency_ms: Some(5_000), ..context };
    assert_eq!(hurried.due_by(NOW), NOW + 5_000);
    assert_eq!(hurried.due_by(hurried.deadline - 1_000), hurried.deadline);
    assert_eq!(hurried.due_by(u64::MAX), hurried.deadline);
}

#[test]
fn a_contract_is_over_after_its_last_attempt_or_at_its_deadline() {
    let context = context();
    let nth = |execution| ContractContext { execution, ..context.clone() };
    for (execution, now, is_over) in [
        (1, NOW, false),
        (2, NOW, false),
        (3, NOW, true),
        (4, NOW, true),
        (1, context.deadline - 1, false),
        (1, context.deadline, true),
    ] {
        assert_eq!(nth(execution).is_over(now), is_over, "execution {execution} at {now}");
    }
}

#[test]
fn a_whole_text_is_a_result() {
    for stop_reason in [None, Some(&StopReason::EndTurn), Some(&StopReason::StopSequence)] {
        let deliverables = context().deliverables("Coin falls", stop_reason).unwrap();
        assert_eq!((deliverables.len(), deliverables[0].bytes.as_slice()), (1, b"Coin falls".as_slice()));
    }
}

#[test]
fn an_empty_text_is_no_result_of_any_type() {
    for output in [OutputType::Text, OutputType::Json, OutputType::File, OutputType::Multiple, OutputType::Stream] {
        for text in ["", " \n\t"] {
            let wrong = context_of(output).deliverables(text, None).unwrap_err();
            assert_eq!(wrong, DeliverableError::Mismatch("It is empty.".to_owned()), "{output:?}");
        }
    }
}

#[test]
fn a_truncated_text_is_a_result_only_where_the_contract_allows_it() {
    for stop_reason in [StopReason::MaxTokens, StopReason::ContextWindowExceeded] {
        let cut = Some(&stop_reason);
        for output in [OutputType::Text, OutputType::Json, OutputType::File, OutputType::Multiple] {
            assert_eq!(context_of(output).deliverables("Coin f", cut), Err(DeliverableError::Truncated), "{output:?}");
        }
        let partial = ContractContext { allow_partial: true, ..context() };
        assert_eq!(partial.deliverables("Coin f", cut).unwrap().len(), 1);
        // Its text is out already.
        assert_eq!(context_of(OutputType::Stream).deliverables("Coin f", cut).unwrap().len(), 1);
        // Half a JSON value is of no use, and Claude cannot correct it either.
        let partial = ContractContext { allow_partial: true, ..of_json() };
        assert_eq!(partial.deliverables("{\"score\": ", cut), Err(DeliverableError::Truncated));
        assert!(partial.deliverables("{\"score\": 1}", cut).is_ok());
    }
}

#[test]
fn a_text_of_another_form_is_a_mismatch_that_says_what_to_correct() {
    let wrong = |text: &str| match of_json().deliverables(text, Some(&StopReason::EndTurn)) {
        Err(DeliverableError::Mismatch(wrong)) => wrong,
        other => panic!("{other:?}"),
    };
    assert!(wrong("Here you are").contains("not one JSON value"));
    assert!(wrong("{}").contains("`required`"), "{}", wrong("{}"));
}

#[test]
fn what_was_accepted_is_read_again_without_its_schema() {
    assert_eq!(
        of_json().accepted_deliverables("{\"score\": 1}"),
        of_json().deliverables("{\"score\": 1}", None).unwrap()
    );
    assert_eq!(of_json().accepted_deliverables("{}").len(), 1);
    assert_eq!(of_json().accepted_deliverables("no JSON"), []);
}
