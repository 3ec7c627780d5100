//! A circuit breaker: who has failed several times in a row is left alone for a moment, so that nobody
//! waits for time-outs that are known beforehand. One for each facilitator, in each isolate.

use crate::rules::run::Millis;

/// So many failures in a row open the circuit.
pub const FAILURES: u8 = 5;
/// For this long. The next call after that decides again.
pub const OPEN: Millis = 3_000;

/// The state of one circuit. Closed to begin with.
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

    /// Takes the outcome of a call: any answer that can be read is a success, also a "no".
    pub fn note(&mut self, success: bool, now: Millis) {
        self.failures = if success { 0 } else { self.failures.saturating_add(1) };
        self.open_until = if self.failures >= FAILURES { now.saturating_add(OPEN) } else { 0 };
    }
}
