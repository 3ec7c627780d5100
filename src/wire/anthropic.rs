//! Anthropic's Messages API: the request, the events of the stream, the errors.
//!
//! Reference: Messages API (`POST /v1/messages`), "Streaming messages" and "Errors". Unknown types of events and deltas
//! are ignored, as the reference asks of clients.

use super::sse;
use serde::{Deserialize, Serialize};

/// The body of `POST /v1/messages`. The answer is always streamed, because only a stream shows whether it is whole.
#[derive(Debug, Serialize)]
pub struct MessagesRequest<'a> {
    pub model: &'a str,
    pub max_tokens: u32,
    /// The system prompt: the rendered template.
    pub system: &'a str,
    /// The user's turn; where an answer was rejected, also that answer and what is wrong with it.
    pub messages: Vec<Message<'a>>,
    /// It is true in every request.
    pub stream: bool,
    /// Structured outputs: the format of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_config: Option<OutputConfig<'a>>,
}

/// The `output_config` of a request.
#[derive(Debug, Serialize)]
pub struct OutputConfig<'a> {
    pub format: OutputFormat<'a>,
}

/// The format of an answer.
#[derive(Debug, Serialize)]
pub struct OutputFormat<'a> {
    /// The type, which is always `json_schema`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    pub schema: &'a serde_json::Value,
}

/// One turn of the conversation.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    /// The role: `user` or `assistant`.
    pub role: &'static str,
    pub content: &'a str,
}

/// Numbers of tokens, as Anthropic counts them. In the stream they are cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read, without those of the cache.
    pub input_tokens: u64,
    pub output_tokens: u64,
    #[serde(default)]
    pub cache_creation_input_tokens: u64,
    #[serde(default)]
    pub cache_read_input_tokens: u64,
}

/// The usage in one event, which may leave fields out.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct UsageUpdate {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

impl Usage {
    /// Takes over the fields that `update` has. The counts are cumulative, so nothing is added up.
    pub fn update(&mut self, update: UsageUpdate) {
        let set = |field: &mut u64, value: Option<u64>| *field = value.unwrap_or(*field);
        set(&mut self.input_tokens, update.input_tokens);
        set(&mut self.output_tokens, update.output_tokens);
        set(&mut self.cache_creation_input_tokens, update.cache_creation_input_tokens);
        set(&mut self.cache_read_input_tokens, update.cache_read_input_tokens);
    }

    /// All tokens read, those of the cache included.
    pub fn all_input(&self) -> u64 {
        self.input_tokens.saturating_add(self.cache_creation_input_tokens).saturating_add(self.cache_read_input_tokens)
    }
}

/// One event of the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// `message_start`: Claude has begun.
    Start(UsageUpdate),
    Text(String),
    /// `message_delta`: the stop reason, and the usage so far.
    Delta(Option<StopReason>, UsageUpdate),
    /// `message_stop`: the answer is whole.
    Stop,
    /// `error`, after which the stream ends.
    Error(ErrorType),
    /// `ping`, block boundaries, thinking, citations, and every unknown event.
    Other,
}

/// Why Claude stopped (`stop_reason`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum StopReason {
    EndTurn,
    /// The answer has reached `max_tokens`.
    MaxTokens,
    StopSequence,
    /// Claude declined. The response is HTTP 200, and its tokens are billed.
    Refusal,
    ContextWindowExceeded,
    Other(String),
}

impl From<String> for StopReason {
    fn from(text: String) -> Self {
        match text.as_str() {
            "end_turn" => Self::EndTurn,
            "max_tokens" => Self::MaxTokens,
            "stop_sequence" => Self::StopSequence,
            "refusal" => Self::Refusal,
            "model_context_window_exceeded" => Self::ContextWindowExceeded,
            _ => Self::Other(text),
        }
    }
}

impl From<StopReason> for String {
    fn from(reason: StopReason) -> String {
        match reason {
            StopReason::EndTurn => "end_turn".to_owned(),
            StopReason::MaxTokens => "max_tokens".to_owned(),
            StopReason::StopSequence => "stop_sequence".to_owned(),
            StopReason::Refusal => "refusal".to_owned(),
            StopReason::ContextWindowExceeded => "model_context_window_exceeded".to_owned(),
            StopReason::Other(text) => text,
        }
    }
}

/// `error.type` of an error body or event.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ErrorType {
    /// Anthropic answers with status 400.
    InvalidRequestError,
    /// Anthropic answers with status 401.
    AuthenticationError,
    /// Anthropic answers with status 402.
    BillingError,
    /// Anthropic answers with status 403.
    PermissionError,
    /// 404: no such model, or retired.
    NotFoundError,
    /// Anthropic answers with status 413.
    RequestTooLarge,
    /// Anthropic answers with status 429.
    RateLimitError,
    /// Anthropic answers with status 500.
    ApiError,
    /// Anthropic answers with status 504.
    TimeoutError,
    /// Anthropic answers with status 529.
    OverloadedError,
    #[serde(other)]
    Unknown,
}

/// The body of a failed call: `{"type":"error","error":{"type":…,"message":…}}`.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorBody {
    pub error: ErrorDetail,
}

/// The text of an error is only read to tell refusals apart, and never passed on.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorDetail {
    /// The member `error.type` of the body.
    #[serde(rename = "type")]
    pub kind: ErrorType,
    #[serde(default)]
    pub message: String,
}

/// An id for the log: Anthropic's request id, or `unnamed` for any other text, which is not ours to log.
pub fn loggable_request_id(text: &str) -> &str {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match text.starts_with("req_") && text.len() <= 64 && text.bytes().all(is_plain) {
        true => text,
        false => "unnamed",
    }
}

/// The event is of a known type, but its data does not have the form of the reference.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of Claude's stream is malformed")]
pub struct MalformedEvent;

/// Reads one event of the stream, by the type inside its data, as the official SDKs do.
pub fn read_event(event: &sse::Event) -> Result<StreamEvent, MalformedEvent> {
    let wire: WireEvent = serde_json::from_str(&event.data).map_err(|_| MalformedEvent)?;
    Ok(match wire {
        WireEvent::MessageStart { message } => StreamEvent::Start(message.usage),
        WireEvent::ContentBlockDelta { delta: BlockDelta::TextDelta { text } } => StreamEvent::Text(text),
        WireEvent::MessageDelta { delta, usage } => StreamEvent::Delta(delta.stop_reason.map(StopReason::from), usage),
        WireEvent::MessageStop => StreamEvent::Stop,
        WireEvent::Error { error } => StreamEvent::Error(error.kind),
        WireEvent::ContentBlockDelta { .. } | WireEvent::Other => StreamEvent::Other,
    })
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum WireEvent {
    MessageStart {
        message: WireMessage,
    },
    ContentBlockDelta {
        delta: BlockDelta,
    },
    MessageDelta {
        delta: MessageDelta,
        #[serde(default)]
        usage: UsageUpdate,
    },
    MessageStop,
    Error {
        error: ErrorDetail,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct WireMessage {
    #[serde(default)]
    usage: UsageUpdate,
}

#[derive(Deserialize)]
#[serde(tag = "type", rename_all = "snake_case")]
enum BlockDelta {
    TextDelta {
        text: String,
    },
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct MessageDelta {
    #[serde(default)]
    stop_reason: Option<String>,
}
