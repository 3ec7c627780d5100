//! Events and steps that own their text, for tests that keep them beyond the read that they come from.
#![allow(dead_code)] // each test uses a part

use coinslot::testing::rules::model_answer::{self, AnswerReader};
use coinslot::testing::rules::refusal::ModelError;
use coinslot::testing::wire::sse::{self, Parser, TooLong};

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    pub name: String,
    pub data: String,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Step {
    Began,
    TextBegins,
    Text(String),
    Whole,
    Broke(ModelError),
}

impl From<model_answer::Step<'_>> for Step {
    fn from(step: model_answer::Step<'_>) -> Self {
        match step {
            model_answer::Step::Began => Self::Began,
            model_answer::Step::TextBegins => Self::TextBegins,
            model_answer::Step::Text(text) => Self::Text(text.to_owned()),
            model_answer::Step::Whole => Self::Whole,
            model_answer::Step::Broke(error) => Self::Broke(error),
        }
    }
}

/// Reads the next bytes, and appends the events that they complete.
pub fn push_events(parser: &mut Parser, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), TooLong> {
    parser.push(bytes, |sse::Event { name, data }| {
        events.push(Event { name: name.to_owned(), data: data.to_owned() });
    })
}

/// The steps of the next bytes.
pub fn push(reading: &mut AnswerReader, bytes: &[u8]) -> Vec<Step> {
    reading.push(bytes);
    reading.steps().map(Step::from).collect()
}

/// The steps of the end of the stream.
pub fn end_of_stream(reading: &mut AnswerReader) -> Vec<Step> {
    reading.end_of_stream();
    reading.steps().map(Step::from).collect()
}
