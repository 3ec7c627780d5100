//! The request to Claude for one run.

use coinslot::testing::rules::hire::instructions::repair;
use coinslot::testing::rules::model_request::{asks_without_format, body};
use coinslot::testing::rules::record::run_request::RenderedPrompt;
use coinslot::testing::rules::refusal::ModelError;
use coinslot::testing::rules::secret::Secret;
use serde_json::{json, Value};

fn prompt(format: Option<Value>) -> RenderedPrompt {
    let secret = |text: &str| Secret::new(text.to_owned());
    RenderedPrompt { system: secret("You write haiku."), user: secret("On rain."), format }
}

fn sent(format: Option<Value>, rejected: Option<(&str, &str)>) -> Value {
    serde_json::from_str(&body("claude-haiku-5-5", 100, &prompt(format), rejected, true)).unwrap()
}

#[test]
fn the_prompt_is_the_system_text_and_the_answer_is_always_streamed() {
    let expected = json!({
        "model": "claude-haiku-5-5", "max_tokens": 100, "system": "You write haiku.", "stream": true,
        "messages": [{"role": "user", "content": "On rain."}],
    });
    assert_eq!(sent(None, None), expected);
}

#[test]
fn a_schema_is_sent_as_the_format_of_the_answer() {
    let schema = json!({"type": "object"});
    let format = json!({"format": {"type": "json_schema", "schema": schema}});
    assert_eq!(sent(Some(schema), None)["output_config"], format);
}

/// "The compiled grammar is too large": the schema is in the prompt too.
#[test]
fn a_schema_that_anthropic_refuses_is_left_out_and_nothing_else() {
    let with_schema = prompt(Some(json!({"type": "object"})));
    let plain = body("claude-haiku-5-5", 100, &with_schema, None, false);
    assert_eq!(plain, body("claude-haiku-5-5", 100, &prompt(None), None, true));
    assert!(asks_without_format(ModelError::Rejected, &with_schema));
    assert!(!asks_without_format(ModelError::Rejected, &prompt(None)), "there is nothing to leave out");
    for other in [ModelError::TooLong, ModelError::Billing, ModelError::Overloaded, ModelError::KeyInvalid] {
        assert!(!asks_without_format(other, &with_schema), "{other:?}");
    }
}

/// Messages, "Prefill": an assistant's turn must not end in white space.
#[test]
fn a_rejected_answer_is_sent_back_with_what_is_wrong_with_it() {
    let messages = json!([
        {"role": "user", "content": "On rain."},
        {"role": "assistant", "content": "{\"lines\": 3}"},
        {"role": "user", "content": repair("lines: an array")},
    ]);
    let request = sent(None, Some(("{\"lines\": 3} \n\t", "lines: an array")));
    assert_eq!(request["messages"], messages);
    assert_eq!(request["system"], "You write haiku.", "the prompt is the same");
}
