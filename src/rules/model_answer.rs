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
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// Claude has sent `message_start`, its first event.
    Began,
    /// The next piece of text.
    Text(String),
    /// `message_stop`: the answer is complete.
    Whole,
    /// The answer has ended and is not complete.
    Broke(ModelError),
}

/// Reads the stream of one answer.
#[derive(Debug, Default)]
pub struct AnswerReader {
    parser: sse::Parser,
    began: bool,
    over: bool,
    /// The tokens so far.
    pub usage: Usage,
    /// Why Claude has stopped, once the stream says so.
    pub stop_reason: Option<StopReason>,
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

    /// Reads the next bytes. All text in them becomes one step, however many deltas there are, because streaming costs
    /// CPU time for each step and not for each byte.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut events = Vec::new();
        let parsed = self.parser.push(bytes, &mut events);
        for event in &events {
            if self.over {
                return steps;
            }
            match anthropic::read_event(event) {
                Ok(event) => self.apply(event, &mut steps),
                Err(_) => self.end(Step::Broke(ModelError::Broken), &mut steps),
            }
        }
        if parsed.is_err() && !self.over {
            self.end(Step::Broke(ModelError::Broken), &mut steps);
        }
        steps
    }

    /// The stream has ended, or the connection has broken.
    pub fn end_of_stream(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.over {
            self.end(Step::Broke(ModelError::CutOff), &mut steps);
        }
        steps
    }

    fn apply(&mut self, event: StreamEvent, steps: &mut Vec<Step>) {
        match event {
            StreamEvent::Start(usage) => {
                self.usage.update(usage);
                if !std::mem::replace(&mut self.began, true) {
                    steps.push(Step::Began);
                }
            }
            StreamEvent::Text(text) if self.began => match steps.last_mut() {
                Some(Step::Text(so_far)) => so_far.push_str(&text),
                _ => steps.push(Step::Text(text)),
            },
            StreamEvent::Delta(stop_reason, usage) => {
                self.usage.update(usage);
                self.stop_reason = stop_reason.or(self.stop_reason.take());
            }
            StreamEvent::Stop if self.began => match self.stop_reason {
                Some(StopReason::Refusal) => self.end(Step::Broke(ModelError::Declined), steps),
                _ => self.end(Step::Whole, steps),
            },
            StreamEvent::Error(kind) => {
                let error = match kind {
                    ErrorType::OverloadedError if !self.began => ModelError::Overloaded,
                    ErrorType::RateLimitError if !self.began => ModelError::RateLimited { retry_after: None },
                    _ if !self.began => ModelError::Upstream,
                    _ => ModelError::Broken,
                };
                self.end(Step::Broke(error), steps);
            }
            // Text or an end before `message_start`: this is not the Messages API.
            StreamEvent::Text(_) | StreamEvent::Stop => self.end(Step::Broke(ModelError::Broken), steps),
            StreamEvent::Other => {}
        }
    }

    fn end(&mut self, last: Step, steps: &mut Vec<Step>) {
        self.over = true;
        steps.push(last);
    }
}
