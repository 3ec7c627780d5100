//! What this isolate has read, kept for some seconds, so that the requests that follow do not read it again.
//!
//! The runtime does not let a request await what another request has begun. So where several requests find a value that
//! is too old, one of them reads it anew, and the others are given the old value, for at most as long again. Where there
//! is no value yet, each request reads for itself.

use crate::edge::clock;
use crate::rules::refusal::Refusal;
use crate::rules::run::Millis;
use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::future::Future;
use std::rc::Rc;
use std::thread::LocalKey;

/// The most values that one cache keeps.
const MAX_ENTRIES: usize = 256;
/// The most bytes that the values of one cache have together.
const MAX_BYTES: usize = 8 << 20;

/// Values by name. That there is no value is not kept: otherwise a stranger's guesses would fill the cache.
pub(crate) struct Cache<T> {
    entries: RefCell<BTreeMap<String, Entry<T>>>,
    /// How often a value was forgotten. A value whose reading began before that may be the old one.
    forgotten: Cell<u64>,
    /// About how many bytes a value has.
    size: fn(&T) -> usize,
}

struct Entry<T> {
    value: Rc<T>,
    /// When its reading began.
    read_at: Millis,
    /// A request is reading it anew.
    is_being_read: bool,
    bytes: usize,
}

impl<T> Cache<T> {
    pub(crate) const fn new(size: fn(&T) -> usize) -> Self {
        Self { entries: RefCell::new(BTreeMap::new()), forgotten: Cell::new(0), size }
    }

    /// The value, where it may still be given at `now`. `None`: the caller has to read it.
    fn get(&self, name: &str, fresh: Millis, now: Millis) -> Option<Rc<T>> {
        let mut entries = self.entries.borrow_mut();
        let entry = entries.get_mut(name)?;
        let age = now.saturating_sub(entry.read_at);
        let is_given_meanwhile = entry.is_being_read && age < fresh.saturating_mul(2);
        if age < fresh || is_given_meanwhile {
            return Some(entry.value.clone());
        }
        entry.is_being_read = true;
        None
    }

    /// Keeps a value whose reading began at `read_at`, when `forgotten` values had been forgotten.
    fn put(&self, name: &str, value: Rc<T>, read_at: Millis, forgotten: u64) {
        let bytes = (self.size)(&value);
        if self.forgotten.get() != forgotten || bytes > MAX_BYTES {
            return;
        }
        let mut entries = self.entries.borrow_mut();
        entries.remove(name);
        while entries.len() >= MAX_ENTRIES || entries.values().map(|e| e.bytes).sum::<usize>() + bytes > MAX_BYTES {
            let oldest = entries.iter().min_by_key(|(_, entry)| entry.read_at).map(|(name, _)| name.clone());
            match oldest {
                Some(oldest) => entries.remove(&oldest),
                None => break,
            };
        }
        entries.insert(name.to_owned(), Entry { value, read_at, is_being_read: false, bytes });
    }

    /// Forgets a value that has changed or is no longer there. One that is being read is not kept either.
    pub(crate) fn forget(&self, name: &str) {
        self.forgotten.set(self.forgotten.get().wrapping_add(1));
        self.entries.borrow_mut().remove(name);
    }
}

/// The value that was read less than `fresh` milliseconds ago, or else what `read` finds.
pub(crate) async fn recent<T>(
    cache: &'static LocalKey<Cache<T>>,
    name: &str,
    fresh: Millis,
    read: impl Future<Output = Result<Option<T>, Refusal>>,
) -> Result<Option<Rc<T>>, Refusal> {
    let now = clock::now();
    if let Some(value) = cache.with(|cache| cache.get(name, fresh, now)) {
        return Ok(Some(value));
    }
    let forgotten = cache.with(|cache| cache.forgotten.get());
    let value = read.await?.map(Rc::new);
    cache.with(|cache| match &value {
        Some(value) => cache.put(name, value.clone(), now, forgotten),
        // A name that a stranger has guessed was never there, and concerns no other reading.
        None => drop(cache.entries.borrow_mut().remove(name)),
    });
    Ok(value)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FRESH: Millis = 5_000;

    fn cache() -> Cache<String> {
        Cache::new(String::len)
    }

    fn put(cache: &Cache<String>, name: &str, value: &str, read_at: Millis) {
        cache.put(name, Rc::new(value.to_owned()), read_at, cache.forgotten.get());
    }

    fn get(cache: &Cache<String>, name: &str, now: Millis) -> Option<String> {
        cache.get(name, FRESH, now).map(|value| value.to_string())
    }

    #[test]
    fn a_value_is_given_as_long_as_it_is_fresh() {
        let cache = cache();
        assert_eq!(get(&cache, "a", 0), None);
        put(&cache, "a", "one", 1_000);
        assert_eq!(get(&cache, "a", 5_999).as_deref(), Some("one"));
        assert_eq!(get(&cache, "a", 6_000), None);
        assert_eq!(get(&cache, "b", 1_000), None);
    }

    #[test]
    fn while_one_request_reads_anew_the_others_are_given_the_old_value_for_as_long_again() {
        let cache = cache();
        put(&cache, "a", "one", 0);
        assert_eq!(get(&cache, "a", 5_000), None, "the first one reads");
        assert_eq!(get(&cache, "a", 5_001).as_deref(), Some("one"));
        assert_eq!(get(&cache, "a", 9_999).as_deref(), Some("one"), "also where the first one has been dropped");
        assert_eq!(get(&cache, "a", 10_000), None);
        put(&cache, "a", "two", 5_000);
        assert_eq!(get(&cache, "a", 9_999).as_deref(), Some("two"));
    }

    #[test]
    fn without_a_fresh_time_each_request_reads() {
        let cache = cache();
        put(&cache, "a", "one", 7);
        assert_eq!((cache.get("a", 0, 7), cache.get("a", 0, 7)), (None, None));
    }

    #[test]
    fn a_value_that_was_forgotten_while_it_was_read_is_not_kept() {
        let cache = cache();
        put(&cache, "a", "one", 0);
        let before = cache.forgotten.get();
        cache.forget("a");
        cache.put("a", Rc::new("one".to_owned()), 1, before);
        assert_eq!(get(&cache, "a", 2), None);
        put(&cache, "a", "two", 2);
        assert_eq!(get(&cache, "a", 3).as_deref(), Some("two"));
    }

    #[test]
    fn the_oldest_values_make_room_for_new_ones() {
        let cache = cache();
        for n in 0..=MAX_ENTRIES {
            put(&cache, &format!("name {n}"), "x", n as Millis);
        }
        assert_eq!(cache.entries.borrow().len(), MAX_ENTRIES);
        assert_eq!(get(&cache, "name 0", 0), None);
        assert_eq!(get(&cache, "name 1", 1).as_deref(), Some("x"));
        let half = "y".repeat(MAX_BYTES / 2);
        put(&cache, "first half", &half, 1_000);
        put(&cache, "second half", &half, 1_001);
        assert_eq!(cache.entries.borrow().len(), 2, "the small ones have made room");
        put(&cache, "too large for any cache", &"z".repeat(MAX_BYTES + 1), 1_002);
        assert_eq!(cache.entries.borrow().len(), 2);
    }
}
