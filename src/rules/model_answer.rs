//! Claude's answer: which kind of error a failed call is, and how far a stream has come.

use crate::rules::refusal::{ModelError, Refusal};
use crate::wire::anthropic;
use crate::wire::anthropic::{ErrorBody, ErrorType, StopReason, StreamEvent, Usage};
use crate::wire::sse;

/// The kind of error of a failed call, by the type in its body, or else by its status.
///
/// Anthropic's text is only read for two kinds that share their type with others, and is not passed on.
pub fn model_error_of(status: u16, body: Option<&ErrorBody>, retry_after: Option<u32>) -> ModelError {
    let text = body.map(|b| b.error.message.to_ascii_lowercase()).unwrap_or_default();
    let says = |words: &[&str]| words.iter().any(|w| text.contains(w));
    let limited = ModelError::RateLimited { retry_after };
    match body.map(|b| &b.error.kind) {
        Some(ErrorType::AuthenticationError) => ModelError::KeyInvalid,
        Some(ErrorType::BillingError) => ModelError::Billing,
        Some(ErrorType::PermissionError) => ModelError::Permission,
        Some(ErrorType::NotFoundError) => ModelError::ModelRetired,
        Some(ErrorType::RequestTooLarge) => ModelError::TooLong,
        Some(ErrorType::RateLimitError) => limited,
        Some(ErrorType::OverloadedError) => ModelError::Overloaded,
        Some(ErrorType::TimeoutError) => ModelError::TimedOut,
        Some(ErrorType::InvalidRequestError) => match () {
            () if says(&["credit balance", "spend limit", "usage limit", "billing"]) => ModelError::Billing,
            () if says(&["too long", "context limit", "context window", "maximum context"]) => ModelError::TooLong,
            () => ModelError::Rejected,
        },
        Some(ErrorType::ApiError | ErrorType::Unknown) | None => match status {
            400 => ModelError::Rejected,
            401 => ModelError::KeyInvalid,
            402 => ModelError::Billing,
            403 => ModelError::Permission,
            404 => ModelError::ModelRetired,
            413 => ModelError::TooLong,
            429 => limited,
            408 | 504 => ModelError::TimedOut,
            529 | 503 => ModelError::Overloaded,
            _ => ModelError::Upstream,
        },
    }
}

/// The refusal of a key with which a call has failed so.
pub fn key_refusal_of(error: ModelError) -> Refusal {
    match error {
        ModelError::KeyInvalid | ModelError::Permission => Refusal::ApiKeyRejected,
        other => Refusal::Claude(other),
    }
}

/// A step in the course of an answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step<'a> {
    /// Claude has sent `message_start`, its first event.
    Began,
    /// A block of text has begun, whose first text is still to come. Where the same read also has the text, or the end
    /// of the answer, that is told alone.
    TextBegins,
    /// The next piece of text. The first one has something to see.
    Text(&'a str),
    /// `message_stop`: the answer is complete, and has something to see.
    Whole,
    /// The answer has ended and is not complete.
    Broke(ModelError),
}

/// Reads the stream of one answer.
#[derive(Debug, Default)]
pub struct AnswerReader {
    parser: sse::Parser,
    began: bool,
    /// A block of text has begun.
    has_text: bool,
    /// What the text began with, as long as there was nothing to see in it.
    blank: String,
    /// The text has something to see.
    is_visible: bool,
    over: bool,
    /// The tokens so far.
    pub usage: Usage,
    /// Why Claude has stopped, once the stream says so.
    pub stop_reason: Option<StopReason>,
    last_read: LastRead,
}

/// The steps of the last read. There is at most one of each kind, and they always come in this order.
#[derive(Debug, Default)]
struct LastRead {
    began: bool,
    text_begins: bool,
    /// Its memory is used again by the next read.
    text: String,
    end: Option<Step<'static>>,
}

impl AnswerReader {
    /// Whether `message_start` has arrived.
    pub fn has_begun(&self) -> bool {
        self.began
    }

    /// Whether the answer has ended, complete or not.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// The steps of the last [`Self::push`] or [`Self::end_of_stream`].
    pub fn steps(&self) -> impl Iterator<Item = Step<'_>> {
        let LastRead { began, text_begins, text, end } = &self.last_read;
        let text = (!text.is_empty()).then_some(Step::Text(text));
        let text_begins = (*text_begins && text.is_none() && end.is_none()).then_some(Step::TextBegins);
        [began.then_some(Step::Began), text_begins, text, *end].into_iter().flatten()
    }

    /// Reads the next bytes. All text in them becomes one step, however many deltas there are, because streaming costs
    /// CPU time for each step and not for each byte.
    pub fn push(&mut self, bytes: &[u8]) {
        self.clear_steps();
        let mut parser = std::mem::take(&mut self.parser);
        let parsed = parser.push(bytes, |event| {
            if self.over {
                return;
            }
            match anthropic::read_event(event.name, event.data) {
                Ok(event) => self.apply(event),
                Err(_) => self.end(Step::Broke(ModelError::Broken)),
            }
        });
        self.parser = parser;
        if parsed.is_err() && !self.over {
            self.end(Step::Broke(ModelError::Broken));
        }
    }

    /// The stream has ended, or the connection has broken.
    pub fn end_of_stream(&mut self) {
        self.clear_steps();
        if !self.over {
            self.end(Step::Broke(ModelError::CutOff));
        }
    }

    fn clear_steps(&mut self) {
        let mut text = std::mem::take(&mut self.last_read.text);
        text.clear();
        self.last_read = LastRead { text, ..LastRead::default() };
    }

    fn apply(&mut self, event: StreamEvent<'_>) {
        match event {
            StreamEvent::Start(usage) => {
                self.usage.update(usage);
                self.last_read.began |= !std::mem::replace(&mut self.began, true);
            }
            StreamEvent::TextBlock if self.began => {
                self.last_read.text_begins |= !std::mem::replace(&mut self.has_text, true);
            }
            StreamEvent::Text(text) if self.began => {
                self.has_text |= !text.is_empty();
                self.add_text(&text);
            }
            StreamEvent::Delta(stop_reason, usage) => {
                self.usage.update(usage);
                self.stop_reason = stop_reason.or(self.stop_reason.take());
            }
            StreamEvent::Stop if self.began => self.end(match &self.stop_reason {
                Some(StopReason::Refusal) => Step::Broke(ModelError::Declined),
                Some(reason) if reason.is_intermediate() => Step::Broke(ModelError::CutOff),
                _ if !self.is_visible => Step::Broke(ModelError::Empty),
                _ => Step::Whole,
            }),
            StreamEvent::Error(kind) => {
                let error = match kind {
                    ErrorType::OverloadedError if !self.began => ModelError::Overloaded,
                    ErrorType::RateLimitError if !self.began => ModelError::RateLimited { retry_after: None },
                    _ if !self.began => ModelError::Upstream,
                    _ => ModelError::Broken,
                };
                self.end(Step::Broke(error));
            }
            // Text or an end before `message_start`: this is not the Messages API.
            StreamEvent::Text(_) | StreamEvent::Stop => self.end(Step::Broke(ModelError::Broken)),
            StreamEvent::TextBlock | StreamEvent::Other => {}
        }
    }

    /// White space at the beginning is held back until there is something to see. An answer of nothing else is empty, and
    /// nothing of it may be shown.
    fn add_text(&mut self, text: &str) {
        if !self.is_visible {
            self.is_visible = text.chars().any(is_visible);
            if !self.is_visible {
                self.blank.push_str(text);
                return;
            }
            self.last_read.text.push_str(&std::mem::take(&mut self.blank));
        }
        self.last_read.text.push_str(text);
    }

    fn end(&mut self, last: Step<'static>) {
        self.over = true;
        self.last_read.end = Some(last);
    }
}

/// Whether a character shows anything: it is neither white space nor a control, and has a width.
fn is_visible(c: char) -> bool {
    let has_no_width = matches!(c, '\u{ad}' | '\u{200b}'..='\u{200f}' | '\u{2060}'..='\u{2064}' | '\u{feff}');
    !(c.is_whitespace() || c.is_control() || has_no_width)
}
