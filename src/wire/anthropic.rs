//! Anthropic's Messages API: the request, the events of the stream, the errors.
//!
//! Reference: Messages API (`POST /v1/messages`), "Streaming messages" and "Errors". Unknown types of events and deltas
//! are ignored, as the reference asks of clients.

use serde::{Deserialize, Serialize};
use std::borrow::Cow;

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
pub enum StreamEvent<'a> {
    /// `message_start`: Claude has begun.
    Start(UsageUpdate),
    /// `content_block_start` of a block of text.
    TextBlock,
    Text(Cow<'a, str>),
    /// `message_delta`: the stop reason, and the usage so far.
    Delta(Option<StopReason>, UsageUpdate),
    /// `message_stop`: the answer is whole.
    Stop,
    /// `error`, after which the stream ends.
    Error(ErrorType),
    /// `ping`, other blocks and their ends, thinking, citations, and every unknown event.
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

/// Reads the data of one event of the stream, by the type inside it, as the official SDKs do.
pub fn read_event(data: &str) -> Result<StreamEvent<'_>, MalformedEvent> {
    // Nearly all events are deltas, so these are read first, in one pass and without a copy. Whatever does not have
    // their form is read by its type.
    if let Ok(BlockDeltaEvent { kind: EventType::ContentBlockDelta, delta }) = parse(data) {
        return match (delta.kind, delta.text) {
            (DeltaType::TextDelta, Some(Text(text))) => Ok(StreamEvent::Text(text)),
            (DeltaType::TextDelta, None) => Err(MalformedEvent),
            (DeltaType::Other, _) => Ok(StreamEvent::Other),
        };
    }
    let Tagged { kind } = parse(data)?;
    Ok(match kind {
        EventType::MessageStart => StreamEvent::Start(parse::<StartEvent>(data)?.message.usage),
        EventType::ContentBlockStart => match parse(data) {
            Ok(BlockStartEvent { content_block: Tagged { kind: BlockType::Text } }) => StreamEvent::TextBlock,
            _ => StreamEvent::Other,
        },
        // A delta of another type may have a member `text` of any kind.
        EventType::ContentBlockDelta => match parse::<UnknownDeltaEvent>(data)?.delta.kind {
            DeltaType::TextDelta => return Err(MalformedEvent),
            DeltaType::Other => StreamEvent::Other,
        },
        EventType::MessageDelta => {
            let MessageDeltaEvent { delta, usage } = parse(data)?;
            StreamEvent::Delta(delta.stop_reason, usage)
        }
        EventType::MessageStop => StreamEvent::Stop,
        EventType::Error => StreamEvent::Error(parse::<ErrorBody>(data)?.error.kind),
        EventType::Other => StreamEvent::Other,
    })
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, MalformedEvent> {
    serde_json::from_str(data).map_err(|_| MalformedEvent)
}

/// An object of which only the type matters.
#[derive(Deserialize)]
struct Tagged<T> {
    #[serde(rename = "type")]
    kind: T,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum EventType {
    MessageStart,
    ContentBlockStart,
    ContentBlockDelta,
    MessageDelta,
    MessageStop,
    Error,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum DeltaType {
    TextDelta,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
#[serde(rename_all = "snake_case")]
enum BlockType {
    Text,
    #[serde(other)]
    Other,
}

#[derive(Deserialize)]
struct StartEvent {
    message: WireMessage,
}

#[derive(Deserialize)]
struct WireMessage {
    #[serde(default)]
    usage: UsageUpdate,
}

#[derive(Deserialize)]
struct BlockStartEvent {
    content_block: Tagged<BlockType>,
}

#[derive(Deserialize)]
struct BlockDeltaEvent<'a> {
    #[serde(rename = "type")]
    kind: EventType,
    #[serde(borrow)]
    delta: BlockDelta<'a>,
}

#[derive(Deserialize)]
struct BlockDelta<'a> {
    #[serde(rename = "type")]
    kind: DeltaType,
    #[serde(borrow)]
    text: Option<Text<'a>>,
}

/// A text that is borrowed where it has no escapes. (serde borrows no `Cow` that stands inside an `Option`.)
#[derive(Deserialize)]
struct Text<'a>(#[serde(borrow)] Cow<'a, str>);

#[derive(Deserialize)]
struct UnknownDeltaEvent {
    delta: Tagged<DeltaType>,
}

#[derive(Deserialize)]
struct MessageDeltaEvent {
    delta: MessageDelta,
    #[serde(default)]
    usage: UsageUpdate,
}

#[derive(Deserialize)]
struct MessageDelta {
    #[serde(default)]
    stop_reason: Option<StopReason>,
}
