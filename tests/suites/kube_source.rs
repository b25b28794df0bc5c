//! A mesh out of a real Kubernetes API: what it reads is what files would say, and it outlives the API server.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::net::SocketAddr;

use anyhow::ensure;
use pilotfish_testkit::kube::{self, Assets};
use pilotfish_testkit::pilotfish::{self, Options, Pilotfish};
use pilotfish_testkit::{KubeCluster, get};
use pilotfish_tests::{MeshDir, NAMESPACE, istio, service};
use serde_json::{Value, json};

/// A bit of everything that is read as protobuf, and two kinds that are not.
fn objects() -> Vec<Value> {
    let addr = |n: u16| SocketAddr::from(([10, 1, 0, 7], n));
    let meta = |name: &str| json!({"name": name, "namespace": NAMESPACE});
    let zone = json!({"topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": "z1"});
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE, "labels": {"team": "a"}}}),
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n1", "labels": zone}}),
    ];
    all.extend(service("web", "http", 80, &[("v1", addr(8080)), ("v2", addr(8081))]));
    for object in &mut all {
        match object["kind"].as_str() {
            Some("Service") => object["spec"]["clusterIP"] = "10.98.0.7".into(),
            Some("Pod") => {
                object["spec"]["nodeName"] = "n1".into();
                object["spec"]["serviceAccountName"] = "shop".into();
                object["spec"]["hostname"] = "h".into();
                object["spec"]["containers"][0]["image"] = "web".into();
                object["metadata"]["labels"]["security.istio.io/tlsMode"] = "istio".into();
                let owner = json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "1", "controller": true});
                object["metadata"]["ownerReferences"] = json!([owner]);
            }
            _ => {}
        }
    }
    let ports = json!([{"name": "grpc-a", "port": 9000, "targetPort": "main"}, {"name": "b", "port": 9001, "appProtocol": "http2"}]);
    let headless = json!({"clusterIP": "None", "publishNotReadyAddresses": true, "selector": {"app": "web"}, "ports": ports});
    all.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("headless"), "spec": headless}));
    let node_port = json!({
        "type": "NodePort", "clusterIP": "10.98.0.8", "ipFamilyPolicy": "PreferDualStack", "clusterIPs": ["10.98.0.8", "fd00:10:96::8"],
        "internalTrafficPolicy": "Local", "trafficDistribution": "PreferClose", "externalIPs": ["192.0.2.1"],
        "ports": [{"name": "tcp", "port": 443, "nodePort": 30443, "targetPort": 8443}],
    });
    let mut object = json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("node-port"), "spec": node_port});
    object["metadata"]["annotations"] = json!({"networking.istio.io/exportTo": ".", "alpha.istio.io/kubernetes-serviceaccounts": "x"});
    all.push(object);
    let alias = json!({"type": "ExternalName", "externalName": "web.example", "ports": [{"name": "http", "port": 80}]});
    all.push(json!({"apiVersion": "v1", "kind": "Service", "metadata": meta("alias"), "spec": alias}));
    let endpoints = json!([
        {"addresses": ["10.1.0.20"], "conditions": {"ready": false, "serving": true, "terminating": true}},
        {"addresses": ["10.1.0.21"], "conditions": {"ready": false}},
        {"addresses": ["10.1.0.22"], "conditions": {}, "hostname": "h0", "zone": "z1", "nodeName": "n1"},
    ]);
    all.push(json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"name": "grpc-a", "port": 9000}],
        "metadata": {"name": "headless-x", "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "headless"}},
        "endpoints": endpoints,
    }));
    let hosts = json!({"hosts": ["a.example"], "resolution": "DNS", "ports": [{"number": 80, "name": "http", "protocol": "HTTP"}]});
    all.push(istio("networking", "ServiceEntry", "entry", hosts));
    all.push(istio("networking", "VirtualService", "web", routes("v1")));
    all
}

fn routes(name: &str) -> Value {
    json!({"hosts": ["web"], "http": [{"name": name, "route": [{"destination": {"host": "web"}}]}]})
}

async fn cluster(assets: &Assets, objects: &[Value]) -> KubeCluster {
    cluster_with(assets, &kube::istio_crds(), objects).await
}

async fn cluster_with(assets: &Assets, crds: &[Value], objects: &[Value]) -> KubeCluster {
    let cluster = KubeCluster::start(assets, kube::Options::default()).await;
    cluster.install(crds).await;
    // The API server leaves a status aside that comes with the object.
    cluster.apply(objects).await;
    for pod in objects.iter().filter(|o| o["kind"] == "Pod") {
        let patch = json!({"status": pod["status"]}).to_string();
        let name = pod["metadata"]["name"].as_str().unwrap();
        cluster.kubectl(&["patch", "pod", name, "--namespace", NAMESPACE, "--subresource=status", "--type=merge", "--patch", &patch]).await;
    }
    cluster
}

async fn follow(binary: &std::path::Path, cluster: &KubeCluster) -> Pilotfish {
    // What is read is compared with files, to which nobody writes.
    let args = vec!["--kubeconfig".into(), cluster.pilotfish_kubeconfig().into(), "--ip-autoallocate=false".into()];
    Pilotfish::serve(binary, Options { args, ..Options::default() }).await
}

/// Services and endpoints as they are listed, without when they were made and without what the cluster has of its own.
async fn listed(pilotfish: &Pilotfish) -> (Vec<Value>, Value) {
    let mut services = pilotfish.debug("registryz").await.as_array().unwrap().clone();
    services.retain(|s| s["Attributes"]["Namespace"] == NAMESPACE);
    services.iter_mut().for_each(|s| s["creationTime"] = Value::Null);
    (services, pilotfish.debug("endpointShardz").await)
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cluster_says_what_files_say() {
    let (Some(assets), Some(binary)) = (kube::assets("kube_source"), pilotfish::binary("kube_source")) else { return };
    let objects = objects();
    let dir = MeshDir::default();
    dir.write("mesh.yaml", &objects);
    let files = Pilotfish::serve_dir(&binary, dir.path()).await;
    let cluster = cluster(&assets, &objects).await;
    let live = follow(&binary, &cluster).await;
    let (expected, found) = (listed(&files).await, listed(&live).await);
    assert!(expected.0.len() == 5 && expected.1.as_object().unwrap().len() >= 2, "{expected:#?}");
    assert_eq!(found, expected);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_mesh_outlives_the_api_server() {
    let (Some(assets), Some(binary)) = (kube::assets("kube_source"), pilotfish::binary("kube_source")) else { return };
    let objects = objects();
    let mut cluster = cluster(&assets, &objects).await;
    let mut live = follow(&binary, &cluster).await;
    let before = listed(&live).await;
    cluster.stop_api_server().await;
    assert_eq!(listed(&live).await, before, "what is known stays");
    cluster.start_api_server().await;
    cluster.apply(&[istio("networking", "VirtualService", "web", routes("v2"))]).await;
    cluster.kubectl(&["delete", "service", "alias", "--namespace", NAMESPACE]).await;
    let http = live.http();
    live.until("the changes since", async || {
        let configs = get(http, "localhost", "/debug/configz", &[]).await?.body;
        ensure!(configs.contains("\"name\":\"v2\""), "{configs}");
        let services = get(http, "localhost", "/debug/registryz", &[]).await?.body;
        ensure!(!services.contains("alias.shop"), "the service that went is still there");
        Ok(())
    })
    .await;
    let after = listed(&live).await;
    assert_eq!((after.0.len(), &after.1), (before.0.len() - 1, &before.1));
}

/// An object of each kind that an older definition lets through, and the field that we cannot read.
fn malformed() -> Vec<(Value, &'static str)> {
    let of = |group: &str, version: &str, kind: &str, spec: Value| {
        let mut object = istio(group, kind, "odd", spec);
        object["apiVersion"] = format!("{group}.istio.io/{version}").into();
        object
    };
    let odd = json!("ODD");
    vec![
        (of("networking", "v1", "VirtualService", json!({"hosts": ["web"], "http": "all of it"})), "spec.http"),
        (
            of("networking", "v1beta1", "DestinationRule", json!({"host": "web", "trafficPolicy": {"loadBalancer": {"simple": odd}}})),
            "spec.trafficPolicy.loadBalancer.simple",
        ),
        (of("networking", "v1alpha3", "Gateway", json!({"servers": [{"port": {"number": 70000}}]})), "spec.servers[0].port.number"),
        (of("networking", "v1", "ServiceEntry", json!({"hosts": ["odd.example"], "resolution": odd})), "spec.resolution"),
        (of("networking", "v1", "WorkloadEntry", json!({"address": "10.1.0.9", "weight": -1})), "spec.weight"),
        (of("networking", "v1", "WorkloadGroup", json!({"template": "none"})), "spec.template"),
        (of("networking", "v1", "Sidecar", json!({"egress": [{"captureMode": odd}]})), "spec.egress[0].captureMode"),
        (of("networking", "v1alpha3", "EnvoyFilter", json!({"configPatches": [{"applyTo": odd}]})), "spec.configPatches[0].applyTo"),
        (of("networking", "v1beta1", "ProxyConfig", json!({"concurrency": "many"})), "spec.concurrency"),
        (of("security", "v1", "PeerAuthentication", json!({"mtls": {"mode": odd}})), "spec.mtls.mode"),
        (of("security", "v1", "RequestAuthentication", json!({"jwtRules": [{"presence": odd}]})), "spec.jwtRules[0].presence"),
        (of("security", "v1beta1", "AuthorizationPolicy", json!({"action": odd})), "spec.action"),
        (
            of("telemetry", "v1", "Telemetry", json!({"metrics": [{"overrides": [{"match": {"metric": odd}}]}]})),
            "spec.metrics[0].overrides[0].match.metric",
        ),
        (of("extensions", "v1alpha1", "WasmPlugin", json!({"phase": odd})), "spec.phase"),
        (of("extensions", "v1alpha1", "TrafficExtension", json!({"lua": "code"})), "spec.lua"),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn malformed_objects_do_not_stop_a_watch() {
    let (Some(assets), Some(binary)) = (kube::assets("kube_source"), pilotfish::binary("kube_source")) else { return };
    let (first, second): (Vec<_>, Vec<_>) = malformed().into_iter().enumerate().partition(|(i, _)| i % 2 == 0);
    let only = |some: &[(usize, (Value, &str))]| some.iter().map(|(_, (object, _))| object.clone()).collect::<Vec<_>>();
    // Half of them are listed, half are watched.
    let listed = objects().into_iter().chain(only(&first)).collect::<Vec<_>>();
    let cluster = cluster_with(&assets, &kube::schemaless_crds(), &listed).await;
    let mut live = follow(&binary, &cluster).await;
    // What was good stays, in its last good form.
    let broken = istio("networking", "VirtualService", "web", json!({"hosts": ["web"], "http": [{"name": "v2", "timeout": {"a": "map"}}]}));
    cluster.apply(&only(&second).into_iter().chain([broken]).collect::<Vec<_>>()).await;
    // Each of these comes after a refused one of its kind.
    let good = |kind: &str, spec: Value| istio("networking", kind, "later", spec);
    cluster.apply(&[good("VirtualService", routes("later")), good("DestinationRule", json!({"host": "later"}))]).await;

    let mut expected: BTreeSet<(String, String)> = malformed()
        .iter()
        .map(|(object, field)| (format!("{} {NAMESPACE}/odd", object["kind"].as_str().unwrap()), (*field).to_owned()))
        .collect();
    expected.insert((format!("VirtualService {NAMESPACE}/web"), "spec.http[0].timeout".to_owned()));
    let http = live.http();
    live.until("the good ones, and what is wrong with the others", async || {
        let configs = get(http, "localhost", "/debug/configz", &[]).await?.json();
        let names = |kind: &str| {
            configs.as_array().unwrap().iter().filter(|o| o["kind"] == kind).map(|o| o["metadata"]["name"].clone()).collect::<Vec<_>>()
        };
        ensure!(names("VirtualService") == ["later", "web"] && names("DestinationRule") == ["later"], "{configs:#}");
        let web = configs.as_array().unwrap().iter().find(|o| o["kind"] == "VirtualService" && o["metadata"]["name"] == "web").unwrap();
        ensure!(web["spec"] == routes("v1"), "{web:#}");
        let said = get(http, "localhost", "/debug/diagnosticz", &[]).await?.json();
        let found: BTreeSet<(String, String)> = said["objects"].as_array().unwrap().iter().map(finding).collect();
        ensure!(found == expected, "{found:#?} instead of {expected:#?}: {said:#}");
        Ok(())
    })
    .await;
    // One that is put right is read, and its finding goes.
    cluster.apply(&[istio("networking", "VirtualService", "web", routes("v3"))]).await;
    live.until("the object put right", async || {
        let configs = get(http, "localhost", "/debug/configz", &[]).await?.body;
        ensure!(configs.contains("\"name\":\"v3\""), "{configs}");
        let said = get(http, "localhost", "/debug/diagnosticz", &[]).await?.json();
        ensure!(
            said["objects"].as_array().unwrap().iter().map(finding).all(|(object, _)| object != format!("VirtualService {NAMESPACE}/web")),
            "{said:#}"
        );
        Ok(())
    })
    .await;
}

/// Object and field of a diagnostic.
fn finding(diagnostic: &Value) -> (String, String) {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let object = &diagnostic["object"];
    (format!("{} {}/{}", text(&object["kind"]), text(&object["namespace"]), text(&object["name"])), text(&diagnostic["field"]))
}
