//! Which policies, patches and extensions are for a workload.

use std::sync::Arc;

use imbl::OrdMap;
use pilotfish_model::attachment::Attached;
use pilotfish_model::mesh::{Mesh, ObjectKey};
use pilotfish_model::name::Labels;

/// Objects of a kind that are for a workload: those of the root namespace, then those of its own, each from old to young.
pub fn attached<'a, T: Attached>(
    objects: &'a OrdMap<ObjectKey, Arc<T>>,
    root: &'a str,
    namespace: &'a str,
    labels: &'a Labels,
) -> Vec<&'a Arc<T>> {
    if objects.is_empty() {
        return Vec::new();
    }
    let of = |namespace: &'a str| {
        let mut found: Vec<&Arc<T>> = Mesh::in_namespace(objects, namespace).filter(|o| o.attachment().covers(labels)).collect();
        found.sort_by(|a, b| a.meta().age_order().cmp(&b.meta().age_order()));
        found
    };
    let mut found = of(root);
    if root != namespace {
        found.extend(of(namespace));
    }
    found
}
