//! The run machine in its world, explored whole: callers who come and go, a facilitator, a chain, Claude, the
//! ledger, the clock, lost and doubled answers, and a crash between any two steps. Also two runs of one wallet. And that
//! exploration put to the test: each fault seeded into the machine or the wallet has to be caught.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

mod faults;
mod lane;
mod pair;
mod wallet;
mod world;

use coinslot::testing::rules::run::{Policy, Release};
use faults::{Seeded, SEEDED};
use lane::Lane;
use stateright::{Checker, Model};
use std::fmt::Debug;
use std::hash::Hash;
use wallet::{Keys, Pair, WalletFault, WALLET_FAULTS};
use world::Budget;

/// A model that can be explored.
trait Explored:
    Model<State: Clone + Debug + Hash + PartialEq + Send + Sync, Action: Debug + Clone + PartialEq> + Send + Sync + 'static
{
}

impl Explored for Lane {}
impl Explored for Pair {}

/// Explores every world of a model; gives back how many there are and which promises do not hold, each with the
/// shortest story that breaks it.
fn explore<M: Explored>(model: M) -> (usize, Vec<(&'static str, String)>) {
    let checker = model.checker().threads(2).spawn_bfs().join();
    let broken = checker.discoveries().into_iter().filter(|(name, _)| {
        !matches!(checker.discovery_classification(name), stateright::DiscoveryClassification::Example)
    });
    let tell = |path: stateright::Path<M::State, M::Action>| {
        let last = format!("in {:?}", path.last_state());
        path.into_actions().iter().map(|action| format!("{action:?}")).chain([last]).collect::<Vec<_>>().join("\n")
    };
    let broken = broken.map(|(name, path)| (name, tell(path))).collect();
    let missing =
        checker.model().properties().into_iter().filter(|p| {
            matches!(p.expectation, stateright::Expectation::Sometimes) && checker.discovery(p.name).is_none()
        });
    let missing: Vec<_> = missing.map(|p| (p.name, "never".to_owned())).collect();
    (checker.unique_state_count(), [broken, missing].concat())
}

/// The promises of which a model breaks the first that is found, and how many worlds it took.
fn first_broken<M: Explored>(model: M) -> (usize, Vec<&'static str>) {
    let checker = model.checker().threads(2).finish_when(stateright::HasDiscoveries::AnyFailures).spawn_bfs().join();
    let broken = checker.discoveries().into_keys().filter(|name| {
        matches!(checker.discovery_classification(name), stateright::DiscoveryClassification::Counterexample)
    });
    (checker.unique_state_count(), broken.collect())
}

fn hold<M: Explored>(what: &str, model: M, worlds: usize) {
    let (explored, broken) = explore(model);
    println!("{what}: {explored} worlds, {} promises broken", broken.len());
    for (promise, story) in &broken {
        println!("BROKEN: {promise}\n{story}");
    }
    assert!(broken.is_empty());
    assert_eq!(explored, worlds, "the machine or its world has changed: look, and pin the new count");
}

fn holds(lane: Lane, worlds: usize) {
    let what =
        format!("{:?}, released when {:?}, node {}, contract {}", lane.policy, lane.release, lane.node, lane.contract);
    hold(&what, lane, worlds);
}

#[test]
fn a_stream_keeps_every_promise_in_every_world() {
    holds(Lane::new(Policy::OnStart), 851_474);
}

#[test]
fn a_document_keeps_every_promise_in_every_world() {
    holds(Lane::new(Policy::OnResult), 150_319);
}

#[test]
fn a_stream_that_is_shown_early_keeps_every_promise_in_every_world() {
    holds(Lane { release: Release::Verified, ..Lane::new(Policy::OnStart) }, 1_097_367);
}

fn contract(policy: Policy) -> Lane {
    let lane = Lane::new(policy);
    let most = Budget { deadlines: 1, claude_faults: 1, ..lane.most };
    Lane { contract: true, most, ..lane }
}

#[test]
fn a_contracts_result_keeps_every_promise_in_every_world() {
    holds(contract(Policy::OnResult), 247_548);
}

#[test]
fn a_contracts_stream_keeps_every_promise_in_every_world() {
    holds(contract(Policy::OnStart), 1_231_891);
}

#[test]
fn an_owners_test_keeps_every_promise_in_every_world() {
    holds(Lane::new(Policy::Free), 1_607);
}

/// Without a node of the chain, "spent" is all the evidence there is. It counts where a settle of ours got no
/// answer at all; a payer who cancels behind that silence cannot be told from one who has paid, so these worlds
/// have the one or the other.
#[test]
fn without_a_node_every_promise_is_kept_too() {
    let lane = Lane { node: false, ..Lane::new(Policy::OnStart) };
    let most = Budget { doubles: 0, ..lane.most };
    holds(Lane { most: Budget { cancels: 0, ..most }, ..lane.clone() }, 906_895);
    holds(Lane { most: Budget { losses: 0, crashes: 0, ..most }, ..lane }, 227_114);
}

#[test]
fn every_seeded_fault_is_caught() {
    let mut missed = Vec::new();
    for seeded in SEEDED {
        let lane = match seeded {
            Seeded::WorkOnAfterTheDeadline | Seeded::ForgetWhatWasTold => contract(Policy::OnResult),
            _ => Lane::new(Policy::OnStart),
        };
        let lane = Lane { seeded: Some(seeded), ..lane };
        let (worlds, caught) = first_broken(lane);
        println!("{seeded:?}: {worlds} worlds, caught by {caught:?}");
        if caught.is_empty() {
            missed.push(seeded);
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

// Two payments of one wallet.

/// What may go wrong with the first of two payments, and with the second.
fn little() -> [Budget; 2] {
    let first = Budget {
        presentations: 2,
        crashes: 1,
        losses: 0,
        claude_faults: 1,
        doubles: 0,
        cancels: 0,
        alarms: 1,
        deadlines: 0,
    };
    let second = Budget { presentations: 1, claude_faults: 0, alarms: 0, ..first };
    [first, second]
}

fn pair(policy: Policy, budgets: [Budget; 2], keys: Keys) -> Pair {
    Pair::new(budgets.map(|most| Lane { most, ..Lane::new(policy) }), keys)
}

#[test]
fn two_streams_with_one_key_keep_every_promise_in_every_world() {
    let [first, second] = little();
    let budgets = [Budget { alarms: 0, ..first }, second];
    hold("two streams, one key", pair(Policy::OnStart, budgets, Keys::Same), 674_358);
}

#[test]
fn two_documents_with_one_key_keep_every_promise_in_every_world() {
    hold("two documents, one key", pair(Policy::OnResult, little(), Keys::Same), 192_610);
}

#[test]
fn two_requests_with_one_key_keep_every_promise_in_every_world() {
    hold("two requests, one key", pair(Policy::OnResult, little(), Keys::OtherRequest), 162_121);
}

#[test]
fn two_payments_without_a_key_keep_every_promise_in_every_world() {
    hold("two documents, no key", two_places(), 308_702);
}

#[test]
fn two_payments_of_a_wallet_with_one_place_keep_every_promise_in_every_world() {
    hold("two documents, one place", one_place(), 165_027);
}

/// A wallet that may have one run unsettled, and two in a day that came to nothing.
fn one_place() -> Pair {
    let mut pair = pair(Policy::OnResult, little(), Keys::None);
    (pair.limits.unpaid_per_wallet, pair.limits.unpaid_per_wallet_day) = (1, 2);
    pair
}

/// A wallet that may have two of both.
fn two_places() -> Pair {
    let [first, second] = little();
    let mut pair = pair(Policy::OnResult, [Budget { claude_faults: 0, ..first }, second], Keys::None);
    (pair.limits.unpaid_per_wallet, pair.limits.unpaid_per_wallet_day) = (2, 2);
    pair
}

#[test]
fn every_fault_seeded_into_the_wallet_is_caught() {
    let mut missed = Vec::new();
    for fault in WALLET_FAULTS {
        let pair = match fault {
            WalletFault::KeyJoinedWithAnotherRequest => pair(Policy::OnResult, little(), Keys::OtherRequest),
            WalletFault::CapIgnored | WalletFault::CountLostByACrash => one_place(),
            WalletFault::FailureStopsTheOtherRun => two_places(),
            _ => pair(Policy::OnResult, little(), Keys::Same),
        };
        let (worlds, caught) = first_broken(pair.with(fault));
        println!("{fault:?}: {worlds} worlds, caught by {caught:?}");
        if caught.is_empty() {
            missed.push(fault);
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}

/// The faults of one run are caught also where another run of the wallet is there.
#[test]
fn every_seeded_fault_is_caught_beside_another_run() {
    let mut missed = Vec::new();
    for seeded in SEEDED {
        // A contract's execution has no key.
        let (lane, keys) = match seeded {
            Seeded::WorkOnAfterTheDeadline | Seeded::ForgetWhatWasTold => (contract(Policy::OnResult), Keys::None),
            _ => (Lane::new(Policy::OnStart), Keys::Same),
        };
        let [_, second] = little();
        let other = Lane { most: second, ..lane.clone() };
        let pair = Pair::new([Lane { seeded: Some(seeded), ..lane }, other], keys);
        let (worlds, caught) = first_broken(pair);
        println!("{seeded:?} beside another run: {worlds} worlds, caught by {caught:?}");
        if caught.is_empty() {
            missed.push(seeded);
        }
    }
    assert!(missed.is_empty(), "not caught: {missed:?}");
}
