//! Which part of a change waits with which: [`Origin`].

use std::fmt;

use pilotfish_model::{ChangeSet, EndpointChange, Kind, Str};

use super::ByOrigin;

/// Where a change comes from: changes of one origin wait for each other, and for no others.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Origin {
    /// What all namespaces depend on: the mesh's settings, nodes, namespaces, the root namespace's objects.
    Mesh,
    /// Services and workloads of a namespace.
    Registry(Str),
    /// Rules of a namespace.
    Rules(Str),
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Origin::Mesh => write!(f, "mesh"),
            Origin::Registry(namespace) => write!(f, "{namespace}/registry"),
            Origin::Rules(namespace) => write!(f, "{namespace}/rules"),
        }
    }
}

/// Takes the endpoints out of a change: the rest, and the endpoints by urgency.
pub(super) fn endpoints(mut change: ChangeSet) -> (ChangeSet, Vec<(EndpointChange, ChangeSet)>) {
    let all = std::mem::take(&mut change.endpoints);
    let (lost, new): (Vec<_>, Vec<_>) = all.into_iter().partition(|(_, kind)| *kind == EndpointChange::Removed);
    let parts = [(EndpointChange::Removed, lost), (EndpointChange::Added, new)];
    let parts = parts.into_iter().filter(|(_, part)| !part.is_empty());
    let parts = parts.map(|(kind, part)| (kind, ChangeSet { endpoints: part.into_iter().collect(), ..ChangeSet::default() }));
    (change, parts.collect())
}

/// The parts of a change by origin. Its endpoints were taken out before.
pub(super) fn by_origin(change: ChangeSet, root: &str) -> ByOrigin {
    if change.everything {
        // Whatever else there is will be made anew with it.
        return ByOrigin::from([(Origin::Mesh, change)]);
    }
    let mut parts = ByOrigin::new();
    let ChangeSet { objects, services, endpoints: _, workloads, classes, everything: _ } = change;
    let of = |namespace: &Str, registry: bool| match registry {
        _ if namespace.is_empty() || **namespace == *root => Origin::Mesh,
        true => Origin::Registry(namespace.clone()),
        false => Origin::Rules(namespace.clone()),
    };
    for object in objects {
        let registry = matches!(object.kind, Kind::Service | Kind::ServiceEntry | Kind::EndpointSlice | Kind::Pod | Kind::WorkloadEntry);
        parts.entry(of(&object.namespace, registry)).or_default().objects.insert(object);
    }
    for service in services {
        parts.entry(of(&service.namespace, true)).or_default().services.insert(service);
    }
    // An address has no namespace; it changes with the objects beside it.
    if !workloads.is_empty() {
        let beside = parts.keys().find(|origin| matches!(origin, Origin::Registry(_))).cloned();
        parts.entry(beside.unwrap_or(Origin::Mesh)).or_default().workloads = workloads;
    }
    if classes {
        parts.entry(Origin::Mesh).or_default().classes = true;
    }
    parts
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_model::mesh::ServiceKey;
    use pilotfish_model::{Host, ObjectId};

    fn key(namespace: &str) -> ServiceKey {
        ServiceKey { namespace: namespace.into(), host: Host::new("web") }
    }

    #[test]
    fn each_namespace_waits_for_itself() {
        let object = |kind, ns: &str| ObjectId::new(kind, ns, "x");
        let change = ChangeSet {
            objects: [
                object(Kind::VirtualService, "a"),
                object(Kind::Service, "a"),
                object(Kind::Sidecar, "root"),
                object(Kind::Node, ""),
                object(Kind::DestinationRule, "b"),
            ]
            .into(),
            services: [key("a"), key("root")].into(),
            workloads: ["10.0.0.1".parse().unwrap()].into(),
            ..ChangeSet::default()
        };
        let parts = by_origin(change, "root");
        let expected = ByOrigin::from([
            (
                Origin::Mesh,
                ChangeSet {
                    objects: [object(Kind::Sidecar, "root"), object(Kind::Node, "")].into(),
                    services: [key("root")].into(),
                    ..ChangeSet::default()
                },
            ),
            (
                Origin::Registry("a".into()),
                ChangeSet {
                    objects: [object(Kind::Service, "a")].into(),
                    services: [key("a")].into(),
                    workloads: ["10.0.0.1".parse().unwrap()].into(),
                    ..ChangeSet::default()
                },
            ),
            (Origin::Rules("a".into()), ChangeSet { objects: [object(Kind::VirtualService, "a")].into(), ..ChangeSet::default() }),
            (Origin::Rules("b".into()), ChangeSet { objects: [object(Kind::DestinationRule, "b")].into(), ..ChangeSet::default() }),
        ]);
        assert_eq!(parts, expected);
    }

    #[test]
    fn endpoints_go_their_own_way_the_lost_ones_first() {
        let change = ChangeSet {
            endpoints: [(key("a"), EndpointChange::Added), (key("b"), EndpointChange::Removed)].into(),
            services: [key("a")].into(),
            ..ChangeSet::default()
        };
        let (rest, parts) = endpoints(change);
        assert_eq!(rest, ChangeSet { services: [key("a")].into(), ..ChangeSet::default() });
        let of = |ns: &str, kind| ChangeSet { endpoints: [(key(ns), kind)].into(), ..ChangeSet::default() };
        let expected =
            vec![(EndpointChange::Removed, of("b", EndpointChange::Removed)), (EndpointChange::Added, of("a", EndpointChange::Added))];
        assert_eq!(parts, expected);
        assert_eq!(by_origin(ChangeSet::default(), "root"), ByOrigin::new());
    }
}
