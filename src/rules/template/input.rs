//! The input of a run, which is validated as a whole before a payment is asked for or touched.

use super::{Parameter, Template, USER_MESSAGE};
use crate::rules::config::Limits;
use crate::rules::refusal::{InputError, Refusal};
use crate::wire::flat;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};
use std::collections::BTreeMap;

/// An input that the template accepts, with the defaults filled in.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Input {
    /// The value of each declared parameter.
    pub values: BTreeMap<String, String>,
    /// The user's turn, if the caller has sent one.
    pub user_message: Option<String>,
}

/// The body of a request, before it is compared with a template.
#[derive(Clone, Debug, PartialEq)]
pub enum Body {
    /// Nothing, or `{}`, which a caller sends to learn the terms.
    Empty,
    /// JSON, of which [`flat`] keeps the first level.
    Json(Value),
    /// The body is not JSON.
    Malformed,
}

impl Body {
    pub fn read(bytes: &[u8]) -> Self {
        if bytes.trim_ascii().is_empty() {
            return Body::Empty;
        }
        match flat::from_slice(bytes) {
            Ok(Value::Object(map)) if map.is_empty() => Body::Empty,
            Ok(value) => Body::Json(value),
            Err(_) => Body::Malformed,
        }
    }
}

/// Checks a body against a template. The refusal names the first error, in this order: form, unknown fields, types and
/// lengths, missing fields.
pub fn validate(body: &Body, template: &Template, limits: &Limits) -> Result<Input, Refusal> {
    let empty = Map::new();
    let fields = match body {
        Body::Empty => &empty,
        Body::Json(Value::Object(fields)) => fields,
        Body::Json(other) => {
            return Err(Refusal::input(InputError::NotAnObject, "body", "a JSON object", &kind(other)))
        }
        Body::Malformed => {
            return Err(Refusal::input(InputError::NotJson, "body", "a JSON object", "text that is not JSON"))
        }
    };
    for (name, value) in fields {
        check_name(name, value, template)?;
    }
    let user_message = match given_field(fields, USER_MESSAGE) {
        None => None,
        Some(value) => {
            Some(text(USER_MESSAGE, value, limits.user_message_chars)?).filter(|message| !message.trim().is_empty())
        }
    };
    let given = template.parameters.iter().map(|p| given_value(p, fields, limits));
    let given: Vec<_> = given.collect::<Result<_, Refusal>>()?;
    let values = template.parameters.iter().zip(given).map(|(p, given)| Ok((p.name.clone(), value_of(p, given)?)));
    let values = values.collect::<Result<_, Refusal>>()?;
    Ok(Input { values, user_message })
}

/// A member of the input. One that is `null` is absent, as many clients write a value that they do not have.
fn given_field<'a>(fields: &'a Map<String, Value>, name: &str) -> Option<&'a Value> {
    fields.get(name).filter(|value| !value.is_null())
}

fn check_name(name: &str, value: &Value, template: &Template) -> Result<(), Refusal> {
    if name == USER_MESSAGE {
        let refusal = || Refusal::input(InputError::UserMessageNotAllowed, name, "no user message", "one");
        return (template.allow_user_message || value.is_null()).then_some(()).ok_or_else(refusal);
    }
    if template.parameters.iter().any(|p| p.name == name) {
        return Ok(());
    }
    let message = template.allow_user_message.then_some(USER_MESSAGE);
    let names: Vec<&str> = template.parameters.iter().map(|p| p.name.as_str()).chain(message).collect();
    let expected = match names.as_slice() {
        [] => "no parameters".to_owned(),
        names => format!("one of: {}", names.join(", ")),
    };
    // The name is the caller's text, so it is cut off to keep the error short.
    let shown: String = name.chars().take(64).collect();
    Err(Refusal::input(InputError::UnknownParameter, &shown, &expected, "an undeclared parameter"))
}

/// The value that the input has for a parameter, once its type and length are checked.
fn given_value(parameter: &Parameter, fields: &Map<String, Value>, limits: &Limits) -> Result<Option<String>, Refusal> {
    let limit = parameter.longest_value(limits);
    given_field(fields, &parameter.name).map(|value| text(&parameter.name, value, limit)).transpose()
}

/// The value of a parameter: that of the input, else the default, else an empty one if the parameter is optional.
fn value_of(parameter: &Parameter, given: Option<String>) -> Result<String, Refusal> {
    match (given, &parameter.default) {
        (Some(value), _) if !value.is_empty() || !parameter.required => Ok(value),
        // An empty string for a required parameter counts as absent, so the default applies, if there is one.
        (_, Some(default)) => Ok(default.clone()),
        (None, None) if !parameter.required => Ok(String::new()),
        (given, None) => {
            let received = if given.is_some() { "an empty string" } else { "nothing" };
            Err(Refusal::input(InputError::MissingParameter, &parameter.name, "a non-empty string", received))
        }
    }
}

fn text(field: &str, value: &Value, limit: usize) -> Result<String, Refusal> {
    let Value::String(text) = value else {
        return Err(Refusal::input(InputError::NotAString, field, "a string", &kind(value)));
    };
    let length = text.chars().count();
    if length > limit {
        let expected = format!("a string of at most {limit} characters");
        let received = format!("a string of {length} characters");
        return Err(Refusal::input(InputError::TooLong, field, &expected, &received));
    }
    Ok(text.clone())
}

fn kind(value: &Value) -> String {
    match value {
        Value::Null => "null",
        Value::Bool(_) => "a boolean",
        Value::Number(_) => "a number",
        Value::String(_) => "a string",
        Value::Array(_) => "an array",
        Value::Object(_) => "an object",
    }
    .to_owned()
}
