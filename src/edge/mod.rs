//! What we touch: D1, KV, the object's storage, WebCrypto, the facilitator, Claude, the clock. Thin:
//! each module turns one outside thing into our types, and believes nothing it has not checked.
//!
//! A fault is ours: it is logged here, where it is made, and from there on it is
//! [`Refusal::Internal`], which says nothing to anybody.

pub(crate) mod body_writer;
pub(crate) mod clock;
pub(crate) mod d1;
pub(crate) mod files;
pub(crate) mod http;
pub(crate) mod jwt;
pub(crate) mod kv;
pub(crate) mod notify;
pub(crate) mod objects;
pub(crate) mod vault;

use crate::rules::refusal::Refusal;
use std::fmt::Display;

/// For `map_err`: logs what failed and why. `what` is ours; errors of the runtime name no secrets.
pub(crate) fn fault<E: Display>(what: &'static str) -> impl FnOnce(E) -> Refusal {
    move |error| {
        worker::console_error!("fault: {what}: {error}");
        Refusal::Internal
    }
}
