//! How much was done, and how much was spared: [`Work`].

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

/// Counters since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Views that were computed.
    pub views: u64,
    /// Views that were asked for, but stay as they are.
    pub views_unchanged: u64,
    /// Own parts of classes that were computed.
    pub owns: u64,
    /// Own parts of classes that were asked for, but stay as they are.
    pub owns_unchanged: u64,
    /// Services whose clusters were computed.
    pub units_computed: u64,
    /// Services whose clusters another scope had already.
    pub units_reused: u64,
    /// Services that were looked at for their endpoints.
    pub services_assigned: u64,
    /// Resources, and parts of them, that were built, checked and encoded.
    pub leaves_built: u64,
    /// Resources, and parts of them, that somebody had already.
    pub leaf_hits: u64,
    /// Bytes that were encoded.
    pub bytes_encoded: u64,
    /// Resources, and parts of them, that clients would refuse.
    pub refused: u64,
}

#[derive(Default)]
pub(crate) struct Counter(AtomicU64);

impl Counter {
    pub(crate) fn add(&self, n: u64) {
        self.0.fetch_add(n, Relaxed);
    }
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(crate) views: Counter,
    pub(crate) views_unchanged: Counter,
    pub(crate) owns: Counter,
    pub(crate) owns_unchanged: Counter,
    pub(crate) units_computed: Counter,
    pub(crate) units_reused: Counter,
    pub(crate) services_assigned: Counter,
    pub(crate) leaves_built: Counter,
    pub(crate) leaf_hits: Counter,
    pub(crate) bytes_encoded: Counter,
    pub(crate) refused: Counter,
}

impl Counters {
    pub(crate) fn read(&self) -> Work {
        let of = |counter: &Counter| counter.0.load(Relaxed);
        Work {
            views: of(&self.views),
            views_unchanged: of(&self.views_unchanged),
            owns: of(&self.owns),
            owns_unchanged: of(&self.owns_unchanged),
            units_computed: of(&self.units_computed),
            units_reused: of(&self.units_reused),
            services_assigned: of(&self.services_assigned),
            leaves_built: of(&self.leaves_built),
            leaf_hits: of(&self.leaf_hits),
            bytes_encoded: of(&self.bytes_encoded),
            refused: of(&self.refused),
        }
    }
}
