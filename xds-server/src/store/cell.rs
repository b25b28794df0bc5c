//! One live scope: [`Cell`], its classes and their streams.
//!
//! Its lock is held for moments only, never over a translation: a job takes what there is, works, and commits. Endpoints do
//! not wait for that; they are made of the view that there is, and again of the new one when it is committed.

use std::collections::{BTreeMap, HashMap};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use pilotfish_envoy::{Layers, ResourceSet, Snapshot, TypeUrl};

use super::mailbox::Mailbox;
use crate::Translate;
use crate::client::Target;

/// A scope with at least one stream, or one that had some not long ago: proxies that lost their connection come back, and
/// find what they had. Nothing is made for those that are away; what a change touches of them is dropped.
pub(crate) struct Cell<T: Translate> {
    pub(super) scope: T::Scope,
    inner: Mutex<Inner<T>>,
}

pub(super) struct Inner<T: Translate> {
    /// `None` until the first job is through.
    pub(super) view: Option<Arc<T::View>>,
    pub(super) endpoints: Option<Arc<T::Endpoints>>,
    pub(super) classes: HashMap<T::Class, Member<T>>,
    /// How many make something for the cell out of a world that may be older than a change that comes now.
    pub(super) in_flight: usize,
    /// Endpoints have moved on since they were looked at.
    pub(super) behind: bool,
    /// The last job failed, so its changes are in no view: the next one starts from scratch.
    pub(super) stale: bool,
}

/// One class of the scope.
pub(super) struct Member<T: Translate> {
    pub(super) own: Option<Arc<T::Own>>,
    pub(super) snapshot: Option<Arc<Snapshot>>,
    streams: BTreeMap<u64, Arc<Mailbox>>,
    /// Of these the ones that were given nothing yet.
    waiting: Vec<u64>,
    /// When the last stream left.
    left: Option<Instant>,
}

impl<T: Translate> Default for Member<T> {
    fn default() -> Self {
        Member { own: None, snapshot: None, streams: BTreeMap::new(), waiting: Vec::new(), left: None }
    }
}

impl<T: Translate> Cell<T> {
    pub(super) fn new(scope: T::Scope) -> Self {
        let inner = Inner { view: None, endpoints: None, classes: HashMap::new(), in_flight: 0, behind: false, stale: false };
        Cell { scope, inner: Mutex::new(inner) }
    }

    /// No panic happens while it is held, except in a translator's quick methods; maps and pointers are whole even then.
    pub(super) fn lock(&self) -> MutexGuard<'_, Inner<T>> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T: Translate> Inner<T> {
    /// Adds a stream; it gets what its class has. False if that is nothing yet.
    pub(super) fn join(&mut self, class: &T::Class, id: u64, mailbox: &Arc<Mailbox>, generation: u64) -> bool {
        let was_away = self.is_away();
        // Endpoints went on without it; a look at the scope brings them up to date.
        self.behind |= was_away;
        let member = self.classes.entry(class.clone()).or_default();
        member.streams.insert(id, mailbox.clone());
        member.left = None;
        match &member.snapshot {
            Some(snapshot) if !self.behind => mailbox.put(Target { generation, snapshot: snapshot.clone(), since: None }),
            _ => {
                member.waiting.push(id);
                return false;
            }
        }
        true
    }

    /// Takes a stream out.
    pub(super) fn leave(&mut self, class: &T::Class, id: u64, now: Instant) {
        if let Some(member) = self.classes.get_mut(class) {
            member.streams.remove(&id);
            member.left = member.streams.is_empty().then_some(now);
        }
    }

    /// Drops classes whose last stream left before `since`; false if none remains.
    pub(super) fn sweep(&mut self, since: Instant) -> bool {
        self.classes.retain(|_, member| member.left.is_none_or(|left| left >= since));
        !self.classes.is_empty()
    }

    /// True if no stream is here.
    pub(super) fn is_away(&self) -> bool {
        self.classes.values().all(|member| member.streams.is_empty())
    }

    /// Classes with a stream.
    pub(super) fn present(&self) -> impl Iterator<Item = (&T::Class, &Member<T>)> {
        self.classes.iter().filter(|(_, member)| !member.streams.is_empty())
    }

    /// Drops what is kept for those who are away, where `touched` says that it is not right any more.
    pub(super) fn forget(&mut self, touched: impl Fn(&T::Own) -> bool) {
        self.classes.retain(|_, member| !member.streams.is_empty() || member.own.as_deref().is_some_and(|own| !touched(own)));
    }

    /// Makes the snapshots of all classes anew and gives those that differ to their streams: how many classes and streams.
    pub(super) fn deliver(&mut self, translate: &T, generation: u64, since: Option<Instant>) -> (usize, usize) {
        let (Some(view), Some(endpoints)) = (&self.view, &self.endpoints) else { return (0, 0) };
        let (shared, endpoints) = (translate.view_layers(view), translate.endpoint_layer(endpoints));
        let mut told = (0, 0);
        for member in self.classes.values_mut() {
            let Some(own) = &member.own else { continue };
            let new = next(member.snapshot.as_ref(), || Snapshot::from_layers(shared, endpoints, translate.own_layers(own)));
            told.0 += usize::from(member.show(new, generation, since, &mut told.1));
        }
        told
    }

    /// The same after nothing but the endpoints changed.
    pub(super) fn deliver_endpoints(&mut self, translate: &T, generation: u64, since: Option<Instant>) -> (usize, usize) {
        let Some(endpoints) = &self.endpoints else { return (0, 0) };
        let shared = translate.endpoint_layer(endpoints);
        let mut told = (0, 0);
        for member in self.classes.values_mut() {
            let (Some(own), Some(before)) = (&member.own, &member.snapshot) else { continue };
            let own: &Layers = translate.own_layers(own);
            let set = ResourceSet::layered(shared, own.get(TypeUrl::Endpoint));
            if set.version() == before.get(TypeUrl::Endpoint).version() {
                continue;
            }
            let mut snapshot = Snapshot::clone(before);
            snapshot.insert(TypeUrl::Endpoint, set);
            told.0 += usize::from(member.show(Arc::new(snapshot), generation, since, &mut told.1));
        }
        told
    }
}

impl<T: Translate> Member<T> {
    /// Gives a snapshot to all streams, if it is not what they were given last.
    fn show(&mut self, new: Arc<Snapshot>, generation: u64, since: Option<Instant>, told: &mut usize) -> bool {
        let waiting = std::mem::take(&mut self.waiting);
        if self.snapshot.as_ref().is_some_and(|old| Arc::ptr_eq(old, &new)) {
            for mailbox in waiting.iter().filter_map(|id| self.streams.get(id)) {
                mailbox.put(Target { generation, snapshot: new.clone(), since: None });
            }
            return false;
        }
        // What is new to a class is nobody's change: its streams have waited since they came.
        let since = since.filter(|_| self.snapshot.is_some());
        for mailbox in self.streams.values() {
            mailbox.put(Target { generation, snapshot: new.clone(), since });
        }
        *told += self.streams.len();
        self.snapshot = Some(new);
        true
    }

    /// Wakes all streams with what they have: what is theirs alone may have changed.
    pub(super) fn remind(&self, generation: u64, since: Option<Instant>) {
        let Some(snapshot) = &self.snapshot else { return };
        for mailbox in self.streams.values() {
            mailbox.put(Target { generation, snapshot: snapshot.clone(), since });
        }
    }
}

/// A new snapshot, in which equal sets keep their pointers; the old one if all are equal.
fn next(old: Option<&Arc<Snapshot>>, make: impl FnOnce() -> Snapshot) -> Arc<Snapshot> {
    let mut new = make();
    let Some(old) = old else { return Arc::new(new) };
    let mut equal = true;
    for type_url in TypeUrl::ALL {
        let (before, now) = (old.get(type_url), new.get(type_url));
        let same = before.version() == now.version() && before.len() == now.len();
        equal &= same;
        if same && !before.is_empty() {
            new.insert(type_url, before.clone());
        }
    }
    if equal { old.clone() } else { Arc::new(new) }
}
