//! Which job starts next: [`Schedule`], pure; time is an argument.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use tokio::time::Instant;

use crate::fair::Class;
use crate::merge::Merge;
use crate::urgency::Urgency;

/// Work that has started.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Job<J, G, C, U = Urgency> {
    /// What is done. One of each at a time.
    pub key: J,
    /// Who pays.
    pub group: G,
    /// Why: everything that was submitted for the key since it last started, in that order.
    pub change: C,
    /// The oldest event among it.
    pub since: Instant,
    /// When the first of it was submitted.
    pub queued_at: Instant,
    /// The highest urgency among it.
    pub urgency: U,
    /// How many submissions it is.
    pub count: usize,
}

/// Jobs that wait for workers. See the [crate] for what is promised.
#[derive(Clone, Debug)]
pub struct Schedule<J, G, C, U = Urgency> {
    limit: NonZeroUsize,
    jobs: HashMap<J, Entry<G, C, U>>,
    classes: BTreeMap<U, Slice<J, G>>,
    weights: HashMap<G, NonZeroU32>,
    in_flight: usize,
    waiting: usize,
    /// Jobs started so far.
    starts: u64,
    /// Numbers jobs in the order in which they were submitted.
    serial: u64,
}

/// A job waits, or is in flight, or is in flight and shall start again.
#[derive(Clone, Debug)]
struct Entry<G, C, U> {
    waiting: Option<Waiting<G, C, U>>,
    running: Option<Running<G, U>>,
}

#[derive(Clone, Debug)]
struct Waiting<G, C, U> {
    serial: u64,
    group: G,
    change: C,
    since: Instant,
    queued_at: Instant,
    urgency: U,
    count: usize,
}

#[derive(Clone, Debug)]
struct Running<G, U> {
    group: G,
    urgency: U,
    charged: Duration,
}

/// A class and the number of its last start, or of when it last began to wait.
#[derive(Clone, Debug)]
struct Slice<J, G> {
    class: Class<J, G>,
    last: u64,
}

impl<J, G, C, U> Schedule<J, G, C, U>
where
    J: Hash + Eq + Clone,
    G: Hash + Eq + Clone,
    C: Merge,
    U: Ord + Copy,
{
    /// A class whose oldest job has waited for so long is overdue ...
    pub const AGE: Duration = Duration::from_millis(500);
    /// ... and gets one of so many starts, whatever is more urgent.
    pub const SHARE: u64 = 8;

    /// A schedule with at most `limit` jobs in flight.
    pub fn new(limit: NonZeroUsize) -> Self {
        Schedule {
            limit,
            jobs: HashMap::new(),
            classes: BTreeMap::new(),
            weights: HashMap::new(),
            in_flight: 0,
            waiting: 0,
            starts: 0,
            serial: 0,
        }
    }

    /// Gives a group more than one share. A group of weight 2 may use twice what one of weight 1 may.
    pub fn set_weight(&mut self, group: G, weight: NonZeroU32) {
        if weight == NonZeroU32::MIN {
            self.weights.remove(&group);
        } else {
            self.weights.insert(group, weight);
        }
    }

    /// Wants a job done for the change of an event at `since`. What waits for the same key is merged and becomes as urgent as the
    /// more urgent of both; it stays with its group. What comes while the job is in flight starts after it. `now` never falls.
    pub fn submit(&mut self, key: J, group: G, urgency: U, change: C, since: Instant, now: Instant) {
        self.serial += 1;
        let entry = self.jobs.entry(key.clone()).or_insert(Entry { waiting: None, running: None });
        let queued = entry.running.is_none();
        match &mut entry.waiting {
            Some(waiting) => {
                waiting.change.merge(change);
                waiting.since = waiting.since.min(since);
                waiting.count += 1;
                if waiting.urgency < urgency {
                    let before = std::mem::replace(&mut waiting.urgency, urgency);
                    if queued {
                        let (serial, group, queued_at) = (waiting.serial, waiting.group.clone(), waiting.queued_at);
                        if let Some(slice) = self.classes.get_mut(&before) {
                            slice.class.remove(serial, &group);
                        }
                        self.enqueue(key, &group, urgency, serial, queued_at);
                    }
                }
            }
            None => {
                let serial = self.serial;
                entry.waiting = Some(Waiting { serial, group: group.clone(), change, since, queued_at: now, urgency, count: 1 });
                self.waiting += 1;
                if queued {
                    self.enqueue(key, &group, urgency, serial, now);
                }
            }
        }
    }

    /// Starts the next job, if one may start. Whoever gets it calls [`done`](Self::done).
    pub fn next(&mut self, now: Instant) -> Option<Job<J, G, C, U>> {
        if !self.ready() {
            return None;
        }
        let urgency = self.choose(now)?;
        let slice = self.classes.get_mut(&urgency)?;
        let (key, charged) = slice.class.start(|group| weight(&self.weights, group))?;
        self.starts += 1;
        slice.last = self.starts;
        let entry = self.jobs.get_mut(&key)?;
        let Waiting { group, change, since, queued_at, urgency, count, .. } = entry.waiting.take()?;
        entry.running = Some(Running { group: group.clone(), urgency, charged });
        self.in_flight += 1;
        self.waiting -= 1;
        Some(Job { key, group, change, since, queued_at, urgency, count })
    }

    /// Tells that a job that [`next`](Self::next) gave out has ended, and what it cost.
    pub fn done(&mut self, key: &J, cost: Duration) {
        let Some(entry) = self.jobs.get_mut(key) else { return };
        let Some(Running { group, urgency, charged }) = entry.running.take() else { return };
        self.in_flight -= 1;
        let again = entry.waiting.as_ref().map(|w| (w.group.clone(), w.urgency, w.serial, w.queued_at));
        // First in line again, then the charge: a group that has work must not be forgotten in between.
        match again {
            Some((group, urgency, serial, queued_at)) => self.enqueue(key.clone(), &group, urgency, serial, queued_at),
            None => {
                self.jobs.remove(key);
            }
        }
        let weight = weight(&self.weights, &group);
        if let Some(slice) = self.classes.get_mut(&urgency) {
            slice.class.done(&group, weight, charged, cost);
        }
    }

    /// Takes back what waits for a key. A job in flight goes on.
    pub fn remove(&mut self, key: &J) -> Option<C> {
        let entry = self.jobs.get_mut(key)?;
        let waiting = entry.waiting.take()?;
        self.waiting -= 1;
        if entry.running.is_none() {
            self.jobs.remove(key);
            if let Some(slice) = self.classes.get_mut(&waiting.urgency) {
                slice.class.remove(waiting.serial, &waiting.group);
            }
        }
        Some(waiting.change)
    }

    /// True if [`next`](Self::next) would start a job.
    pub fn ready(&self) -> bool {
        self.in_flight < self.limit.get() && self.classes.values().any(|slice| !slice.class.is_empty())
    }

    /// How many jobs wait, those included that are in flight and shall start again.
    pub fn len(&self) -> usize {
        self.waiting
    }

    /// True if no job waits.
    pub fn is_empty(&self) -> bool {
        self.waiting == 0
    }

    /// How many keys it remembers: those with a job that waits or is in flight.
    pub fn known(&self) -> usize {
        self.jobs.len()
    }

    /// How many jobs are in flight.
    pub fn in_flight(&self) -> usize {
        self.in_flight
    }

    /// For how long the oldest job that could start has waited.
    pub fn oldest(&self, now: Instant) -> Option<Duration> {
        let oldest = self.classes.values().filter_map(|slice| slice.class.oldest()).min()?;
        Some(now.saturating_duration_since(oldest))
    }

    /// How many jobs that could start there are of each class, the least urgent first.
    pub fn queued(&self) -> impl Iterator<Item = (U, usize)> {
        self.classes.iter().map(|(urgency, slice)| (*urgency, slice.class.len()))
    }

    /// How many groups are remembered: those that wait, run or have used more than their share.
    pub fn groups(&self) -> usize {
        self.classes.values().map(|slice| slice.class.groups()).sum()
    }

    /// The most urgent class, unless one below is overdue and has had no start for its share; of several the one that waits longest.
    fn choose(&self, now: Instant) -> Option<U> {
        let mut waiting = self.classes.iter().filter(|(_, slice)| !slice.class.is_empty());
        let (top, _) = waiting.next_back()?;
        let overdue = waiting.filter(|(_, slice)| {
            let age = slice.class.oldest().map(|oldest| now.saturating_duration_since(oldest));
            age.is_some_and(|age| age >= Self::AGE) && self.starts - slice.last >= Self::SHARE - 1
        });
        let longest = overdue.min_by_key(|(_, slice)| slice.last).map(|(urgency, _)| urgency);
        Some(*longest.unwrap_or(top))
    }

    fn enqueue(&mut self, key: J, group: &G, urgency: U, serial: u64, queued_at: Instant) {
        let starts = self.starts;
        let slice = self.classes.entry(urgency).or_insert_with(|| Slice { class: Class::default(), last: starts });
        if slice.class.is_empty() {
            slice.last = starts;
        }
        slice.class.push(serial, key, group, queued_at);
    }
}

fn weight<G: Hash + Eq>(weights: &HashMap<G, NonZeroU32>, group: &G) -> NonZeroU32 {
    weights.get(group).copied().unwrap_or(NonZeroU32::MIN)
}
