//! Lists of a whole mesh in the order of age. Made when the first scope that sees everything asks; later ones by putting
//! what changed into the list before.

use std::cmp::Ordering;
use std::collections::BTreeSet;
use std::sync::{Arc, OnceLock};

use imbl::OrdMap;
use pilotfish_model::Service;

use super::Rules;

/// Beyond one in so many sorting is cheaper than putting in.
const FEW: usize = 16;

type List<V> = Arc<[Arc<V>]>;

/// See the module.
#[derive(Clone)]
pub(super) struct ByAge<K, V> {
    order: fn(&V, &V) -> Ordering,
    /// An earlier list without what changed since, and the keys of that.
    base: Option<(List<V>, BTreeSet<K>)>,
    list: OnceLock<List<V>>,
}

/// Key of an entry of a list.
pub(super) trait Keyed<K>: Sized {
    fn is(&self, key: &K) -> bool;

    /// Others that stand beside it under its key.
    fn twins(&self) -> &[Arc<Self>] {
        &[]
    }
}

impl<K: Ord + Clone, V: Keyed<K>> ByAge<K, V> {
    pub(super) fn new(order: fn(&V, &V) -> Ordering) -> Self {
        ByAge { order, base: None, list: OnceLock::new() }
    }

    /// The list of a world in which these entries may be others.
    pub(super) fn without(&self, changed: &BTreeSet<K>) -> Self {
        let next = ByAge::new(self.order);
        match (self.list.get(), &self.base) {
            (Some(list), _) if changed.is_empty() => {
                // A fresh cell: setting it cannot fail.
                let _ = next.list.set(list.clone());
                next
            }
            (Some(list), _) => ByAge { base: Some((list.clone(), changed.clone())), ..next },
            // Nobody asks any more: at some point the list is not worth keeping.
            (None, Some((list, known))) if known.len() * FEW <= list.len() => {
                ByAge { base: Some((list.clone(), known.union(changed).cloned().collect())), ..next }
            }
            (None, _) => next,
        }
    }

    pub(super) fn get(&self, all: &OrdMap<K, Arc<V>>) -> &List<V> {
        self.list.get_or_init(|| match &self.base {
            Some((list, changed)) if changed.len() * FEW <= all.len() => self.put(list, changed, all),
            _ => {
                let mut list: Vec<Arc<V>> = Vec::with_capacity(all.len());
                for one in all.values() {
                    list.push(one.clone());
                    list.extend_from_slice(one.twins());
                }
                list.sort_by(|a, b| (self.order)(a, b));
                list.into()
            }
        })
    }

    fn put(&self, list: &[Arc<V>], changed: &BTreeSet<K>, all: &OrdMap<K, Arc<V>>) -> List<V> {
        let mut list: Vec<Arc<V>> = list.iter().filter(|v| !changed.iter().any(|k| v.is(k))).cloned().collect();
        let new = changed.iter().filter_map(|k| all.get(k));
        for new in new.flat_map(|new| std::iter::once(new).chain(new.twins())) {
            let at = list.partition_point(|v| (self.order)(v, new).is_lt());
            list.insert(at, new.clone());
        }
        list.into()
    }
}

impl Keyed<pilotfish_model::mesh::ServiceKey> for Service {
    fn is(&self, key: &pilotfish_model::mesh::ServiceKey) -> bool {
        self.host == key.host && self.namespace == key.namespace
    }

    fn twins(&self) -> &[Arc<Self>] {
        &self.twins
    }
}

impl Keyed<pilotfish_model::mesh::ObjectKey> for Rules {
    fn is(&self, key: &pilotfish_model::mesh::ObjectKey) -> bool {
        self.meta.name == key.name && self.meta.namespace == key.namespace
    }
}

/// Oldest first. No two services are equal.
pub(crate) fn service_order(a: &Service, b: &Service) -> Ordering {
    (a.created, &a.name, &a.namespace, &a.host, &a.source).cmp(&(b.created, &b.name, &b.namespace, &b.host, &b.source))
}

/// Oldest first. No two are equal.
pub(crate) fn rules_order(a: &Rules, b: &Rules) -> Ordering {
    a.meta.age_order().cmp(&b.meta.age_order())
}
