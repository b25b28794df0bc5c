//! What is new in a mesh.

use std::collections::BTreeSet;

use crate::name::{ObjectId, Str};

/// The union of everything that changed since the last push. Merging is associative, commutative and idempotent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// Objects that were added, changed or removed.
    pub objects: BTreeSet<ObjectId>,
    /// Services whose endpoints changed: host and namespace.
    pub endpoints: BTreeSet<(Str, Str)>,
    /// The mesh configuration itself changed: nothing may be reused.
    pub everything: bool,
}

impl ChangeSet {
    /// Adds another change.
    pub fn merge(&mut self, other: ChangeSet) {
        self.objects.extend(other.objects);
        self.endpoints.extend(other.endpoints);
        self.everything |= other.everything;
    }

    /// True if there is nothing to push.
    pub fn is_empty(&self) -> bool {
        self == &ChangeSet::default()
    }
}
