//! What an edit costs, counted: it depends on what it touches, and not on how much else there is.

#![allow(missing_docs, clippy::unwrap_used, clippy::expect_used)]

#[path = "../benches/mesh.rs"]
mod mesh;

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_envoy::{Resource, TypeUrl};
use pilotfish_model::{ChangeSet, Locality};
use pilotfish_translator::{Endpoints, Own, ProxyClass, Translator, View, Work, World, classify, reclassifies};

/// Something that happens to a mesh.
type Edit = fn(&World) -> (World, ChangeSet);

/// All of one class, as a server holds it.
struct Held {
    class: ProxyClass,
    view: Arc<View>,
    endpoints: Arc<Endpoints>,
    own: Arc<Own>,
}

fn hold(translator: &Translator, world: &World, namespace: &str) -> Held {
    let class = mesh::class(world, namespace, "a");
    let view = translator.view(world, class.scope(), None);
    let endpoints = translator.endpoints(world, &view, None, None);
    let own = translator.own(world, &class, &view, None);
    Held { class, view, endpoints, own }
}

fn hear(translator: &Translator, world: &World, changes: &ChangeSet, held: &mut Held) {
    let before = held.view.clone();
    if before.touched_by(world, changes) {
        held.view = translator.view(world, held.class.scope(), Some((&before, changes)));
    }
    let same = Arc::ptr_eq(&before, &held.view);
    if !same || !changes.endpoints.is_empty() {
        held.endpoints = translator.endpoints(world, &held.view, Some(&held.endpoints), same.then_some(&changes.endpoints));
    }
    if !same || held.own.touched_by(world, changes) {
        held.own = translator.own(world, &held.class, &held.view, Some((&held.own, changes)));
    }
}

/// What was done between the two.
fn spent(before: Work, after: Work) -> Work {
    Work {
        views: after.views - before.views,
        views_unchanged: after.views_unchanged - before.views_unchanged,
        owns: after.owns - before.owns,
        owns_unchanged: after.owns_unchanged - before.owns_unchanged,
        units_computed: after.units_computed - before.units_computed,
        units_reused: after.units_reused - before.units_reused,
        services_assigned: after.services_assigned - before.services_assigned,
        leaves_built: after.leaves_built - before.leaves_built,
        leaf_hits: after.leaf_hits - before.leaf_hits,
        bytes_encoded: after.bytes_encoded - before.bytes_encoded,
        refused: after.refused - before.refused,
    }
}

/// What `edit` costs all who hold a scope of ten namespaces.
fn cost(services: usize, isolated: bool, edit: Edit) -> Work {
    let world = World::new(Arc::new(mesh::mesh(services, isolated)));
    let translator = Translator::default();
    let mut all: Vec<Held> = (0..5).map(|n| hold(&translator, &world, &format!("ns{n}"))).collect();
    let (next, changes) = edit(&world);
    let before = translator.work();
    all.iter_mut().for_each(|held| hear(&translator, &next, &changes, held));
    let after = translator.work();
    // The same once more: nothing.
    all.iter_mut().for_each(|held| hear(&translator, &next, &changes, held));
    let again = spent(after, translator.work());
    assert_eq!(Work { views_unchanged: 0, owns_unchanged: 0, ..again }, Work::default(), "the same edit again");
    spent(before, after)
}

#[test]
fn an_edit_costs_the_namespace_that_sees_it_in_a_mesh_of_any_size() {
    let edits: [(&str, Edit, Work); 4] = [
        // One virtual host is built; the rest of the route configuration is taken over.
        ("route", mesh::route_edit, Work { views: 1, leaves_built: 1, owns_unchanged: 1, ..Work::default() }),
        // The whole service, and its two subsets.
        ("endpoint", mesh::endpoint_change, Work { services_assigned: 1, leaves_built: 3, ..Work::default() }),
        // A cluster, an assignment, a virtual host.
        (
            "service",
            mesh::service_add,
            Work { views: 1, units_computed: 1, services_assigned: 1, leaves_built: 3, owns_unchanged: 1, ..Work::default() },
        ),
        // Its cluster; those of its subsets know no sessions, and three assignments are the same.
        (
            "changed service",
            mesh::service_change,
            Work { views: 1, units_computed: 1, services_assigned: 1, leaves_built: 1, owns_unchanged: 1, ..Work::default() },
        ),
    ];
    for (name, edit, expected) in edits {
        let [small, large] = [100, 5000].map(|services| cost(services, true, edit));
        assert_eq!(small, large, "{name}");
        let own = Work { leaf_hits: 0, bytes_encoded: 0, ..small };
        assert_eq!(own, expected, "{name}");
    }
}

#[test]
fn scopes_that_see_the_same_share_it() {
    let world = World::new(Arc::new(mesh::mesh(200, false)));
    let translator = Translator::default();
    let first = hold(&translator, &world, "ns0");
    let one = translator.work();
    let second = hold(&translator, &world, "ns1");
    let other = spent(one, translator.work());
    assert_eq!((other.units_computed, other.units_reused), (0, 200));
    // The services of both namespaces have other short names, and listeners name the namespace in their tags.
    assert_eq!(other.leaves_built, 2 * 20 + 2);
    assert_eq!(first.view.layers().get(TypeUrl::Cluster), second.view.layers().get(TypeUrl::Cluster));
    let edit = cost(200, false, mesh::route_edit);
    // Two forms of one virtual host: for its own namespace, and for all others.
    assert_eq!((edit.views, edit.leaves_built, edit.leaf_hits), (5, 2, 3));
    // Of virtual hosts only those of that service are looked up; the rest is each scope's listener.
    let service = cost(200, false, mesh::service_add);
    assert_eq!((service.views, service.leaves_built, service.leaf_hits), (5, 4, 8));
    let changed = cost(200, false, mesh::service_change);
    assert_eq!((changed.views, changed.leaves_built, changed.leaf_hits), (5, 1, 15));
    let endpoint = cost(200, false, mesh::endpoint_change);
    assert_eq!((endpoint.services_assigned, endpoint.leaves_built), (5, 3));
}

#[test]
fn a_thousand_proxies_of_one_class_cost_one_and_another_class_its_own_part() {
    let world = World::new(Arc::new(mesh::mesh(100, false)));
    let translator = Translator::default();
    let classes: BTreeSet<ProxyClass> = (0..1000).map(|_| mesh::class(&world, "ns0", "a")).collect();
    assert_eq!(classes.len(), 1);
    let held = hold(&translator, &world, "ns0");
    let first = translator.work();
    let resources = [held.view.layers(), held.own.layers()].into_iter().flat_map(|l| l.iter()).map(|(_, layer)| layer.len()).sum::<usize>();
    // Beside virtual hosts everything that was built is a resource, and nothing was built twice.
    let hosts = 100 + 1;
    assert_eq!(first.leaves_built as usize, resources - 1 + held.endpoints.layer().len() + hosts);
    let other = mesh::class(&world, "ns0", "b");
    assert_eq!((other.scope(), &other == classes.first().unwrap()), (held.class.scope(), false));
    let _own = translator.own(&world, &other, &held.view, None);
    // Two listeners say what the workload is called: the outbound one for HTTP, and the inbound one.
    assert_eq!(
        Work { leaf_hits: 0, bytes_encoded: 0, ..spent(first, translator.work()) },
        Work { owns: 1, leaves_built: 2, ..Work::default() }
    );
}

#[test]
fn a_scope_in_another_zone_starts_from_its_sibling() {
    let in_zone = |world: &World, zone: &str| {
        let mut proxy = mesh::proxy("ns0", "a");
        proxy.locality = Locality { region: "r".into(), zone: zone.into(), sub_zone: "".into() };
        classify(world, &proxy)
    };
    let world = World::new(Arc::new(mesh::mesh(200, false)));
    let translator = Translator::default();
    let (here, there) = (in_zone(&world, "a"), in_zone(&world, "b"));
    assert_ne!(here.scope(), there.scope());
    let first = translator.view(&world, here.scope(), None);
    let one = translator.work();
    let second = translator.view(&world, there.scope(), None);
    let other = spent(one, translator.work());
    // Nothing is built, and nothing but clusters is even looked up: one per service, three where there are subsets.
    assert_eq!((other.units_computed, other.leaves_built), (200, 0));
    assert_eq!(other.leaf_hits as usize, second.layers().get(TypeUrl::Cluster).len());
    let shared = |type_url| Arc::ptr_eq(first.layers().get(type_url), second.layers().get(type_url));
    assert_eq!([TypeUrl::Route, TypeUrl::Listener].map(shared), [true, true]);
    // Nor does it matter what came first.
    let alone = Translator::default();
    let of = |translator: &Translator, view: &Arc<View>| translator.endpoints(&world, view, None, None).layer().clone();
    let view = alone.view(&world, there.scope(), None);
    assert_eq!((view.layers(), of(&alone, &view)), (second.layers(), of(&translator, &second)));
}

#[test]
fn what_moves_a_proxy_to_another_class() {
    let world = World::new(Arc::new(mesh::mesh(100, true)));
    let proxy = mesh::proxy("ns0", "a");
    for (edit, moves) in [
        (mesh::route_edit as Edit, false),
        (mesh::endpoint_change, false),
        // It may have become an endpoint of it.
        (mesh::service_add, true),
    ] {
        let (next, changes) = edit(&world);
        assert_eq!((reclassifies(&changes, &proxy), next.same_keys(&world)), (moves, true), "{changes:?}");
    }
    let mut changes = ChangeSet::default();
    changes.workloads.insert([10, 9, 9, 9].into());
    assert!(reclassifies(&changes, &proxy));
}

#[test]
fn resources_remember_the_objects_behind_them() {
    let world = World::new(Arc::new(mesh::mesh(20, false)));
    let held = hold(&Translator::default(), &world, "ns0");
    let of = |resource: &Resource| resource.sources().map(|s| s.to_string()).collect::<BTreeSet<String>>();
    let expect = |names: &[&str]| names.iter().map(|n| (*n).to_owned()).collect::<BTreeSet<String>>();
    let cluster = "outbound|80|v1|svc0.ns0.svc.cluster.local";
    for layer in [held.view.layers().get(TypeUrl::Cluster), held.endpoints.layer()] {
        assert_eq!(of(layer.get(cluster).unwrap()), expect(&["Service/ns0/svc0", "DestinationRule/ns0/svc0"]));
    }
    let routes = of(held.view.layers().get(TypeUrl::Route).get("80").unwrap());
    let all: Vec<String> = (0..20).flat_map(|i| [format!("Service/ns0/svc{i}"), format!("VirtualService/ns0/svc{i}")]).collect();
    assert_eq!(routes, all.into_iter().collect());
}
