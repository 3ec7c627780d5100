//! The circuit breaker: who fails several times in a row is left alone for a moment.

use coinslot::testing::rules::payment::breaker::{Breaker, FAILURES, OPEN};
use proptest::prelude::*;

const NOW: u64 = 1_000_000;

fn after_failures(failures: u8) -> Breaker {
    let mut breaker = Breaker::default();
    (0..failures).for_each(|_| breaker.note(false, NOW));
    breaker
}

#[test]
fn a_circuit_is_closed_to_begin_with() {
    assert!(Breaker::default().allows(0));
}

#[test]
fn so_many_failures_in_a_row_open_the_circuit_for_a_moment() {
    assert!(after_failures(FAILURES - 1).allows(NOW));
    let open = after_failures(FAILURES);
    assert!(!open.allows(NOW) && !open.allows(NOW + OPEN - 1));
    assert!(open.allows(NOW + OPEN));
}

#[test]
fn any_answer_in_between_starts_the_count_anew() {
    let mut breaker = after_failures(FAILURES - 1);
    breaker.note(true, NOW);
    (1..FAILURES).for_each(|_| breaker.note(false, NOW));
    assert!(breaker.allows(NOW));
    breaker.note(false, NOW);
    assert!(!breaker.allows(NOW));
}

#[test]
fn the_next_call_decides_again() {
    let (mut failed, mut answered) = (after_failures(FAILURES), after_failures(FAILURES));
    failed.note(false, NOW + OPEN);
    assert!(!failed.allows(NOW + OPEN) && failed.allows(NOW + 2 * OPEN), "one failure is enough now");
    answered.note(true, NOW + OPEN);
    assert_eq!(answered, Breaker::default(), "and one answer too");
}

#[test]
fn an_answer_that_comes_late_closes_the_circuit() {
    let mut breaker = after_failures(FAILURES);
    breaker.note(true, NOW + 1);
    assert!(breaker.allows(NOW + 1));
}

#[test]
fn no_count_and_no_time_overflows() {
    let mut breaker = Breaker::default();
    (0..1000).for_each(|_| breaker.note(false, u64::MAX - 1));
    assert!(!breaker.allows(u64::MAX - 1) && breaker.allows(u64::MAX));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(500) })]

    /// The rule said another way: open for a moment after the last call, where that and those before it failed.
    #[test]
    fn the_circuit_is_open_exactly_after_so_many_failures_in_a_row(
        calls in prop::collection::vec((prop::bool::weighted(0.2), 0..2 * OPEN), 0..30),
        later in 0..2 * OPEN,
    ) {
        let (mut breaker, mut now) = (Breaker::default(), NOW);
        for (success, wait) in &calls {
            now += wait;
            breaker.note(*success, now);
        }
        let in_a_row = calls.iter().rev().take_while(|(success, _)| !success).count();
        let open = in_a_row >= usize::from(FAILURES) && later < OPEN;
        prop_assert_eq!(breaker.allows(now + later), !open);
    }
}
