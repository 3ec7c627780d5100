//! The platform's rate limit, by the caller's address, for requests that show no valid payment. It is the binding
//! `RATE_LIMIT`; without it nothing is limited.
//!
//! At Cloudflare each data center counts for itself. An address that was found to be over its limit is remembered by
//! this isolate for a moment, so that its further requests cost next to nothing.

use crate::edge::{clock, fault};
use crate::rules::run::Millis;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::{IpAddr, Ipv6Addr};
use worker::Env;

const BINDING: &str = "RATE_LIMIT";
/// How long an address is remembered. It is what `Retry-After` says, too.
const REMEMBERED: Millis = 10_000;
/// The most addresses that are remembered.
const MAX_ADDRESSES: usize = 1024;

/// What is counted. Each kind has a count of its own, so that whoever asks for many terms can still pay.
#[derive(Clone, Copy)]
pub(crate) enum Kind {
    /// A request without a payment.
    Unpaid,
    /// A payment that was found not to be valid.
    InvalidPayment,
    /// A contract that is proposed or registered.
    Contract,
}

thread_local! {
    static OVER: RefCell<Over> = const { RefCell::new(Over(BTreeMap::new())) };
}

/// Counts a request. False where its address has sent too many of the kind.
pub(crate) async fn allows(env: &Env, kind: Kind, address: Option<&str>) -> bool {
    let Some(address) = address else { return true };
    if is_over(kind, Some(address)) {
        return false;
    }
    let Ok(limiter) = env.rate_limiter(BINDING) else { return true };
    let key = key(kind, address);
    match limiter.limit(key.clone()).await.map_err(fault("rate limit")) {
        Ok(outcome) if !outcome.success => {
            OVER.with_borrow_mut(|over| over.add(key, clock::now()));
            false
        }
        // A limiter that fails limits nobody.
        Ok(_) | Err(_) => true,
    }
}

/// Whether this isolate remembers that the address has sent too many of the kind. Nothing is counted.
pub(crate) fn is_over(kind: Kind, address: Option<&str>) -> bool {
    address.is_some_and(|address| OVER.with_borrow(|over| over.has(&key(kind, address), clock::now())))
}

/// The name under which an address is counted. Whoever has an IPv6 address has the 2^64 beside it, too.
fn key(kind: Kind, address: &str) -> String {
    let kind = match kind {
        Kind::Unpaid => "unpaid",
        Kind::InvalidPayment => "invalid",
        Kind::Contract => "contract",
    };
    match address.parse::<IpAddr>().map(|address| address.to_canonical()) {
        Ok(IpAddr::V6(address)) => {
            let network = address.to_bits() >> 64 << 64;
            format!("{kind} {}/64", Ipv6Addr::from_bits(network))
        }
        Ok(IpAddr::V4(address)) => format!("{kind} {address}"),
        Err(_) => format!("{kind} {address}"),
    }
}

/// Addresses that are over their limit, with the time until which they are remembered.
struct Over(BTreeMap<String, Millis>);

impl Over {
    fn has(&self, key: &str, now: Millis) -> bool {
        self.0.get(key).is_some_and(|until| now < *until)
    }

    fn add(&mut self, key: String, now: Millis) {
        if self.0.len() >= MAX_ADDRESSES {
            self.0.retain(|_, until| now < *until);
        }
        // With so many addresses at a time, the limiter itself is asked for the further ones.
        if self.0.len() < MAX_ADDRESSES {
            self.0.insert(key, now.saturating_add(REMEMBERED));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_counted_alone_and_one_of_ipv6_with_its_network() {
        let unpaid = |address| key(Kind::Unpaid, address);
        assert_eq!(unpaid("192.0.2.7"), "unpaid 192.0.2.7");
        assert_ne!(unpaid("192.0.2.7"), unpaid("192.0.2.8"));
        assert_eq!(unpaid("2001:db8:1:2:3:4:5:6"), "unpaid 2001:db8:1:2::/64");
        assert_eq!(unpaid("2001:db8:1:2:ffff::"), unpaid("2001:0db8:0001:0002:0:0:0:1"));
        assert_ne!(unpaid("2001:db8:1:3::1"), unpaid("2001:db8:1:2::1"));
        assert_eq!(unpaid("::ffff:192.0.2.7"), unpaid("192.0.2.7"));
        assert_ne!(unpaid("192.0.2.7"), key(Kind::InvalidPayment, "192.0.2.7"));
    }

    #[test]
    fn an_address_over_its_limit_is_remembered_for_a_moment_and_no_more_than_some() {
        let mut over = Over(BTreeMap::new());
        over.add("a".to_owned(), 1_000);
        assert!(over.has("a", 10_999) && !over.has("a", 11_000) && !over.has("b", 1_000));
        (0..2 * MAX_ADDRESSES).for_each(|n| over.add(format!("{n}"), 2_000));
        assert_eq!(over.0.len(), MAX_ADDRESSES);
        over.add("later".to_owned(), 20_000);
        assert!(over.has("later", 20_000));
        assert_eq!(over.0.len(), 1, "those before are forgotten");
    }
}
