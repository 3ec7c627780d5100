//! The events of a run's stream: the JSON text behind `data:`, with `type` first.

use super::receipt::settled;
use crate::rules::refusal::body::ErrorBody;
use crate::rules::refusal::Refusal;
use crate::rules::run::Receipt;
use crate::wire::anthropic::{StopReason, Usage};
use crate::wire::x402::SettleResponse;
use serde::Serialize;

#[derive(Serialize)]
#[serde(tag = "type", rename_all = "lowercase")]
enum Event<'a> {
    Text { content: &'a str },
    Done { usage: Usage, stop_reason: Option<&'a StopReason>, run: &'a str, receipt: Option<SettleResponse> },
    Error(ErrorBody<'a>),
    Restart { run: Option<&'a str> },
}

/// Appends the next piece of the answer.
pub fn append_text(out: &mut Vec<u8>, content: &str) {
    // As in `json_text`, this cannot fail.
    let _ = serde_json::to_writer(out, &Event::Text { content });
}

/// The answer is whole.
pub fn done(usage: Usage, stop_reason: Option<&StopReason>, run: &str, receipt: Option<&Receipt>) -> String {
    json_text(&Event::Done { usage, stop_reason, run, receipt: receipt.map(settled) })
}

/// The answer has ended before it was whole.
pub fn error(refusal: &Refusal, run: Option<&str>, charged: bool) -> String {
    json_text(&Event::Error(ErrorBody::of_event(refusal, run, charged)))
}

/// The caller has read part of an older edition of the answer. The text that follows starts from its beginning.
pub fn restart(run: Option<&str>) -> String {
    json_text(&Event::Restart { run })
}

/// The JSON text of a type of ours. Keys are names and no serializer of ours fails, so this cannot fail.
pub fn json_text(value: &impl Serialize) -> String {
    serde_json::to_string(value).unwrap_or_default()
}
