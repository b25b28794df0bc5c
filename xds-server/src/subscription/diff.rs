//! What a [`Subscription`] is owed: the difference between what the client holds and what there is.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::SystemTime;

use pilotfish_envoy::{Resource, ResourceSet, Version};

use super::{Outstanding, Protocol, Subscription};
use crate::secret::is_silent;

/// What the next response would hold, and the client's state after it.
#[derive(Clone, Debug, Default)]
pub struct Diff {
    /// To be sent.
    pub resources: Vec<Resource>,
    /// Delta: to be removed.
    pub removed: Vec<Arc<str>>,
    /// Names that are new to the client or changed, of `resources`.
    pub changed: Vec<Arc<str>>,
    /// Version of the whole.
    pub version: Version,
    /// True if a response must go out.
    pub is_due: bool,
    /// True if removals are due too, but held back.
    pub holds_back: bool,
    /// How many names were compared.
    pub compared: usize,
    base: Arc<ResourceSet>,
    differs: BTreeMap<Arc<str>, Option<Version>>,
}

impl Subscription {
    /// False if surely nothing is due. Cheap: called for every type at every event.
    pub fn may_be_due(&self, latest: &Arc<ResourceSet>) -> bool {
        let same = Arc::ptr_eq(&self.base, latest) || self.base.version() == latest.version();
        self.owed || !same || !self.differs.is_empty() || !self.forced.is_empty()
    }

    /// The difference to `latest`; with `hold_removals` what vanished stays for now.
    pub fn diff(&self, latest: &Arc<ResourceSet>, hold_removals: bool) -> Diff {
        if self.is_full() { self.diff_full(latest, hold_removals) } else { self.diff_by_name(latest, hold_removals) }
    }

    /// State of the world, types where omission removes: the response is the set, and the base is exactly what was sent.
    fn diff_full(&self, latest: &Arc<ResourceSet>, hold_removals: bool) -> Diff {
        let held: Vec<&Resource> = match hold_removals {
            true => self.base.iter().filter(|r| self.wants(r.name()) && latest.get(r.name()).is_none()).collect(),
            false => Vec::new(),
        };
        let set = match self.wildcard && held.is_empty() {
            true => latest.clone(),
            false => {
                let wanted = latest.iter().filter(|r| self.wants(r.name()));
                Arc::new(ResourceSet::new(wanted.chain(held.iter().copied()).cloned()))
            }
        };
        let wanted_base = self.base.iter().filter(|r| self.wants(r.name())).map(|r| (r.name(), r.version()));
        let same = match self.wildcard {
            true => self.base.version() == set.version() || (self.base.is_empty() && set.is_empty()),
            false => wanted_base.eq(set.iter().map(|r| (r.name(), r.version()))),
        };
        // Whoever comes back and says that it holds this very set needs no answer.
        let holds_it = self.wildcard && self.claimed == Some(set.version());
        let is_due = (self.owed || !same) && !holds_it;
        let changed = |r: &&Resource| self.base.get(r.name()).map(|b| b.version()) != Some(r.version());
        Diff {
            changed: if is_due { set.iter().filter(changed).map(|r| r.name().clone()).collect() } else { Vec::new() },
            resources: if is_due { set.iter().cloned().collect() } else { Vec::new() },
            removed: Vec::new(),
            version: set.version(),
            is_due,
            holds_back: !held.is_empty(),
            compared: latest.len() + self.base.len(),
            base: set,
            differs: BTreeMap::new(),
        }
    }

    fn diff_by_name(&self, latest: &Arc<ResourceSet>, hold_removals: bool) -> Diff {
        let mut diff = Diff { version: latest.version(), base: latest.clone(), ..Diff::default() };
        let (mut again, mut removed_again) = (Vec::new(), Vec::new());
        let silent = is_silent(self.type_url);
        let mut compared = 0;
        let mut finder = latest.finder();
        self.for_each_name(latest, |name| {
            compared += 1;
            let (known, new) = (self.known(name), finder.find(name));
            match (known, new) {
                (known, Some(resource)) if known != Some(resource.version()) || self.forced.contains(name) => {
                    diff.resources.push(resource.clone());
                    diff.changed.push(resource.name().clone());
                }
                (_, Some(resource)) if self.retry.contains(name) => again.push(resource.clone()),
                (_, Some(_)) => {}
                (Some(version), None) if !silent && self.protocol == Protocol::Delta && hold_removals && !self.asked.contains(name) => {
                    diff.differs.insert(name.clone(), Some(version));
                }
                (Some(version), None) if silent => _ = diff.differs.insert(name.clone(), Some(version)),
                (None, None) if silent => {}
                (Some(_), None) => diff.removed.push(name.clone()),
                (None, None) if self.asked.contains(name) => diff.removed.push(name.clone()),
                (None, None) if self.retry.contains(name) => removed_again.push(name.clone()),
                (None, None) => {}
            }
        });
        if self.protocol == Protocol::Sotw {
            // What does not exist is not mentioned; whether it would be removed is for the type that names it.
            diff.removed.clear();
            removed_again.clear();
        }
        diff.compared = compared;
        diff.holds_back = !silent && !diff.differs.is_empty();
        let has_news = !diff.resources.is_empty() || !diff.removed.is_empty();
        // A client that comes back and holds everything waits for nothing. A new one may, even if there is nothing.
        let comes_back = self.protocol == Protocol::Delta && self.resumed && !self.answered;
        diff.is_due = has_news || (self.owed && !silent && !comes_back);
        if has_news {
            diff.resources.extend(again);
            diff.removed.extend(removed_again);
        }
        diff
    }

    /// Every name of which the client may hold something else than it should, each once.
    fn for_each_name<'a>(&'a self, latest: &'a ResourceSet, mut visit: impl FnMut(&'a Arc<str>)) {
        let special = self.differs.keys().chain(&self.asked).chain(&self.forced).chain(&self.retry);
        if let Some(changed) = latest.changed_since(&self.base) {
            // What changed was found out once for all streams.
            let special = special.filter(|n| self.wildcard || self.names.contains(*n) || self.asked.contains(*n));
            let names: BTreeSet<_> = changed.filter(|n| self.wants(n)).chain(special).collect();
            return names.into_iter().for_each(visit);
        }
        if !self.wildcard {
            return self.names.iter().for_each(visit);
        }
        latest.iter().for_each(|r| visit(r.name()));
        let gone = self.base.iter().map(|r| r.name()).filter(|n| latest.get(n).is_none());
        let others = special.chain(&self.names).filter(|n| latest.get(n).is_none());
        gone.chain(others).collect::<BTreeSet<_>>().into_iter().for_each(visit);
    }

    /// Notes that nothing had to be sent: the client already holds the wanted part of the newest set.
    pub(crate) fn settle_on(&mut self, diff: Diff, generation: u64) {
        (self.base, self.differs) = (diff.base, diff.differs);
        self.forced.clear();
        self.asked.clear();
        // Still so only where silence is the answer.
        self.owed = false;
        self.claimed = None;
        (self.updates_wait, self.since) = (None, None);
        self.reached = self.reached.max(generation);
    }

    /// Notes that the difference was sent.
    pub(crate) fn commit(&mut self, diff: Diff, nonce: Arc<str>, generation: u64, now: SystemTime) {
        if !self.retry.is_empty() {
            for name in diff.resources.iter().map(|r| r.name()).chain(&diff.removed) {
                self.retry.remove(name);
            }
        }
        let since = self.since.take();
        self.outstanding = Some(Outstanding { nonce: nonce.clone(), generation, since, resources: diff.resources, removed: diff.removed });
        (self.sent, self.sent_at) = (Some(nonce), Some(now));
        (self.owed, self.answered, self.claimed) = (false, true, None);
        // Also if only the interest is new: what was just asked for has not arrived.
        self.reached = self.reached.min(generation.saturating_sub(1));
        (self.base, self.differs) = (diff.base, diff.differs);
        self.forced.clear();
        self.asked.clear();
        self.updates_wait = None;
    }
}
