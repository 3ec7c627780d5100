//! What Claude is asked, so that its answer has the form that a contract wants: sentences after the user's turn, and
//! a schema for structured outputs.

use super::deliverables::MAX_DELIVERABLES;
use super::output::OutputType;
use super::shown_schema::BOUNDS;
use serde_json::{json, Map, Value};

/// Sentences that are added to the user's turn.
pub fn instructions(output: OutputType, schema: Option<&Value>) -> Option<String> {
    match output {
        OutputType::Text | OutputType::Stream | OutputType::File => None,
        OutputType::Json => Some(match schema {
            Some(schema) => format!(
                "Answer with one JSON value and nothing else, no code fence. It must satisfy this JSON Schema:\n{schema}"
            ),
            None => "Answer with one JSON value and nothing else, no code fence.".to_owned(),
        }),
        OutputType::Multiple => Some(format!(
            "Answer with one JSON value and nothing else, no code fence: {{\"items\": […]}}, at most \
             {MAX_DELIVERABLES} items, each {{\"name\", \"type\", \"mime\", \"content\"}}. \"name\" is a file name, \
             \"type\" is text, json or file, \"mime\" its media type, \"content\" a string (for json: JSON text)."
        )),
    }
}

/// The user's turn after an answer that is not the result; `wrong` says what is wrong with it.
pub fn repair(wrong: &str) -> String {
    format!("That answer cannot be used. {wrong} Answer again, with the corrected JSON value and nothing else.")
}

/// The schema for Claude's structured outputs; `None` where they cannot express `schema`.
///
/// Structured outputs want every object to name its properties and to forbid others, and they know no bounds. What
/// is left out here is checked when the answer is there. Forbidding other properties only narrows what Claude may
/// write.
pub fn structured_output_schema(output: OutputType, schema: Option<&Value>) -> Option<Value> {
    match output {
        OutputType::Json => narrowed(schema?, 0).filter(|schema| schema.get("type") == Some(&"object".into())),
        OutputType::Multiple => Some(json!({
            "type": "object",
            "properties": {"items": {"type": "array", "items": {
                "type": "object",
                "properties": {
                    "name": {"type": "string"},
                    "type": {"type": "string", "enum": ["text", "json", "file"]},
                    "mime": {"type": "string"},
                    "content": {"type": "string"},
                },
                "required": ["name", "type", "mime", "content"],
                "additionalProperties": false,
            }}},
            "required": ["items"],
            "additionalProperties": false,
        })),
        OutputType::Text | OutputType::File | OutputType::Stream => None,
    }
}

/// The deepest schema, in objects and arrays inside each other, that is sent to Claude.
const MAX_DEPTH: usize = 8;
/// Keywords that structured outputs do not take, beside [`BOUNDS`]. They bound a value or describe it, so the schema
/// without them still admits every value that the contract admits.
const OMITTED_KEYWORDS: [&str; 6] = ["pattern", "format", "$schema", "$comment", "default", "examples"];

fn narrowed(schema: &Value, depth: usize) -> Option<Value> {
    let schema = schema.as_object().filter(|_| depth < MAX_DEPTH)?;
    let mut kept = Map::new();
    for (keyword, value) in schema {
        let value = match keyword.as_str() {
            name if BOUNDS.contains(&name) || OMITTED_KEYWORDS.contains(&name) => continue,
            "type" | "enum" | "const" | "title" | "description" | "required" => value.clone(),
            "properties" => {
                let members = value.as_object()?.iter();
                let members = members.map(|(name, s)| Some((name.clone(), narrowed(s, depth + 1)?)));
                Value::Object(members.collect::<Option<_>>()?)
            }
            "items" => narrowed(value, depth + 1)?,
            "anyOf" => Value::Array(value.as_array()?.iter().map(|s| narrowed(s, depth + 1)).collect::<Option<_>>()?),
            // It is set to false below, for every object.
            "additionalProperties" => continue,
            _ => return None,
        };
        kept.insert(keyword.clone(), value);
    }
    let has_type = |name: &str| match kept.get("type") {
        Some(Value::String(one)) => one == name,
        Some(Value::Array(several)) => several.iter().any(|one| one == name),
        _ => false,
    };
    let (object, array) = (has_type("object"), has_type("array"));
    if (object && !kept.contains_key("properties")) || (array && !kept.contains_key("items")) {
        return None;
    }
    if !object && !array && ["type", "enum", "const", "anyOf"].iter().all(|keyword| !kept.contains_key(*keyword)) {
        return None;
    }
    if object {
        if !required_properties_are_named(&kept) {
            return None;
        }
        kept.insert("additionalProperties".to_owned(), false.into());
    }
    Some(Value::Object(kept))
}

/// Whether `properties` names everything that `required` asks for: once other properties are forbidden, nothing else
/// could be written.
fn required_properties_are_named(schema: &Map<String, Value>) -> bool {
    let properties = schema.get("properties");
    let is_named = |name: &Value| name.as_str().is_some_and(|n| properties.is_some_and(|p| p.get(n).is_some()));
    schema.get("required").and_then(Value::as_array).is_none_or(|names| names.iter().all(is_named))
}
