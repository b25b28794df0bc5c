//! Two clusters in one process.

use pilotfish_model::EndpointChange;
use pretty_assertions::assert_eq;
use proptest::prelude::*;

use super::*;
use crate::index::testing::{key, mk_istio, mk_pod, mk_service, mk_slice, yaml_objects};

const WEB: &str = "web.ns.svc.cluster.local";

fn inputs(registries: &Registries, text: &str) -> Vec<Input> {
    yaml_objects(text).iter().map(|o| Input::of(o, &registries.primary.context())).collect()
}

fn put(registries: &mut Registries, cluster: &str, text: &str) {
    for input in inputs(registries, text) {
        if cluster.is_empty() { registries.primary.put(input) } else { registries.put(cluster, input) }
    }
}

fn root(network: &str) -> String {
    format!("apiVersion: v1\nkind: Namespace\nmetadata: {{name: istio-system, labels: {{topology.istio.io/network: {network}}}}}\n---\n")
}

/// `web` with one Pod.
fn web(pod: &str, ip: &str) -> String {
    [mk_service("web", ""), mk_pod(pod, "web", ip), mk_slice("web", &[&format!("{pod}={ip}")])].concat()
}

/// Endpoints of a host as `address cluster network`.
fn endpoints(mesh: &Mesh, host: &str) -> Vec<String> {
    let list = mesh.endpoints.get(&key(host));
    list.into_iter().flat_map(|l| l.iter()).map(|e| format!("{} {} {}", e.address, e.workload.cluster_id, e.workload.network)).collect()
}

fn two() -> Registries {
    let mut registries = Registries::new(Index::new(Settings::default()));
    put(&mut registries, "", &(root("n1") + &web("p1", "10.0.0.1")));
    registries.add("east".into());
    registries
}

#[test]
fn services_of_a_host_are_one() {
    let mut registries = two();
    registries.publish().unwrap();
    let theirs = root("n2") + &web("p2", "10.2.0.1").replace("10.1.0.1", "10.9.0.1") + &mk_service("db", "");
    put(&mut registries, "east", &(theirs + &mk_istio("DestinationRule", "dr", "{host: web}")));
    // Half a cluster is none.
    assert!(registries.publish().is_none());
    registries.set_whole("east");
    let (mesh, changes) = registries.publish().unwrap();
    assert_eq!(endpoints(&mesh, WEB), ["10.0.0.1 Kubernetes n1", "10.2.0.1 east n2"]);
    let addresses: Vec<_> = mesh.services[&key(WEB)].addresses.iter().map(ToString::to_string).collect();
    assert_eq!((addresses, mesh.services.len(), mesh.workloads.len()), (vec!["10.1.0.1".into(), "10.9.0.1".into()], 2, 2));
    assert_eq!(mesh.destination_rules.len(), 0, "rules are the primary's");
    let db = "db.ns.svc.cluster.local";
    let expected = ChangeSet {
        services: [key(WEB), key(db)].into(),
        endpoints: [(key(WEB), EndpointChange::Added)].into(),
        workloads: ["10.2.0.1".parse().unwrap()].into(),
        ..ChangeSet::default()
    };
    assert_eq!(changes, expected);
    assert!(Arc::ptr_eq(&registries.snapshot().mesh, &mesh));
    assert!(registries.publish().is_none());
}

#[test]
fn a_change_costs_its_own_service_only() {
    let mut registries = two();
    let many: String = (0..50).map(|i| mk_service(&format!("s{i}"), "")).collect();
    put(&mut registries, "", &many);
    put(&mut registries, "east", &(many.clone() + &web("p2", "10.2.0.1")));
    registries.set_whole("east");
    let (before, _) = registries.publish().unwrap();
    put(&mut registries, "east", &mk_slice("web", &["p2=10.2.0.1!ready: false"]));
    let (mesh, changes) = registries.publish().unwrap();
    assert_eq!(changes, ChangeSet { endpoints: [(key(WEB), EndpointChange::Removed)].into(), ..ChangeSet::default() });
    assert!(changes.is_endpoints_only());
    for (k, service) in &before.services {
        assert!(Arc::ptr_eq(service, &mesh.services[k]) || *k == key(WEB), "{k:?}");
    }
    // What means nothing there means nothing here.
    put(&mut registries, "east", &mk_service("web", "").replace("namespace: ns", "namespace: ns, annotations: {note: x}"));
    assert!(registries.publish().is_none());
}

#[test]
fn a_cluster_that_is_taken_out_takes_its_endpoints_along() {
    let mut registries = two();
    put(&mut registries, "east", &web("p2", "10.2.0.1"));
    registries.set_whole("east");
    registries.publish().unwrap();
    registries.remove("east");
    let (mesh, changes) = registries.publish().unwrap();
    assert_eq!(endpoints(&mesh, WEB), ["10.0.0.1 Kubernetes n1"]);
    assert_eq!((changes.endpoints, mesh.workloads.len()), ([(key(WEB), EndpointChange::Removed)].into(), 1));
    // Alone again, changes go the short way.
    put(&mut registries, "", &mk_slice("web", &["p1=10.0.0.1", "=10.0.0.2"]));
    let (mesh, _) = registries.publish().unwrap();
    assert_eq!(endpoints(&mesh, WEB).len(), 2);
    assert!(Arc::ptr_eq(&registries.snapshot().mesh, &mesh));
}

#[test]
fn a_relist_of_a_cluster_replaces_what_it_had_and_only_that() {
    let mut registries = two();
    put(&mut registries, "east", &(web("p2", "10.2.0.1") + &mk_service("db", "")));
    registries.set_whole("east");
    registries.publish().unwrap();
    let listed = inputs(&registries, &mk_service("web", ""));
    registries.reset("east", Kind::Service, listed);
    let (mesh, _) = registries.publish().unwrap();
    assert_eq!(mesh.services.keys().cloned().collect::<Vec<_>>(), [key(WEB)]);
    assert_eq!(endpoints(&mesh, WEB).len(), 2);
}

#[test]
fn new_settings_hold_in_all_clusters() {
    let mut registries = two();
    put(&mut registries, "east", &web("p2", "10.2.0.1"));
    registries.set_whole("east");
    registries.publish().unwrap();
    registries.primary.set_mesh_config(Arc::new(crate::load_mesh_config("trustDomain: td").unwrap()));
    let (mesh, changes) = registries.publish().unwrap();
    let accounts: BTreeSet<_> = mesh.endpoints[&key(WEB)].iter().map(|e| e.workload.service_account.to_string()).collect();
    assert_eq!((accounts, changes.everything), (["spiffe://td/ns/ns/sa/acc".to_owned()].into(), true));
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]

    /// However they come, step by step, two clusters make the mesh that they make at once.
    #[test]
    fn steps_make_what_the_whole_makes(steps in prop::collection::vec((0..8usize, any::<bool>(), any::<bool>(), any::<bool>()), 1..40)) {
        let documents = [
            mk_service("web", ""), mk_pod("p1", "web", "10.0.0.1"), mk_slice("web", &["p1=10.0.0.1"]), mk_slice("web", &["=10.0.0.9"]),
            mk_service("web", "").replace("10.1.0.1", "10.1.0.2"), mk_service("db", ""), mk_pod("p1", "db", "10.0.0.1"), root("n"),
        ];
        let mut registries = Registries::new(Index::new(Settings::default()));
        registries.add("east".into());
        registries.set_whole("east");
        let mut last: BTreeMap<(bool, ObjectId), Option<Input>> = BTreeMap::new();
        for (i, remote, gone, publish) in steps {
            let input = inputs(&registries, &documents[i]).remove(0);
            let id = input.id.clone();
            match (remote, gone) {
                (true, true) => registries.delete("east", &id),
                (false, true) => registries.primary.delete(&id),
                (true, false) => registries.put("east", input.clone()),
                (false, false) => registries.primary.put(input.clone()),
            }
            last.insert((remote, id), (!gone).then_some(input));
            if publish {
                registries.publish();
            }
        }
        registries.publish();
        let mut expected = Registries::new(Index::new(Settings::default()));
        expected.add("east".into());
        for ((remote, _), input) in last {
            match (remote, input) {
                (true, Some(input)) => expected.put("east", input),
                (false, Some(input)) => expected.primary.put(input),
                _ => {}
            }
        }
        expected.set_whole("east");
        expected.publish();
        let (found, expected) = (registries.snapshot().mesh, expected.snapshot().mesh);
        prop_assert_eq!(&found.services, &expected.services);
        prop_assert_eq!(&found.endpoints, &expected.endpoints);
        prop_assert_eq!(&found.workloads, &expected.workloads);
        prop_assert_eq!(&found.namespaces, &expected.namespaces);
    }
}
