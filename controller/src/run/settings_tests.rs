//! Settings out of ConfigMaps, and objects of other revisions.

use pilotfish_model::{Kind, MeshConfig, ObjectId};
use pretty_assertions::assert_eq;

use super::cluster_tests::{LONG, Run};
use super::*;
use crate::index::testing::{mk_istio, mk_service};
use crate::load_mesh_config;
use crate::source::kube::fake::FakeApi;
use tokio::time::timeout;

const NAMESPACE: &str = "istio-system";

fn config_map(name: &str, data: &str) -> String {
    format!("apiVersion: v1\nkind: ConfigMap\nmetadata: {{name: {name}, namespace: {NAMESPACE}}}\ndata:\n{data}\n---\n")
}

fn settings() -> Settings {
    let id = |name: &str| ObjectId::new(Kind::ConfigMap, NAMESPACE, name);
    Settings { config_maps: vec![id("shared"), id("istio")], ..Settings::default() }
}

fn config(text: &str) -> MeshConfig {
    load_mesh_config(text).unwrap()
}

#[tokio::test]
async fn the_first_mesh_waits_for_its_settings_and_later_ones_hold_at_once() {
    let api = FakeApi::start().await;
    api.put(&config_map("istio", "  mesh: |\n    trustDomain: one\n"));
    api.put(&config_map("foreign", "  mesh: this is none\n"));
    api.hold(Kind::ConfigMap, true);
    let mut run = Run::with(api.kubeconfig(), settings());
    api.requested(|r| r.len() >= crate::source::kube::kinds().count() + 2).await;
    assert!(run.handle.initial.try_recv().is_err());
    api.hold(Kind::ConfigMap, false);
    assert_eq!(*run.initial().await.config, config("trustDomain: one"));

    // The shared one lies below, the file above.
    api.put(&config_map("shared", "  mesh: |\n    trustDomain: shared\n    rootNamespace: root\n    defaultConfig: {drainDuration: 5s}\n"));
    let below = "trustDomain: one\nrootNamespace: root\ndefaultConfig: {drainDuration: 5s}\n";
    assert_eq!(*run.next().await.mesh.config, config(below));
    run.handle.mesh_config.send(Layer::parse("trustDomain: file\ndefaultConfig: {concurrency: 3}").unwrap()).await.unwrap();
    let all = "trustDomain: file\nrootNamespace: root\ndefaultConfig: {drainDuration: 5s, concurrency: 3}\n";
    assert_eq!(*run.next().await.mesh.config, config(all));
    // What has no effect is not published; what goes leaves what lies below.
    api.put(&config_map("istio", "  mesh: |\n    trustDomain: two\n"));
    api.delete(Kind::ConfigMap, NAMESPACE, "shared");
    assert_eq!(*run.next().await.mesh.config, config("trustDomain: file\ndefaultConfig: {concurrency: 3}\n"));
    assert_eq!(run.handle.state.borrow().snapshot.diagnostics.len(), 0);
}

#[tokio::test]
async fn broken_settings_keep_the_last_good_ones_and_are_reported() {
    let api = FakeApi::start().await;
    api.put(&config_map("istio", "  mesh: 'trustDomain: good'\n  meshNetworks: 'networks: {}'\n"));
    let mut run = Run::with(api.kubeconfig(), settings());
    run.initial().await;
    for (data, said) in [
        ("  mesh: |\n    rootNamespace: x\n    trustDomian: x\n", "data.mesh: line 2, trustDomian: unknown field"),
        ("  mesh: '['\n", "data.mesh: line "),
        ("  mesh: ''\n  meshNetworks: |\n    networks:\n      n: {endpoints: [{fromCidr: x}]}\n", "data.meshNetworks: line 2, networks.n"),
    ] {
        api.put(&config_map("istio", data));
        let found = |s: &State| s.snapshot.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>();
        let is_said = |s: &State| found(s).iter().any(|d| d.starts_with(&format!("ConfigMap {NAMESPACE}/istio: {said}")));
        let state = timeout(LONG, run.handle.state.wait_for(|s| is_said(s))).await.expect(said).unwrap().clone();
        assert_eq!(*state.snapshot.mesh.config, config("trustDomain: good"), "{data}");
    }
    api.put(&config_map("istio", "  mesh: 'trustDomain: better'\n"));
    assert_eq!(*run.next().await.mesh.config, config("trustDomain: better"));
    assert_eq!(run.handle.state.borrow().snapshot.diagnostics.len(), 0);
}

#[tokio::test]
async fn objects_of_another_revision_are_not_there() {
    let rule = |name: &str, host: &str, revision: &str| {
        let labels = if revision.is_empty() { String::new() } else { format!(", labels: {{istio.io/rev: {revision}}}") };
        mk_istio("DestinationRule", name, &format!("{{host: {host}}}")).replace("namespace: ns", &format!("namespace: ns{labels}"))
    };
    let hosts = |mesh: &Arc<Mesh>| {
        mesh.destination_rules.values().map(|d| d.host.as_str().split('.').next().unwrap().to_owned()).collect::<Vec<_>>()
    };
    let api = FakeApi::start().await;
    api.put(&[rule("a", "a", ""), rule("b", "b", "canary"), rule("c", "c", "stable"), rule("d", "", "stable")].concat());
    // Kubernetes' own objects belong to all.
    api.put(&mk_service("web", "").replace("namespace: ns", "namespace: ns, labels: {istio.io/rev: stable}"));
    let mut run = Run::with(api.kubeconfig(), Settings { revision: "canary".into(), ..Settings::default() });
    let mesh = run.initial().await;
    assert_eq!((hosts(&mesh), mesh.services.len()), (vec!["a".into(), "b".into()], 1));
    let state = run.handle.state.borrow().clone();
    assert_eq!((state.snapshot.diagnostics.len(), state.snapshot.statuses.len()), (0, 2), "nothing is said of what is not ours");
    // Given to another revision, one goes; given to this one, one comes.
    api.put(&rule("b", "b", "stable"));
    assert_eq!(hosts(&run.next().await.mesh), ["a"]);
    api.put(&rule("c", "c", "canary"));
    assert_eq!(hosts(&run.next().await.mesh), ["a", "c"]);
    // Listed anew, it is the same.
    api.compact();
    api.disconnect();
    api.put(&rule("a", "e", ""));
    assert_eq!(hosts(&run.next().await.mesh), ["e", "c"]);

    // Without a revision, all are ours.
    let mut run = Run::with(api.kubeconfig(), Settings::default());
    assert_eq!(hosts(&run.initial().await), ["e", "b", "c"]);
}
