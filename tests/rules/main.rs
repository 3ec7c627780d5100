//! Tests of what is decided (`rules/`, `json_schema/`), native and without the runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod breaker;
mod config;
mod facilitator;
mod file_link;
mod identifier;
mod input;
mod json_schema;
mod model_request;
mod output;
mod owner;
mod quote;
mod reconcile;
mod refusals;
mod run_machine;
mod signature;
mod template;
mod transcript;
mod webhook;
