//! What was done so far, for tests and metrics.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// What a push did.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PushReport {
    /// Scopes that were made anew, or looked at for endpoints.
    pub scopes: usize,
    /// Classes whose resources differ now.
    pub classes: usize,
    /// Streams that were told.
    pub streams: usize,
    /// Time that it kept threads busy.
    pub cost: Duration,
}

impl PushReport {
    pub(super) fn add(&mut self, other: PushReport) {
        self.scopes += other.scopes;
        self.classes += other.classes;
        self.streams += other.streams;
        self.cost += other.cost;
    }
}

/// Work since the start, for tests and the curious.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Work {
    /// Views that were made, anew or out of the one before.
    pub views: u64,
    /// Views, own parts and endpoints that panicked.
    pub failed: u64,
    /// Times that the endpoints of a scope were made outside of a view.
    pub endpoint_steps: u64,
    /// Changes that did not touch a scope, per scope.
    pub untouched: u64,
    /// Responses sent.
    pub responses: u64,
    /// Their resources.
    pub resources: u64,
    /// Their bytes.
    pub bytes: u64,
    /// Of these, the bytes that were copied on the way out: small resources share a frame.
    pub copied: u64,
    /// Names that were compared in order to find out what a stream is owed.
    pub compared: u64,
    /// Scopes with a stream at this moment.
    pub live_scopes: usize,
    /// Scopes that are kept: the same, and those whose proxies may come back.
    pub kept_scopes: usize,
    /// Classes with a stream at this moment.
    pub live_classes: usize,
    /// Streams at this moment.
    pub live_streams: usize,
}

#[derive(Default)]
pub(crate) struct Counters {
    pub(super) views: AtomicU64,
    pub(super) failed: AtomicU64,
    pub(super) endpoint_steps: AtomicU64,
    pub(super) untouched: AtomicU64,
    pub(crate) responses: AtomicU64,
    pub(crate) resources: AtomicU64,
    pub(crate) bytes: AtomicU64,
    pub(crate) compared: AtomicU64,
    pub(crate) copied: Arc<AtomicU64>,
}

impl Counters {
    pub(super) fn read(&self) -> Work {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Work {
            views: load(&self.views),
            failed: load(&self.failed),
            endpoint_steps: load(&self.endpoint_steps),
            untouched: load(&self.untouched),
            responses: load(&self.responses),
            resources: load(&self.resources),
            bytes: load(&self.bytes),
            compared: load(&self.compared),
            copied: load(&self.copied),
            ..Work::default()
        }
    }
}

pub(crate) fn count(counter: &AtomicU64, by: usize) {
    counter.fetch_add(by as u64, Ordering::Relaxed);
}
