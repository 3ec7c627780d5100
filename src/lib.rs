//! coinslot: a coin slot for prompts. A creator publishes a prompt template and stores a Claude key,
//! both secret; a caller posts parameters, pays with x402, and gets Claude's answer as it is written.
//!
//! The floors, from the top; imports run downward only (`tests/floors.rs` sees to it):
//!
//! - [`run_object`] and this file are the doors. A request comes in here, is routed by [`routes`],
//!   and a run of a template goes on to its run object: one Durable Object for each payment. What concerns
//!   several payments of one payer is kept by [`payer_object`].
//! - [`routes`] is what we offer, one file per resource; `routes/problem.rs` alone knows status codes.
//! - [`engine`] is the one loop: an effect from the run machine, done at the edge, its event handed back.
//! - [`edge`] is what we touch: D1, KV, storage, WebCrypto, the facilitator, Claude, the clock.
//! - [`rules`] is what we decide: the run machine, quotes, templates, refusals. Pure.
//! - [`wire`] is what others say: x402, Anthropic, SSE, JWT, amounts. Pure.
//!
//! The way of a paid run: `routes/run.rs` checks everything that can be checked for free, in the
//! order in which a caller would want to hear of it; `run_object.rs` makes one run of any number of
//! presentations; `rules/run.rs` says what happens when; `engine.rs` does it.

#![deny(unsafe_code)] // `forbid` would reach into what wasm_bindgen and worker generate
#![warn(missing_docs)]
// A panic in a Worker can cut other callers' streams.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::todo,
    clippy::unimplemented
)]

pub mod edge;
pub mod engine;
#[allow(missing_docs)] // the macro adds items of its own
pub mod payer_object;
pub mod routes;
pub mod rules;
#[allow(missing_docs)]
pub mod run_object;
pub mod wire;

use worker::{event, Context, Env, Request, Response, Result};

/// The front door.
#[event(fetch)]
async fn fetch(request: Request, env: Env, _context: Context) -> Result<Response> {
    routes::answer(request, &env).await
}
