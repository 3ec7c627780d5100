//! The JSON of an error, in each place where one is shown.

use super::{Refusal, Retry};
use serde_json::{json, Value};

/// An error's body: `{"error": …}`.
pub fn error_of(refusal: &Refusal) -> Value {
    let mut error = json!({"code": refusal.code(), "message": refusal.message()});
    if let Some(map) = error.as_object_mut() {
        if let Some(detail) = refusal.detail() {
            map.insert("details".to_owned(), json!(detail));
        }
        let retryable = matches!(refusal.retry(), Retry::After(_));
        map.insert("retryable".to_owned(), retryable.into());
    }
    json!({ "error": error })
}

/// The same of a run, or of a request that has none yet.
pub fn error_of_run(refusal: &Refusal, run: Option<&str>, charged: bool) -> Value {
    let mut body = error_of(refusal);
    if let Some(error) = body.get_mut("error").and_then(Value::as_object_mut) {
        error.insert("run".to_owned(), json!(run));
        error.insert("runUrl".to_owned(), json!(run.map(|run| format!("/runs/{run}"))));
        let known = refusal.knows_charge().then_some(charged);
        error.insert("charged".to_owned(), json!(known));
        error.insert("message".to_owned(), refusal.message_when(charged).into());
    }
    body
}

/// The event that ends a run's stream with an error.
pub fn error_event(refusal: &Refusal, run: Option<&str>, charged: bool) -> Value {
    let message = refusal.message_when(charged);
    let known = refusal.knows_charge().then_some(charged);
    json!({"type": "error", "code": refusal.code(), "message": message, "charged": known, "run": run})
}

/// The error in a run's status.
pub fn error_in_status(refusal: &Refusal, charged: bool) -> Value {
    let retryable = matches!(refusal.retry(), Retry::After(_));
    json!({"code": refusal.code(), "message": refusal.message_when(charged), "retryable": retryable})
}

/// What is wrong with a contract that somebody wants verified.
pub fn error_in_verification(refusal: &Refusal) -> Value {
    json!({"code": refusal.code(), "message": refusal.message(), "details": refusal.detail()})
}
