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
        // What is attached to objects by name is for those of its own namespace.
        found.retain(|o| o.attachment().targets.is_empty());
        found.extend(of(namespace));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_model::Telemetry;
    use pilotfish_model::attachment::{Attachment, GATEWAY_NAME, TargetRef};
    use pilotfish_model::name::Meta;

    #[test]
    fn what_names_an_object_is_for_its_own_namespace() {
        let target = TargetRef { group: "gateway.networking.k8s.io".into(), kind: "Gateway".into(), name: "edge".into() };
        let named = || Attachment { targets: vec![target.clone()], ..Attachment::default() };
        let mut objects = OrdMap::new();
        let rows =
            [("root", "all", Attachment::default()), ("root", "edge", named()), ("shop", "edge", named()), ("bank", "edge", named())];
        for (namespace, name, attachment) in rows {
            let meta = Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() };
            let key = ObjectKey { namespace: namespace.into(), name: name.into() };
            objects.insert(key, Arc::new(Telemetry { meta, attachment, ..Telemetry::default() }));
        }
        let labels = Labels::from([(GATEWAY_NAME.into(), "edge".into())]);
        let names = |namespace| {
            let found = attached(&objects, "root", namespace, &labels);
            found.into_iter().map(|f| format!("{}/{}", f.meta.namespace, f.meta.name)).collect::<Vec<_>>()
        };
        assert_eq!(names("shop"), ["root/all", "shop/edge"]);
        assert_eq!(names("root"), ["root/all", "root/edge"]);
        assert_eq!(names("cafe"), ["root/all"]);
    }
}
