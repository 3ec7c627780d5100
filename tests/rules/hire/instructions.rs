//! Instructions: what Claude is asked, so that its answer has the form that a contract wants.

use coinslot::testing::rules::hire::instructions::{instructions, repair, structured_output_schema};
use coinslot::testing::rules::hire::output::OutputType;
use serde_json::json;

#[test]
fn structured_outputs_are_asked_for_where_they_can_hold_the_schema() {
    let schema = json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["score", "issues"],
        "properties": {
            "score": {"type": "number", "minimum": 0, "maximum": 10},
            "issues": {"type": "array", "minItems": 1, "items": {
                "type": "object", "properties": {"line": {"type": "integer"}, "kind": {"enum": ["a", "b"]}}}},
        },
    });
    let asked = structured_output_schema(OutputType::Json, Some(&schema)).unwrap();
    let wanted = json!({
        "type": "object",
        "required": ["score", "issues"],
        "properties": {
            "score": {"type": "number"},
            "issues": {"type": "array", "items": {
                "type": "object", "properties": {"line": {"type": "integer"}, "kind": {"enum": ["a", "b"]}},
                "additionalProperties": false}},
        },
        "additionalProperties": false,
    });
    assert_eq!(asked, wanted);
    for cannot in [
        json!(true),
        json!({}),
        json!({"type": "array", "items": {"type": "string"}}),
        json!({"type": "object"}),
        json!({"type": "object", "properties": {"a": {"type": "array"}}}),
        json!({"type": "object", "properties": {"a": {}}}),
        json!({"type": "object", "properties": {"a": {"$ref": "#"}}}),
        json!({"type": "object", "properties": {"a": {"type": "string"}}, "required": ["b"]}),
        json!({"type": "object", "properties": {"a": {"not": {"type": "string"}}}}),
        json!({"type": "object", "properties": {}, "patternProperties": {"a": {"type": "string"}}}),
    ] {
        assert_eq!(structured_output_schema(OutputType::Json, Some(&cannot)), None, "{cannot}");
        // The sentences ask for it all the same.
        assert!(instructions(OutputType::Json, Some(&cannot)).unwrap().contains(&cannot.to_string()));
    }
    assert_eq!(structured_output_schema(OutputType::Json, None), None);
    assert!(structured_output_schema(OutputType::Multiple, None).is_some());
    for output in [OutputType::Text, OutputType::File, OutputType::Stream] {
        assert_eq!((structured_output_schema(output, None), instructions(output, None)), (None, None));
    }
}

#[test]
fn the_instructions_say_what_the_reader_accepts() {
    let of_json = instructions(OutputType::Json, None).unwrap();
    assert!(of_json.contains("one JSON value and nothing else"), "{of_json}");
    let of_several = instructions(OutputType::Multiple, None).unwrap();
    for part in ["{\"items\": […]}", "at most 20 items", "\"name\", \"type\", \"mime\", \"content\""] {
        assert!(of_several.contains(part), "{of_several}");
    }
}

#[test]
fn the_repair_shows_what_is_wrong() {
    let repair = repair("`score` does not satisfy `maximum`: expected at most 10.");
    assert!(repair.contains("`score` does not satisfy `maximum`: expected at most 10."), "{repair}");
}
