//! [`Schedule`] between tasks: [`Scheduler`] for who submits and for workers, [`Running`] for a job in hands.

use std::hash::Hash;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;
use tokio::time::Instant;

use crate::merge::Merge;
use crate::schedule::{Job, Schedule};
use crate::sync::{Mutex, now};
use crate::urgency::Urgency;

/// A schedule that tasks share. Clones are the same schedule.
pub struct Scheduler<J, G, C, U = Urgency> {
    shared: Arc<Shared<J, G, C, U>>,
}

struct Shared<J, G, C, U> {
    schedule: Mutex<Schedule<J, G, C, U>>,
    /// One worker is woken at a time; who takes a job wakes the next if there is more.
    ready: Notify,
}

impl<J, G, C, U> Clone for Scheduler<J, G, C, U> {
    fn clone(&self) -> Self {
        Scheduler { shared: self.shared.clone() }
    }
}

impl<J, G, C, U> Scheduler<J, G, C, U>
where
    J: Hash + Eq + Clone,
    G: Hash + Eq + Clone,
    C: Merge,
    U: Ord + Copy,
{
    /// A scheduler with at most `limit` jobs in flight, however many workers there are.
    pub fn new(limit: NonZeroUsize) -> Self {
        Scheduler { shared: Arc::new(Shared { schedule: Mutex::new(Schedule::new(limit)), ready: Notify::new() }) }
    }

    /// See [`Schedule::submit`].
    pub fn submit(&self, key: J, group: G, urgency: U, change: C, since: Instant) {
        self.shared.with(|schedule| schedule.submit(key, group, urgency, change, since, now()));
    }

    /// See [`Schedule::set_weight`].
    pub fn set_weight(&self, group: G, weight: NonZeroU32) {
        self.shared.schedule.lock().set_weight(group, weight);
    }

    /// See [`Schedule::remove`].
    pub fn remove(&self, key: &J) -> Option<C> {
        self.shared.schedule.lock().remove(key)
    }

    /// The next job, when one may start. Any number of workers may wait here; dropping the future loses nothing.
    pub async fn next(&self) -> Running<J, G, C, U> {
        loop {
            if let Some(job) = self.shared.with(|schedule| schedule.next(now())) {
                let lease = Lease { key: job.key.clone(), started: now(), cost: None, shared: self.shared.clone() };
                return Running { job, lease };
            }
            self.shared.ready.notified().await;
        }
    }

    /// Looks at the schedule, for metrics.
    pub fn inspect<T>(&self, look: impl FnOnce(&Schedule<J, G, C, U>) -> T) -> T {
        look(&self.shared.schedule.lock())
    }
}

impl<J, G, C, U> Shared<J, G, C, U>
where
    J: Hash + Eq + Clone,
    G: Hash + Eq + Clone,
    C: Merge,
    U: Ord + Copy,
{
    fn with<T>(&self, act: impl FnOnce(&mut Schedule<J, G, C, U>) -> T) -> T {
        let mut schedule = self.schedule.lock();
        let result = act(&mut schedule);
        let ready = schedule.ready();
        drop(schedule);
        if ready {
            self.ready.notify_one();
        }
        result
    }
}

/// A job in a worker's hands. Take it apart to move the job's parts out.
#[must_use = "a job that is dropped counts as done"]
pub struct Running<J, G, C, U = Urgency>
where
    J: Hash + Eq + Clone,
    G: Hash + Eq + Clone,
    C: Merge,
    U: Ord + Copy,
{
    /// What to do.
    pub job: Job<J, G, C, U>,
    /// To be kept while doing it.
    pub lease: Lease<J, G, C, U>,
}

impl<J, G, C, U> Running<J, G, C, U>
where
    J: Hash + Eq + Clone,
    G: Hash + Eq + Clone,
    C: Merge,
    U: Ord + Copy,
{
    /// See [`Lease::done`].
    pub fn done(self, cost: Duration) {
        self.lease.done(cost);
    }
}

/// While it lives, nobody else gets a job of its key. It ends with [`done`](Lease::done) or when it is dropped: a drop, that of a
/// panic included, counts as done at the cost of the time since the start. What the job carried is then lost, unless submitted again.
#[must_use = "a job whose lease is dropped counts as done"]
pub struct Lease<J, G, C, U = Urgency>
where
    J: Hash + Eq + Clone,
    G: Hash + Eq + Clone,
    C: Merge,
    U: Ord + Copy,
{
    key: J,
    started: Instant,
    cost: Option<Duration>,
    shared: Arc<Shared<J, G, C, U>>,
}

impl<J, G, C, U> Lease<J, G, C, U>
where
    J: Hash + Eq + Clone,
    G: Hash + Eq + Clone,
    C: Merge,
    U: Ord + Copy,
{
    /// The job has ended and has used this much, such as CPU time; the fair shares of groups are counted in it.
    pub fn done(mut self, cost: Duration) {
        self.cost = Some(cost);
    }
}

impl<J, G, C, U> Drop for Lease<J, G, C, U>
where
    J: Hash + Eq + Clone,
    G: Hash + Eq + Clone,
    C: Merge,
    U: Ord + Copy,
{
    fn drop(&mut self) {
        let cost = self.cost.unwrap_or_else(|| now().saturating_duration_since(self.started));
        self.shared.with(|schedule| schedule.done(&self.key, cost));
    }
}
