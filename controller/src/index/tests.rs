//! Joins by example, with work counts; and that what does not matter publishes nothing.

mod endpoints;

use std::collections::BTreeSet;

use pilotfish_model::endpoint::Health;
use pilotfish_model::secret::Registry;
use pilotfish_model::{EndpointChange, Mesh};
use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::testing::{apply, index_of, key, mk_istio, mk_pod, mk_service, mk_slice, yaml_objects};
use super::*;

/// Endpoints of a host as `address:port health`.
fn endpoints(mesh: &Mesh, host: &str) -> Vec<String> {
    mesh.endpoints
        .get(&key(host))
        .map(|e| e.iter().map(|e| format!("{}:{} {:?}", e.address, e.port, e.health)).collect())
        .unwrap_or_default()
}

/// What a workload serves, as `host:port->target`.
fn targets(mesh: &Mesh, ip: &str) -> Vec<String> {
    let workloads = mesh.workloads.get(&ip.parse::<std::net::IpAddr>().unwrap());
    let all = workloads.into_iter().flat_map(|w| w.iter()).flat_map(|w| w.targets.iter());
    all.map(|t| format!("{}:{}->{}", t.service.host, t.port, t.target_port)).collect()
}

const WEB: &str = "web.ns.svc.cluster.local";

#[test]
fn a_service_its_slice_and_its_pods_become_one() {
    let node = "apiVersion: v1\nkind: Node\nmetadata: {name: n1, labels: {topology.kubernetes.io/region: r, topology.kubernetes.io/zone: z}}\n---\n";
    let mut index = index_of(yaml_objects(
        &[mk_service("web", ""), mk_slice("web", &["p1=10.0.0.1"]), mk_pod("p1", "web", "10.0.0.1"), node.into()].concat(),
    ));
    let (mesh, changes) = index.publish().unwrap();
    assert_eq!(endpoints(&mesh, WEB), ["10.0.0.1:8080 Healthy"]);
    assert_eq!(targets(&mesh, "10.0.0.1"), ["web.ns.svc.cluster.local:80->8080"]);
    let workload = &mesh.endpoints[&key(WEB)][0].workload;
    assert_eq!(
        (&*workload.service_account, workload.mtls, workload.locality.label()),
        ("spiffe://cluster.local/ns/ns/sa/acc", true, "r/z".into())
    );
    assert!(Arc::ptr_eq(workload, &mesh.workloads[&"10.0.0.1".parse::<std::net::IpAddr>().unwrap()][0].workload));
    let id = |kind, ns: &str, name: &str| ObjectId::new(kind, ns, name);
    assert_eq!(
        changes,
        ChangeSet {
            objects: [id(Kind::Service, "ns", "web"), id(Kind::Pod, "ns", "p1"), id(Kind::Node, "", "n1")].into(),
            services: [key(WEB)].into(),
            endpoints: [(key(WEB), EndpointChange::Added)].into(),
            workloads: ["10.0.0.1".parse().unwrap()].into(),
            ..ChangeSet::default()
        }
    );
}

#[test]
fn a_slice_recomputes_its_service_and_nothing_else() {
    let all: String =
        (0..50).map(|i| mk_service(&format!("s{i}"), "") + &mk_pod(&format!("p{i}"), &format!("s{i}"), &format!("10.0.0.{i}"))).collect();
    let mut index = index_of(yaml_objects(&all));
    index.publish().unwrap();
    let before = index.stats();
    let (mesh, changes) = apply(&mut index, &mk_slice("s7", &["p7=10.0.0.7"])).unwrap();
    assert_eq!(endpoints(&mesh, "s7.ns.svc.cluster.local"), ["10.0.0.7:8080 Healthy"]);
    assert_eq!(changes.endpoints.len() + changes.objects.len(), 1);
    let after = index.stats();
    assert_eq!((after.services_joined - before.services_joined, after.workloads_joined - before.workloads_joined), (1, 1));
    // A change of health does not even look at the workload.
    apply(&mut index, &mk_slice("s7", &["p7=10.0.0.7!ready: false"])).unwrap();
    assert_eq!(index.stats().workloads_joined, after.workloads_joined);
}

#[test]
fn an_endpoint_waits_for_its_pod() {
    let mut index = index_of(yaml_objects(&[mk_service("web", ""), mk_slice("web", &["p1=10.0.0.1", "=10.0.0.2"])].concat()));
    let (mesh, _) = index.publish().unwrap();
    assert_eq!(endpoints(&mesh, WEB), ["10.0.0.2:8080 Healthy"]);
    let (mesh, _) = apply(&mut index, &mk_pod("p1", "web", "10.0.0.1")).unwrap();
    assert_eq!(endpoints(&mesh, WEB), ["10.0.0.1:8080 Healthy", "10.0.0.2:8080 Healthy"]);
    index.delete(&ObjectId::new(Kind::Pod, "ns", "p1"));
    let (mesh, _) = index.publish().unwrap();
    assert_eq!((endpoints(&mesh, WEB).len(), mesh.workloads.len()), (1, 0));
}

#[test]
fn a_pod_that_only_a_slice_names_forgets_its_service() {
    let mut index =
        index_of(yaml_objects(&[mk_service("web", ""), mk_slice("web", &["p1=10.0.0.1"]), mk_pod("p1", "db", "10.0.0.1")].concat()));
    assert_eq!(targets(&index.publish().unwrap().0, "10.0.0.1"), ["web.ns.svc.cluster.local:80->8080"]);
    index.delete(&ObjectId::new(Kind::Service, "ns", "web"));
    assert_eq!(targets(&index.publish().unwrap().0, "10.0.0.1"), [""; 0]);
}

#[test]
fn a_pod_counts_once_it_serves_something_or_has_a_proxy() {
    let bare = mk_pod("p1", "web", "10.0.0.1").replace(", security.istio.io/tlsMode: istio", "");
    let mut index = index_of(yaml_objects(&bare));
    assert!(index.publish().is_none());
    let counts = |index: &mut Index, text: &str| apply(index, text).unwrap().0.workloads.len();
    for (with, without) in [
        (mk_service("web", ""), Some((Kind::Service, "web"))),
        (mk_slice("other", &["p1=10.0.0.1"]), Some((Kind::EndpointSlice, "other-x"))),
        (
            mk_istio("ServiceEntry", "se", "{hosts: [a.b], ports: [{number: 1, name: tcp}], workloadSelector: {labels: {app: web}}}"),
            Some((Kind::ServiceEntry, "se")),
        ),
        (
            mk_istio(
                "ServiceEntry",
                "se",
                "{hosts: [a.b], resolution: STATIC, ports: [{number: 1, name: tcp}], endpoints: [{address: 10.0.0.1}]}",
            ),
            Some((Kind::ServiceEntry, "se")),
        ),
        (bare.replace("namespace: ns", "namespace: ns, annotations: {sidecar.istio.io/status: x}"), None),
        (bare.replace("containers: [{", "containers: [{name: istio-proxy, "), None),
        (bare.replace("containers:", "initContainers: [{name: envoy}], containers:"), None),
    ] {
        assert_eq!(counts(&mut index, &with), 1, "{with}");
        match without {
            Some((kind, name)) => {
                index.delete(&ObjectId::new(kind, "ns", name));
                assert_eq!(index.publish().unwrap().0.workloads.len(), 0, "{with}");
            }
            None => assert_eq!(counts(&mut index, &bare), 0, "{with}"),
        }
    }
}

#[test]
fn a_broken_object_keeps_its_last_good_form() {
    let mut index = index_of(yaml_objects(&mk_istio("DestinationRule", "dr", "{host: a}")));
    let (before, _) = index.publish().unwrap();
    assert!(apply(&mut index, &mk_istio("DestinationRule", "dr", "{host: ''}")).is_none());
    let snapshot = index.snapshot();
    assert_eq!(snapshot.mesh.destination_rules, before.destination_rules);
    assert_eq!(
        snapshot.diagnostics.iter().map(|d| d.to_string()).collect::<Vec<_>>(),
        ["DestinationRule ns/dr: spec.host: must not be empty"]
    );
    let raw: serde_json::Value = serde_json::from_str(snapshot.objects.values().next().unwrap()).unwrap();
    assert_eq!(raw["spec"]["host"], "a");
    apply(&mut index, &mk_istio("DestinationRule", "dr", "{host: b}")).unwrap();
    assert_eq!(index.snapshot().diagnostics.len(), 0);
}

#[test]
fn secrets_are_kept_only_while_someone_refers_to_them() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: ns}\nstringData: {tls.crt: c, tls.key: k}\n---\n";
    let gateway = mk_istio(
        "Gateway",
        "gw",
        "{servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b], tls: {mode: SIMPLE, credentialName: cert}}]}",
    );
    let mut index = index_of(yaml_objects(secret));
    assert!(index.publish().is_none());
    let (mesh, _) = apply(&mut index, &gateway).unwrap();
    assert_eq!(mesh.secrets.values().map(|s| s.certificate.to_vec()).collect::<Vec<_>>(), [b"c".to_vec()]);
    index.delete(&ObjectId::new(Kind::Gateway, "ns", "gw"));
    assert!(index.publish().unwrap().0.secrets.is_empty());
}

#[test]
fn secrets_of_modules_are_watched_by_their_names() {
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: pull, namespace: ns}\ntype: kubernetes.io/dockerconfigjson\n\
                  data: {.dockerconfigjson: eyJhdXRocyI6e319}\n---\n";
    let object = |kind: &str, spec: &str| {
        format!("apiVersion: extensions.istio.io/v1alpha1\nkind: {kind}\nmetadata: {{name: x, namespace: ns}}\nspec: {spec}\n---\n")
    };
    let mut index = index_of(yaml_objects(secret));
    assert!(index.publish().is_none());
    let names = |index: &mut Index| index.new_credentials().map(|names| names.into_iter().map(|n| n.to_string()).collect::<Vec<_>>());
    for (kind, id, spec) in [
        ("WasmPlugin", Kind::WasmPlugin, "{url: x, imagePullSecret: pull}"),
        ("TrafficExtension", Kind::TrafficExtension, "{wasm: {url: x, imagePullSecret: pull}}"),
    ] {
        let (mesh, changes) = apply(&mut index, &object(kind, spec)).unwrap();
        let registries: Vec<_> = mesh.secrets.values().map(|s| s.registry.clone()).collect();
        assert!(registries == [Registry::Config(r#"{"auths":{}}"#.into())], "{kind}");
        assert!(changes.objects.contains(&ObjectId::new(Kind::Secret, "ns", "pull")), "{kind}");
        assert_eq!(names(&mut index), Some(vec!["pull".to_owned()]), "{kind}");
        index.delete(&ObjectId::new(id, "ns", "x"));
        assert!(index.publish().unwrap().0.secrets.is_empty());
        assert_eq!(names(&mut index), Some(Vec::new()), "{kind}");
    }
}

#[test]
fn discovery_selectors_leave_namespaces_out() {
    let namespace = |labels: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns, labels: {{{labels}}}}}\n---\n");
    let config = crate::load_mesh_config("discoverySelectors: [{matchLabels: {mesh: in}}]").unwrap();
    let mut index = Index::new(Settings { mesh_config: Arc::new(config), ..Settings::default() });
    let all = [mk_service("web", ""), mk_pod("p1", "web", "10.0.0.1"), mk_istio("DestinationRule", "dr", "{host: web}")].concat();
    assert!(apply(&mut index, &all).is_none());
    let size = |m: &Mesh| (m.services.len(), m.workloads.len(), m.destination_rules.len());
    assert_eq!(size(&apply(&mut index, &namespace("mesh: in")).unwrap().0), (1, 1, 1));
    assert_eq!(size(&apply(&mut index, &namespace("mesh: out")).unwrap().0), (0, 0, 0));
    index.set_mesh_config(Arc::default());
    let (mesh, changes) = index.publish().unwrap();
    assert_eq!((size(&mesh), changes.everything), ((1, 1, 1), true));
}

#[test]
fn nothing_is_said_of_namespaces_that_are_left_out() {
    let namespace =
        |name: &str, team: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: {name}, labels: {{team: {team}}}}}\n---\n");
    let config = |expression: &str| {
        Arc::new(crate::load_mesh_config(&format!("discoverySelectors: [{{matchExpressions: [{{{expression}}}]}}]")).unwrap())
    };
    let in_ns = "key: team, operator: In, values: [a]";
    let gateway =
        "{servers: [{port: {number: 443, name: https, protocol: HTTPS}, hosts: [a.b], tls: {mode: SIMPLE, credentialName: cert}}]}";
    let secret = "apiVersion: v1\nkind: Secret\nmetadata: {name: cert, namespace: other}\nstringData: {ca.crt: c}\n---\n";
    let mut index = Index::new(Settings { mesh_config: config(in_ns), ..Settings::default() });
    let broken = mk_istio("DestinationRule", "broken", "{host: ''}");
    let all = [namespace("ns", "b"), namespace("other", "a"), broken.clone(), mk_istio("Gateway", "gw", gateway), secret.into()].concat();
    apply(&mut index, &all).unwrap();
    let status = |index: &mut Index| {
        index.publish();
        let credentials = index.new_credentials();
        let s = index.snapshot();
        (s.objects.len(), s.diagnostics.len(), s.mesh.gateways.len(), s.mesh.secrets.len(), credentials.map(|c| c.len()))
    };
    assert_eq!(status(&mut index), (0, 0, 0, 0, Some(0)));
    // Neither what comes while it is out, nor what it is by then.
    apply(&mut index, &broken);
    assert_eq!(status(&mut index), (0, 0, 0, 0, None));
    apply(&mut index, &namespace("ns", "a"));
    assert_eq!(status(&mut index), (1, 1, 1, 1, Some(2)));
    index.set_mesh_config(config("key: team, operator: NotIn, values: [a]"));
    assert_eq!(status(&mut index), (0, 0, 0, 0, Some(0)));
    index.set_mesh_config(config("key: team, operator: Exists"));
    assert_eq!(status(&mut index), (1, 1, 1, 1, Some(2)));
    apply(&mut index, "apiVersion: v1\nkind: Namespace\nmetadata: {name: ns}\n");
    assert_eq!(status(&mut index), (0, 0, 0, 0, Some(0)));
    index.delete(&ObjectId::new(Kind::DestinationRule, "ns", "broken"));
    apply(&mut index, &namespace("ns", "a"));
    assert_eq!(status(&mut index), (1, 0, 1, 1, Some(2)));
}

#[test]
fn a_namespace_that_comes_in_costs_its_own_objects_only() {
    let namespace = |labels: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns, labels: {{{labels}}}}}\n---\n");
    let config = crate::load_mesh_config("discoverySelectors: [{matchLabels: {mesh: in}}]").unwrap();
    let mut index = Index::new(Settings { mesh_config: Arc::new(config), ..Settings::default() });
    let of = |ns: &str, n: u32| -> String {
        let one = |i| mk_service(&format!("s{i}"), "") + &mk_pod(&format!("p{i}"), &format!("s{i}"), &format!("10.0.{i}.1"));
        (0..n).map(one).collect::<String>().replace("namespace: ns", &format!("namespace: {ns}"))
    };
    let big = "apiVersion: v1\nkind: Namespace\nmetadata: {name: big, labels: {mesh: in}}\n---\n";
    apply(&mut index, &[of("ns", 3), of("big", 100), big.into()].concat());
    let before = index.stats();
    for (labels, size) in [("mesh: in", 103), ("mesh: out", 100)] {
        assert_eq!(apply(&mut index, &namespace(labels)).unwrap().0.services.len(), size);
    }
    let after = index.stats();
    assert_eq!((after.services_joined - before.services_joined, after.workloads_joined - before.workloads_joined), (6, 6));
    // A label that selects nothing else changes nothing of them.
    assert_eq!(apply(&mut index, &namespace("mesh: out, note: x")).unwrap().1.services, BTreeSet::new());
}

#[test]
fn a_new_trust_domain_renames_everyone() {
    let mut index = index_of(yaml_objects(&mk_pod("p1", "web", "10.0.0.1")));
    index.publish().unwrap();
    index.set_mesh_config(Arc::new(crate::load_mesh_config("trustDomain: td").unwrap()));
    let (mesh, _) = index.publish().unwrap();
    assert_eq!(&*mesh.workloads.values().next().unwrap()[0].workload.service_account, "spiffe://td/ns/ns/sa/acc");
    index.set_mesh_config(Arc::new(crate::load_mesh_config("trustDomain: td").unwrap()));
    assert!(index.publish().is_none());
}

#[test]
fn a_relist_replaces_a_kind() {
    let mut index = index_of(yaml_objects(&[mk_service("a", ""), mk_service("b", ""), mk_pod("p", "a", "10.0.0.1")].concat()));
    index.publish().unwrap();
    let listed = yaml_objects(&[mk_service("b", ""), mk_service("c", "")].concat());
    let context = index.context();
    index.reset(Kind::Service, listed.iter().map(|o| Input::of(o, &context)).collect(), |_| false);
    let (mesh, _) = index.publish().unwrap();
    assert_eq!(mesh.services.keys().map(|k| k.host.to_string()).collect::<Vec<_>>(), ["b.ns.svc.cluster.local", "c.ns.svc.cluster.local"]);
    assert_eq!((index.stats().suppressed, mesh.workloads.len()), (1, 1));
}

/// A mesh with some of everything, as single documents.
fn documents() -> Vec<String> {
    vec![
        mk_service("web", ""),
        mk_service("db", ""),
        mk_pod("p1", "web", "10.0.0.1"),
        mk_pod("p2", "db", "10.0.0.2"),
        mk_slice("web", &["p1=10.0.0.1", "=10.0.0.9"]),
        mk_slice("db", &["p2=10.0.0.2!ready: false"]),
        mk_istio("ServiceEntry", "se", "{hosts: [a.b], resolution: DNS, ports: [{number: 1, name: tcp}]}"),
        mk_istio("WorkloadEntry", "we", "{address: 192.0.2.1, labels: {app: web}}"),
        mk_istio("VirtualService", "vs", "{hosts: [web], http: [{route: [{destination: {host: web}}]}]}"),
        mk_istio("Telemetry", "t", "{}").replace("networking", "telemetry"),
        "apiVersion: v1\nkind: Node\nmetadata: {name: n1}\n---\n".into(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// Any order of arrival gives the same mesh, and edits of what does not matter publish nothing.
    #[test]
    fn order_and_metadata_do_not_matter(order in Just((0..11usize).collect::<Vec<_>>()).prop_shuffle(), publish in any::<u16>(), edits in prop::collection::vec((0..11usize, "[a-z]{1,8}"), 0..12)) {
        let documents = documents();
        let mut expected = index_of(yaml_objects(&documents.concat()));
        let expected = expected.publish().unwrap().0;
        let mut index = Index::new(Settings::default());
        for (n, i) in order.iter().enumerate() {
            yaml_objects(&documents[*i]).into_iter().for_each(|o| index.apply(o));
            if publish & (1 << n) != 0 {
                index.publish();
            }
        }
        index.publish();
        let mesh = index.snapshot().mesh;
        prop_assert_eq!(&mesh.services, &expected.services);
        prop_assert_eq!(&mesh.endpoints, &expected.endpoints);
        prop_assert_eq!(&mesh.workloads, &expected.workloads);
        prop_assert_eq!(&mesh.virtual_services, &expected.virtual_services);
        let suppressed = index.stats().suppressed;
        for (i, text) in &edits {
            let edited = documents[*i].replacen("metadata: {", &format!("metadata: {{resourceVersion: '{text}', managedFields: [{{manager: {text}}}], annotations: {{note: {text}}}, "), 1);
            prop_assert!(edited != documents[*i]);
            yaml_objects(&edited).into_iter().for_each(|o| index.apply(o));
            prop_assert!(index.publish().is_none());
        }
        prop_assert_eq!(index.stats().suppressed - suppressed, edits.len() as u64);
    }
}

/// What of a ServiceEntry's hosts namespaces see, of `ns` itself and of another.
fn seen(mesh: &Mesh, host: &str) -> [bool; 2] {
    let service = &mesh.services[&key(host)];
    ["ns", "other"].map(|from| service.visibility.allows(&service.namespace, from))
}

#[test]
fn the_mesh_bounds_who_sees_service_entries() {
    let entry = |host: &str, export: &str| {
        let spec = format!("{{hosts: [{host}], ports: [{{number: 80, name: http}}], resolution: DNS, exportTo: [{export}]}}");
        mk_istio("ServiceEntry", host, &spec)
    };
    let namespace = |labels: &str| format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: ns, labels: {{{labels}}}}}\n---\n");
    let rows = [
        ("", "team: a", [[true, true], [true, false], [false, true]]),
        ("{defaultVisibility: NAMESPACE}", "team: a", [[true, true], [true, false], [false, true]]),
        ("{applyToSidecars: true}", "team: a", [[true, true], [true, false], [false, true]]),
        ("{applyToSidecars: true, defaultVisibility: NAMESPACE}", "team: a", [[true, false], [true, false], [false, false]]),
        ("{applyToSidecars: true, defaultVisibility: NONE}", "team: a", [[false; 2]; 3]),
        (
            "{applyToSidecars: true, defaultVisibility: NONE, policies: [{visibility: PUBLIC, matchingRules: [{namespaceSelector: {matchLabels: {team: a}}}]}]}",
            "team: a",
            [[true, true], [true, false], [false, true]],
        ),
        (
            "{applyToSidecars: true, defaultVisibility: NAMESPACE, policies: [{visibility: PUBLIC, matchingRules: [{namespaceSelector: {matchLabels: {team: a}}}]}]}",
            "team: b",
            [[true, false], [true, false], [false, false]],
        ),
        // A rule of no kind that is known matches nothing.
        (
            "{applyToSidecars: true, defaultVisibility: NONE, policies: [{visibility: PUBLIC, matchingRules: [{}]}]}",
            "team: a",
            [[false; 2]; 3],
        ),
    ];
    for (bound, labels, expected) in rows {
        let text = if bound.is_empty() { String::new() } else { format!("serviceEntryVisibility: {bound}") };
        let mesh_config = Arc::new(crate::load_mesh_config(&text).unwrap());
        let mut index = Index::new(Settings { mesh_config, ..Settings::default() });
        let objects = [namespace(labels), entry("all.example", "'*'"), entry("own.example", "'.'"), entry("far.example", "other")].concat();
        yaml_objects(&objects).into_iter().for_each(|o| index.apply(o));
        let (mesh, _) = index.publish().unwrap();
        assert_eq!(["all.example", "own.example", "far.example"].map(|h| seen(&mesh, h)), expected, "{bound} {labels}");
        if labels == "team: b" {
            // A label of the namespace is enough.
            yaml_objects(&namespace("team: a")).into_iter().for_each(|o| index.apply(o));
            let (mesh, _) = index.publish().unwrap();
            assert_eq!(seen(&mesh, "all.example"), [true, true]);
        }
    }
}
