//! Which addresses have code: what is kept of the look-ups, and how many are made.

use coinslot::testing::rules::payment::account_code::{AccountCodes, LOOK_UP_LIMIT};
use coinslot::testing::wire::evm::Address;

const BASE: &str = "eip155:8453";
const NOW: u64 = 1_740_672_000_000;
const MINUTE: u64 = 60_000;

fn address(n: u16) -> Address {
    let mut bytes = [0; 20];
    bytes[..2].copy_from_slice(&n.to_be_bytes());
    Address::from(bytes)
}

#[test]
fn that_an_address_has_code_is_kept_for_an_hour_and_that_it_has_none_for_a_minute() {
    let mut codes = AccountCodes::default();
    assert_eq!(codes.get(BASE, address(1), NOW), None);
    codes.put(BASE, address(1), true, NOW);
    codes.put(BASE, address(2), false, NOW);
    let at = |n, time| codes.get(BASE, address(n), time);
    assert_eq!((at(1, NOW), at(2, NOW)), (Some(true), Some(false)));
    assert_eq!((at(1, NOW + MINUTE - 1), at(2, NOW + MINUTE - 1)), (Some(true), Some(false)));
    assert_eq!((at(1, NOW + MINUTE), at(2, NOW + MINUTE)), (Some(true), None), "it may have been deployed since");
    assert_eq!((at(1, NOW + 60 * MINUTE - 1), at(1, NOW + 60 * MINUTE)), (Some(true), None));
    assert_eq!(codes.get("eip155:1", address(1), NOW), None, "each network has accounts of its own");
}

#[test]
fn a_stranger_who_names_many_addresses_takes_a_bounded_place_and_no_wallets_own() {
    let mut codes = AccountCodes::default();
    codes.put(BASE, address(60_000), true, NOW);
    for n in 0..10_000 {
        codes.put(BASE, address(n), false, NOW);
    }
    assert_eq!(codes.get(BASE, address(60_000), NOW), Some(true));
    let known = (0..10_000).filter(|n| codes.get(BASE, address(*n), NOW).is_some()).count();
    assert!((1..=2048).contains(&known), "{known}");
}

#[test]
fn few_look_ups_are_made_at_a_time() {
    let mut codes = AccountCodes::default();
    let begun = (0..100).filter(|_| codes.begin_look_up(NOW)).count();
    assert_eq!(begun, 16);
    codes.end_look_up(NOW);
    assert!(codes.begin_look_up(NOW + 1) && !codes.begin_look_up(NOW + 1));
    // A request that was cancelled never says that its look-up has ended.
    assert!(codes.begin_look_up(NOW + LOOK_UP_LIMIT));
}
