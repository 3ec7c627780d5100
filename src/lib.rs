//! coinslot: a coin slot for prompts. A creator publishes a prompt template and stores a Claude key,
//! both secret; a caller posts parameters, pays with x402, and gets Claude's answer as it is written.
//!
//! The floors, from the top. Imports run downward only, which `tests/floors.rs` checks:
//!
//! - This file and [`objects`] are the doors. A request comes in here and is routed by [`routes`]; a run of a
//!   template goes on to its Durable Object.
//! - [`engine`] keeps one run in memory and has the one loop: it takes an effect from the run machine, does it at
//!   the edge, and hands the event back.
//! - [`routes`] is what we offer, one file per resource. `routes/problem.rs` alone knows status codes.
//! - [`edge`] is what we touch: D1, KV, objects and their storage, HTTP, WebCrypto, R2, the clock.
//! - [`rules`] is what we decide: the run machine, payments, templates, records, contracts, refusals. Pure.
//! - [`json_schema`] validates against schemas that strangers choose, within a budget of steps. Pure.
//! - [`wire`] is what others say: x402, Anthropic, SSE, JWT, EVM, HIRE. Pure.
//!
//! `docs/architecture.md` walks one paid request and one contract through these files.

#![deny(unsafe_code)]
// `forbid` would reach into what wasm_bindgen and worker generate
// A panic in a Worker can cut other callers' streams.
#![deny(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::indexing_slicing,
    clippy::todo,
    clippy::unimplemented
)]

mod edge;
mod engine;
mod json_schema;
mod objects;
mod routes;
mod rules;
mod wire;

/// The pure floors, for the tests in `tests/` and the fuzz targets, which are crates of their own. Without the
/// feature nothing is public, and the compiler reports code that nobody uses.
#[cfg(feature = "testing")]
pub mod testing {
    pub mod json_schema {
        pub use crate::json_schema::*;
    }
    pub mod rules {
        pub use crate::rules::*;
    }
    pub mod wire {
        pub use crate::wire::*;
    }
}

use worker::{event, Context, Env, Request, Response, Result};

/// Runs once, when the isolate has loaded the module.
#[event(start)]
fn start() {
    edge::microtasks::queue_by_promises();
}

/// The front door: every HTTP request.
#[event(fetch)]
async fn fetch(request: Request, env: Env, _context: Context) -> Result<Response> {
    routes::answer(request, &env).await
}
