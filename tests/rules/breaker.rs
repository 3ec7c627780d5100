//! The circuit breaker: a facilitator that fails on payments which another one accepts is asked last for a moment.

use coinslot::testing::rules::payment::breaker::{Breaker, Failure, FAILURES, OPEN, PAYERS};
use coinslot::testing::wire::evm::Address;
use proptest::prelude::*;
use std::collections::BTreeSet;

const NOW: u64 = 1_000_000;

fn payer(n: u8) -> Address {
    [n; 20].into()
}

/// After failures of a payer each.
fn after_failures(failures: u8) -> Breaker {
    let mut breaker = Breaker::default();
    (0..failures).for_each(|n| breaker.failed(Failure::NoVerdict, payer(n), NOW));
    breaker
}

#[test]
fn a_circuit_is_closed_to_begin_with() {
    assert!(!Breaker::default().is_open(0));
}

#[test]
fn so_many_failures_without_a_success_open_the_circuit_for_a_moment() {
    assert!(!after_failures(FAILURES - 1).is_open(NOW));
    let open = after_failures(FAILURES);
    assert!(open.is_open(NOW) && open.is_open(NOW + OPEN - 1));
    assert!(!open.is_open(NOW + OPEN));
}

#[test]
fn the_failures_of_few_payers_never_open_the_circuit() {
    let mut breaker = Breaker::default();
    for n in 0..100 {
        breaker.failed(Failure::NoVerdict, payer(n % (PAYERS as u8 - 1)), NOW);
        assert!(!breaker.is_open(NOW));
    }
    breaker.failed(Failure::NoVerdict, payer(99), NOW);
    assert!(breaker.is_open(NOW), "one more payer is enough");
}

/// An isolate may run the objects of one wallet only, and a facilitator that is down is down for all.
#[test]
fn a_facilitator_that_does_not_answer_at_all_is_asked_last_also_after_one_payers_failures() {
    let mut breaker = Breaker::default();
    for _ in 1..FAILURES {
        breaker.failed(Failure::NoAnswer, payer(0), NOW);
        breaker.failed(Failure::NoVerdict, payer(0), NOW);
    }
    assert!(!breaker.is_open(NOW));
    breaker.failed(Failure::NoAnswer, payer(0), NOW);
    assert!(breaker.is_open(NOW));
}

#[test]
fn an_accepted_payment_in_between_starts_the_count_anew() {
    let mut breaker = after_failures(FAILURES - 1);
    breaker.accepted();
    (1..FAILURES).for_each(|n| breaker.failed(Failure::NoVerdict, payer(n), NOW));
    assert!(!breaker.is_open(NOW));
    breaker.failed(Failure::NoVerdict, payer(0), NOW);
    assert!(breaker.is_open(NOW));
}

#[test]
fn the_next_payment_that_is_accepted_anywhere_decides_again() {
    let (mut failed, mut answered) = (after_failures(FAILURES), after_failures(FAILURES));
    failed.failed(Failure::NoVerdict, payer(0), NOW + OPEN);
    assert!(failed.is_open(NOW + OPEN) && !failed.is_open(NOW + 2 * OPEN), "one failure is enough now");
    answered.accepted();
    assert_eq!(answered, Breaker::default(), "and one success too");
}

#[test]
fn no_count_and_no_time_overflows() {
    let mut breaker = Breaker::default();
    (0..1000_u16).for_each(|n| breaker.failed(Failure::NoVerdict, payer((n % 256) as u8), u64::MAX - 1));
    assert!(breaker.is_open(u64::MAX - 1) && !breaker.is_open(u64::MAX));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// The rule said another way.
    #[test]
    fn the_circuit_is_open_exactly_after_so_many_failures_of_so_many_payers_since_the_last_success(
        calls in prop::collection::vec((prop::option::weighted(0.9, 0..5_u8), 0..2 * OPEN), 0..30),
        later in 0..2 * OPEN,
    ) {
        let (mut breaker, mut now) = (Breaker::default(), NOW);
        for (failed, wait) in &calls {
            now += wait;
            match failed {
                Some(n) => breaker.failed(Failure::NoVerdict, payer(*n), now),
                None => breaker.accepted(),
            }
        }
        let payers: Vec<u8> = calls.iter().rev().map_while(|(failed, _)| *failed).collect();
        let several = payers.iter().collect::<BTreeSet<_>>().len() >= PAYERS;
        let open = payers.len() >= usize::from(FAILURES) && several && later < OPEN;
        prop_assert_eq!(breaker.is_open(now + later), open);
    }
}
