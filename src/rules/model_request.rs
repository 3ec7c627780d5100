//! The request to Claude for one run.

use crate::rules::hire::instructions::repair;
use crate::rules::record::run_request::RenderedPrompt;
use crate::rules::refusal::ModelError;
use crate::wire::anthropic::{Message, MessagesRequest, OutputConfig, OutputFormat};

/// The body of `POST /v1/messages`. `rejected` is an earlier answer of Claude to the same prompt, and what is wrong
/// with it: then a better one is asked for. `structured`: with structured outputs, where the prompt has a schema for them.
pub fn body(
    model: &str,
    max_tokens: u32,
    prompt: &RenderedPrompt,
    rejected: Option<(&str, &str)>,
    structured: bool,
) -> String {
    let rejected = rejected.map(|(answer, mismatch)| (answer, repair(mismatch)));
    let mut messages = vec![Message { role: "user", content: prompt.user.reveal() }];
    if let Some((answer, repair)) = &rejected {
        // Anthropic refuses an assistant's turn that ends in white space.
        messages.push(Message { role: "assistant", content: answer.trim_end() });
        messages.push(Message { role: "user", content: repair });
    }
    let format =
        prompt.format.as_ref().filter(|_| structured).map(|schema| OutputFormat { kind: "json_schema", schema });
    let request = MessagesRequest {
        model,
        max_tokens,
        system: prompt.system.reveal(),
        messages,
        stream: true,
        output_config: format.map(|format| OutputConfig { format }),
    };
    // Strings, numbers and JSON values always serialize.
    serde_json::to_string(&request).unwrap_or_default()
}

/// Whether Claude is asked again without structured outputs, after a call with them has failed. Anthropic refuses some
/// schemas ("the compiled grammar is too large"), in more words than can be listed. The schema is in the prompt too, and
/// every answer is checked against it.
pub fn asks_without_format(error: ModelError, prompt: &RenderedPrompt) -> bool {
    error == ModelError::Rejected && prompt.format.is_some()
}
