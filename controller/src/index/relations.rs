//! [`Relations`]: which object mentions which, so that a change finds its dependants without a search.

use std::collections::btree_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use pilotfish_model::endpoint::EndpointAddress;
use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::name::{Labels, Str};
use pilotfish_model::time::Timestamp;
use pilotfish_model::{ObjectId, Service};

use crate::convert::Fact;

/// Who wants to be the service of a host. The least one is: Kubernetes before ServiceEntries, older before younger, then by
/// name.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(super) struct Claim {
    external: bool,
    created: Timestamp,
    /// The object.
    pub(super) id: ObjectId,
    /// Which of its hosts.
    pub(super) host: usize,
}

/// A map to sets that holds no empty set. Most sets have one element: it needs no allocation of its own.
#[derive(Clone, Debug)]
pub(super) struct Multi<K, V>(BTreeMap<K, Few<V>>);

#[derive(Clone, Debug)]
enum Few<V> {
    One(V),
    Many(BTreeSet<V>),
}

impl<K, V> Default for Multi<K, V> {
    fn default() -> Self {
        Multi(BTreeMap::new())
    }
}

impl<K: Ord, V: Ord> Multi<K, V> {
    pub(super) fn get<'a, Q: Ord + ?Sized>(&'a self, key: &Q) -> impl Iterator<Item = &'a V> + use<'a, K, V, Q>
    where
        K: std::borrow::Borrow<Q>,
    {
        let (one, many) = match self.0.get(key) {
            None => (None, None),
            Some(Few::One(v)) => (Some(v), None),
            Some(Few::Many(set)) => (None, Some(set.iter())),
        };
        one.into_iter().chain(many.into_iter().flatten())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = &K> {
        self.0.keys()
    }

    pub(super) fn set(&mut self, key: K, value: V, present: bool) {
        let mut few = match self.0.entry(key) {
            Entry::Occupied(few) => few,
            Entry::Vacant(place) => {
                if present {
                    place.insert(Few::One(value));
                }
                return;
            }
        };
        match (few.get_mut(), present) {
            (Few::One(old), true) if *old == value => {}
            (Few::One(old), false) if *old != value => {}
            (Few::One(_), false) => drop(few.remove()),
            (one @ Few::One(_), true) => {
                let old = std::mem::replace(one, Few::Many(BTreeSet::new()));
                if let (Few::One(old), Few::Many(set)) = (old, one) {
                    set.extend([old, value]);
                }
            }
            (Few::Many(set), true) => drop(set.insert(value)),
            (Few::Many(set), false) => {
                set.remove(&value);
                if set.is_empty() {
                    few.remove();
                }
            }
        }
    }
}

/// The reverse look-ups.
#[derive(Default)]
pub(super) struct Relations {
    /// Candidates for each host.
    pub(super) claims: Multi<ServiceKey, Claim>,
    /// Slices of a Service, by namespace and name.
    pub(super) slices: Multi<(Str, Str), ObjectId>,
    /// Slices that mention a Pod, known or not.
    pub(super) slices_of_pod: Multi<ObjectId, ObjectId>,
    /// Pods on a node.
    pub(super) pods_on: Multi<Str, ObjectId>,
    /// ServiceEntries with an inline endpoint at an address.
    pub(super) entries_at: Multi<IpAddr, ObjectId>,
    /// Pods and WorkloadEntries at an address.
    pub(super) workloads_at: Multi<IpAddr, ObjectId>,
    /// Secrets, by name.
    pub(super) secrets: Multi<Str, ObjectId>,
    /// Objects that refer to Secrets of a name.
    pub(super) referrers: Multi<Str, ObjectId>,
    /// Services and ServiceEntries with a selector, by namespace and the first pair that it asks for.
    selectors: Multi<(Str, Str, Str), ObjectId>,
    /// Pods and WorkloadEntries by namespace and a label, of those labels alone by whose keys selectors are found.
    labelled: Multi<(Str, Str, Str), ObjectId>,
    /// These keys, with their namespaces. They are few, and none is forgotten.
    wanted: BTreeSet<(Str, Str)>,
}

impl Relations {
    /// Adds or takes away what a fact says. `Some`: workloads of this namespace must be told by a label that was of no
    /// interest before, see [`Relations::label`].
    pub(super) fn set(&mut self, id: &ObjectId, fact: &Fact, present: bool) -> Option<(Str, Str)> {
        match fact {
            Fact::Service(s) => {
                self.claims.set(ServiceKey::of(&s.service), claim(&s.service, 0), present);
                return self.set_selector(id, &s.service.selector, present);
            }
            Fact::ServiceEntry(e) => {
                for (i, service) in e.services.iter().enumerate() {
                    self.claims.set(ServiceKey::of(service), claim(service, i), present);
                }
                for endpoint in &e.endpoints {
                    if let Some(EndpointAddress::Ip(ip)) = endpoint.address {
                        self.entries_at.set(ip, id.clone(), present);
                    }
                }
                if let Some(selector) = &e.selector {
                    return self.set_selector(id, selector, present);
                }
            }
            Fact::EndpointSlice(s) => {
                if let Some(service) = &s.service {
                    self.slices.set((id.namespace.clone(), service.clone()), id.clone(), present);
                }
                for pod in s.endpoints.iter().filter_map(|e| e.pod.as_ref()) {
                    self.slices_of_pod.set(pod.clone(), id.clone(), present);
                }
            }
            Fact::Pod(p) => {
                self.pods_on.set(p.node.clone(), id.clone(), present);
                for ip in &p.ips {
                    self.workloads_at.set(*ip, id.clone(), present);
                }
                self.set_labels(id, &p.template.labels, present);
            }
            Fact::WorkloadEntry(w) => {
                if let Some(EndpointAddress::Ip(ip)) = w.address {
                    self.workloads_at.set(ip, id.clone(), present);
                }
                self.set_labels(id, &w.labels, present);
            }
            Fact::Secret(_) => self.secrets.set(id.name.clone(), id.clone(), present),
            _ => {}
        }
        None
    }

    fn set_selector(&mut self, id: &ObjectId, selector: &Labels, present: bool) -> Option<(Str, Str)> {
        let (k, v) = selector.first_key_value()?;
        self.selectors.set((id.namespace.clone(), k.clone(), v.clone()), id.clone(), present);
        let wanted = (id.namespace.clone(), k.clone());
        (present && self.wanted.insert(wanted.clone())).then_some(wanted)
    }

    fn set_labels(&mut self, id: &ObjectId, labels: &Labels, present: bool) {
        for (k, v) in labels {
            if self.wanted.contains(&(id.namespace.clone(), k.clone())) {
                self.labelled.set((id.namespace.clone(), k.clone(), v.clone()), id.clone(), present);
            }
        }
    }

    /// Notes a workload that came before its label was of interest.
    pub(super) fn label(&mut self, id: &ObjectId, key: &Str, labels: &Labels) {
        if let Some(v) = labels.get(key) {
            self.labelled.set((id.namespace.clone(), key.clone(), v.clone()), id.clone(), true);
        }
    }

    /// Pods and WorkloadEntries of a namespace that a selector may select: its first pair holds.
    pub(super) fn maybe_selected<'a>(&'a self, namespace: &Str, selector: &Labels) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        let key = selector.first_key_value().map(|(k, v)| (namespace.clone(), k.clone(), v.clone()));
        key.into_iter().flat_map(|key| self.labelled.get(&key))
    }

    /// Services and ServiceEntries of a namespace that may select a workload with these labels: the first pair holds.
    pub(super) fn maybe_selecting<'a>(&'a self, namespace: &'a Str, labels: &'a Labels) -> impl Iterator<Item = &'a ObjectId> + use<'a> {
        labels.iter().flat_map(move |(k, v)| self.selectors.get(&(namespace.clone(), k.clone(), v.clone())))
    }
}

fn claim(service: &Service, host: usize) -> Claim {
    let external = service.registry == pilotfish_model::service::Registry::External;
    Claim { external, created: service.created, id: service.source.clone(), host }
}
