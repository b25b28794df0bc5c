//! [`Leaves`]: what was encoded, by what it was made of.
//!
//! An entry lives as long as somebody uses its resource: only weak references are kept, and swept now and then. What is not
//! in here is built, held to the validation rules of Envoy's protos (once, not once per scope) and put in.

use std::collections::HashMap;
use std::hash::{BuildHasherDefault, Hash, Hasher};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use bytes::Bytes;
use pilotfish_envoy::encoded::{Fragment, Sources, WeakFragment, WeakResource};
use pilotfish_envoy::validate::{self, Violation};
use pilotfish_envoy::{Layer, Resource, TypeUrl, any};
use pilotfish_model::ContentHash;
use pilotfish_model::hash::StableHasher;
use prost::{Message, Name};

use crate::unit::Unit;
use crate::work::Counters;

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
    pub(crate) fn name(&self) -> &Arc<str> {
        match self {
            Built::Sound(resource) => resource.name(),
            Built::Broken(broken) => &broken.name,
        }
    }
}

/// What a leaf is and what it is made of.
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
enum Entry {
    Resource(WeakResource),
    Fragment(WeakFragment),
    Broken(Weak<[Violation]>),
    Unit(Weak<Unit>),
}

impl Entry {
    fn is_used(&self) -> bool {
        match self {
            Entry::Resource(r) => r.upgrade().is_some(),
            Entry::Fragment(f) => f.upgrade().is_some(),
            Entry::Broken(v) => v.strong_count() > 0,
            Entry::Unit(u) => u.strong_count() > 0,
        }
    }
}

/// Keys are hashes already.
#[derive(Default)]
struct First8(u64);

impl Hasher for First8 {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for (i, byte) in bytes.iter().take(8).enumerate() {
            self.0 ^= u64::from(*byte) << (8 * i);
        }
    }

    fn write_u128(&mut self, hash: u128) {
        self.0 = hash as u64;
    }
}

#[derive(Default)]
struct Shard {
    entries: HashMap<ContentHash, Entry, BuildHasherDefault<First8>>,
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
        let broken = |name, violations| Built::Broken(Broken { type_url, name, violations });
        match self.get(key) {
            Some(Entry::Resource(weak)) => {
                if let Some(resource) = weak.upgrade() {
                    self.work.leaf_hits.add(1);
                    return Built::Sound(resource);
                }
            }
            Some(Entry::Broken(weak)) => {
                if let Some(violations) = weak.upgrade() {
                    self.work.leaf_hits.add(1);
                    return broken(name.into(), violations);
                }
            }
            _ => {}
        }
        let (message, sources) = make();
        let message = any(&message);
        self.work.leaves_built.add(1);
        if checked && let Err(violations) = validate::validate_any(&message) {
            self.work.refused.add(1);
            let violations: Arc<[Violation]> = violations.into();
            self.put(key, Entry::Broken(Arc::downgrade(&violations)));
            return broken(name.into(), violations);
        }
        let resource = Resource::from_any(name, &message).with_sources(sources);
        self.work.bytes_encoded.add(resource.encoded_len() as u64);
        let resource = served.and_then(|l| l.get(resource.name())).filter(|r| **r == resource).cloned().unwrap_or(resource);
        self.put(key, Entry::Resource(resource.downgrade()));
        Built::Sound(resource)
    }

    /// A field of a message, tag and length included: the message under `tag`.
    pub(crate) fn fragment<M: Message + Name>(
        &self,
        tag: u32,
        key: &Key,
        checked: bool,
        make: impl FnOnce() -> (M, Sources),
    ) -> Result<Fragment, Arc<[Violation]>> {
        match self.get(key) {
            Some(Entry::Fragment(weak)) => {
                if let Some(fragment) = weak.upgrade() {
                    self.work.leaf_hits.add(1);
                    return Ok(fragment);
                }
            }
            Some(Entry::Broken(weak)) => {
                if let Some(violations) = weak.upgrade() {
                    self.work.leaf_hits.add(1);
                    return Err(violations);
                }
            }
            _ => {}
        }
        let (message, sources) = make();
        self.work.leaves_built.add(1);
        let mut field = Vec::with_capacity(message.encoded_len() + 6);
        prost::encoding::message::encode(tag, &message, &mut field);
        if checked && let Err(violations) = validate::validate(&M::full_name(), payload(&field)) {
            self.work.refused.add(1);
            let violations: Arc<[Violation]> = violations.into();
            self.put(key, Entry::Broken(Arc::downgrade(&violations)));
            return Err(violations);
        }
        field.shrink_to_fit();
        let fragment = Fragment::new(Bytes::from(field), sources);
        self.work.bytes_encoded.add(fragment.bytes().len() as u64);
        self.put(key, Entry::Fragment(fragment.downgrade()));
        Ok(fragment)
    }

    /// A unit; `make` is asked if there is none.
    pub(crate) fn unit(&self, key: &Key, make: impl FnOnce() -> Unit) -> Arc<Unit> {
        if let Some(Entry::Unit(weak)) = self.get(key)
            && let Some(unit) = weak.upgrade()
        {
            self.work.units_reused.add(1);
            return unit;
        }
        self.work.units_computed.add(1);
        let unit = Arc::new(make());
        self.put(key, Entry::Unit(Arc::downgrade(&unit)));
        unit
    }
}

/// What is in a field that was just written.
pub(crate) fn payload(field: &[u8]) -> &[u8] {
    let mut rest = field;
    let _tag = prost::encoding::decode_varint(&mut rest);
    let _len = prost::encoding::decode_varint(&mut rest);
    rest
}
