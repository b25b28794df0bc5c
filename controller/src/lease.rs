//! One Lease for everything that only one replica may do.
//!
//! ```text
//!            free, or not renewed for its time as watched from here
//! following ────────────────────────────────────────────────────────> leading (until)
//!     ^                                                                 │ each renewal moves `until` on
//!     └──── `until` has come without a renewal, or somebody else is ────┘
//! ```
//!
//! A leader stops at `until`, two thirds of the lease after the *start* of its last renewal; others may follow after the whole
//! of it. A write that was begun in time must end within the last third. No clock of another machine is trusted: what counts
//! is for how long the Lease has looked the same from here. Decisions are [`Election`]'s, which is pure; [`run`] is the task.

mod election;
mod record;
mod task;

use std::time::Duration;

use tokio::sync::watch;
use tokio::time::Instant;

pub use election::{Election, Step};
pub use record::Record;
pub use task::{Lease, run};

/// Times of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// For how long nobody else may lead after a renewal.
    pub duration: Duration,
}

impl Timing {
    /// How often the Lease is renewed, and looked at by others.
    pub fn period(&self) -> Duration {
        self.duration / 5
    }

    /// How long a leader leads after a renewal began.
    pub fn until(&self) -> Duration {
        self.duration * 2 / 3
    }

    /// How long a request of a leader may take, so that it cannot happen under another leader.
    pub fn patience(&self) -> Duration {
        (self.duration / 3).min(Duration::from_secs(5))
    }
}

/// Of the first leader ever: nobody was before. Without elections there are none, and the number is lower.
pub const FIRST_TERM: u64 = 1;

/// A stretch of leading.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Term {
    /// Differs between leaders; see [`FIRST_TERM`].
    pub number: u64,
    /// When it ends unless it is prolonged.
    pub until: Option<Instant>,
}

/// Whether this replica leads. Ask [`Leadership::holds`] right before every write.
#[derive(Clone, Debug)]
pub struct Leadership(watch::Receiver<Option<Term>>);

impl Leadership {
    /// For a single replica that needs no election.
    pub fn always() -> Leadership {
        Leadership(watch::channel(Some(Term { number: 0, until: None })).1)
    }

    /// The term that this replica leads in now.
    pub fn holds(&self, now: Instant) -> Option<u64> {
        self.0.borrow().filter(|t| t.until.is_none_or(|until| now < until)).map(|t| t.number)
    }

    /// Waits for a change. Never returns once nobody elects any more.
    pub async fn changed(&mut self) {
        if self.0.changed().await.is_err() {
            std::future::pending::<()>().await;
        }
    }
}

#[cfg(test)]
mod tests;
