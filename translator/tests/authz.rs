//! AuthorizationPolicies of the reference's own tests, as filters of a sidecar.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::sync::Arc;

use pilotfish_controller::object::{Decoded, Object, decode};
use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings, load_mesh_config};
use pilotfish_envoy::json::{from_json, message_to_json, to_json};
use pilotfish_envoy::{Snapshot, TypeUrl};
use pilotfish_model::Proxy;
use pilotfish_model::proxy::Node;
use pilotfish_testkit::skip;
use pilotfish_translator::{World, classify, snapshot};
use pretty_assertions::assert_eq;
use serde::Deserialize;
use serde_json::{Value, json};

const HTTP_FILTER: &str = "envoy.extensions.filters.network.http_connection_manager.v3.HttpFilter";
const FILTER: &str = "envoy.config.listener.v3.Filter";

#[derive(Deserialize)]
struct Suite {
    services: Vec<Service>,
    mesh_configs: BTreeMap<String, Value>,
    cases: Vec<Case>,
}

#[derive(Deserialize)]
struct Service {
    hostname: String,
    namespace: String,
}

#[derive(Deserialize)]
struct Case {
    name: String,
    input: String,
    expected: Vec<String>,
    mesh_config: Option<String>,
    trust_domain: Option<String>,
    trust_domain_aliases: Option<Vec<String>>,
}

#[test]
fn policies_give_the_filters_of_the_reference() {
    let Some(shared) = skip::shared("authz") else { return };
    let dir = shared.join("peer-data/authz");
    let suite: Suite = yaml_serde::from_str(&fs::read_to_string(dir.join("cases.yaml")).unwrap()).unwrap();
    for case in &suite.cases {
        let is_http = case.name.starts_with("http/");
        let snapshot = translated(&dir, &suite, case);
        let expected: Vec<Value> = case.expected.iter().map(|file| expected(&dir.join(file), is_http)).collect();
        assert_eq!(filters(&snapshot, is_http), expected, "{}", case.name);
    }
    assert!(suite.cases.len() > 15, "hardly any case");
}

fn expected(file: &Path, is_http: bool) -> Value {
    let value: Value = yaml_serde::from_str(&fs::read_to_string(file).unwrap()).unwrap();
    let message = if is_http { HTTP_FILTER } else { FILTER };
    message_to_json(message, &from_json(message, &value).unwrap_or_else(|e| panic!("{}: {e}", file.display())))
}

/// What a sidecar of the workload gets.
fn translated(dir: &Path, suite: &Suite, case: &Case) -> Snapshot {
    let mut config = case.mesh_config.as_ref().map_or_else(|| json!({}), |name| suite.mesh_configs[name].clone());
    if let Some(domain) = &case.trust_domain {
        config["trustDomain"] = domain.as_str().into();
    }
    config["trustDomainAliases"] = case.trust_domain_aliases.clone().unwrap_or_default().into();
    let mesh_config = Arc::new(load_mesh_config(&config.to_string()).unwrap());
    let mut index = Index::new(Settings { mesh_config, ..Settings::default() });
    for service in &suite.services {
        let name = service.hostname.split('.').next().unwrap();
        apply(
            &mut index,
            json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": service.namespace},
                   "spec": {"clusterIP": "10.0.0.1", "ports": [{"name": "grpc", "port": 9000}]}}),
        );
    }
    let text = fs::read_to_string(dir.join(&case.input)).unwrap();
    for document in yaml::split(&text) {
        apply(&mut index, yaml::parse(document.text).unwrap());
    }
    let (mesh, _) = index.publish().unwrap();
    let node = json!({"id": "sidecar~10.0.0.2~httpbin.foo~foo.svc.cluster.local", "cluster": "httpbin.foo",
        "metadata": {"ISTIO_VERSION": "1.29.1", "NAMESPACE": "foo", "LABELS": {"app": "httpbin", "version": "v1"}}});
    let node: Node = serde_json::from_value(node).unwrap();
    let proxy = Proxy::parse(node, &mesh.config.root_namespace, &mesh.domain).unwrap();
    let world = World::new(mesh);
    snapshot(&world, &classify(&world, &proxy))
}

fn apply(index: &mut Index, document: Value) {
    if document.is_null() {
        return;
    }
    let Ok(Decoded::Object(object)) = decode(document) else { panic!("an object") };
    index.apply(Arc::<Object>::from(object));
}

/// Filters of policies on the chain for ports that nobody serves.
fn filters(snapshot: &Snapshot, is_http: bool) -> Vec<Value> {
    let listener = to_json(&snapshot.get(TypeUrl::Listener).get("virtualInbound").unwrap().to_any());
    let name = if is_http { "virtualInbound-catchall-http" } else { "virtualInbound" };
    let chains = listener["filter_chains"].as_array().unwrap();
    let chain = chains.iter().find(|c| c["name"] == name).unwrap();
    let mut filters = chain["filters"].as_array().unwrap().clone();
    if is_http {
        let manager = filters.iter().find(|f| f["name"] == "envoy.filters.network.http_connection_manager").unwrap();
        filters = manager["typed_config"]["http_filters"].as_array().unwrap().clone();
    }
    let is_policy = |f: &Value| f["name"].as_str().is_some_and(|n| n.ends_with("rbac") || n.ends_with("ext_authz"));
    filters.retain(is_policy);
    filters
}
