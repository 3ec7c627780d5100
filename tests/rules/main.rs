//! Tests of what is decided (`rules/`, `json_schema/`), native and without the runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod account_code;
mod admission;
mod breaker;
mod config;
mod error_bodies;
mod facilitator;
mod file_link;
mod golden;
mod hire;
mod identifier;
mod input;
mod json_schema;
mod model_request;
mod owner;
mod quote;
mod quote_terms;
mod reconcile;
mod refusals;
mod replay;
mod run_documents;
mod run_machine;
mod sample;
mod signature;
mod template;
mod transcript;
