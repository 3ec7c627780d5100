//! Tests of what is decided (`rules/`, `json_schema/`), native and without the runtime.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod breaker;
mod config;
mod error_bodies;
mod execution;
mod golden;
mod identifier;
mod input;
mod json_schema;
mod output;
mod owner;
mod quote;
mod quote_terms;
mod reconcile;
mod refusals;
mod run_documents;
mod run_machine;
mod signature;
mod template;
mod transcript;
mod webhook;
