//! Credentials by which modules are pulled: who gets whose, by namespace, kind and patch.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;

use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::{Index, Settings};
use pilotfish_envoy::any::unpack;
use pilotfish_envoy::pb::envoy::config::core::v3::TypedExtensionConfig;
use pilotfish_envoy::pb::envoy::extensions::filters::http::wasm::v3::Wasm as HttpWasm;
use pilotfish_envoy::pb::envoy::extensions::filters::network::wasm::v3::Wasm as NetworkWasm;
use pilotfish_envoy::pb::envoy::extensions::wasm::v3::plugin_config::Vm;
use pilotfish_envoy::{Resource, TypeUrl};
use pilotfish_model::Proxy;
use pilotfish_model::proxy::{Metadata, Node};
use pilotfish_translator::secret::with_credentials;
use pilotfish_translator::{Translator, World, snapshot};
use pretty_assertions::assert_eq;
use prost::Message as _;
use serde_json::{Value, json};

const VARIABLE: &str = "ISTIO_META_WASM_IMAGE_PULL_SECRET";

fn world(objects: &[Value]) -> World {
    let mut index = Index::new(Settings::default());
    for object in objects {
        let Decoded::Object(object) = decode(object.clone()).unwrap() else { panic!("not ours") };
        index.apply((*object).into());
    }
    let (mesh, _) = index.publish().unwrap();
    World::new(mesh)
}

fn plugin(namespace: &str, name: &str, spec: Value) -> Value {
    let metadata = json!({"name": name, "namespace": namespace});
    json!({"apiVersion": "extensions.istio.io/v1alpha1", "kind": "WasmPlugin", "metadata": metadata, "spec": spec})
}

fn secret(namespace: &str, name: &str, kind: &str, content: &str) -> Value {
    let metadata = json!({"name": name, "namespace": namespace});
    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": kind, "stringData": {".dockerconfigjson": content}})
}

const DOCKER: &str = "kubernetes.io/dockerconfigjson";

fn config(of: &str) -> String {
    json!({"auths": {"registry.example": {"auth": of}}}).to_string()
}

/// The last part of each resource's name, with its variable.
fn variables<'a>(resources: impl Iterator<Item = &'a Resource>) -> BTreeMap<String, Option<String>> {
    let variable = |resource: &Resource| {
        let typed = TypedExtensionConfig::decode(&*resource.to_any().value).unwrap().typed_config.unwrap();
        let config = match unpack::<HttpWasm>(&typed) {
            Some(http) => http.config,
            None => unpack::<NetworkWasm>(&typed).unwrap().config,
        };
        let Some(Vm::VmConfig(vm)) = config.unwrap().vm else { panic!("no machine") };
        let name = resource.name().rsplit('/').next().unwrap().to_owned();
        (name.replace("~istio-translated-wasmplugin", ""), vm.environment_variables.unwrap().key_values.get(VARIABLE).cloned())
    };
    resources.map(variable).collect()
}

/// What the class of a proxy of a namespace shares, and what a proxy gets that has proved to be one.
fn of(world: &World, namespace: &str, version: Option<&str>) -> [BTreeMap<String, Option<String>>; 2] {
    let metadata = Metadata { istio_version: version.map(Into::into), namespace: Some(namespace.into()), ..Metadata::default() };
    let node = Node { id: format!("sidecar~10.1.0.9~web.{namespace}~{namespace}.svc.cluster.local"), metadata, ..Node::default() };
    let proxy = Proxy::parse(node, "istio-system", "cluster.local").unwrap();
    let shared = snapshot(world, &Translator::default().classify(world, &proxy));
    let shared = shared.get(TypeUrl::ExtensionConfig);
    let own = with_credentials(&world.mesh, shared);
    for resource in &own {
        let before = shared.get(resource.name()).unwrap();
        assert_eq!(resource.sources().collect::<Vec<_>>(), before.sources().collect::<Vec<_>>());
    }
    [variables(shared.iter()), variables(own.iter())]
}

fn pairs(rows: &[(&str, Option<&str>)]) -> BTreeMap<String, Option<String>> {
    rows.iter().map(|(name, value)| ((*name).to_owned(), value.map(Into::into))).collect()
}

#[test]
fn a_proxy_gets_the_credentials_of_the_modules_that_are_meant_for_it() {
    let oci = |secret: &str| json!({"url": "oci://registry.example/m:v1", "imagePullSecret": secret});
    let mut traffic_extension = plugin("shop", "te", json!({"wasm": oci("regcred")}));
    traffic_extension["kind"] = "TrafficExtension".into();
    let mut network = oci("regcred");
    network["type"] = "NETWORK".into();
    let claims = json!([{"name": VARIABLE, "value": "kubernetes://bank/regcred"}]);
    let world = world(&[
        secret("istio-system", "regcred", DOCKER, &config("root")),
        secret("shop", "regcred", DOCKER, &config("shop")),
        secret("bank", "regcred", DOCKER, &config("bank")),
        secret("shop", "opaque", "Opaque", &config("opaque")),
        secret("shop", "words", DOCKER, "no json"),
        secret("shop", "empty", DOCKER, ""),
        plugin("istio-system", "root", oci("regcred")),
        plugin("shop", "http", json!({"url": "http://files.example/m.wasm", "imagePullSecret": "regcred"})),
        plugin("shop", "file", json!({"url": "file:///m.wasm", "imagePullSecret": "regcred"})),
        // Where it says another namespace, it means its own.
        plugin("shop", "elsewhere", oci("kubernetes://bank/regcred")),
        plugin("shop", "network", network),
        traffic_extension,
        plugin("shop", "missing", oci("none")),
        plugin("shop", "wrong-type", oci("opaque")),
        plugin("shop", "wrong-content", oci("words")),
        plugin("shop", "no-content", oci("empty")),
        plugin("shop", "public", json!({"url": "oci://registry.example/m:v1"})),
        plugin("shop", "claiming", json!({"url": "oci://registry.example/m:v1", "vmConfig": {"env": claims}})),
        plugin("bank", "theirs", oci("regcred")),
    ]);
    let (root, shop, bank) = (config("root"), config("shop"), config("bank"));
    let (empty, none) = (Some(""), None);
    let shared = pairs(&[
        ("istio-system.root", empty),
        ("shop.http", empty),
        ("shop.file", empty),
        ("shop.elsewhere", empty),
        ("shop.network", empty),
        ("shop.te", empty),
        ("shop.missing", empty),
        ("shop.wrong-type", empty),
        ("shop.wrong-content", empty),
        ("shop.no-content", empty),
        ("shop.public", none),
        ("shop.claiming", empty),
    ]);
    let own = pairs(&[
        ("istio-system.root", Some(&root)),
        ("shop.http", Some(&shop)),
        ("shop.elsewhere", Some(&shop)),
        ("shop.network", Some(&shop)),
        ("shop.te", Some(&shop)),
    ]);
    let version = Some("1.30.0");
    assert_eq!(of(&world, "shop", version), [shared, own]);
    let bank = [("bank.theirs", Some(&*bank)), ("istio-system.root", Some(&*root))];
    assert_eq!(of(&world, "bank", version)[1], pairs(&bank));
    assert_eq!(of(&world, "cafe", version)[1], pairs(&[("istio-system.root", Some(&root))]));
    // No agent is there to pull anything, or to take it away again.
    assert_eq!(of(&world, "shop", None)[1], pairs(&[]));
    assert!(!format!("{:?}", world.mesh.secrets).contains("auth"), "a Secret is written out");
}

#[test]
fn what_a_patch_brings_along_gets_nothing() {
    let name = "extensions.istio.io/trafficextension/bank.theirs~istio-translated-wasmplugin";
    let code = json!({"remote": {"http_uri": {"uri": "oci://mine.example/m:v1", "timeout": "30s", "cluster": "_"}, "sha256": "0"}});
    let vm = json!({"runtime": "envoy.wasm.runtime.v8", "code": code, "environment_variables": {"key_values": {VARIABLE: ""}}});
    let typed = json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.wasm.v3.Wasm", "config": {"vm_config": vm}});
    let patch = json!({"operation": "ADD", "value": {"name": name, "typed_config": typed}});
    let world = world(&[
        secret("bank", "regcred", DOCKER, &config("bank")),
        plugin("bank", "theirs", json!({"url": "oci://registry.example/m:v1", "imagePullSecret": "regcred"})),
        json!({
            "apiVersion": "networking.istio.io/v1alpha3", "kind": "EnvoyFilter", "metadata": {"name": "thief", "namespace": "shop"},
            "spec": {"configPatches": [{"applyTo": "EXTENSION_CONFIG", "patch": patch}]},
        }),
    ]);
    assert_eq!(of(&world, "shop", Some("1.30.0")), [pairs(&[("bank.theirs", Some(""))]), pairs(&[])]);
}
