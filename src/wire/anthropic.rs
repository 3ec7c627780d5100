//! Anthropic's Messages API: the request, the events of the stream, the errors.
//!
//! Reference: Messages API (`POST /v1/messages`), "Streaming messages" and "Errors". Unknown types of events and deltas
//! are ignored, as the reference asks of clients.
//!
//! Proxies and compatible endpoints write more than the reference says. Only text, the last event and an error are
//! believed, and have to be well-formed. Every other member counts as absent where it has another form.

use super::lenient::{self, Any, Count};
use serde::de::value::{self, BorrowedStrDeserializer};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer, Serialize};
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
#[serde(default)]
pub struct UsageUpdate {
    input_tokens: Count,
    output_tokens: Count,
    cache_creation_input_tokens: Count,
    cache_read_input_tokens: Count,
}

impl Usage {
    /// Takes over the fields that `update` has. The counts are cumulative, so nothing is added up.
    pub fn update(&mut self, update: UsageUpdate) {
        let set = |field: &mut u64, value: Count| *field = value.0.unwrap_or(*field);
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
    /// `content_block_start` of a block of text, which has no text yet.
    TextBlock,
    /// A piece of text: of a delta, or of the start of its block.
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

impl StopReason {
    /// Whether Claude has not finished: it waits for the result of a tool, or to be asked to go on.
    pub fn is_intermediate(&self) -> bool {
        matches!(self, Self::Other(name) if ["tool_use", "pause_turn"].contains(&name.as_str()))
    }
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
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize)]
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
    /// A type that is not in the reference, or none.
    #[default]
    #[serde(other)]
    Unknown,
}

/// The body of a failed call: `{"type":"error","error":{"type":…,"message":…}}`.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    #[serde(deserialize_with = "lenient::object")]
    pub error: ErrorDetail,
}

/// The text of an error is only read to tell refusals apart, and never passed on.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    /// The member `error.type` of the body.
    #[serde(rename = "type", deserialize_with = "error_type")]
    pub kind: ErrorType,
    #[serde(deserialize_with = "lenient::text_or_empty")]
    pub message: String,
}

fn error_type<'de, D: Deserializer<'de>>(d: D) -> Result<ErrorType, D::Error> {
    let name = lenient::text_or_empty(d)?;
    Ok(named(&name).unwrap_or_default())
}

/// The variant of an enum by its name in the documents.
fn named<'de, T: Deserialize<'de>>(name: &'de str) -> Option<T> {
    let name: BorrowedStrDeserializer<'de, value::Error> = BorrowedStrDeserializer::new(name);
    T::deserialize(name).ok()
}

/// An id for the log: Anthropic's request id, or `unnamed` for any other text, which is not ours to log.
pub fn loggable_request_id(text: &str) -> &str {
    let is_plain = |b: u8| b.is_ascii_alphanumeric() || b == b'_';
    match text.starts_with("req_") && text.len() <= 64 && text.bytes().all(is_plain) {
        true => text,
        false => "unnamed",
    }
}

/// The event may hold text or an end of the answer, and cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("an event of Claude's stream is malformed")]
pub struct MalformedEvent;

/// Reads one event of the stream: by the type inside its data, as the official SDKs do, else by its name.
pub fn read_event<'a>(name: &str, data: &'a str) -> Result<StreamEvent<'a>, MalformedEvent> {
    // Nearly all events are deltas, so these are read first, in one pass and without a copy. Whatever does not have
    // their form is read by its type.
    if let Ok(BlockDeltaEvent { kind: EventType::ContentBlockDelta, delta }) = parse(data) {
        if let (DeltaType::TextDelta, Some(Text(text))) = (delta.kind, delta.text) {
            return Ok(StreamEvent::Text(text));
        }
    }
    Ok(match event_type(name, data)? {
        // Beside the usage, which may be absent, nothing of it is read.
        EventType::MessageStart => {
            let start: StartEvent = parse(data).unwrap_or_default();
            StreamEvent::Start(start.message.usage)
        }
        EventType::ContentBlockStart => read_block_start(data),
        EventType::ContentBlockDelta => read_other_delta(data)?,
        EventType::MessageDelta => {
            let MessageDeltaEvent { delta } = parse(data).unwrap_or_default();
            let WithUsage { usage } = parse(data).unwrap_or_default();
            StreamEvent::Delta(delta.stop_reason.map(StopReason::from), usage)
        }
        EventType::MessageStop => StreamEvent::Stop,
        EventType::Error => StreamEvent::Error(parse::<ErrorBody>(data).unwrap_or_default().error.kind),
        EventType::Other => StreamEvent::Other,
    })
}

/// The name of an SSE event that has none.
const UNNAMED: &str = "message";

/// The type of an event: by its data, else by its name. An event without a known type, such as a heartbeat, holds
/// nothing of the answer. What is damaged may have held a part of it.
fn event_type(name: &str, data: &str) -> Result<EventType, MalformedEvent> {
    let is_object = data.trim_start().starts_with('{');
    if is_object {
        let tagged: Tagged = parse(data).unwrap_or_default();
        match tagged.kind.and_then(|kind| named(&kind)) {
            Some(kind) => return Ok(kind),
            _ if parse::<IgnoredAny>(data).is_err() && name == UNNAMED => return Err(MalformedEvent),
            _ if data.contains("text_delta") => return Err(MalformedEvent),
            _ => {}
        }
    }
    match named(name).unwrap_or(EventType::Other) {
        EventType::MessageStop | EventType::ContentBlockDelta if !is_object => Err(MalformedEvent),
        EventType::MessageStop | EventType::ContentBlockDelta if parse::<IgnoredAny>(data).is_err() => {
            Err(MalformedEvent)
        }
        kind => Ok(kind),
    }
}

/// The start of a block of text may have the text's beginning.
fn read_block_start(data: &str) -> StreamEvent<'_> {
    let BlockStartEvent { content_block: TextBlock { kind, text } } = parse(data).unwrap_or_default();
    match (kind.as_deref(), text.is_empty()) {
        (Some("text"), true) => StreamEvent::TextBlock,
        (Some("text"), false) => StreamEvent::Text(text.into()),
        _ => StreamEvent::Other,
    }
}

/// Reads a delta that has no text in the form of the reference. A delta of another type may have a member `text` of any
/// kind; one that says nothing is passed over.
fn read_other_delta(data: &str) -> Result<StreamEvent<'_>, MalformedEvent> {
    match parse::<OtherDeltaEvent>(data)?.delta {
        Any::Null => Ok(StreamEvent::Other),
        Any::Object(OtherDelta { kind: Some(kind), .. }) if kind != "text_delta" => Ok(StreamEvent::Other),
        Any::Object(OtherDelta { kind: None, text: None }) => Ok(StreamEvent::Other),
        _ => Err(MalformedEvent),
    }
}

fn parse<'a, T: Deserialize<'a>>(data: &'a str) -> Result<T, MalformedEvent> {
    serde_json::from_str(data).map_err(|_| MalformedEvent)
}

/// An object of which only the type matters.
#[derive(Default, Deserialize)]
#[serde(default)]
struct Tagged {
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    kind: Option<String>,
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

/// `message_start`, of which only the usage is read.
#[derive(Default, Deserialize)]
#[serde(default)]
struct StartEvent {
    #[serde(deserialize_with = "lenient::object")]
    message: WithUsage,
}

/// An object that may have a usage.
#[derive(Default, Deserialize)]
#[serde(default)]
struct WithUsage {
    #[serde(deserialize_with = "lenient::object")]
    usage: UsageUpdate,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct BlockStartEvent {
    #[serde(deserialize_with = "lenient::object")]
    content_block: TextBlock,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct TextBlock {
    #[serde(rename = "type", deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(deserialize_with = "lenient::text_or_empty")]
    text: String,
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
struct OtherDeltaEvent {
    #[serde(default = "absent")]
    delta: Any<OtherDelta>,
}

const fn absent() -> Any<OtherDelta> {
    Any::Null
}

#[derive(Deserialize)]
struct OtherDelta {
    #[serde(rename = "type", default, deserialize_with = "lenient::text")]
    kind: Option<String>,
    #[serde(default)]
    text: Option<IgnoredAny>,
}

/// `message_delta` without its usage, which is read by itself: the stop reason does not depend on it.
#[derive(Default, Deserialize)]
#[serde(default)]
struct MessageDeltaEvent {
    #[serde(deserialize_with = "lenient::object")]
    delta: MessageDelta,
}

#[derive(Default, Deserialize)]
#[serde(default)]
struct MessageDelta {
    #[serde(deserialize_with = "lenient::text")]
    stop_reason: Option<String>,
}
