//! What can wait together: [`Merge`], and what comes out: [`Batch`].

use tokio::time::Instant;

/// Changes that can be put together. Must not depend on grouping: a.merge(b).merge(c) is a.merge(b.merge(c)).
pub trait Merge {
    /// Adds a later change.
    fn merge(&mut self, later: Self);
}

/// For jobs that carry nothing but their key.
impl Merge for () {
    fn merge(&mut self, (): ()) {}
}

/// Changes that go out together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Batch<C> {
    /// All of them, merged in the order in which they came.
    pub change: C,
    /// The oldest event among them. Latency is measured from here.
    pub since: Instant,
    /// When the first of them came here. The time in the window is measured from here.
    pub queued_at: Instant,
    /// How many they are.
    pub count: usize,
}
