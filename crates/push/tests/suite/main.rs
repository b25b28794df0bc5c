//! The cores against tables and simple models, the shells on a paused clock.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod admission;
mod schedule;
mod schedule_shares;
mod shells;
mod windows;

use std::time::Duration;

use pilotfish_push::Merge;
use tokio::time::Instant;

/// Numbers of changes: what was merged, in which order.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Log(pub(crate) Vec<u32>);

impl Merge for Log {
    fn merge(&mut self, later: Self) {
        self.0.extend(later.0);
    }
}

pub(crate) fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// Milliseconds on a clock that starts late enough for events from before.
#[derive(Clone, Copy)]
pub(crate) struct Clock(Instant);

impl Clock {
    pub(crate) fn new() -> Self {
        Clock(Instant::now() + Duration::from_secs(3_600))
    }

    pub(crate) fn at(self, n: u64) -> Instant {
        self.0 + ms(n)
    }

    pub(crate) fn ago(self, now: u64, age: u64) -> Instant {
        self.0 + ms(now) - ms(age)
    }

    pub(crate) fn ms(self, time: Instant) -> i64 {
        time.saturating_duration_since(self.0).as_millis() as i64 - self.0.saturating_duration_since(time).as_millis() as i64
    }
}
