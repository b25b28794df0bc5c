//! What a change set promises to those who decide by it what to reuse, and the counters of [`Usage`].

use pilotfish_model::mesh::Usage;
use pilotfish_model::{EndpointChange, Kind, Mesh};
use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::testing::{apply, index_of, key, mk_istio, mk_pod, mk_service, mk_slice, yaml_objects};
use super::usage::tests::recount;
use super::*;

const WEB: &str = "web.ns.svc.cluster.local";

/// `web` with a Pod and an address of which no Pod is known.
fn web(extra: &str) -> Index {
    let mut index = index_of(yaml_objects(
        &[mk_service("web", extra), mk_pod("p1", "web", "10.0.0.1"), mk_slice("web", &["p1=10.0.0.1", "=10.0.0.9"])].concat(),
    ));
    index.publish().unwrap();
    index
}

#[test]
fn an_address_that_changes_is_a_matter_of_assignments_only() {
    use EndpointChange::{Added, Removed};
    let mut index = web("");
    for (endpoints, change) in [
        (&["p1=10.0.0.1", "=10.0.0.8"], Removed),
        (&["p1=172.16.0.1", "=10.0.0.8"], Removed),
        (&["p1=172.16.0.1", "=10.0.0.8!ready: false"], Removed),
        (&["p1=172.16.0.1", "=10.0.0.8"], Added),
    ] {
        let (_, changes) = apply(&mut index, &mk_slice("web", endpoints)).unwrap();
        assert_eq!(changes, ChangeSet { endpoints: [(key(WEB), change)].into(), ..ChangeSet::default() }, "{endpoints:?}");
        assert!(changes.is_endpoints_only());
    }
}

#[test]
fn what_reaches_beyond_assignments_names_the_service() {
    let reaches = |index: &mut Index, text: &str| {
        let (_, changes) = apply(index, text).unwrap();
        assert_eq!(changes.endpoints.keys().collect::<Vec<_>>(), [&key(WEB)]);
        !changes.is_endpoints_only() && changes.services.contains(&key(WEB))
    };
    // The names that servers may present.
    let account = mk_pod("p1", "web", "10.0.0.1").replace("acc", "other");
    assert!(reaches(&mut web(""), &account));
    // Whether all of them speak mesh mTLS; the Pod alone does.
    let mut index = web("");
    assert!(reaches(&mut index, &mk_slice("web", &["p1=10.0.0.1"])));
    assert!(!reaches(&mut index, &mk_slice("web", &["p1=10.0.0.2"])));
    assert!(reaches(&mut index, &mk_slice("web", &["p1=10.0.0.2", "=10.0.0.3"])));
    // Endpoints of headless services are listeners and names.
    let headless = mk_service("web", "").replace("10.1.0.1", "None");
    let mut index = web("");
    apply(&mut index, &headless).unwrap();
    assert!(reaches(&mut index, &mk_slice("web", &["p1=10.0.0.1", "=10.0.0.8"])));
    let (_, changes) = apply(&mut index, &mk_slice("web", &["p1=10.0.0.1", "=10.0.0.7"])).unwrap();
    assert!(changes.objects.is_empty(), "the service's own content is as it was");
}

#[test]
fn changes_of_names_to_resolve_name_the_service() {
    let entry = |address: &str| {
        mk_istio(
            "ServiceEntry",
            "se",
            &format!("{{hosts: [a.b], resolution: DNS, ports: [{{number: 1, name: tcp}}], endpoints: [{{address: {address}}}]}}"),
        )
    };
    let mut index = index_of(yaml_objects(&entry("x.example")));
    index.publish().unwrap();
    let (_, changes) = apply(&mut index, &entry("y.example")).unwrap();
    assert_eq!(changes.services, [key("a.b")].into());
    assert_eq!(changes.endpoints, [(key("a.b"), EndpointChange::Removed)].into());
}

#[test]
fn two_joins_before_a_publish_keep_the_more_urgent_change() {
    let mut index = web("");
    yaml_objects(&mk_slice("web", &["p1=10.0.0.1"])).into_iter().for_each(|o| index.apply(o));
    index.join();
    let (_, changes) = apply(&mut index, &mk_slice("web", &["p1=10.0.0.1", "=10.0.0.8"])).unwrap();
    assert_eq!(changes.endpoints, [(key(WEB), EndpointChange::Removed)].into());
}

/// Objects that ask for something, each in a form that asks and in one that asks for less.
fn askers() -> Vec<String> {
    let mut all = Vec::new();
    for name in ["a", "b"] {
        all.push(mk_service(name, ""));
        all.push(mk_service(name, ", internalTrafficPolicy: Local"));
        all.push(mk_istio("Sidecar", name, "{egress: [{hosts: ['*/*']}]}"));
        all.push(mk_istio(
            "Sidecar",
            name,
            "{workloadSelector: {labels: {app: x, tier: y}}, ingress: [{port: {number: 80, protocol: HTTP, name: http}, defaultEndpoint: '127.0.0.1:80'}]}",
        ));
        all.push(mk_istio("DestinationRule", name, "{host: a}"));
        all.push(mk_istio("DestinationRule", name, "{host: a, workloadSelector: {matchLabels: {app: x, zone: z}}}"));
        let route = "route: [{destination: {host: a}}]";
        all.push(mk_istio("VirtualService", name, &format!("{{hosts: [a], http: [{{{route}}}]}}")));
        all.push(mk_istio(
            "VirtualService",
            name,
            &format!(
                "{{hosts: [a], http: [{{match: [{{sourceLabels: {{app: x}}}}, {{sourceLabels: {{app: y, http: y}}}}], {route}}}], \
                 tls: [{{match: [{{sniHosts: [a], sourceLabels: {{tls: x}}}}], {route}}}], tcp: [{{match: [{{sourceLabels: {{tcp: x}}}}], {route}}}]}}"
            ),
        ));
    }
    all
}

#[test]
fn usage_is_counted_per_object() {
    let mut index = index_of(yaml_objects(&askers().concat()));
    let (mesh, _) = index.publish().unwrap();
    let keys = [("app", 6_usize), ("tier", 2), ("zone", 2), ("http", 2), ("tls", 2), ("tcp", 2)];
    let selector_keys = keys.map(|(k, n)| (Str::from(k), n)).into_iter().collect();
    assert_eq!(mesh.usage, Usage { node_local: 2, sidecar_ingress: 2, selector_keys });
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However objects come, change and go: the counters are those of the mesh as it is, and nothing stays behind.
    #[test]
    fn usage_is_what_a_recount_gives(steps in prop::collection::vec((0..16usize, any::<bool>(), any::<bool>()), 1..40)) {
        let askers: Vec<_> = askers().iter().map(|text| yaml_objects(text).remove(0)).collect();
        let mut index = Index::new(Settings::default());
        for (i, delete, publish) in steps {
            if delete { index.delete(&askers[i].id) } else { index.apply(askers[i].clone()) }
            if publish && let Some((mesh, _)) = index.publish() {
                prop_assert_eq!(&mesh.usage, &recount(&mesh));
            }
        }
        for object in &askers {
            index.delete(&object.id);
        }
        let mesh: Arc<Mesh> = index.publish().map(|(mesh, _)| mesh).unwrap_or_default();
        prop_assert_eq!(&mesh.usage, &Usage::default());
    }
}

/// Every kind that the mesh reads, as an object that means something.
fn one_of_each() -> Vec<(Kind, String)> {
    let core = |kind: &str, group: &str, rest: &str| {
        format!("apiVersion: {group}\nkind: {kind}\nmetadata: {{name: x, namespace: ns}}\n{rest}\n---\n")
    };
    let istio = |kind: &str, group: &str, spec: &str| core(kind, &format!("{group}.istio.io/v1"), &format!("spec: {spec}"));
    Kind::ALL
        .iter()
        .filter(|k| **k != Kind::MeshConfig)
        .map(|kind| {
            let name = kind.as_str();
            let text = match kind {
                Kind::Service => mk_service("x", ""),
                Kind::EndpointSlice => mk_slice("x", &["=10.0.0.1", "=10.0.0.2"]),
                Kind::Pod => mk_pod("x", "x", "10.0.0.3"),
                Kind::ServiceEntry => mk_istio(name, "x", "{hosts: [x.example], resolution: DNS, ports: [{number: 1, name: tcp}]}"),
                Kind::VirtualService => mk_istio(name, "x", "{hosts: [a], http: [{route: [{destination: {host: a}}]}]}"),
                Kind::DestinationRule => mk_istio(name, "x", "{host: a}"),
                Kind::Gateway => mk_istio(name, "x", "{servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}"),
                Kind::WorkloadEntry => mk_istio(name, "x", "{address: 192.0.2.1}"),
                Kind::Sidecar => mk_istio(name, "x", "{egress: [{hosts: ['*/*']}]}"),
                Kind::WasmPlugin => istio(name, "extensions", "{url: registry.example/x}"),
                Kind::TrafficExtension => istio(name, "extensions", "{lua: {inlineCode: x}}"),
                _ if kind.group().is_empty() => core(name, "v1", ""),
                _ => istio(name, kind.group().trim_end_matches(".istio.io"), "{}"),
            };
            (*kind, text)
        })
        .collect()
}

#[test]
fn edits_without_meaning_publish_nothing_and_are_counted() {
    for (kind, text) in one_of_each() {
        let mut index = index_of(yaml_objects(&text));
        index.publish();
        let bookkeeping = "metadata: {resourceVersion: '7', generation: 3, uid: u, selfLink: s, finalizers: [f], managedFields: [{manager: m}], \
                           annotations: {kubectl.kubernetes.io/last-applied-configuration: c}, ";
        let mut edits = vec![text.replace("metadata: {", bookkeeping)];
        let status = "status: {observedGeneration: 3, conditions: [{type: Reconciled, status: 'True'}]}\n---\n";
        match kind {
            Kind::Pod => edits.push(text.replace("phase: Running,", "phase: Running, qosClass: Burstable, startTime: now,")),
            // Its status is part of what it says, and closed.
            Kind::ServiceEntry => edits.push(text.replace("---\n", "status: {}\n---\n")),
            _ => edits.push(text.replace("---\n", status)),
        }
        if kind == Kind::EndpointSlice {
            edits.push(mk_slice("x", &["=10.0.0.2", "=10.0.0.1"]));
        }
        for edit in edits {
            assert!(edit != text, "{kind:?}");
            let before = index.stats().suppressed;
            assert_eq!(apply(&mut index, &edit).map(|(_, changes)| changes), None, "{kind:?}: {edit}");
            assert_eq!(index.stats().suppressed, before + 1, "{kind:?}");
        }
    }
}
