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
    /// Proxies are told apart by other labels or settings than before: any may be of another class now.
    pub classes: bool,
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
    pub fn merge(&mut self, mut other: ChangeSet) {
        union(&mut self.objects, other.objects);
        union(&mut self.services, other.services);
        if self.endpoints.len() < other.endpoints.len() {
            std::mem::swap(&mut self.endpoints, &mut other.endpoints);
        }
        for (key, change) in other.endpoints {
            let known = self.endpoints.entry(key).or_insert(change);
            *known = change.max(*known);
        }
        union(&mut self.workloads, other.workloads);
        self.classes |= other.classes;
        self.everything |= other.everything;
    }

    /// True if there is nothing to push.
    pub fn is_empty(&self) -> bool {
        self == &ChangeSet::default()
    }

    /// True if assignments are all that this changes.
    pub fn is_endpoints_only(&self) -> bool {
        let ChangeSet { objects, services, endpoints: _, workloads, classes, everything } = self;
        objects.is_empty() && services.is_empty() && workloads.is_empty() && !classes && !everything
    }
}

/// The smaller set goes into the larger one.
fn union<T: Ord>(into: &mut BTreeSet<T>, mut other: BTreeSet<T>) {
    if into.len() < other.len() {
        std::mem::swap(into, &mut other);
    }
    if into.len() / 8 < other.len() { into.append(&mut other) } else { into.extend(other) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Host, Kind};

    /// A change of these services, which lost endpoints or won some.
    fn changes(services: std::ops::Range<usize>, lost: bool) -> ChangeSet {
        let key = |i| ServiceKey { namespace: "ns".into(), host: Host::new(&format!("s{i:04}")) };
        let kind = if lost { EndpointChange::Removed } else { EndpointChange::Added };
        ChangeSet {
            objects: services.clone().map(|i| ObjectId::new(Kind::Service, "ns", format!("s{i:04}").as_str())).collect(),
            services: services.clone().map(key).collect(),
            endpoints: services.clone().map(|i| (key(i), kind)).collect(),
            workloads: services.clone().map(|i| IpAddr::from([10, 0, 0, i as u8])).collect(),
            ..ChangeSet::default()
        }
    }

    #[test]
    fn merging_is_the_union_whichever_is_larger() {
        for (first, second) in [(0..100, 50..150), (0..100, 99..101), (0..2, 1..101), (0..0, 0..100), (0..100, 20..60)] {
            let (a, b) = (changes(first.clone(), true), changes(second.clone(), false));
            let mut expected = changes(first.start.min(second.start)..first.end.max(second.end), false);
            for key in a.endpoints.keys() {
                expected.endpoints.insert(key.clone(), EndpointChange::Removed);
            }
            for (mut into, other) in [(a.clone(), b.clone()), (b, a)] {
                into.merge(other.clone());
                assert_eq!(into, expected, "{first:?} and {second:?}");
                into.merge(other);
                assert_eq!(into, expected, "again");
            }
        }
    }
}
