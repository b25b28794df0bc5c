//! DestinationRules whose effect shows in numbers: requests that stay in the proxy's own zone, retries that a budget allows, and
//! servers that are new; by a stock Envoy as gateway.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{Ask, Backend, until};
use pilotfish_tests::behaviour::{Stage, Verdicts, endpoint, gateway, gateway_node, policy, routed, server, static_entry};
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};
use tokio::task::JoinSet;

/// How often which backend answers `count` requests for a host.
async fn tally(edge: SocketAddr, host: &str, count: usize) -> Result<BTreeMap<String, usize>> {
    let mut tally = BTreeMap::new();
    for _ in 0..count {
        let response = Ask::get("/").host(host).send(edge).await?;
        ensure!(response.status == 200, "{} {}", response.status, response.body);
        *tally.entry(response.echo().backend).or_default() += 1;
    }
    Ok(tally)
}

// === Zones ===

/// A gateway of two Pods, of which the first is the Envoy, in two zones of a region.
fn two_gateways() -> Vec<Value> {
    let node = |name: &str, zone: &str| {
        let labels = json!({"topology.kubernetes.io/region": "r1", "topology.kubernetes.io/zone": zone});
        json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": name, "labels": labels}})
    };
    let pod = |name: &str, ip: &str, node: &str| {
        json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": NAMESPACE, "labels": {"app": "edge", "istio": "edge"}},
            "spec": {"nodeName": node, "containers": [{"name": "main"}]},
            "status": {"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}], "conditions": [{"type": "Ready", "status": "True"}]}})
    };
    let end = |name: &str, ip: &str, node: &str| {
        let pod = json!({"kind": "Pod", "name": name, "namespace": NAMESPACE});
        json!({"addresses": [ip], "nodeName": node, "conditions": {"ready": true}, "targetRef": pod})
    };
    vec![
        node("n1", "z1"),
        node("n2", "z2"),
        json!({"apiVersion": "v1", "kind": "Service", "metadata": {"name": "edge", "namespace": NAMESPACE},
            "spec": {"clusterIP": "10.7.7.9", "selector": {"app": "edge"}, "ports": [{"name": "http", "port": 80}]}}),
        pod("edge-1", "127.9.9.1", "n1"),
        pod("edge-2", "127.9.9.2", "n2"),
        json!({"apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "addressType": "IPv4", "ports": [{"name": "http", "port": 80}],
            "metadata": {"name": "edge-1", "namespace": NAMESPACE, "labels": {"kubernetes.io/service-name": "edge"}},
            "endpoints": [end("edge-1", "127.9.9.1", "n1"), end("edge-2", "127.9.9.2", "n2")]}),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_stay_in_their_zone_as_long_as_it_has_its_share() {
    let [near, far] = [Backend::start("near").await, Backend::start("far").await];
    let edge = free_addr();
    let zones = [endpoint(near.addr()).at("r1/z1"), endpoint(far.addr()).at("r1/z2")];
    let setting = |setting: Value| json!({"loadBalancer": {"simple": "ROUND_ROBIN", "zoneAwareLbSetting": setting}});
    let mut objects = two_gateways();
    objects.push(gateway("edge", &[server("http", "HTTP", edge, &["*"], None)]));
    for (name, policies) in [
        ("own-zone", setting(json!({"enabled": true, "minClusterSize": 2}))),
        ("too-small", setting(json!({"enabled": true, "minClusterSize": 3}))),
        ("off", setting(json!({"enabled": false}))),
    ] {
        let host = format!("{name}.example");
        objects.extend([static_entry(name, &[&host], "HTTP", &zones), policy(name, &host, policies), routed(name, &host, &["edge"])]);
    }
    let Some(stage) = Stage::start("behaviour", &objects, "zoneAwareLbSetting: {minClusterSize: 2}\n").await else { return };
    let node = json!({
        "id": "router~127.9.9.1~edge-1.shop~shop.svc.cluster.local", "cluster": "edge.shop",
        "metadata": {"NAMESPACE": NAMESPACE, "LABELS": {"app": "edge", "istio": "edge"}, "ENABLE_SELF_DISCOVERY": true},
        "locality": {"region": "r1", "zone": "z1"}
    });
    let envoy = stage.envoy_with(node, |bootstrap| {
        bootstrap["cluster_manager"] = json!({"local_cluster_name": "local_cluster"});
        let own = json!({"eds_config": {"ads": {}, "resource_api_version": "V3"}});
        let own = json!({"name": "local_cluster", "type": "EDS", "eds_cluster_config": own});
        bootstrap["static_resources"]["clusters"].as_array_mut().unwrap().push(own);
    });
    let mut envoy = envoy.await;
    envoy.until_stat("cluster.local_cluster.membership_total", |n| n == 2).await;
    let mut verdicts = Verdicts::default();
    let both = || BTreeMap::from([("near".to_owned(), 10), ("far".to_owned(), 10)]);
    for (name, expected) in [("own-zone", BTreeMap::from([("near".to_owned(), 20)])), ("too-small", both()), ("off", both())] {
        match tally(edge, &format!("{name}.example"), 20).await {
            Ok(tally) => verdicts.equal(name, tally, expected),
            failed => verdicts.note(name, failed.map(drop)),
        }
    }
    verdicts.accepted("gateway", &envoy).await;
    verdicts.finish("zones");
}

// === Retries ===

#[tokio::test(flavor = "multi_thread")]
async fn a_budget_bounds_retries_that_are_under_way() {
    const TOGETHER: usize = 6;
    let edge = free_addr();
    let mut objects = vec![gateway("edge", &[server("http", "HTTP", edge, &["*"], None)])];
    let mut backends = Vec::new();
    for (name, budget) in [
        ("one", Some(json!({"percent": 1, "minRetryConcurrency": 1}))),
        ("enough", Some(json!({"percent": 1, "minRetryConcurrency": 6}))),
        ("free", None),
    ] {
        let (backend, host) = (Backend::start(name).await, format!("{name}.example"));
        let traffic = budget.map_or_else(|| json!({"connectionPool": {"tcp": {"connectTimeout": "5s"}}}), |b| json!({"retryBudget": b}));
        let retries = json!({"attempts": 2, "perTryTimeout": "0.3s", "retryOn": "5xx"});
        let http = json!([{"route": [{"destination": {"host": host, "port": {"number": 80}}}], "retries": retries}]);
        objects.push(static_entry(name, &[&host], "HTTP", &[endpoint(backend.addr())]));
        objects.push(policy(name, &host, traffic));
        objects.push(istio("networking", "VirtualService", name, json!({"hosts": [host], "gateways": ["edge"], "http": http})));
        backends.push((name, backend));
    }
    let Some(stage) = Stage::start("behaviour", &objects, "").await else { return };
    let envoy = stage.envoy(gateway_node()).await;
    let mut verdicts = Verdicts::default();
    // Each try ends by its time-out, so that all wait at once for the next. Where one retry may be under way, one request gets its two.
    for ((name, backend), expected) in backends.iter().zip([TOGETHER + 2, TOGETHER * 3, TOGETHER * 3]) {
        let mut set = JoinSet::new();
        for _ in 0..TOGETHER {
            let ask = Ask::get("/sleep/5000").host(&format!("{name}.example"));
            set.spawn(async move { ask.send(edge).await.map(|r| r.status) });
        }
        let mut statuses = BTreeMap::<u16, usize>::new();
        while let Some(status) = set.join_next().await {
            *statuses.entry(status.unwrap().unwrap_or_default()).or_default() += 1;
        }
        verdicts.equal(format_args!("{name}: every try timed out"), statuses, BTreeMap::from([(504, TOGETHER)]));
        verdicts.equal(format_args!("{name}: tries"), backend.requests(), expected as u64);
        let refused = envoy.stat(&format!("cluster.outbound|80||{name}.example.upstream_rq_retry_overflow")).await;
        verdicts.equal(format_args!("{name}: retries refused"), refused, if *name == "one" { TOGETHER as u64 - 1 } else { 0 });
    }
    verdicts.accepted("gateway", &envoy).await;
    verdicts.finish("retry budgets");
}

// === Warm-up ===

/// How long a server counts as new.
const NEW: Duration = Duration::from_secs(4);

#[tokio::test(flavor = "multi_thread")]
async fn new_servers_get_less_at_first() {
    let [old, new] = [Backend::start("old").await, Backend::start("new").await];
    let edge = free_addr();
    let objects = |endpoints: &[&Backend]| {
        let endpoints: Vec<_> = endpoints.iter().map(|b| endpoint(b.addr())).collect();
        let warmup = json!({"duration": format!("{}s", NEW.as_secs()), "minimumPercent": 1, "aggression": 1});
        vec![
            gateway("edge", &[server("http", "HTTP", edge, &["*"], None)]),
            static_entry("warm", &["warm.example"], "HTTP", &endpoints),
            policy("warm", "warm.example", json!({"loadBalancer": {"simple": "ROUND_ROBIN", "warmup": warmup}})),
            routed("warm", "warm.example", &["edge"]),
        ]
    };
    let Some(stage) = Stage::start("behaviour", &objects(&[&old]), "").await else { return };
    let mut envoy = stage.envoy(gateway_node()).await;
    // Time has to pass: the old one is new at first itself.
    let (start, mut verdicts) = (Instant::now(), Verdicts::default());
    until("the end of its own warm-up", async || {
        let tally = tally(edge, "warm.example", 1).await?;
        ensure!(tally.contains_key("old") && start.elapsed() > NEW, "{tally:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    let added = Instant::now();
    stage.mesh.write("objects.yaml", &objects(&[&old, &new]));
    envoy.until_stat("cluster.outbound|80||warm.example.membership_total", |n| n == 2).await;
    let first = tally(edge, "warm.example", 40).await.map(|t| t.get("new").copied().unwrap_or_default());
    // Its weight grows from nothing to that of the other with its age, which is less than this.
    let weight = (added.elapsed().as_secs_f64() / NEW.as_secs_f64()).min(1.0);
    let most = 40.0 * weight / (1.0 + weight) + 3.0;
    match first {
        Ok(n) => verdicts.equal(format_args!("at first {n} of 40, at most {most:.0}"), (n as f64) <= most, true),
        failed => verdicts.note("at first", failed.map(drop)),
    }
    until("an even share", async || {
        let tally = tally(edge, "warm.example", 40).await?;
        ensure!(tally.get("new").is_some_and(|n| (19..=21).contains(n)), "{tally:?}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    verdicts.equal("it grew with time", added.elapsed() >= NEW / 2, true);
    verdicts.accepted("gateway", &envoy).await;
    verdicts.finish("warm-up");
}
