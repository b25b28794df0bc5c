//! One class of urgency: [`Class`] shares starts fairly between groups by what their jobs cost (start-time fair queueing).
//!
//! Each group has a virtual time: what it has used, divided by its weight. The group that is furthest behind starts next. A job is
//! charged an estimate when it starts and the difference when its cost is known.

use std::collections::{BTreeMap, HashMap};
use std::hash::Hash;
use std::num::NonZeroU32;
use std::time::Duration;

use tokio::time::Instant;

/// Nanoseconds of work per unit of weight, scaled so that division by a weight loses nothing that matters.
type Virtual = i128;

/// Even a job that measures nothing is charged this.
const LEAST: Duration = Duration::from_micros(1);

/// So many groups are remembered beyond those that wait and run.
const MANY: usize = 32;

/// Waiting jobs of one class. `J` names a job, `G` its group; jobs are distinct by their serial.
#[derive(Clone, Debug)]
pub(crate) struct Class<J, G> {
    groups: HashMap<G, Group<J>>,
    /// Groups with waiting jobs; the one furthest behind first, then the one whose first job is older.
    ready: BTreeMap<(Virtual, u64), G>,
    /// Groups with nothing waiting or running, until the clock has passed them.
    ahead: BTreeMap<(Virtual, u64), G>,
    /// All waiting jobs by age.
    ages: BTreeMap<u64, Instant>,
    /// The largest virtual time at which a job started. A group that comes back starts here: idleness saves up no credit.
    clock: Virtual,
    /// Jobs that have started and are not done.
    running: usize,
    /// What a job of a group that is not known will cost, presumably.
    cost: Duration,
}

#[derive(Clone, Debug)]
struct Group<J> {
    jobs: BTreeMap<u64, J>,
    used: Virtual,
    /// Its place in `ready` or `ahead`.
    tie: u64,
    running: usize,
    cost: Duration,
}

impl<J, G> Default for Class<J, G> {
    fn default() -> Self {
        Class {
            groups: HashMap::new(),
            ready: BTreeMap::new(),
            ahead: BTreeMap::new(),
            ages: BTreeMap::new(),
            clock: 0,
            running: 0,
            cost: LEAST,
        }
    }
}

impl<J, G: Hash + Eq + Clone> Class<J, G> {
    pub(crate) fn push(&mut self, serial: u64, job: J, group: &G, queued_at: Instant) {
        self.ages.insert(serial, queued_at);
        let clock = self.clock;
        let entry = self.groups.entry(group.clone()).or_insert_with(|| Group {
            jobs: BTreeMap::new(),
            used: clock,
            tie: serial,
            running: 0,
            cost: self.cost,
        });
        let known = self.ahead.remove(&(entry.used, entry.tie)).or_else(|| self.ready.remove(&(entry.used, entry.tie)));
        if entry.jobs.is_empty() {
            entry.used = entry.used.max(clock);
        }
        entry.jobs.insert(serial, job);
        entry.tie = entry.jobs.first_key_value().map_or(serial, |(first, _)| *first);
        self.ready.insert((entry.used, entry.tie), known.unwrap_or_else(|| group.clone()));
    }

    pub(crate) fn remove(&mut self, serial: u64, group: &G) -> Option<J> {
        self.ages.remove(&serial)?;
        let job = self.change(group, |entry| entry.jobs.remove(&serial)).flatten();
        self.tidy();
        job
    }

    /// Starts a job and says what was charged for it.
    pub(crate) fn start(&mut self, weight: impl FnOnce(&G) -> NonZeroU32) -> Option<(J, Duration)> {
        let ((used, _), group) = self.ready.first_key_value()?;
        let (used, group) = (*used, group.clone());
        let weight = weight(&group);
        let (serial, job, charged) = self.change(&group, |entry| {
            let (serial, job) = entry.jobs.pop_first()?;
            entry.running += 1;
            entry.used += tag(entry.cost, weight);
            Some((serial, job, entry.cost))
        })??;
        self.ages.remove(&serial);
        self.clock = self.clock.max(used);
        self.running += 1;
        self.tidy();
        Some((job, charged))
    }

    /// Corrects what was charged for a job that has started.
    pub(crate) fn done(&mut self, group: &G, weight: NonZeroU32, charged: Duration, cost: Duration) {
        let cost = cost.max(LEAST);
        self.running = self.running.saturating_sub(1);
        self.cost = (self.cost * 7 + cost) / 8;
        self.change(group, |entry| {
            entry.running = entry.running.saturating_sub(1);
            entry.used += tag(cost, weight) - tag(charged, weight);
            entry.cost = cost;
        });
        self.tidy();
    }

    pub(crate) fn oldest(&self) -> Option<Instant> {
        self.ages.first_key_value().map(|(_, queued_at)| *queued_at)
    }

    pub(crate) fn len(&self) -> usize {
        self.ages.len()
    }

    pub(crate) fn is_empty(&self) -> bool {
        self.ages.is_empty()
    }

    /// How many groups are remembered.
    pub(crate) fn groups(&self) -> usize {
        self.groups.len()
    }

    /// Changes a group and puts it where it then belongs.
    fn change<T>(&mut self, group: &G, change: impl FnOnce(&mut Group<J>) -> T) -> Option<T> {
        let entry = self.groups.get_mut(group)?;
        let place = (entry.used, entry.tie);
        let key = self.ready.remove(&place).or_else(|| self.ahead.remove(&place));
        let result = change(entry);
        if let Some((first, _)) = entry.jobs.first_key_value() {
            entry.tie = *first;
            self.ready.insert((entry.used, entry.tie), key.unwrap_or_else(|| group.clone()));
        } else if entry.running == 0 {
            self.ahead.insert((entry.used, entry.tie), key.unwrap_or_else(|| group.clone()));
        }
        Some(result)
    }

    /// Forgets groups that would start at the clock anyway, and moves the clock on if there are many others: memory is that of what
    /// waits and runs.
    fn tidy(&mut self) {
        if self.running == 0 && self.ages.is_empty() {
            *self = Class { cost: self.cost, ..Class::default() };
            return;
        }
        let limit = MANY + self.ready.len() + self.running;
        while let Some(entry) = self.ahead.first_entry() {
            let (used, _) = *entry.key();
            if used > self.clock && self.groups.len() <= limit {
                return;
            }
            self.clock = self.clock.max(used);
            self.groups.remove(&entry.remove());
        }
    }
}

fn tag(cost: Duration, weight: NonZeroU32) -> Virtual {
    Virtual::try_from(cost.as_nanos()).unwrap_or(Virtual::MAX >> 32) * 1024 / Virtual::from(weight.get())
}
