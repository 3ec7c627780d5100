//! Which addresses have code, as far as it has been looked up.

use crate::rules::run::Millis;
use crate::wire::evm::Address;
use std::collections::BTreeMap;

/// How long it is believed that an address has code. What its signatures are worth the facilitator says each time.
const WITH_CODE: Millis = 60 * 60 * 1000;
/// How long it is believed that an address has none: a wallet can be deployed at any time.
const WITHOUT_CODE: Millis = 60 * 1000;
/// The most addresses of which it is kept.
const MAX_ADDRESSES: usize = 2048;
/// The most look-ups at a time.
const MAX_LOOK_UPS: usize = 16;
/// The longest that a look-up takes: two calls of a node.
pub const LOOK_UP_LIMIT: Millis = 10_000;

/// What is known of addresses, by network.
#[derive(Default)]
pub struct AccountCodes {
    known: BTreeMap<(String, Address), Known>,
    /// When each look-up began that has not ended.
    look_ups: Vec<Millis>,
}

struct Known {
    has_code: bool,
    until: Millis,
}

impl AccountCodes {
    /// Whether the address has code; `None` where it is to be looked up.
    pub fn get(&self, network: &str, address: Address, now: Millis) -> Option<bool> {
        let known = self.known.get(&(network.to_owned(), address))?;
        (now < known.until).then_some(known.has_code)
    }

    /// Keeps the result of a look-up. Where there is no room, addresses without code are forgotten: a stranger can name
    /// any number of those.
    pub fn put(&mut self, network: &str, address: Address, has_code: bool, now: Millis) {
        if self.known.len() >= MAX_ADDRESSES {
            self.known.retain(|_, known| known.has_code && now < known.until);
        }
        if self.known.len() < MAX_ADDRESSES {
            let until = now.saturating_add(if has_code { WITH_CODE } else { WITHOUT_CODE });
            self.known.insert((network.to_owned(), address), Known { has_code, until });
        }
    }

    /// Counts a look-up that begins. False where too many are under way.
    pub fn begin_look_up(&mut self, now: Millis) -> bool {
        // One that takes longer was dropped with its request, and never says that it has ended.
        self.look_ups.retain(|began| now < began.saturating_add(LOOK_UP_LIMIT));
        let is_allowed = self.look_ups.len() < MAX_LOOK_UPS;
        if is_allowed {
            self.look_ups.push(now);
        }
        is_allowed
    }

    pub fn end_look_up(&mut self, began: Millis) {
        if let Some(position) = self.look_ups.iter().position(|other| *other == began) {
            self.look_ups.swap_remove(position);
        }
    }
}
