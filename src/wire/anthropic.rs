//! Anthropic's Messages API: the request we make, the events of its stream, its errors.
//!
//! Reference: Messages API (`POST /v1/messages`), "Streaming messages" and "Errors". Unknown event
//! and delta types are tolerated, as the reference asks of clients.

use super::sse;
use serde::{Deserialize, Serialize};

/// Body of `POST /v1/messages`, always streamed: an answer cut off must be told from a whole one.
#[derive(Debug, Serialize)]
pub struct MessagesRequest<'a> {
    /// The model's id.
    pub model: &'a str,
    /// Upper bound of the answer, in tokens.
    pub max_tokens: u32,
    /// The system prompt: the rendered template.
    pub system: &'a str,
    /// The user's turn; where an answer is to be mended, that answer and what is wrong with it.
    pub messages: Vec<Message<'a>>,
    /// Always true.
    pub stream: bool,
    /// Structured outputs: the form of the answer.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub output_config: Option<OutputConfig<'a>>,
}

/// What the answer is to look like.
#[derive(Debug, Serialize)]
pub struct OutputConfig<'a> {
    /// Its format.
    pub format: OutputFormat<'a>,
}

/// A format of answers.
#[derive(Debug, Serialize)]
pub struct OutputFormat<'a> {
    /// `json_schema`.
    #[serde(rename = "type")]
    pub kind: &'static str,
    /// The schema.
    pub schema: &'a serde_json::Value,
}

/// One turn.
#[derive(Debug, Serialize)]
pub struct Message<'a> {
    /// `user` or `assistant`.
    pub role: &'static str,
    /// Its text.
    pub content: &'a str,
}

/// Tokens, as Anthropic counts them. In the stream the numbers are cumulative.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Usage {
    /// Tokens read, those from the cache left out.
    pub input_tokens: u64,
    /// Tokens written.
    pub output_tokens: u64,
    /// Tokens written to the prompt cache.
    #[serde(default)]
    pub cache_creation_input_tokens: u64,
    /// Tokens read from the prompt cache.
    #[serde(default)]
    pub cache_read_input_tokens: u64,
}

/// Usage as one event tells it: only the fields it knows.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub struct UsageUpdate {
    input_tokens: Option<u64>,
    output_tokens: Option<u64>,
    cache_creation_input_tokens: Option<u64>,
    cache_read_input_tokens: Option<u64>,
}

impl Usage {
    /// Takes over what `update` tells. The API's counts are cumulative, so nothing is added up.
    pub fn update(&mut self, update: UsageUpdate) {
        let take = |field: &mut u64, value: Option<u64>| *field = value.unwrap_or(*field);
        take(&mut self.input_tokens, update.input_tokens);
        take(&mut self.output_tokens, update.output_tokens);
        take(&mut self.cache_creation_input_tokens, update.cache_creation_input_tokens);
        take(&mut self.cache_read_input_tokens, update.cache_read_input_tokens);
    }

    /// All tokens read, from wherever.
    pub fn all_input(&self) -> u64 {
        self.input_tokens.saturating_add(self.cache_creation_input_tokens).saturating_add(self.cache_read_input_tokens)
    }
}

/// One event of the stream, as far as coinslot cares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum StreamEvent {
    /// `message_start`: Claude has begun.
    Start(UsageUpdate),
    /// A text delta.
    Text(String),
    /// `message_delta`: why the answer ends, and the usage so far.
    Delta(Option<StopReason>, UsageUpdate),
    /// `message_stop`: the answer is whole.
    Stop,
    /// `error`, after which nothing comes.
    Error(ErrorType),
    /// `ping`, block boundaries, thinking, citations, and what is yet to be invented.
    Other,
}

/// Why Claude stopped (`stop_reason`).
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(from = "String", into = "String")]
pub enum StopReason {
    /// It was done.
    EndTurn,
    /// At the bound of `max_tokens`.
    MaxTokens,
    /// At a stop sequence.
    StopSequence,
    /// It declined (HTTP 200, and the tokens are billed).
    Refusal,
    /// The context window was full.
    ContextWindowExceeded,
    /// Any other.
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
    /// 400.
    InvalidRequestError,
    /// 401.
    AuthenticationError,
    /// 402.
    BillingError,
    /// 403.
    PermissionError,
    /// 404: no such model, or retired.
    NotFoundError,
    /// 413.
    RequestTooLarge,
    /// 429.
    RateLimitError,
    /// 500.
    ApiError,
    /// 504.
    TimeoutError,
    /// 529.
    OverloadedError,
    /// Any other.
    #[serde(other)]
    Unknown,
}

/// The body of a failed call: `{"type":"error","error":{"type":…,"message":…}}`.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorBody {
    /// Type and text.
    pub error: ErrorDetail,
}

/// The text is read to tell refusals apart and is never passed on.
#[derive(Clone, Debug, Deserialize)]
pub struct ErrorDetail {
    /// `error.type`.
    #[serde(rename = "type")]
    pub kind: ErrorType,
    /// Anthropic's own words.
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

/// The event is of a type we read, and its data is not what the reference says.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of Claude's stream is malformed")]
pub struct MalformedEvent;

/// Reads one event of the stream. The type inside the data is what counts, as in the official SDKs.
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
