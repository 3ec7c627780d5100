//! The one place that reads the clock, and draws the jitter that belongs to a moment.
#![allow(clippy::disallowed_methods)]

use crate::rules::run::{Millis, Moment};
use std::future::Future;
use std::time::Duration;

/// The time in Unix milliseconds.
pub(crate) fn now() -> Millis {
    worker::Date::now().as_millis()
}

/// The time, with a new jitter.
pub(crate) fn moment() -> Moment {
    let mut jitter = [0; 2];
    // Without a random source the waits are not spread. Nothing else depends on it.
    let _ = getrandom::fill(&mut jitter);
    Moment { now: now(), jitter: u16::from_le_bytes(jitter) }
}

/// The time in Unix seconds.
pub(crate) fn seconds() -> u64 {
    now() / 1000
}

/// The date in UTC, as `YYYY-MM-DD`.
pub(crate) fn today() -> String {
    let iso = String::from(js_sys::Date::new_0().to_iso_string());
    iso.get(..10).unwrap_or_default().to_owned()
}

/// The result of `work`, or `None` after `limit`. Work that takes longer is dropped.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let work = std::pin::pin!(work);
    match futures::future::select(work, worker::Delay::from(limit)).await {
        futures::future::Either::Left((result, _)) => Some(result),
        futures::future::Either::Right(_) => None,
    }
}
