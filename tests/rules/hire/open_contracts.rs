//! Which contracts make room where a creator has too many.

use coinslot::testing::rules::hire::open_contracts::{to_remove, OpenContract};

const HOUR: u64 = 60 * 60 * 1000;
const NOW: u64 = 1_000 * HOUR;

fn contract(id: &str, seeker: &str, age: u64) -> OpenContract {
    let created_at = NOW - age;
    OpenContract {
        id: id.to_owned(),
        seeker: seeker.to_owned(),
        deadline: NOW + HOUR,
        created_at,
        updated_at: created_at,
    }
}

/// Twenty wallets of a stranger with a hundred contracts each, newer than everybody's.
fn flood(age: u64) -> Vec<OpenContract> {
    (0..2000).map(|n| contract(&format!("flood{n}"), &format!("stranger{}", n % 20), age)).collect()
}

#[test]
fn a_strangers_many_contracts_go_before_the_older_ones_of_others() {
    let mut contracts = flood(2 * HOUR);
    contracts.extend((0..5).map(|n| contract(&format!("honest{n}"), &format!("seeker{n}"), 50 * HOUR)));
    let removed = to_remove(&contracts, NOW);
    assert_eq!(removed.len(), 25, "a few places are made at once");
    assert!(removed.iter().all(|id| id.starts_with("flood")), "{removed:?}");
    let of_one = |n: usize| removed.iter().filter(|id| id[5..].parse::<usize>().unwrap() % 20 == n).count();
    assert!((0..20).all(|n| (1..=2).contains(&of_one(n))), "from whoever has the most at the time");
}

#[test]
fn what_was_executed_or_is_younger_than_an_hour_stays() {
    assert!(to_remove(&flood(HOUR - 1), NOW).is_empty());
    assert_eq!(to_remove(&flood(HOUR), NOW).len(), 20);
    let mut executed = flood(50 * HOUR);
    executed.iter_mut().for_each(|contract| contract.updated_at += 1);
    assert!(to_remove(&executed, NOW).is_empty());
    executed.iter_mut().for_each(|contract| contract.deadline = NOW - HOUR);
    assert!(to_remove(&executed, NOW).is_empty());
}

#[test]
fn contracts_that_are_over_go_first_and_below_the_bound_none_goes() {
    let mut contracts = flood(2 * HOUR);
    contracts.push(OpenContract { deadline: NOW, ..contract("over", "seeker", 3 * HOUR) });
    let removed = to_remove(&contracts, NOW);
    assert_eq!((removed[0], removed.len()), ("over", 21));
    assert!(to_remove(&contracts[..1999], NOW).is_empty());
}
