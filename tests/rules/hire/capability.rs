//! Capabilities: the output that a contract gets, the input that a template takes, and names.

use super::{assert_refused, capability, haiku, parameter};
use coinslot::testing::json_schema::Schema;
use coinslot::testing::rules::hire::capability::{agent_id, is_capability_name, Capability};
use coinslot::testing::rules::hire::output::OutputType;
use coinslot::testing::rules::refusal::Refusal;
use coinslot::testing::rules::template::input::{validate, Body};
use coinslot::testing::wire::hire::Task;
use serde_json::{json, Value};

fn output_of(capability: &Capability, task: Value) -> Result<(OutputType, Option<Value>), Refusal> {
    let task: Task = serde_json::from_value(task).unwrap();
    capability.output_of(&task)
}

fn schema() -> Value {
    json!({"type": "object", "required": ["lines"]})
}

#[test]
fn without_a_word_of_either_side_the_result_is_text_and_with_a_schema_json() {
    assert_eq!(output_of(&haiku(), json!({})), Ok((OutputType::Text, None)));
    assert_eq!(output_of(&haiku(), json!({"output_schema": schema()})), Ok((OutputType::Json, Some(schema()))));
    let of_json = Capability { output_schema: Some(schema()), ..haiku() };
    assert_eq!(output_of(&of_json, json!({})), Ok((OutputType::Json, Some(schema()))));
}

#[test]
fn a_contract_may_choose_any_output_type_where_the_capability_has_none() {
    use OutputType::{File, Json, Multiple, Stream, Text};
    for (name, output) in [("text", Text), ("json", Json), ("file", File), ("multiple", Multiple), ("stream", Stream)] {
        assert_eq!(output_of(&haiku(), json!({"output_type": name})), Ok((output, None)));
        assert_eq!((OutputType::parse(name), output.as_str()), (Some(output), name));
        assert_eq!(output.needs_files(), matches!(output, File | Multiple));
        assert!(OutputType::NAMES.contains(name));
    }
    let both = json!({"output_type": "json", "output_schema": schema()});
    assert_eq!(output_of(&haiku(), both), Ok((Json, Some(schema()))));
}

#[test]
fn a_capability_with_one_output_type_delivers_no_other() {
    let files_only = Capability { output: Some(OutputType::File), ..haiku() };
    for task in [json!({}), json!({"output_type": "file"})] {
        assert_eq!(output_of(&files_only, task), Ok((OutputType::File, None)));
    }
    for name in ["text", "json", "multiple", "stream"] {
        let refused = output_of(&files_only, json!({"output_type": name}));
        assert_refused(refused.clone(), "OUTPUT_NOT_OFFERED", "task.output_type", name);
        let detail = refused.unwrap_err().detail().unwrap();
        assert_eq!((detail.expected.as_str(), detail.received.as_str()), ("file", name));
    }
    let with_schema = output_of(&files_only, json!({"output_schema": schema()}));
    assert_refused(with_schema, "OUTPUT_NOT_OFFERED", "task.output_schema", "a schema of a file");
}

#[test]
fn an_output_type_that_hire_does_not_know_is_refused() {
    for name in ["video", "JSON", "", "text "] {
        assert_refused(
            output_of(&haiku(), json!({"output_type": name})),
            "OUTPUT_NOT_OFFERED",
            "task.output_type",
            name,
        );
    }
}

#[test]
fn the_capabilitys_own_schema_is_the_only_one() {
    let of_json = Capability { output: Some(OutputType::Json), output_schema: Some(schema()), ..haiku() };
    for task in [json!({}), json!({"output_schema": schema()}), json!({"output_type": "json"})] {
        assert_eq!(output_of(&of_json, task), Ok((OutputType::Json, Some(schema()))));
    }
    let another = json!({"output_schema": {"type": "object"}});
    assert_refused(output_of(&of_json, another), "OUTPUT_NOT_OFFERED", "task.output_schema", "another schema");
    let text = json!({"output_type": "text"});
    assert_refused(output_of(&of_json, text), "OUTPUT_NOT_OFFERED", "task.output_type", "another type");
}

#[test]
fn the_capabilitys_schema_does_not_count_for_a_result_that_is_no_json() {
    let any = Capability { output_schema: Some(schema()), ..haiku() };
    assert_eq!(output_of(&any, json!({"output_type": "text"})), Ok((OutputType::Text, None)));
}

#[test]
fn the_input_schema_has_each_parameter_as_the_template_declares_it() {
    let expected = json!({
        "type": "object",
        "properties": {
            "topic": {"type": "string", "minLength": 1, "description": "The topic.", "maxLength": 200},
            "mood": {"type": "string", "description": "The mood."},
            "language": {"type": "string", "description": "The language.", "default": "English"},
        },
        "required": ["topic"],
        "additionalProperties": false,
    });
    assert_eq!(haiku().input_schema(), expected);
}

#[test]
fn the_input_schema_takes_what_the_template_takes_and_nothing_else() {
    let mut capability = haiku();
    let limits = coinslot::testing::rules::config::Config::built_in().limits;
    let mut agree = |allow_user_message: bool, input: Value, is_taken: bool| {
        capability.template.allow_user_message = allow_user_message;
        let schema = Schema::read(&capability.input_schema()).unwrap();
        assert_eq!(schema.check(&input).is_ok(), is_taken, "the schema: {input}");
        let validated = validate(&Body::Json(input.clone()), &capability.template, &limits);
        assert_eq!(validated.is_ok(), is_taken, "the template: {input}");
    };
    for good in [
        json!({"topic": "a coin"}),
        json!({"topic": "💰".repeat(200), "mood": "stern"}),
        json!({"topic": "x", "language": ""}),
    ] {
        agree(false, good, true);
    }
    for bad in [
        json!({}),
        json!({"mood": "stern"}),
        json!({"topic": 7}),
        json!({"topic": ""}),
        json!({"topic": "x".repeat(201)}),
        json!({"topic": "x", "other": "x"}),
        json!({"topic": "x", "user_message": "x"}),
        json!([]),
    ] {
        agree(false, bad, false);
    }
    agree(true, json!({"topic": "x", "user_message": "a diff"}), true);
}

#[test]
fn a_template_without_parameters_has_a_schema_too() {
    let mut capability = haiku();
    capability.template.parameters = vec![];
    let expected = json!({"type": "object", "properties": {}, "required": [], "additionalProperties": false});
    assert_eq!(capability.input_schema(), expected);
    capability.template.parameters = vec![parameter("a", false, None, None)];
    capability.template.parameters[0].description = None;
    assert_eq!(capability.input_schema()["properties"], json!({"a": {"type": "string"}}));
}

#[test]
fn a_full_name_is_the_handle_and_the_slug() {
    assert_eq!(capability("ada", "haiku").full_name(), "ada-haiku");
    for name in ["a", "haiku", "x-2", "ada-commit-message", "a--b"] {
        assert!(is_capability_name(name), "{name}");
    }
    for name in ["", "2fast", "-a", "Haiku", "under_score", "a b", "é", "a.b"] {
        assert!(!is_capability_name(name), "{name}");
    }
}

#[test]
fn an_agents_id_has_the_form_of_hire_and_is_of_one_creator() {
    let id = agent_id("creator_ada");
    let digits = id.strip_prefix("agent_").unwrap();
    assert!(digits.len() == 24 && digits.bytes().all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b)), "{id}");
    assert_eq!(id, agent_id("creator_ada"));
    assert_ne!(id, agent_id("creator_grace"));
    assert!(!id.contains("ada"));
}
