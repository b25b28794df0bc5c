//! What Pilotfish writes into a real Kubernetes API: who writes, what users read on their objects, how rarely, and which
//! addresses ServiceEntries get.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use pilotfish_envoy::TypeUrl;
use pilotfish_testkit::ads::{Delta, sidecar};
use pilotfish_testkit::kube::{self, Assets};
use pilotfish_testkit::pilotfish::{self, Options, Pilotfish};
use pilotfish_testkit::poll::until_within;
use pilotfish_testkit::{KubeCluster, get, until};
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};

const LEASE: Duration = Duration::from_secs(3);

async fn cluster(assets: &Assets) -> KubeCluster {
    let cluster = KubeCluster::start(assets, kube::Options::default()).await;
    cluster.install_crds().await;
    let namespace = |name: &str| json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name}});
    cluster.apply(&[namespace(NAMESPACE), namespace("istio-system")]).await;
    cluster
}

async fn follow(binary: &Path, cluster: &KubeCluster) -> Pilotfish {
    let args =
        ["--kubeconfig".into(), cluster.pilotfish_kubeconfig().into(), "--lease-duration".into(), format!("{}s", LEASE.as_secs()).into()];
    Pilotfish::serve(binary, Options { args: args.into(), ..Options::default() }).await
}

async fn metric(pilotfish: &Pilotfish, name: &str) -> anyhow::Result<u64> {
    let page = get(pilotfish.monitoring(), "localhost", "/metrics", &[]).await?.body;
    let line = page.lines().find_map(|l| l.strip_prefix(name)?.strip_prefix([' ', '_'])?.split(' ').next_back());
    Ok(line.with_context(|| format!("no {name} in {page}"))?.parse::<f64>()? as u64)
}

async fn leads(pilotfish: &Pilotfish) -> bool {
    metric(pilotfish, "pilotfish_leader").await.unwrap() == 1
}

async fn until_leads(pilotfish: &Pilotfish) {
    let ask = async || {
        ensure!(metric(pilotfish, "pilotfish_leader").await? == 1, "it does not lead");
        Ok(())
    };
    until("it leads", ask).await;
}

fn routes(host: &str) -> Value {
    json!({"hosts": [host], "http": [{"route": [{"destination": {"host": host}}]}]})
}

fn entry(name: &str, host: &str) -> Value {
    let ports = json!([{"number": 80, "name": "http", "protocol": "HTTP"}]);
    istio("networking", "ServiceEntry", name, json!({"hosts": [host], "resolution": "DNS", "ports": ports}))
}

/// One condition of an object, once it is so.
async fn condition(cluster: &KubeCluster, kind: &str, name: &str, of: &str, reason: &str) -> Value {
    let ask = async || {
        let object = cluster.get(NAMESPACE, kind, name).await;
        let conditions = object["status"]["conditions"].as_array().cloned().unwrap_or_default();
        let found = conditions.iter().find(|c| c["type"] == of && c["reason"] == reason).cloned();
        found.with_context(|| format!("conditions are {conditions:?}"))
    };
    until(&format!("{of} of {kind} {name} to be {reason}"), ask).await
}

/// Writes a status as somebody else does.
async fn set_status(cluster: &KubeCluster, kind: &str, name: &str, status: Value) {
    let patch = json!([{"op": "add", "path": "/status", "value": status}]).to_string();
    let args = ["patch", kind, name, "--namespace", NAMESPACE, "--subresource=status", "--type=json", "--patch", &patch];
    cluster.kubectl(&args).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn one_of_two_leads() {
    let (Some(assets), Some(binary)) = (kube::assets("kube_status"), pilotfish::binary("kube_status")) else { return };
    let mut cluster = cluster(&assets).await;
    let first = follow(&binary, &cluster).await;
    until_leads(&first).await;
    let second = follow(&binary, &cluster).await;
    let holder = async |cluster: &KubeCluster| {
        let lease = cluster.get("istio-system", "lease", "pilotfish-leader").await;
        lease["spec"]["holderIdentity"].as_str().unwrap_or_default().to_owned()
    };
    let led_by_first = holder(&cluster).await;
    assert!(!leads(&second).await && leads(&first).await);
    // The API server is away for longer than the lease: nobody leads. When it is back, one does.
    cluster.stop_api_server().await;
    let nobody = async || {
        ensure!(metric(&first, "pilotfish_leader").await? == 0, "it still leads");
        Ok(())
    };
    until_within(LEASE, "nobody leads", nobody).await;
    assert!(!leads(&second).await);
    cluster.start_api_server().await;
    let one = async || {
        let both = metric(&first, "pilotfish_leader").await? + metric(&second, "pilotfish_leader").await?;
        ensure!(both == 1, "{both} lead");
        Ok(())
    };
    until("one leads", one).await;
    let (mut leader, follower) = if leads(&first).await { (first, second) } else { (second, first) };
    let before = holder(&cluster).await;
    // An orderly end hands over without waiting for the lease to run out.
    leader.process().terminate().await;
    until_leads(&follower).await;
    let after = holder(&cluster).await;
    assert!(!led_by_first.is_empty() && before != after && !after.is_empty(), "{led_by_first} {before} {after}");
}

#[tokio::test(flavor = "multi_thread")]
async fn users_read_what_became_of_their_objects() {
    let (Some(assets), Some(binary)) = (kube::assets("kube_status"), pilotfish::binary("kube_status")) else { return };
    let cluster = cluster(&assets).await;
    let live = follow(&binary, &cluster).await;
    let mut unreachable = routes("b.example");
    let rule = unreachable["http"][0].clone();
    unreachable["http"].as_array_mut().unwrap().push(rule);
    cluster
        .apply(&[
            entry("a", "a.example"),
            istio("networking", "VirtualService", "good", routes("a.example")),
            istio("networking", "VirtualService", "broken", json!({"hosts": ["a.example"]})),
            istio("networking", "VirtualService", "unreachable", unreachable),
        ])
        .await;
    let theirs = json!({"type": "Theirs", "status": "True", "reason": "Because", "lastTransitionTime": "2026-01-01T00:00:00Z"});
    set_status(&cluster, "virtualservice", "good", json!({"conditions": [theirs]})).await;
    let broken = condition(&cluster, "virtualservice", "broken", "Accepted", "Invalid").await;
    let said = (broken["status"].clone(), broken["message"].as_str().unwrap(), broken["observedGeneration"].clone());
    assert_eq!(said, (json!("False"), "spec.http: one of http, tls and tcp must be given", json!(1)));
    let warned = condition(&cluster, "virtualservice", "unreachable", "Accepted", "Warnings").await;
    assert_eq!(warned["message"], "spec.http[1]: is never reached: spec.http[0] takes all that it matches");
    condition(&cluster, "virtualservice", "good", "Accepted", "Accepted").await;
    let good = cluster.get(NAMESPACE, "virtualservice", "good").await;
    assert_eq!(good["status"]["conditions"][0], theirs, "others keep theirs");
    let text =
        cluster.kubectl(&["get", "virtualservice", "good", "--namespace", NAMESPACE, "--show-managed-fields", "--output", "json"]).await;
    let managed: Value = serde_json::from_str(&text).unwrap();
    let ours = managed["metadata"]["managedFields"].as_array().unwrap().iter().filter(|f| f["manager"] == "pilotfish");
    let ours: Vec<_> = ours.map(|f| (f["operation"].as_str().unwrap(), f["subresource"].as_str().unwrap())).collect();
    assert_eq!(ours, [("Apply", "status")]);

    // A proxy takes it, another one does not.
    let url = format!("http://{}", live.grpc());
    let mut takes = Delta::connect(&url, sidecar(NAMESPACE)).await;
    let mut refuses = Delta::connect(&url, sidecar(NAMESPACE)).await;
    takes.subscribe(TypeUrl::Route, &["80"]).await;
    takes.take().await;
    refuses.subscribe(TypeUrl::Route, &["80"]).await;
    let response = refuses.next().await;
    refuses.nack(&response, "Only one wildcard domain is permitted").await;
    let rejected = condition(&cluster, "virtualservice", "good", "Reconciled", "Rejected").await;
    let message = rejected["message"].as_str().unwrap();
    assert_eq!(
        message, "applied on 1 of 2 proxies; rejected by 1: web-0.shop: Only one wildcard domain is permitted",
        "with the proxy's words"
    );
    drop(refuses);
    let all = condition(&cluster, "virtualservice", "good", "Reconciled", "Applied").await;
    assert_eq!((all["status"].clone(), all["message"].clone()), (json!("True"), json!("applied on 1 of 1 proxies")));
    // Once all is said, nothing is written any more, although our own writes come back through the watch.
    let quiet = async || {
        let waiting = metric(&live, "pilotfish_status_waiting").await?;
        ensure!(waiting == 0, "{waiting} wait");
        metric(&live, "pilotfish_status_writes").await
    };
    let writes = until("all is written", quiet).await;
    let suppressed = metric(&live, "pilotfish_status_suppressed").await.unwrap();
    let metadata = json!({"metadata": {"annotations": {"note": "x"}}}).to_string();
    cluster.kubectl(&["patch", "virtualservice", "good", "--namespace", NAMESPACE, "--type=merge", "--patch", &metadata]).await;
    assert_eq!(metric(&live, "pilotfish_status_writes").await.unwrap(), writes);
    assert_eq!(metric(&live, "pilotfish_status_failures").await.unwrap(), 0);
    assert!(suppressed > 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn whoever_reverts_everything_is_answered_rarely() {
    let (Some(assets), Some(binary)) = (kube::assets("kube_status"), pilotfish::binary("kube_status")) else { return };
    let cluster = cluster(&assets).await;
    let live = follow(&binary, &cluster).await;
    let a = json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "a", "namespace": NAMESPACE},
        "spec": {"ports": [{"name": "http", "port": 80}]}});
    cluster.apply(&[a, istio("networking", "VirtualService", "good", routes("a"))]).await;
    condition(&cluster, "virtualservice", "good", "Accepted", "Accepted").await;
    let (begun, before) = (Instant::now(), metric(&live, "pilotfish_status_writes").await.unwrap());
    let mut reverts = 0;
    while begun.elapsed() < Duration::from_secs(10) || reverts < 20 {
        set_status(&cluster, "virtualservice", "good", json!({"conditions": []})).await;
        reverts += 1;
    }
    let (elapsed, after) = (begun.elapsed(), metric(&live, "pilotfish_status_writes").await.unwrap());
    let allowed = 1 + elapsed.as_secs() / 10;
    println!("{reverts} reverts in {elapsed:?}, {} writes", after - before);
    assert!(after - before <= allowed, "{} writes in {elapsed:?}", after - before);
    condition(&cluster, "virtualservice", "good", "Accepted", "Accepted").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn service_entries_get_addresses_of_their_own() {
    let (Some(assets), Some(binary)) = (kube::assets("kube_status"), pilotfish::binary("kube_status")) else { return };
    let cluster = cluster(&assets).await;
    // Two that come with the same addresses. Ages count in seconds.
    cluster.apply(&[entry("z-old", "old.example")]).await;
    let created = cluster.get(NAMESPACE, "serviceentry", "z-old").await["metadata"]["creationTimestamp"].clone();
    let younger = async || {
        cluster.apply(&[entry("a-young", "young.example")]).await;
        let young = cluster.get(NAMESPACE, "serviceentry", "a-young").await["metadata"]["creationTimestamp"].clone();
        if young == created {
            cluster.kubectl(&["delete", "serviceentry", "a-young", "--namespace", NAMESPACE]).await;
        }
        ensure!(young != created, "made in the same second");
        Ok(())
    };
    until("an object that is younger", younger).await;
    let same = |host: &str| {
        let address = |value: &str| json!({"value": value, "host": host});
        json!({"addresses": [address("240.240.7.7"), address("2001:2::7")]})
    };
    set_status(&cluster, "serviceentry", "z-old", same("old.example")).await;
    set_status(&cluster, "serviceentry", "a-young", same("young.example")).await;
    let live = follow(&binary, &cluster).await;
    let addresses = async |name: &str| {
        let object = cluster.get(NAMESPACE, "serviceentry", name).await;
        let list = object["status"]["addresses"].as_array().cloned().unwrap_or_default();
        list.iter().map(|a| (a["host"].as_str().unwrap().to_owned(), a["value"].as_str().unwrap().to_owned())).collect::<Vec<_>>()
    };
    let moved = async || {
        let young = addresses("a-young").await;
        ensure!(young.len() == 2 && young[0].1 != "240.240.7.7" && young[1].1 != "2001:2::7", "{young:?}");
        Ok(young)
    };
    let young = until("the younger gives way", moved).await;
    assert!(young[0].1.starts_with("240.240.") && young[1].1.starts_with("2001:2:"), "{young:?}");
    let old = [("old.example".to_owned(), "240.240.7.7".to_owned()), ("old.example".to_owned(), "2001:2::7".to_owned())];
    assert_eq!(addresses("z-old").await, old);
    // One that has none, and one that has its own.
    let mut own = entry("own", "own.example");
    own["spec"]["addresses"] = json!(["10.9.9.9"]);
    cluster.apply(&[entry("new", "new.example"), own]).await;
    let given = async || {
        let new = addresses("new").await;
        ensure!(new.len() == 2, "{new:?}");
        Ok(new)
    };
    let new = until("addresses", given).await;
    // Clients that capture DNS are served them.
    let listed = async || {
        let services = get(live.http(), "localhost", "/debug/registryz", &[]).await?.body;
        ensure!(services.contains(&new[0].1), "{services}");
        Ok(())
    };
    until("the mesh has them", listed).await;
    condition(&cluster, "serviceentry", "own", "Accepted", "Accepted").await;
    assert_eq!(addresses("own").await, []);
    // Another process leaves everything as it is.
    drop(live);
    let again = follow(&binary, &cluster).await;
    until_leads(&again).await;
    cluster.apply(&[entry("last", "last.example")]).await;
    let given = async || {
        let last = addresses("last").await;
        ensure!(last.len() == 2, "{last:?}");
        Ok(())
    };
    until("addresses", given).await;
    assert_eq!((addresses("a-young").await, addresses("z-old").await, addresses("new").await), (young, old.to_vec(), new));
}
