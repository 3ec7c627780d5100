//! A circuit breaker. A facilitator that has failed several times in a row is not called for a moment, so that callers
//! do not wait for its time-outs. Each isolate has one breaker for each facilitator.

use crate::rules::run::Millis;

/// This many failures in a row open the circuit.
pub const FAILURES: u8 = 5;
/// How long the circuit stays open. The next call after that closes it, or opens it again.
pub const OPEN: Millis = 3_000;

/// The state of one circuit, which begins closed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u8,
    open_until: Millis,
}

impl Breaker {
    /// Whether a call may be made.
    pub fn allows(&self, now: Millis) -> bool {
        now >= self.open_until
    }

    /// Notes the outcome of a call. Every answer that can be read is a success, also a "no".
    pub fn note(&mut self, success: bool, now: Millis) {
        self.failures = if success { 0 } else { self.failures.saturating_add(1) };
        self.open_until = if self.failures >= FAILURES { now.saturating_add(OPEN) } else { 0 };
    }
}
