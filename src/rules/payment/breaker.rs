//! A circuit breaker for each facilitator, in each isolate. A facilitator with an open circuit is asked last, so that
//! callers do not wait for its time-outs while another one answers. It is never left out: a circuit that was opened by
//! mistake refuses nobody.
//!
//! A facilitator's answer to one payment says something about that payment, which a stranger may have made to fail. So
//! only a payment that another facilitator has accepted counts as a failure, and only where a key has signed it: no
//! code of the payer's runs when such a payment is checked. Failures with an answer count where several payers had
//! them; a facilitator that does not answer at all fails everybody, and an isolate may have one payer only. Only an
//! accepted payment closes the circuit.

use crate::rules::run::Millis;
use crate::wire::evm::Address;

/// This many failures open the circuit, with no accepted payment between them,
pub const FAILURES: u8 = 5;
/// where they are of this many payers, or where there was no answer at all.
pub const PAYERS: usize = 3;
/// How long the circuit stays open. After that, the next accepted payment closes it, or opens it again.
pub const OPEN: Millis = 3_000;

/// In which way a facilitator has failed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Failure {
    /// No connection, or no answer in time.
    NoAnswer,
    /// An answer without a verdict.
    NoVerdict,
}

/// The state of one circuit, which begins closed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Breaker {
    failures: u8,
    /// Those of the failures that were without any answer.
    silences: u8,
    /// The payers of the failures, each once, as many as matter.
    payers: Vec<Address>,
    open_until: Millis,
}

impl Breaker {
    pub const fn is_open(&self, now: Millis) -> bool {
        now < self.open_until
    }

    /// The facilitator has accepted a payment.
    pub fn accepted(&mut self) {
        *self = Self::default();
    }

    /// The facilitator has given no usable answer to a payment that another one has accepted afterwards: none at all, or
    /// one that says nothing of the payment.
    pub fn failed(&mut self, failure: Failure, payer: Address, now: Millis) {
        self.failures = self.failures.saturating_add(1);
        if failure == Failure::NoAnswer {
            self.silences = self.silences.saturating_add(1);
        }
        if self.payers.len() < PAYERS && !self.payers.contains(&payer) {
            self.payers.push(payer);
        }
        if self.silences >= FAILURES || (self.failures >= FAILURES && self.payers.len() >= PAYERS) {
            self.open_until = now.saturating_add(OPEN);
        }
    }
}
