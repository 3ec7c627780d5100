//! Tests of what others say (`wire/`): the specifications' own examples, and every split of their bytes.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

#[path = "../support/answer.rs"]
mod answer;
mod anthropic;
mod flat;
mod parsers;
mod sse;
mod x402;
