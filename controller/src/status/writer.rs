//! [`Writer`]: which status is written and when. Pure: time is an argument.
//!
//! What differs waits until it is due: a moment for news of the same object to come together, ten seconds after the last
//! write of the object whoever made that necessary, longer after failures; and for its share of what the API server is
//! burdened with in all.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use pilotfish_model::{Kind, ObjectId};
use tokio::time::Instant;

use super::condition::{Condition, Observed, State};
use super::desired::{Desired, Difference};
use super::report::{Applied, Reports};

/// How much may be written.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Between two writes of an object.
    pub per_object: Duration,
    /// Between two writes that differ in numbers of proxies only, and how long these must have stood still: while proxies come
    /// and go, every object that they see would be written again and again. Numbers that never stand still are written at
    /// every tenth such time.
    pub counts: Duration,
    /// Writes per second in all; as many may be saved up.
    pub per_second: u32,
    /// Writes under way.
    pub concurrent: usize,
}

impl Default for Limits {
    fn default() -> Self {
        let counts = Duration::from_secs(60);
        Limits { per_object: Duration::from_secs(10), counts, per_second: 20, concurrent: 8 }
    }
}

/// News of an object wait that long for more.
const GATHER: Duration = Duration::from_millis(200);
/// And that long for the word of proxies.
const PROXIES: Duration = Duration::from_secs(3);
/// After a change of an object, what proxies said before the change was pushed is not about it.
const FRESH: Duration = Duration::from_secs(1);
/// The same while other things wait to be pushed all the time: longer than a change is ever held back.
const FRESH_UNSETTLED: Duration = Duration::from_secs(15);
/// Proxies that have not answered for less are about to.
const PATIENCE: Duration = Duration::from_secs(5);
/// The longest pause after failures.
const LONGEST: Duration = Duration::from_secs(300);
/// How often numbers may have stood still for long enough before they are written though they do not.
const RESTLESS: u32 = 10;
/// If the server does not keep what it is given (an older definition of the kind drops fields), it is not given again soon.
const FUTILE: Duration = Duration::from_secs(600);

/// What to write.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// Where.
    pub id: ObjectId,
    /// What.
    pub desired: Desired,
    /// Of which generation.
    pub generation: u64,
}

/// What became of it.
#[derive(Clone, Debug, PartialEq)]
pub enum Outcome {
    /// It was written; this is what the server made of it.
    Written(Observed),
    /// It was not necessary.
    Unchanged(Observed),
    /// The object is of another generation by now, or this replica does not lead any more.
    Stale,
    /// There is no such object.
    Gone,
    /// The server said no, or never said anything before the write.
    Failed,
    /// This replica may not write that kind at all.
    Forbidden,
    /// Whether it was written is not known.
    Unknown,
}

/// How much was done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Writes that happened.
    pub written: u64,
    /// News of objects after which their status was what it should be.
    pub suppressed: u64,
    /// Writes that failed.
    pub failed: u64,
    /// Objects whose status differs from what it should be.
    pub waiting: usize,
    /// Objects of which it is not known yet what proxies say.
    pub awaiting: usize,
}

struct Entry {
    observed: Observed,
    desired: Desired,
    /// Since when the object is as it is.
    since: Instant,
    /// Since when the status differs.
    differs: Option<Instant>,
    /// Since when proxies have not answered.
    missing: Option<Instant>,
    /// What proxies say is not known.
    awaiting: bool,
    /// When what proxies say changed.
    moved: Instant,
    written: Option<Instant>,
    failures: u32,
    not_before: Option<Instant>,
    writing: bool,
    due: Option<Instant>,
}

/// See the module's documentation.
pub struct Writer {
    limits: Limits,
    entries: BTreeMap<ObjectId, Entry>,
    due: BTreeSet<(Instant, ObjectId)>,
    /// When the next write would be one too many, if all that were saved up had been used: generic cell rate.
    busy_until: Instant,
    writing: usize,
    /// Before this, nothing: another leader may have written just now.
    floor: Instant,
    /// Kinds that may not be written, and when that is tried again.
    forbidden: BTreeMap<Kind, Instant>,
    counts: Counts,
}

impl Writer {
    /// Knows no object.
    pub fn new(limits: Limits, now: Instant) -> Self {
        let (entries, due, counts) = (BTreeMap::new(), BTreeSet::new(), Counts::default());
        Writer { limits, entries, due, busy_until: now, writing: 0, floor: now, forbidden: BTreeMap::new(), counts }
    }

    /// Somebody else wrote until now: what and when is not known.
    pub fn took_over(&mut self, now: Instant) {
        self.floor = now + self.limits.per_object;
    }

    /// An object as the API server has it, and whether it was understood (`None`: that is not to be said).
    pub fn see(&mut self, id: &ObjectId, observed: Observed, accepted: Option<Condition>, now: Instant) {
        let entry = self.entries.entry(id.clone()).or_insert_with(|| Entry {
            observed: Observed::default(),
            desired: Desired::default(),
            since: now,
            differs: None,
            missing: None,
            awaiting: false,
            moved: now,
            written: None,
            failures: 0,
            not_before: None,
            writing: false,
            due: None,
        });
        if entry.desired.accepted != accepted || entry.observed.generation != observed.generation {
            entry.since = now;
            entry.missing = None;
            entry.failures = 0;
            entry.not_before = None;
            entry.desired.reconciled = accepted.as_ref().filter(|a| a.state == State::False).map(|a| {
                let message = "is not in use as it is; see Accepted".to_owned();
                Condition::new(State::False, "NotAccepted", message, a.generation)
            });
            entry.desired.accepted = accepted;
        }
        entry.observed = observed;
        if !self.weigh(id, now) {
            self.counts.suppressed += 1;
        }
    }

    /// An object is gone.
    pub fn forget(&mut self, id: &ObjectId) {
        let Some(entry) = self.entries.remove(id) else { return };
        self.counts.awaiting -= usize::from(entry.awaiting);
        if let Some(due) = entry.due {
            self.due.remove(&(due, id.clone()));
        }
    }

    /// Which addresses an object that was seen is to have.
    pub fn set_addresses(&mut self, id: &ObjectId, addresses: Option<Vec<(String, std::net::IpAddr)>>, now: Instant) {
        if let Some(entry) = self.entries.get_mut(id)
            && entry.desired.addresses != addresses
        {
            entry.desired.addresses = addresses;
            self.weigh(id, now);
        }
    }

    /// What proxies said.
    pub fn report(&mut self, reports: &Reports, now: Instant) {
        let nothing = Applied::default();
        let mut changed = Vec::new();
        for (id, entry) in &mut self.entries {
            let fresh = if reports.settled { FRESH } else { FRESH_UNSETTLED };
            let Some(accepted) = entry.desired.accepted.as_ref().filter(|a| a.state == State::True) else { continue };
            if reports.taken < entry.since + fresh {
                continue;
            }
            let applied = reports.objects.get(id).unwrap_or(&nothing);
            if applied.proxies == 0 && !reports.warm {
                continue;
            }
            if applied.missing() == 0 || applied.rejected > 0 {
                entry.missing = None;
            } else if now < *entry.missing.get_or_insert(reports.taken) + PATIENCE {
                continue;
            }
            let condition = Some(applied.condition(accepted.generation));
            if entry.desired.reconciled != condition {
                (entry.desired.reconciled, entry.moved) = (condition, now);
                changed.push(id.clone());
            }
        }
        for id in &changed {
            self.weigh(id, now);
        }
    }

    /// What to write now. Each must be followed by [`Writer::done`].
    pub fn next(&mut self, now: Instant) -> Option<Plan> {
        let (id, entry) = loop {
            if self.wake().is_none_or(|at| now < at) {
                return None;
            }
            let (_, id) = self.due.pop_first()?;
            let entry = self.entries.get_mut(&id)?;
            match self.forbidden.get(&id.kind).filter(|until| now < **until) {
                None => break (id, entry),
                Some(until) => {
                    entry.due = Some(*until);
                    self.due.insert((*until, id));
                }
            }
        };
        (entry.due, entry.writing) = (None, true);
        let plan = Plan { id, desired: entry.desired.clone(), generation: entry.observed.generation };
        self.writing += 1;
        // A second's worth may have been saved up, this one included.
        let saved = now.checked_sub(Duration::from_secs(1) - self.interval()).unwrap_or(now);
        self.busy_until = self.busy_until.max(saved) + self.interval();
        Some(plan)
    }

    /// When [`Writer::next`] has something unless there are news before; `None`: not before a write ends.
    pub fn wake(&self) -> Option<Instant> {
        let (due, _) = self.due.first().filter(|_| self.writing < self.limits.concurrent)?;
        Some((*due).max(self.busy_until).max(self.floor))
    }

    /// What became of a plan.
    pub fn done(&mut self, plan: &Plan, outcome: Outcome, now: Instant) {
        self.writing -= 1;
        match outcome {
            Outcome::Written(_) => self.counts.written += 1,
            Outcome::Failed | Outcome::Forbidden | Outcome::Unknown => self.counts.failed += 1,
            _ => {}
        }
        if outcome == Outcome::Forbidden {
            self.forbidden.insert(plan.id.kind, now + LONGEST);
        }
        let Some(entry) = self.entries.get_mut(&plan.id) else { return };
        entry.writing = false;
        match outcome {
            Outcome::Written(observed) => {
                let kept = plan.desired.difference(&observed) == Difference::None;
                (entry.written, entry.failures) = (Some(now), 0);
                entry.not_before = (!kept).then(|| now + FUTILE);
                entry.observed = observed;
            }
            Outcome::Unchanged(observed) => {
                (entry.failures, entry.not_before) = (0, None);
                entry.observed = observed;
            }
            Outcome::Stale => entry.not_before = Some(now + Duration::from_secs(1)),
            Outcome::Forbidden => entry.not_before = Some(now + LONGEST),
            Outcome::Gone => entry.not_before = Some(now + Duration::from_secs(30)),
            Outcome::Failed | Outcome::Unknown => {
                entry.failures += 1;
                entry.not_before = Some(now + Duration::from_secs(1 << entry.failures.min(9)).min(LONGEST));
                if outcome == Outcome::Unknown {
                    entry.written = Some(now);
                }
            }
        }
        entry.differs = None;
        self.weigh(&plan.id, now);
    }

    /// How much was done.
    pub fn counts(&self) -> Counts {
        Counts { waiting: self.due.len() + self.writing, ..self.counts }
    }

    fn interval(&self) -> Duration {
        Duration::from_secs(1) / self.limits.per_second.max(1)
    }

    /// Finds out whether and when an object is due. False if it is as it should be.
    fn weigh(&mut self, id: &ObjectId, now: Instant) -> bool {
        let Some(entry) = self.entries.get_mut(id) else { return false };
        if let Some(due) = entry.due.take() {
            self.due.remove(&(due, id.clone()));
        }
        let awaiting = entry.desired.reconciled.is_none() && entry.desired.accepted.is_some();
        self.counts.awaiting = self.counts.awaiting + usize::from(awaiting) - usize::from(entry.awaiting);
        entry.awaiting = awaiting;
        if entry.writing {
            return true;
        }
        let difference = entry.desired.difference(&entry.observed);
        if difference == Difference::None {
            entry.differs = None;
            return false;
        }
        let differs = *entry.differs.get_or_insert(now);
        let complete = entry.desired.reconciled.is_some() || entry.desired.accepted.is_none();
        let wanted = match difference {
            Difference::Addresses => differs,
            Difference::Counts => (entry.moved + self.limits.counts).min(differs + self.limits.counts * RESTLESS),
            _ if complete => differs + GATHER,
            _ => differs + PROXIES,
        };
        let pause = if difference == Difference::Counts { self.limits.counts } else { self.limits.per_object };
        let after_last = entry.written.map(|at| at + pause);
        let due = wanted.max(after_last.unwrap_or(differs)).max(entry.not_before.unwrap_or(differs));
        entry.due = Some(due);
        self.due.insert((due, id.clone()));
        true
    }
}
