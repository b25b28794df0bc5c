//! What is new in a mesh.

use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use crate::mesh::ServiceKey;
use crate::name::ObjectId;

/// The union of everything that changed since the last push. Merging is associative, commutative and idempotent.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ChangeSet {
    /// Objects that were added, changed or removed. Of services and workloads they are the cause only; what follows for the
    /// mesh is in the fields below.
    pub objects: BTreeSet<ObjectId>,
    /// Services that were added, changed or removed; also those of which more than the assignment depends on endpoints that
    /// changed (identities, addresses of headless services, names to resolve).
    pub services: BTreeSet<ServiceKey>,
    /// Services whose endpoints changed.
    pub endpoints: BTreeMap<ServiceKey, EndpointChange>,
    /// Addresses at which another workload is found than before, or one that serves something else.
    pub workloads: BTreeSet<IpAddr>,
    /// The mesh configuration itself changed: nothing may be reused.
    pub everything: bool,
}

/// How the endpoints of a service changed. The later form is the more urgent.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum EndpointChange {
    /// None is lost.
    Added,
    /// Some take no traffic any more: each moment more costs requests.
    Removed,
}

impl ChangeSet {
    /// Adds another change.
    pub fn merge(&mut self, other: ChangeSet) {
        self.objects.extend(other.objects);
        self.services.extend(other.services);
        for (key, change) in other.endpoints {
            let known = self.endpoints.entry(key).or_insert(change);
            *known = change.max(*known);
        }
        self.workloads.extend(other.workloads);
        self.everything |= other.everything;
    }

    /// True if there is nothing to push.
    pub fn is_empty(&self) -> bool {
        self == &ChangeSet::default()
    }

    /// True if assignments are all that this changes.
    pub fn is_endpoints_only(&self) -> bool {
        let ChangeSet { objects, services, endpoints: _, workloads, everything } = self;
        objects.is_empty() && services.is_empty() && workloads.is_empty() && !everything
    }
}
