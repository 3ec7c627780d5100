//! The one place that reads the clock, and draws the jitter that belongs to a moment.
#![allow(clippy::disallowed_methods)]

use crate::rules::run::{Millis, Moment};
use std::future::Future;
use std::pin::Pin;
use std::time::Duration;
use worker::Delay;

/// The time in Unix milliseconds.
pub(crate) fn now() -> Millis {
    // One call of the runtime, where a date object would take two.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // a whole number, far below 2^53
    let now = js_sys::Date::now() as Millis;
    now
}

/// The time, with a new jitter.
pub(crate) fn moment() -> Moment {
    // It spreads waits, and nothing secret depends on it.
    #[allow(clippy::cast_possible_truncation, clippy::cast_sign_loss)] // 0 to 65535
    let jitter = (js_sys::Math::random() * 65_536.0) as u16;
    Moment { now: now(), jitter }
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

/// A timer for many waits that follow each other. It is set anew only where it would end too late, or has ended: for a
/// body that comes in a thousand reads that is once in a while, and not for each read.
#[derive(Default)]
pub(crate) struct Timer(Option<(Millis, Pin<Box<Delay>>)>);

impl Timer {
    /// The result of `work`, or `None` from the time `end` on. Work that takes longer is dropped.
    pub(crate) async fn until<T>(&mut self, end: Millis, work: impl Future<Output = T>) -> Option<T> {
        let mut work = std::pin::pin!(work);
        loop {
            if self.0.as_ref().is_none_or(|(ends_at, _)| *ends_at > end) {
                let left = Duration::from_millis(end.saturating_sub(now()));
                self.0 = Some((end, Box::pin(Delay::from(left))));
            }
            let (_, delay) = self.0.as_mut()?;
            match futures::future::select(work.as_mut(), delay).await {
                futures::future::Either::Left((result, _)) => return Some(result),
                futures::future::Either::Right(_) if now() >= end => return None,
                futures::future::Either::Right(_) => self.0 = None,
            }
        }
    }
}

/// The result of `work`, or `None` after `limit`. Work that takes longer is dropped.
pub(crate) async fn within<T>(limit: Duration, work: impl Future<Output = T>) -> Option<T> {
    let work = std::pin::pin!(work);
    match futures::future::select(work, Delay::from(limit)).await {
        futures::future::Either::Left((result, _)) => Some(result),
        futures::future::Either::Right(_) => None,
    }
}
