//! Who is let in next: [`Admission`], pure; time is an argument.

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap};
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use tokio::time::Instant;

use crate::urgency::Urgency;

/// How many are let in. Who is over a limit waits; nobody is refused.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Limits {
    /// How fast.
    pub rate: Option<Rate>,
    /// How many at a time.
    pub concurrent: Option<NonZeroUsize>,
}

/// A token bucket.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Rate {
    /// Admissions per second.
    pub per_second: NonZeroU32,
    /// How many of them may come at once after idleness.
    pub burst: NonZeroU32,
}

impl Rate {
    fn interval(self) -> Duration {
        Duration::from_secs(1) / self.per_second.get()
    }

    /// The time in which all of a burst but one comes back.
    fn slack(self) -> Duration {
        self.interval() * (self.burst.get() - 1)
    }
}

/// Names who waits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ticket(u64);

/// Who waits to be let in: the more urgent first, then who came first. Every operation is O(log waiting).
#[derive(Clone, Debug)]
pub struct Admission<U = Urgency> {
    limits: Limits,
    queue: BTreeMap<(Reverse<U>, Ticket), Instant>,
    urgencies: HashMap<Ticket, U>,
    admitted: usize,
    /// When the bucket is full again.
    full: Option<Instant>,
    serial: u64,
}

impl<U: Ord + Copy> Admission<U> {
    /// Nobody waits, and the bucket is full.
    pub fn new(limits: Limits) -> Self {
        Admission { limits, queue: BTreeMap::new(), urgencies: HashMap::new(), admitted: 0, full: None, serial: 0 }
    }

    /// Queues up.
    pub fn enter(&mut self, urgency: U, now: Instant) -> Ticket {
        self.serial += 1;
        let ticket = Ticket(self.serial);
        self.queue.insert((Reverse(urgency), ticket), now);
        self.urgencies.insert(ticket, urgency);
        ticket
    }

    /// Lets the next one in, if the limits allow it now. Whoever is let in [leaves](Self::leave) at some time.
    pub fn admit(&mut self, now: Instant) -> Option<Ticket> {
        self.due().filter(|due| *due <= now)?;
        let ((_, ticket), _) = self.queue.pop_first()?;
        self.urgencies.remove(&ticket);
        self.admitted += 1;
        if let Some(rate) = self.limits.rate {
            self.full = Some(self.full.map_or(now, |full| full.max(now)) + rate.interval());
        }
        Some(ticket)
    }

    /// When the next one may be let in; it may have passed. `None` if nobody waits or somebody must leave first.
    pub fn due(&self) -> Option<Instant> {
        let (_, entered) = self.queue.first_key_value()?;
        if self.limits.concurrent.is_some_and(|limit| self.admitted >= limit.get()) {
            return None;
        }
        let refilled = self.limits.rate.zip(self.full).and_then(|(rate, full)| full.checked_sub(rate.slack()));
        Some(refilled.map_or(*entered, |refilled| refilled.max(*entered)))
    }

    /// Somebody who was let in is gone.
    pub fn leave(&mut self) {
        self.admitted = self.admitted.saturating_sub(1);
    }

    /// Somebody waits no longer. False if it has been let in meanwhile.
    pub fn cancel(&mut self, ticket: Ticket) -> bool {
        let Some(urgency) = self.urgencies.remove(&ticket) else { return false };
        self.queue.remove(&(Reverse(urgency), ticket)).is_some()
    }

    /// Who is first in the queue.
    pub fn first(&self) -> Option<Ticket> {
        self.queue.first_key_value().map(|((_, ticket), _)| *ticket)
    }

    /// How many wait.
    pub fn len(&self) -> usize {
        self.queue.len()
    }

    /// True if nobody waits.
    pub fn is_empty(&self) -> bool {
        self.queue.is_empty()
    }

    /// How many are in.
    pub fn admitted(&self) -> usize {
        self.admitted
    }
}
