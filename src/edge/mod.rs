//! What we touch: D1, KV, the objects' storage, R2, WebCrypto, the facilitators, the chain, Claude, the clock. Each
//! module turns one of them into our types; what an answer means is decided in `rules/`.
//!
//! An error of ours is a fault. It is logged here, where it occurs, and becomes [`Refusal::Internal`], which tells the
//! caller nothing about it.

mod awaiter;
pub(crate) mod body_reader;
pub(crate) mod body_writer;
pub(crate) mod cache;
pub(crate) mod clock;
pub(crate) mod d1;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod jwt;
pub(crate) mod kv;
pub(crate) mod lookup;
pub(crate) mod microtasks;
pub(crate) mod notify;
pub(crate) mod objects;
pub(crate) mod rate_limit;
pub(crate) mod vault;

use crate::rules::refusal::Refusal;
use std::fmt::Display;

/// For `map_err`: logs what failed and why. The errors of the runtime name no secrets.
pub(crate) fn fault<E: Display>(what: &'static str) -> impl FnOnce(E) -> Refusal {
    move |error| {
        worker::console_error!("fault: {what}: {error}");
        Refusal::Internal
    }
}
