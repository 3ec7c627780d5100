//! The one place that asks the time.
#![allow(clippy::disallowed_methods)]

use crate::rules::run::Millis;
use std::future::Future;
use std::time::Duration;

/// Unix milliseconds.
pub fn now() -> Millis {
    worker::Date::now().as_millis()
}

/// Unix seconds.
pub fn seconds() -> u64 {
    now() / 1000
}

/// Today in UTC: `YYYY-MM-DD`.
pub fn today() -> String {
    let iso = String::from(js_sys::Date::new_0().to_iso_string());
    iso.get(..10).unwrap_or_default().to_owned()
}

/// The result of `work`, unless the time is up first. Work that is late is dropped.
pub async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let work = std::pin::pin!(work);
    match futures::future::select(work, worker::Delay::from(limit)).await {
        futures::future::Either::Left((result, _)) => Some(result),
        futures::future::Either::Right(_) => None,
    }
}
