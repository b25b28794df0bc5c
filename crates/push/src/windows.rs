//! When the batch of a scope is due: [`Windows`], pure; time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::time::Duration;

use tokio::time::Instant;

use crate::merge::{Batch, Merge};

/// How long changes wait for each other, at most: scopes that are cheap to rebuild wait less.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timing {
    /// A batch ends once nothing came for so long.
    pub quiet: Duration,
    /// No change is held longer than this, counted from its event.
    pub ceiling: Duration,
}

impl Default for Timing {
    /// The reference's defaults of `PILOT_DEBOUNCE_AFTER` and `PILOT_DEBOUNCE_MAX`.
    fn default() -> Self {
        Timing { quiet: Duration::from_millis(100), ceiling: Duration::from_secs(10) }
    }
}

impl Timing {
    /// The shortest quiet time, unless the configured one is shorter; also that of a scope whose cost is not known.
    pub const QUIET_FLOOR: Duration = Duration::from_millis(1);
    /// Quiet time per cost: two batches of a scope are at least a quiet time apart, so at most a tenth of one core goes to one scope.
    pub const QUIET_PER_COST: u32 = 10;
    /// Ceiling per cost: a scope that is never quiet gets half of that.
    pub const CEILING_PER_COST: u32 = 20;

    /// What holds for a scope whose last rebuilds cost this much.
    pub fn adapted(self, cost: Option<Duration>) -> Timing {
        let cost = cost.unwrap_or_default();
        let fit = |factor: u32, limit: Duration| {
            let floor = Self::QUIET_FLOOR * (factor / Self::QUIET_PER_COST);
            cost.saturating_mul(factor).max(floor).min(limit)
        };
        Timing { quiet: fit(Self::QUIET_PER_COST, self.quiet), ceiling: fit(Self::CEILING_PER_COST, self.ceiling) }
    }
}

/// A scope that was idle for so long is forgotten, with what its rebuilds cost.
const REMEMBERED: Duration = Duration::from_secs(60);

/// One window per key: the changes that wait, and until when. Every operation is O(log keys).
#[derive(Clone, Debug)]
pub struct Windows<K, C> {
    scopes: HashMap<K, Scope<C>>,
    /// Scopes with a batch, by when it is due.
    due: BTreeMap<Slot, K>,
    /// Scopes without, by when they are forgotten.
    idle: BTreeMap<Slot, K>,
    /// Makes slots distinct, first come first.
    serial: u64,
}

/// A place in one of the two queues.
type Slot = (Instant, u64);

#[derive(Clone, Debug)]
struct Scope<C> {
    slot: Slot,
    pending: Option<Pending<C>>,
    /// When the last batch was taken. What comes within its quiet time is not first.
    taken: Option<Instant>,
    cost: Option<Duration>,
}

#[derive(Clone, Debug)]
struct Pending<C> {
    batch: Batch<C>,
    /// The shortest quiet time among the changes.
    quiet: Duration,
    /// The earliest ceiling among the changes.
    deadline: Instant,
    /// It came first after quiet and waits for nothing.
    at_once: bool,
}

impl<K, C> Default for Windows<K, C> {
    fn default() -> Self {
        Windows { scopes: HashMap::new(), due: BTreeMap::new(), idle: BTreeMap::new(), serial: 0 }
    }
}

impl<K: Hash + Eq + Clone, C: Merge> Windows<K, C> {
    /// Takes a change of an event at `since`. `now` never falls from call to call.
    pub fn add(&mut self, key: K, change: C, timing: Timing, since: Instant, now: Instant) {
        self.forget(now);
        let serial = self.next_serial();
        let Some(scope) = self.scopes.get_mut(&key) else {
            let batch = Batch { change, since, queued_at: now, count: 1 };
            let Timing { quiet, ceiling } = timing.adapted(None);
            let slot = (now, serial);
            let pending = Some(Pending { batch, quiet, deadline: later(since, ceiling), at_once: true });
            self.scopes.insert(key.clone(), Scope { slot, pending, taken: None, cost: None });
            self.due.insert(slot, key);
            return;
        };
        let Timing { quiet, ceiling } = timing.adapted(scope.cost);
        let deadline = later(since, ceiling);
        let (known, due) = match &mut scope.pending {
            Some(pending) => {
                pending.batch.change.merge(change);
                pending.batch.since = pending.batch.since.min(since);
                pending.batch.count += 1;
                pending.quiet = pending.quiet.min(quiet);
                pending.deadline = pending.deadline.min(deadline);
                if pending.at_once {
                    return;
                }
                (self.due.remove(&scope.slot), later(now, pending.quiet).min(pending.deadline))
            }
            None => {
                let at_once = scope.taken.is_none_or(|taken| now >= later(taken, quiet));
                let due = if at_once { now } else { later(now, quiet).min(deadline) };
                let batch = Batch { change, since, queued_at: now, count: 1 };
                scope.pending = Some(Pending { batch, quiet, deadline, at_once });
                (self.idle.remove(&scope.slot), due)
            }
        };
        scope.slot = (due, serial);
        self.due.insert(scope.slot, known.unwrap_or(key));
    }

    /// When the next batch is due; it may have passed. `None` if nothing is pending.
    pub fn due(&self) -> Option<Instant> {
        self.due.first_key_value().map(|((due, _), _)| *due)
    }

    /// The batch that was due first, if it is due.
    pub fn take(&mut self, now: Instant) -> Option<(K, Batch<C>)> {
        self.due().filter(|due| *due <= now)?;
        self.flush(now)
    }

    /// The batch that is due first, due or not.
    pub fn flush(&mut self, now: Instant) -> Option<(K, Batch<C>)> {
        self.forget(now);
        let serial = self.next_serial();
        let (_, key) = self.due.pop_first()?;
        let scope = self.scopes.get_mut(&key)?;
        let pending = scope.pending.take()?;
        scope.taken = Some(now);
        scope.slot = (later(now, REMEMBERED.max(pending.quiet)), serial);
        self.idle.insert(scope.slot, key.clone());
        Some((key, pending.batch))
    }

    /// Tells what the rebuild for the last batch of a key cost. A rise counts at once, a fall by and by.
    pub fn spent(&mut self, key: &K, cost: Duration) {
        if let Some(scope) = self.scopes.get_mut(key) {
            scope.cost = Some(scope.cost.map_or(cost, |old| cost.max(old - old.saturating_sub(cost) / 4)));
        }
    }

    /// How many keys have a batch.
    pub fn len(&self) -> usize {
        self.due.len()
    }

    /// True if no key has a batch.
    pub fn is_empty(&self) -> bool {
        self.due.is_empty()
    }

    /// How many keys are remembered, those without a batch too.
    pub fn known(&self) -> usize {
        self.scopes.len()
    }

    fn forget(&mut self, now: Instant) {
        while let Some(entry) = self.idle.first_entry().filter(|entry| entry.key().0 <= now) {
            self.scopes.remove(&entry.remove());
        }
    }

    fn next_serial(&mut self) -> u64 {
        self.serial += 1;
        self.serial
    }
}

/// Somebody may configure to wait forever; the clock has an end.
fn later(time: Instant, wait: Duration) -> Instant {
    const FAR: Duration = Duration::from_secs(60 * 60 * 24 * 365);
    time + wait.min(FAR)
}
