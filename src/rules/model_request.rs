//! The request to Claude for one run.

use crate::rules::hire::instructions::repair;
use crate::rules::record::run_request::RenderedPrompt;
use crate::wire::anthropic::{Message, MessagesRequest, OutputConfig, OutputFormat};

/// The body of `POST /v1/messages`. `rejected` is an earlier answer of Claude to the same prompt, and what is wrong
/// with it: then a better one is asked for.
pub fn body(model: &str, max_tokens: u32, prompt: &RenderedPrompt, rejected: Option<(&str, &str)>) -> String {
    let rejected = rejected.map(|(answer, mismatch)| (answer, repair(mismatch)));
    let mut messages = vec![Message { role: "user", content: prompt.user.reveal() }];
    if let Some((answer, repair)) = &rejected {
        // Anthropic refuses an assistant's turn that ends in white space.
        messages.push(Message { role: "assistant", content: answer.trim_end() });
        messages.push(Message { role: "user", content: repair });
    }
    let format = prompt.format.as_ref().map(|schema| OutputFormat { kind: "json_schema", schema });
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
