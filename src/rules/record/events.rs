//! The events of a run's stream: the JSON that goes behind `data:`.

use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::Refusal;
use serde::Serialize;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Event<'a> {
    Error(ErrorBody<'a>),
}

/// The answer has ended, and is not whole.
pub fn error(refusal: &Refusal, run: Option<&str>, charged: bool) -> String {
    json_text(&Event::Error(ErrorBody::of_event(refusal, run, charged)))
}

/// The JSON text of what is shown to callers. Its types have names for keys and no failing serializers, so this
/// cannot fail.
pub fn json_text(shown: &impl Serialize) -> String {
    serde_json::to_string(shown).unwrap_or_default()
}
