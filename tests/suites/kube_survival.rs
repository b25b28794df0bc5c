//! What a real cluster does to a control plane: its API server goes, comes back without memory, is slow, hangs up, says no, keeps
//! an event to itself. A client must never see an empty set of endpoints, and all that was changed must arrive by itself.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::ensure;
use pilotfish_testkit::ads::{Watcher, sidecar};
use pilotfish_testkit::kube::{self, ApiProxy, Assets};
use pilotfish_testkit::pilotfish::{self, Options, Pilotfish};
use pilotfish_testkit::{KubeCluster, get, until};
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};

const WEB: &str = "outbound|80||web.shop.svc.cluster.local";
const OTHER: &str = "outbound|80||other.shop.svc.cluster.local";

fn service(name: &str, ip: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": name, "namespace": NAMESPACE},
        "spec": {"clusterIP": ip, "ports": [{"name": "http", "port": 80}]}})
}

/// A slice of so many endpoints.
fn slice(name: &str, endpoints: usize) -> Value {
    let endpoints: Vec<Value> =
        (1..=endpoints).map(|i| json!({"addresses": [format!("10.1.0.{i}")], "conditions": {"ready": true}})).collect();
    json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "endpoints": endpoints,
        "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": name}},
        "ports": [{"name": "http", "port": 8080}]})
}

async fn cluster(assets: &Assets) -> KubeCluster {
    let cluster = KubeCluster::start(assets, kube::Options::default()).await;
    let namespace = json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}});
    cluster.apply(&[namespace, service("web", "10.98.0.7"), slice("web", 2), service("other", "10.98.0.8"), slice("other", 1)]).await;
    cluster
}

fn options(kubeconfig: PathBuf, args: &[&str]) -> Options {
    let mut all = vec!["--kubeconfig".into(), kubeconfig.into()];
    all.extend(args.iter().map(Into::into));
    Options { args: all, ..Options::default() }
}

/// A client that has everything.
async fn watcher(pilotfish: &Pilotfish) -> Watcher {
    let watcher = Watcher::connect(&format!("http://{}", pilotfish.grpc()), sidecar(NAMESPACE), &["80"]).await;
    has(&watcher, WEB, 2).await;
    has(&watcher, OTHER, 1).await;
    watcher
}

/// Waits until the client has so many endpoints; none may have gone meanwhile.
async fn has(watcher: &Watcher, cluster: &str, endpoints: usize) {
    until(&format!("{endpoints} endpoints of {cluster}"), async || {
        let seen = watcher.seen();
        assert!(seen.emptied.is_empty() && seen.ended.is_none(), "{seen:?}");
        ensure!(seen.endpoints.get(cluster) == Some(&endpoints), "{:?}", seen.endpoints);
        Ok(())
    })
    .await;
}

fn needed() -> Option<(Assets, PathBuf)> {
    Some((kube::assets("kube_survival")?, pilotfish::binary("kube_survival")?))
}

async fn is_ready(pilotfish: &Pilotfish) -> bool {
    get(pilotfish.http(), "localhost", "/ready", &[]).await.is_ok_and(|answer| answer.status == 200)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_answered_before_the_last_kind_is_there() {
    let Some((assets, binary)) = needed() else { return };
    let cluster = cluster(&assets).await;
    let proxy = ApiProxy::start(&cluster).await;
    proxy.delay("endpointslices", Duration::from_secs(20));
    let started = Instant::now();
    let mut pilotfish = Pilotfish::start(&binary, options(proxy.kubeconfig(), &[]));
    let grpc = pilotfish.grpc();
    pilotfish.until("an open port", async || Ok(tokio::net::TcpStream::connect(grpc).await.map(drop)?)).await;
    let watcher = Watcher::connect(&format!("http://{grpc}"), sidecar(NAMESPACE), &["80"]).await;
    while started.elapsed() < Duration::from_secs(19) {
        let answered = watcher.seen().responses;
        assert!(!is_ready(&pilotfish).await && answered == 0, "{answered} responses after {:?}", started.elapsed());
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    has(&watcher, WEB, 2).await;
    // New clients are welcome once there is a certificate, too, which needs the mesh's trust domain.
    until("ready", async || if is_ready(&pilotfish).await { Ok(()) } else { Err("not ready") }).await;
    // Whole from the first answer on.
    let seen = watcher.seen();
    assert_eq!((seen.endpoints[WEB], seen.endpoints[OTHER]), (2, 1));
}

#[tokio::test(flavor = "multi_thread")]
async fn an_api_server_without_memory_is_listed_anew() {
    let Some((assets, binary)) = needed() else { return };
    let mut cluster = cluster(&assets).await;
    cluster.install_crds().await;
    let proxy = ApiProxy::start(&cluster).await;
    let pilotfish = Pilotfish::serve(&binary, options(proxy.kubeconfig(), &[])).await;
    let watcher = watcher(&pilotfish).await;
    let lists = async || pilotfish.figure(r#"pilotfish_kube_lists{kind="EndpointSlice"}"#).await;
    assert_eq!(lists().await, 1.0);
    // Killed and started again, with the same memory behind it: watches go on where they were.
    cluster.stop_api_server().await;
    proxy.cut();
    let stale = r#"pilotfish_kube_staleness_seconds{kind="Service"}"#;
    until("age", async || if pilotfish.figure(stale).await >= 2.0 { Ok(()) } else { Err("young") }).await;
    cluster.start_api_server().await;
    cluster.apply(&[slice("web", 3)]).await;
    has(&watcher, WEB, 3).await;
    // Much happens while nobody can see it; then neither etcd nor the new server's cache knows of it.
    proxy.set_down(true);
    let rule = json!({"hosts": ["web"], "http": [{"name": "blind", "route": [{"destination": {"host": "web"}}]}]});
    cluster.apply(&[slice("web", 4), istio("networking", "VirtualService", "web", rule)]).await;
    cluster.kubectl(&["delete", "endpointslice", "other", "--namespace", NAMESPACE]).await;
    cluster.apply(&[slice("other", 5)]).await;
    cluster.compact().await;
    cluster.stop_api_server().await;
    cluster.start_api_server().await;
    proxy.set_down(false);
    has(&watcher, WEB, 4).await;
    has(&watcher, OTHER, 5).await;
    until("the rule", async || {
        let configs = pilotfish.get("/debug/configz").await.body;
        ensure!(configs.contains("\"blind\""), "{configs}");
        Ok(())
    })
    .await;
    assert!(lists().await >= 2.0, "the version was forgotten");
    // It follows again.
    cluster.apply(&[slice("web", 1)]).await;
    has(&watcher, WEB, 1).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_slow_or_flapping_server_loses_nothing() {
    let Some((assets, binary)) = needed() else { return };
    let cluster = cluster(&assets).await;
    let proxy = ApiProxy::start(&cluster).await;
    proxy.set_slow(Duration::from_millis(300));
    let pilotfish = Pilotfish::serve(&binary, options(proxy.kubeconfig(), &[])).await;
    let watcher = watcher(&pilotfish).await;
    for n in 3..6 {
        cluster.apply(&[slice("web", n)]).await;
    }
    has(&watcher, WEB, 5).await;
    proxy.set_slow(Duration::ZERO);
    // It hangs up every 150 ms for as long as it takes to change things twelve times.
    let flap = async {
        loop {
            tokio::time::sleep(Duration::from_millis(150)).await;
            proxy.cut();
        }
    };
    let change = async {
        for n in 6..18 {
            cluster.apply(&[slice("web", n), slice("other", 20 - n)]).await;
        }
    };
    tokio::select! {
        () = flap => unreachable!("it flaps for ever"),
        () = change => {}
    }
    has(&watcher, WEB, 17).await;
    has(&watcher, OTHER, 3).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn refusals_of_every_sort_are_outlived() {
    let Some((assets, binary)) = needed() else { return };
    let cluster = cluster(&assets).await;
    let proxy = ApiProxy::start(&cluster).await;
    let mut pilotfish = Pilotfish::serve(&binary, options(proxy.kubeconfig(), &[])).await;
    let watcher = watcher(&pilotfish).await;
    for (n, status) in (3..).zip([401, 403, 404, 410, 429, 500, 503]) {
        let before = proxy.requests().len();
        proxy.set_answer(Some(status));
        cluster.apply(&[slice("web", n)]).await;
        until("refusals", async || if proxy.requests().len() > before + 40 { Ok(()) } else { Err("few requests") }).await;
        proxy.set_answer(None);
        has(&watcher, WEB, n).await;
    }
    let log = pilotfish.process().log();
    let denied = "may not read endpointslices of the API group discovery.k8s.io (403 Forbidden): the verbs list and watch are needed";
    assert!(log.contains(denied), "{log}");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_event_that_never_came_is_found_by_the_audit() {
    let Some((assets, binary)) = needed() else { return };
    let cluster = cluster(&assets).await;
    cluster.install_crds().await;
    let proxy = ApiProxy::start(&cluster).await;
    let mut pilotfish = Pilotfish::serve(&binary, options(proxy.kubeconfig(), &["--audit-interval", "5s"])).await;
    let watcher = watcher(&pilotfish).await;
    let healed = async |kind: &str| pilotfish.figure(&format!("pilotfish_kube_healed_objects{{kind=\"{kind}\"}}")).await;
    proxy.swallow("10.1.0.9");
    cluster.apply(&[slice("web", 9)]).await;
    proxy.swallow("swallowed.example");
    let hosts = json!({"hosts": ["swallowed.example"], "http": [{"route": [{"destination": {"host": "web"}}]}]});
    cluster.apply(&[istio("networking", "VirtualService", "web", hosts)]).await;
    until("both events to be kept", async || if proxy.swallowed() == 2 { Ok(()) } else { Err(proxy.swallowed()) }).await;
    // What comes after it does not make it good.
    cluster.apply(&[slice("other", 2)]).await;
    has(&watcher, OTHER, 2).await;
    assert_eq!(watcher.seen().endpoints[WEB], 2);
    has(&watcher, WEB, 9).await;
    until("the rule", async || {
        let configs = pilotfish.get("/debug/configz").await.body;
        ensure!(configs.contains("swallowed.example"), "{configs}");
        Ok(())
    })
    .await;
    assert_eq!((healed("EndpointSlice").await, healed("VirtualService").await, healed("Service").await), (1.0, 1.0, 0.0));
    assert!(pilotfish.process().log().contains("the watch left changes out"));
}

fn write_kubeconfig(path: &Path, cluster: &KubeCluster, user: &Value) {
    // JSON is YAML.
    let mut config: Value = serde_json::from_str(&std::fs::read_to_string(cluster.kubeconfig()).unwrap()).unwrap();
    config["users"][0]["user"] = user.clone();
    std::fs::write(path, config.to_string()).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn expired_credentials_are_replaced_without_a_restart() {
    let Some((assets, binary)) = needed() else { return };
    let mut cluster = cluster(&assets).await;
    // The account that the shipped manifest gives rights to.
    let account = ["serviceaccount", "pilotfish", "--namespace", "istio-system"];
    let do_to = async |cluster: &KubeCluster, verb: &str| cluster.kubectl(&[&[verb], &account[..]].concat()).await;
    let token = async |cluster: &KubeCluster| {
        cluster.kubectl(&["create", "token", "pilotfish", "--namespace", "istio-system"]).await.trim().to_owned()
    };
    let dir = tempfile::tempdir().unwrap();
    let (kubeconfig, file) = (dir.path().join("kubeconfig"), dir.path().join("token"));
    let first = token(&cluster).await;
    std::fs::write(&file, &first).unwrap();
    write_kubeconfig(&kubeconfig, &cluster, &json!({"tokenFile": file}));
    let pilotfish = Pilotfish::serve(&binary, options(kubeconfig, &[])).await;
    let watcher = watcher(&pilotfish).await;
    // The account is another one now, and a new server has no old connections.
    do_to(&cluster, "delete").await;
    do_to(&cluster, "create").await;
    let second = token(&cluster).await;
    cluster.stop_api_server().await;
    cluster.start_api_server().await;
    cluster.apply(&[slice("web", 3)]).await;
    until("a refusal", async || {
        let page = pilotfish.debug("watchz").await;
        ensure!(page.to_string().contains("our credentials are not accepted"), "{page}");
        Ok(())
    })
    .await;
    assert_eq!(watcher.seen().endpoints[WEB], 2, "what is known stays");
    std::fs::write(&file, &second).unwrap();
    has(&watcher, WEB, 3).await;
}
