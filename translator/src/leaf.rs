//! [`Leaves`]: what was encoded, by what it was made of.
//!
//! An entry lives as long as somebody uses its resource: only weak references are kept, and swept now and then. What is not
//! in here is built, held to the validation rules of Envoy's protos (once, not once per scope) and put in.

mod steps;

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash};
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use pilotfish_envoy::encoded::{Sources, WeakFragment, WeakResource};
use pilotfish_envoy::validate::{self, Violation};
use pilotfish_envoy::{Hashed, Layer, Resource, TypeUrl};
use pilotfish_model::ContentHash;
use pilotfish_model::endpoint::Endpoint;
use pilotfish_model::hash::StableHasher;
use prost::{Message, Name};

use crate::class::ClassFacts;
use crate::endpoints::Assigned;
use crate::facts::ScopeFacts;
use crate::patch::Outcome;
use crate::unit::Unit;
use crate::view::View;
use crate::work::Counters;

pub(crate) use steps::{AT_ONCE, Wanted, payload};

/// Locks are held for a look-up or an insertion.
const SHARDS: usize = 32;
/// Entries of a shard that are not worth a sweep.
const SMALL: usize = 256;

/// A resource, or why there is none.
#[derive(Clone, Debug)]
pub(crate) enum Built {
    /// It holds the rules.
    Sound(Resource),
    /// A client would refuse it.
    Broken(Broken),
}

/// What a client would refuse.
#[derive(Clone, Debug)]
pub(crate) struct Broken {
    pub(crate) type_url: TypeUrl,
    pub(crate) name: Arc<str>,
    pub(crate) violations: Arc<[Violation]>,
}

impl Built {
    fn of(type_url: TypeUrl, name: Arc<str>, made: Result<Resource, Arc<[Violation]>>) -> Self {
        match made {
            Ok(resource) => Built::Sound(resource),
            Err(violations) => Built::Broken(Broken { type_url, name, violations }),
        }
    }

    pub(crate) fn name(&self) -> &Arc<str> {
        match self {
            Built::Sound(resource) => resource.name(),
            Built::Broken(broken) => &broken.name,
        }
    }
}

/// What a leaf is and what it is made of.
#[derive(Clone, Copy)]
pub(crate) struct Key(ContentHash);

impl Key {
    /// `kind` tells leaves apart that could be made of the same.
    pub(crate) fn of<T: Hash + ?Sized>(kind: &'static str, input: &T) -> Self {
        let mut hasher = StableHasher::default();
        kind.hash(&mut hasher);
        input.hash(&mut hasher);
        Key(hasher.finish128())
    }
}

#[derive(Clone)]
pub(crate) enum Entry {
    Resource(WeakResource),
    /// Found by where its endpoints are: nothing else can be there as long as they are referred to.
    Assignment(WeakResource, Weak<Vec<Endpoint>>),
    Fragment(WeakFragment),
    Broken(Weak<[Violation]>),
    Unit(Weak<Unit>),
    Assigned(Weak<Assigned>),
    View(Weak<View>),
    Scope(Weak<ScopeFacts>),
    Class(Weak<ClassFacts>),
    Patched(Weak<Outcome>),
}

impl Entry {
    fn is_used(&self) -> bool {
        match self {
            Entry::Resource(r) | Entry::Assignment(r, _) => r.upgrade().is_some(),
            Entry::Fragment(f) => f.upgrade().is_some(),
            Entry::Broken(v) => v.strong_count() > 0,
            Entry::Unit(u) => u.strong_count() > 0,
            Entry::Assigned(a) => a.strong_count() > 0,
            Entry::View(v) => v.strong_count() > 0,
            Entry::Scope(s) => s.strong_count() > 0,
            Entry::Class(c) => c.strong_count() > 0,
            Entry::Patched(o) => o.strong_count() > 0,
        }
    }
}

/// What is shared as it is.
pub(crate) trait Kept: Sized {
    fn entry(weak: Weak<Self>) -> Entry;
    fn of(entry: &Entry) -> Option<Arc<Self>>;
}

macro_rules! kept {
    ($($type:ty => $entry:ident),+) => {$(
        impl Kept for $type {
            fn entry(weak: Weak<Self>) -> Entry {
                Entry::$entry(weak)
            }

            fn of(entry: &Entry) -> Option<Arc<Self>> {
                let Entry::$entry(weak) = entry else { return None };
                weak.upgrade()
            }
        }
    )+};
}

kept!(Unit => Unit, Assigned => Assigned, View => View, ScopeFacts => Scope, ClassFacts => Class, Outcome => Patched);

#[derive(Default)]
struct Shard {
    entries: HashMap<ContentHash, Entry, BuildHasherDefault<Hashed>>,
    /// Sweep when there are so many.
    limit: usize,
}

/// See the module.
pub(crate) struct Leaves {
    shards: Vec<Mutex<Shard>>,
    pub(crate) work: Counters,
}

impl Default for Leaves {
    fn default() -> Self {
        Leaves { shards: (0..SHARDS).map(|_| Mutex::default()).collect(), work: Counters::default() }
    }
}

impl Leaves {
    fn shard(&self, key: &Key) -> MutexGuard<'_, Shard> {
        let at = (key.0.0 >> 64) as usize % SHARDS;
        // What a panic left behind is at worst an entry too few.
        self.shards[at].lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn get(&self, key: &Key) -> Option<Entry> {
        self.shard(key).entries.get(&key.0).cloned()
    }

    fn put(&self, key: &Key, entry: Entry) {
        let mut shard = self.shard(key);
        if shard.entries.len() >= shard.limit.max(SMALL) {
            shard.entries.retain(|_, e| e.is_used());
            // Half of what a sweep looks at was put in since the last.
            shard.limit = shard.entries.len() * 2;
        }
        shard.entries.insert(key.0, entry);
    }

    /// What is kept under a key: what `kept` takes from its entry, or why it is broken.
    fn find<T>(&self, key: &Key, kept: impl FnOnce(&Entry) -> Option<T>) -> Option<Result<T, Arc<[Violation]>>> {
        let found = match self.get(key)? {
            Entry::Broken(violations) => Err(violations.upgrade()?),
            entry => Ok(kept(&entry)?),
        };
        self.work.leaf_hits.add(1);
        Some(found)
    }

    /// Remembers that a client would refuse what is made of this key.
    fn refuse(&self, key: &Key, violations: Vec<Violation>) -> Arc<[Violation]> {
        let violations = self.refused(violations);
        self.put(key, Entry::Broken(Arc::downgrade(&violations)));
        violations
    }

    fn refused(&self, violations: Vec<Violation>) -> Arc<[Violation]> {
        self.work.refused.add(1);
        violations.into()
    }

    /// A resource. `checked`: its clients hold it to the validation rules. `served`: what there is already; what comes out
    /// the same is taken from there, so that it is this one that others find.
    pub(crate) fn resource<M: Message + Name>(
        &self,
        type_url: TypeUrl,
        name: impl Into<Arc<str>>,
        key: &Key,
        checked: bool,
        served: Option<&Arc<Layer>>,
        make: impl FnOnce() -> (M, Sources),
    ) -> Built {
        let name = name.into();
        let made = self.find_resource(key).unwrap_or_else(|| {
            let made = contained(make).and_then(|(m, sources)| self.encode(type_url, &name, checked, served, &m, sources));
            let resource = made.map_err(|v| self.refuse(key, v))?;
            self.put(key, Entry::Resource(resource.downgrade()));
            Ok(resource)
        });
        Built::of(type_url, name, made)
    }

    fn find_resource(&self, key: &Key) -> Option<Result<Resource, Arc<[Violation]>>> {
        self.find(key, |entry| match entry {
            Entry::Resource(resource) => resource.upgrade(),
            _ => None,
        })
    }

    fn encode<M: Message + Name>(
        &self,
        type_url: TypeUrl,
        name: &Arc<str>,
        checked: bool,
        served: Option<&Arc<Layer>>,
        message: &M,
        sources: Sources,
    ) -> Result<Resource, Vec<Violation>> {
        self.work.leaves_built.add(1);
        let resource = Resource::new(name.clone(), message).with_sources(sources);
        if checked {
            validate::validate(type_url.as_str(), resource.value())?;
        }
        self.work.bytes_encoded.add(resource.delta_len() as u64);
        Ok(served.and_then(|l| l.get(name)).filter(|r| **r == resource).cloned().unwrap_or(resource))
    }

    /// What is kept under a key.
    pub(crate) fn kept<T: Kept>(&self, key: &Key) -> Option<Arc<T>> {
        T::of(&self.get(key)?)
    }

    /// Keeps it under a key, as long as somebody uses it.
    pub(crate) fn keep<T: Kept>(&self, key: &Key, value: &Arc<T>) {
        self.put(key, T::entry(Arc::downgrade(value)));
    }

    /// What is kept under a key, or else what `make` makes.
    pub(crate) fn kept_or<T: Kept>(&self, key: &Key, make: impl FnOnce() -> T) -> Arc<T> {
        self.kept(key).unwrap_or_else(|| {
            let made = Arc::new(make());
            self.keep(key, &made);
            made
        })
    }
}

/// What `make` makes. A panic is a defect of ours that one resource pays for, not all that are made with it.
fn contained<T>(make: impl FnOnce() -> T) -> Result<T, Vec<Violation>> {
    // What is made is new, and what it is made of is immutable: nothing can be left half done.
    catch_unwind(AssertUnwindSafe(make)).map_err(|panic| {
        let text = panic.downcast_ref::<&str>().map(|s| (*s).to_owned()).or_else(|| panic.downcast_ref::<String>().cloned());
        vec![Violation { path: String::new(), rule: format!("could not be made: {}", text.unwrap_or_default()) }]
    })
}

#[cfg(test)]
mod tests {
    use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;

    use super::*;
    use crate::refused::resolve;

    fn cluster(leaves: &Leaves, name: &str, message: &Cluster, served: Option<&Arc<Layer>>) -> Built {
        let key = Key::of("cluster", &(name, &message.name, &message.alt_stat_name));
        leaves.resource(TypeUrl::Cluster, name, &key, true, served, || (message.clone(), Sources::default()))
    }

    fn named(name: &str) -> Cluster {
        Cluster { name: name.into(), ..Cluster::default() }
    }

    #[test]
    fn a_broken_resource_keeps_its_last_good_form_and_harms_no_other() {
        let leaves = Leaves::default();
        let broken = Cluster { alt_stat_name: "x".into(), ..Cluster::default() };
        let mut refused = Vec::new();
        let mut layer = |clusters: &[(&str, &Cluster)], before: Option<&Arc<Layer>>| {
            let built: Vec<Built> = clusters.iter().map(|(name, c)| cluster(&leaves, name, c, before)).collect();
            Arc::new(Layer::new(built.iter().filter_map(|b| resolve(b, before, &mut refused))))
        };
        let before = layer(&[("a", &named("a")), ("b", &named("b"))], None);
        let after = layer(&[("a", &broken), ("b", &named("b")), ("c", &broken), ("d", &named("d"))], Some(&before));
        assert_eq!(after, layer(&[("a", &named("a")), ("b", &named("b")), ("d", &named("d"))], None));
        let told: Vec<_> = refused.iter().map(|r| (&*r.name, r.replaced, r.violations.len())).collect();
        assert_eq!(told, [("a", true, 1), ("c", false, 1)]);
    }

    #[test]
    fn a_panic_costs_one_resource() {
        let leaves = Leaves::default();
        let key = |name: &str| Key::of("cluster", name);
        let good = leaves.resource(TypeUrl::Cluster, "a", &key("1"), true, None, || (named("a"), Sources::default()));
        let Built::Sound(good) = good else { panic!() };
        let before = Arc::new(Layer::new([good.clone()]));
        let panics = |name: &'static str, input: &str| {
            leaves.resource(TypeUrl::Cluster, name, &key(input), true, None, || -> (Cluster, Sources) { panic!("of {name}") })
        };
        let (a, b) = (panics("a", "2"), panics("b", "3"));
        let mut refused = Vec::new();
        let kept: Vec<_> = [&a, &b].into_iter().filter_map(|built| resolve(built, Some(&before), &mut refused)).collect();
        assert_eq!(kept, [good], "the last good form stays");
        let told: Vec<_> = refused.iter().map(|r| (&*r.name, r.replaced, r.violations[0].rule.as_str())).collect();
        assert_eq!(told, [("a", true, "could not be made: of a"), ("b", false, "could not be made: of b")]);
    }

    #[test]
    fn an_entry_lives_as_long_as_it_is_used() {
        let leaves = Leaves::default();
        let built = || leaves.work.read().leaves_built;
        let first = cluster(&leaves, "a", &named("a"), None);
        let again = cluster(&leaves, "a", &named("a"), None);
        assert_eq!((built(), leaves.work.read().leaf_hits), (1, 1));
        drop((first, again));
        drop(cluster(&leaves, "a", &named("a"), None));
        assert_eq!(built(), 2);
        for i in 0..SHARDS * SMALL * 4 {
            let _unused = cluster(&leaves, &i.to_string(), &named("a"), None);
        }
        let kept: usize = leaves.shards.iter().map(|s| s.lock().unwrap().entries.len()).sum();
        assert!(kept <= SHARDS * SMALL, "{kept} entries that nobody uses");
    }

    #[test]
    fn what_comes_out_as_it_was_stays_the_one_that_others_find() {
        let leaves = Leaves::default();
        let Built::Sound(served) = cluster(&leaves, "a", &named("a"), None) else { panic!() };
        let layer = Arc::new(Layer::new([served]));
        // Another input with the same outcome.
        let key = || Key::of("cluster", "other");
        let made = || (named("a"), Sources::default());
        drop(leaves.resource(TypeUrl::Cluster, "a", &key(), true, Some(&layer), made));
        let before = leaves.work.read().leaves_built;
        drop(leaves.resource(TypeUrl::Cluster, "a", &key(), true, None, made));
        assert_eq!(leaves.work.read().leaves_built, before);
    }
}
