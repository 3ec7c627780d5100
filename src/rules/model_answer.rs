//! Claude's answer as coinslot reads it: which failure is which, and how far a stream has come.

use crate::rules::refusal::{ModelError, Refusal};
use crate::wire::anthropic;
use crate::wire::anthropic::{ErrorBody, ErrorType, StopReason, StreamEvent, Usage};
use crate::wire::sse;

/// Tells a failed call apart, by its type first and its status second.
///
/// Anthropic's text is read for two cases that share a type with others, and goes no further.
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

/// One thing that happened in the answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    /// `message_start`.
    Began,
    /// More text.
    Text(String),
    /// `message_stop`: the answer is whole.
    Whole,
    /// The answer is over, and not whole.
    Broke(ModelError),
}

/// Follows one answer through its stream.
#[derive(Debug, Default)]
pub struct AnswerReader {
    parser: sse::Parser,
    began: bool,
    over: bool,
    /// Tokens so far.
    pub usage: Usage,
    /// Why Claude stopped, once it has said so.
    pub stop_reason: Option<StopReason>,
}

impl AnswerReader {
    /// Whether `message_start` has come.
    pub fn has_begun(&self) -> bool {
        self.began
    }

    /// Whether the answer is over, whole or not.
    pub fn is_over(&self) -> bool {
        self.over
    }

    /// Takes the next bytes. Text that comes in one read is one step, however many deltas it was:
    /// the number of wake-ups, not of bytes, is what streaming costs.
    pub fn push(&mut self, bytes: &[u8]) -> Vec<Step> {
        let mut steps = Vec::new();
        let mut events = Vec::new();
        let parsed = self.parser.push(bytes, &mut events);
        for event in &events {
            if self.over {
                return steps;
            }
            match anthropic::read_event(event) {
                Ok(event) => self.take(event, &mut steps),
                Err(_) => self.end(Step::Broke(ModelError::Broken), &mut steps),
            }
        }
        if parsed.is_err() && !self.over {
            self.end(Step::Broke(ModelError::Broken), &mut steps);
        }
        steps
    }

    /// The stream has ended, or the connection broke.
    pub fn end_of_stream(&mut self) -> Vec<Step> {
        let mut steps = Vec::new();
        if !self.over {
            self.end(Step::Broke(ModelError::CutOff), &mut steps);
        }
        steps
    }

    fn take(&mut self, event: StreamEvent, steps: &mut Vec<Step>) {
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
                let fault = match kind {
                    ErrorType::OverloadedError if !self.began => ModelError::Overloaded,
                    ErrorType::RateLimitError if !self.began => ModelError::RateLimited { retry_after: None },
                    _ if !self.began => ModelError::Upstream,
                    _ => ModelError::Broken,
                };
                self.end(Step::Broke(fault), steps);
            }
            // Text or an end before the beginning: not the Messages API.
            StreamEvent::Text(_) | StreamEvent::Stop => self.end(Step::Broke(ModelError::Broken), steps),
            StreamEvent::Other => {}
        }
    }

    fn end(&mut self, last: Step, steps: &mut Vec<Step>) {
        self.over = true;
        steps.push(last);
    }
}
