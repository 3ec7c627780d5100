//! Which contracts make room where a creator has too many that were not executed.
//!
//! Wallets cost nothing, so strangers can sign contracts without end. Those of the wallet that has the most go first.

use crate::rules::run::Millis;
use serde::Deserialize;
use std::collections::BTreeMap;

/// The most contracts of one creator that are signed and not under way.
pub const MAX_SIGNED_OF_CREATOR: usize = 2000;
/// How many places are made at once, so that a flood does not have all contracts read for each new one.
const PLACES: usize = 20;
/// How old a contract is, at the least, before it makes room: until then its seeker is about to execute it.
const MIN_AGE: Millis = 60 * 60 * 1000;

/// A contract whose state is SIGNED.
#[derive(Clone, Debug, Deserialize)]
pub struct OpenContract {
    pub id: String,
    pub seeker: String,
    pub deadline: Millis,
    pub created_at: Millis,
    /// Later than `created_at`: an execution has written the contract's state.
    pub updated_at: Millis,
}

impl OpenContract {
    fn may_go(&self, now: Millis) -> bool {
        self.updated_at <= self.created_at && self.created_at.saturating_add(MIN_AGE) <= now
    }
}

/// The ids of the contracts that make room, of all that a creator has: first those whose deadline has passed, then the
/// oldest one of whichever seeker has the most. It may be none.
pub fn to_remove(contracts: &[OpenContract], now: Millis) -> Vec<&str> {
    if contracts.len() < MAX_SIGNED_OF_CREATOR {
        return Vec::new();
    }
    let wanted = contracts.len().saturating_sub(MAX_SIGNED_OF_CREATOR.saturating_sub(PLACES));
    let (over, open): (Vec<_>, Vec<_>) = contracts.iter().partition(|contract| contract.deadline <= now);
    let mut over: Vec<_> = over.into_iter().filter(|contract| contract.may_go(now)).collect();
    over.sort_by_key(|contract| contract.deadline);
    let mut removed: Vec<&str> = over.into_iter().take(wanted).map(|contract| contract.id.as_str()).collect();
    // For each seeker: how many are open, and those that may go, the oldest last.
    let mut seekers: BTreeMap<&str, (usize, Vec<&OpenContract>)> = BTreeMap::new();
    for contract in open {
        let (count, may_go) = seekers.entry(&contract.seeker).or_default();
        *count = count.saturating_add(1);
        may_go.extend(contract.may_go(now).then_some(contract));
    }
    for (_, may_go) in seekers.values_mut() {
        may_go.sort_by_key(|contract| std::cmp::Reverse(contract.created_at));
    }
    while removed.len() < wanted {
        let with_some = seekers.values_mut().filter(|(_, may_go)| !may_go.is_empty());
        let oldest = |may_go: &[&OpenContract]| may_go.last().map(|contract| std::cmp::Reverse(contract.created_at));
        let Some((count, may_go)) = with_some.max_by_key(|(count, may_go)| (*count, oldest(may_go))) else { break };
        removed.extend(may_go.pop().map(|contract| contract.id.as_str()));
        *count = count.saturating_sub(1);
    }
    removed
}
