//! Look-ups of other services that many requests need at once: a health probe, an issuer's published keys. However many
//! requests there are, one of them looks up, and what it finds is used for a while, also that it found nothing.
//!
//! The runtime does not let a request await what another request has begun. So the others look every few milliseconds,
//! by timers of their own, whether the first one has ended.

use crate::edge::clock;
use crate::rules::run::Millis;
use std::cell::RefCell;
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::thread::LocalKey;
use std::time::Duration;
use worker::Delay;

/// How often a request looks whether another one has ended its look-up.
const POLL: Duration = Duration::from_millis(20);

/// The times of a kind of look-up, in milliseconds.
pub(crate) struct Times {
    /// How long a value is used.
    pub(crate) fresh: Millis,
    /// How long an old value is used where no new one is there: another request looks it up, or it cannot be found.
    pub(crate) stale: Millis,
    /// How long after a look-up that failed the next one begins.
    pub(crate) retry: Millis,
    /// How long after a look-up for a newer value the next one begins.
    pub(crate) newer: Millis,
    /// The longest that a look-up takes. One that takes longer has been dropped with its request.
    pub(crate) limit: Millis,
}

/// What has been looked up, by name. The names are the operator's, so there are few.
pub(crate) struct Lookups<T>(RefCell<BTreeMap<String, Entry<T>>>);

struct Entry<T> {
    /// The last value that was found, and when its look-up began.
    value: Option<(Millis, Rc<T>)>,
    /// When the look-up that ended last began, and whether it found a value.
    last: Option<(Millis, bool)>,
    /// When a look-up began that has not ended.
    running_since: Option<Millis>,
    /// When a value newer than a fresh one was last looked up.
    newer_at: Option<Millis>,
}

impl<T> Entry<T> {
    /// The value, where it may still be used.
    fn usable(&self, times: &Times, now: Millis) -> Option<Rc<T>> {
        let (at, value) = self.value.as_ref()?;
        (now.saturating_sub(*at) < times.stale.max(times.fresh)).then(|| value.clone())
    }
}

/// What a request does next.
#[derive(Debug, PartialEq)]
enum Step<T> {
    Use(Option<Rc<T>>),
    LookUp,
    Wait,
}

impl<T> Lookups<T> {
    pub(crate) const fn new() -> Self {
        Self(RefCell::new(BTreeMap::new()))
    }

    /// `newer_than`: a value that was looked up before this time does not do.
    fn step(&self, name: &str, times: &Times, newer_than: Option<Millis>, now: Millis) -> Step<T> {
        let mut entries = self.0.borrow_mut();
        let empty = Entry { value: None, last: None, running_since: None, newer_at: None };
        let entry = entries.entry(name.to_owned()).or_insert(empty);
        let is_young = |at: Millis, span: Millis| now.saturating_sub(at) < span;
        let is_fresh = match entry.last {
            Some((at, true)) => is_young(at, times.fresh),
            Some((at, false)) => is_young(at, times.retry),
            None => false,
        };
        // After a failure a newer value is no easier to find.
        let is_too_old = |at: Millis| newer_than.is_some_and(|time| at < time);
        let needs_newer = matches!(entry.last, Some((at, true)) if is_too_old(at));
        if is_fresh && !needs_newer {
            return Step::Use(entry.usable(times, now));
        }
        if entry.running_since.is_some_and(|at| is_young(at, times.limit)) {
            return match entry.usable(times, now) {
                Some(value) if newer_than.is_none() => Step::Use(Some(value)),
                _ => Step::Wait,
            };
        }
        if is_fresh {
            if entry.newer_at.is_some_and(|at| is_young(at, times.newer)) {
                return Step::Wait;
            }
            entry.newer_at = Some(now);
        }
        entry.running_since = Some(now);
        Step::LookUp
    }

    /// Keeps what a look-up that began at `began_at` has found, and ended at `now`.
    fn found(&self, name: &str, value: Option<T>, times: &Times, began_at: Millis, now: Millis) -> Option<Rc<T>> {
        let mut entries = self.0.borrow_mut();
        let entry = entries.get_mut(name)?;
        if entry.running_since == Some(began_at) {
            entry.running_since = None;
        }
        // The time of an answer is when its look-up began, for it may be of that time. A failure counts from its end.
        entry.last = Some((if value.is_some() { began_at } else { now }, value.is_some()));
        if let Some(value) = value {
            entry.value = Some((began_at, Rc::new(value)));
        }
        entry.usable(times, now)
    }

    fn usable(&self, name: &str, times: &Times, now: Millis) -> Option<Rc<T>> {
        self.0.borrow().get(name)?.usable(times, now)
    }
}

/// The value of this name: one that is in use, or else what `look_up` finds. `None`: there is none.
pub(crate) async fn look_up<T, F: Future<Output = Option<T>>>(
    lookups: &'static LocalKey<Lookups<T>>,
    name: &str,
    times: &Times,
    newer_than: Option<Millis>,
    look_up: impl Fn() -> F,
) -> Option<Rc<T>> {
    let until = clock::now().saturating_add(times.limit.saturating_mul(2));
    loop {
        let now = clock::now();
        match lookups.with(|lookups| lookups.step(name, times, newer_than, now)) {
            Step::Use(value) => return value,
            Step::LookUp => {
                let value = look_up().await;
                return lookups.with(|lookups| lookups.found(name, value, times, now, clock::now()));
            }
            Step::Wait if now >= until => return lookups.with(|lookups| lookups.usable(name, times, now)),
            Step::Wait => Delay::from(POLL).await,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TIMES: Times = Times { fresh: 10_000, stale: 100_000, retry: 2_000, newer: 1_000, limit: 5_000 };

    fn step(lookups: &Lookups<u8>, now: Millis) -> Step<u8> {
        lookups.step("a", &TIMES, None, now)
    }

    fn newer(lookups: &Lookups<u8>, than: Millis, now: Millis) -> Step<u8> {
        lookups.step("a", &TIMES, Some(than), now)
    }

    fn found(lookups: &Lookups<u8>, value: Option<u8>, began_at: Millis) -> Option<u8> {
        lookups.found("a", value, &TIMES, began_at, began_at).as_deref().copied()
    }

    fn value(value: u8) -> Step<u8> {
        Step::Use(Some(Rc::new(value)))
    }

    #[test]
    fn one_looks_up_and_the_others_wait_for_what_it_finds() {
        let lookups = Lookups::new();
        assert_eq!(step(&lookups, 0), Step::LookUp);
        assert_eq!((step(&lookups, 0), step(&lookups, 4_999)), (Step::Wait, Step::Wait));
        found(&lookups, Some(1), 0);
        assert_eq!((step(&lookups, 0), step(&lookups, 9_999)), (value(1), value(1)));
    }

    #[test]
    fn a_look_up_that_was_dropped_does_not_keep_the_others_waiting_for_ever() {
        let lookups = Lookups::new();
        assert_eq!((step(&lookups, 0), step(&lookups, 5_000)), (Step::LookUp, Step::LookUp));
        assert_eq!(step(&lookups, 5_001), Step::Wait);
    }

    #[test]
    fn a_failure_is_remembered_for_a_moment() {
        let lookups = Lookups::new();
        assert_eq!(step(&lookups, 0), Step::LookUp);
        assert_eq!(found(&lookups, None, 0), None);
        assert_eq!((step(&lookups, 1_999), step(&lookups, 2_000)), (Step::Use(None), Step::LookUp));
    }

    #[test]
    fn an_old_value_is_used_while_a_new_one_is_looked_up_and_as_long_as_none_is_found() {
        let lookups = Lookups::new();
        assert_eq!(step(&lookups, 0), Step::LookUp);
        found(&lookups, Some(1), 0);
        assert_eq!((step(&lookups, 10_000), step(&lookups, 10_000)), (Step::LookUp, value(1)));
        assert_eq!(found(&lookups, None, 10_000), Some(1));
        assert_eq!((step(&lookups, 11_999), step(&lookups, 12_000)), (value(1), Step::LookUp));
        found(&lookups, Some(2), 12_000);
        assert_eq!(step(&lookups, 12_000), value(2));
    }

    #[test]
    fn a_value_that_is_too_old_is_used_no_more() {
        let lookups = Lookups::new();
        assert_eq!(step(&lookups, 0), Step::LookUp);
        found(&lookups, Some(1), 0);
        assert_eq!((step(&lookups, 100_000), step(&lookups, 100_000)), (Step::LookUp, Step::Wait));
        assert_eq!(found(&lookups, None, 100_000), None);
        assert_eq!(step(&lookups, 100_001), Step::Use(None));
    }

    #[test]
    fn a_newer_value_is_looked_up_at_once_and_then_once_in_a_while() {
        let lookups = Lookups::new();
        assert_eq!(step(&lookups, 0), Step::LookUp);
        found(&lookups, Some(1), 0);
        assert_eq!(newer(&lookups, 5, 5), Step::LookUp, "at once");
        assert_eq!((newer(&lookups, 6, 6), step(&lookups, 6)), (Step::Wait, value(1)));
        found(&lookups, Some(2), 5);
        assert_eq!((newer(&lookups, 5, 7), step(&lookups, 7)), (value(2), value(2)));
        assert_eq!((newer(&lookups, 6, 8), newer(&lookups, 6, 1_005)), (Step::Wait, Step::LookUp), "after a second");
    }

    #[test]
    fn while_nothing_can_be_found_a_newer_value_is_not_looked_up_either() {
        let lookups = Lookups::new();
        assert_eq!(step(&lookups, 0), Step::LookUp);
        found(&lookups, Some(1), 0);
        assert_eq!(newer(&lookups, 5, 5), Step::LookUp);
        found(&lookups, None, 5);
        assert_eq!((newer(&lookups, 6, 6), newer(&lookups, 9, 2_004)), (value(1), value(1)));
        assert_eq!(newer(&lookups, 2_005, 2_005), Step::LookUp);
    }
}
