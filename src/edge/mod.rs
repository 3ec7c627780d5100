//! What we touch: D1, KV, the object's storage, WebCrypto, the facilitator, Claude, the clock. Thin:
//! each module turns one outside thing into our types, and believes nothing it has not checked.
//!
//! A fault is ours: it is logged here, where it is made, and from there on it is
//! [`Refusal::Internal`], which says nothing to anybody.

pub mod agents;
pub mod bell;
pub mod chain;
pub mod claude;
pub mod clock;
pub mod config;
pub mod contracts;
pub mod facilitator;
pub mod files;
pub mod http;
pub mod jwt;
pub mod keys;
pub mod ledger;
pub mod payers;
pub mod runs;
pub mod store;
pub mod subscriber;
pub mod templates;
pub mod vault;
pub mod webhooks;

use crate::rules::refusal::Refusal;
use std::fmt::Display;

/// For `map_err`: logs what failed and why. `what` is ours; errors of the runtime name no secrets.
pub fn fault<E: Display>(what: &'static str) -> impl FnOnce(E) -> Refusal {
    move |error| {
        worker::console_error!("fault: {what}: {error}");
        Refusal::Internal
    }
}
