//! DestinationRules: which endpoint requests reach, over what kind of connection, and when they are refused, by a stock
//! Envoy as gateway.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, SocketAddr};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use pilotfish_testkit::http::Response;
use pilotfish_testkit::process::free_addr;
use pilotfish_testkit::{Ask, Authority, Backend, Envoy, TcpBackend, TlsServer, tcp, until};
use pilotfish_tests::behaviour::{
    Endpoint, Stage, Verdicts, endpoint, gateway, gateway_node, policy, routed, routed_bytes, server, static_entry,
};
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

/// Objects of one host: its endpoints, its rule, and the way to it from the gateway.
fn host(name: &str, endpoints: &[Endpoint], traffic_policy: Value) -> Vec<Value> {
    let host = format!("{name}.example");
    vec![static_entry(name, &[&host], "HTTP", endpoints), policy(name, &host, traffic_policy), routed(name, &host, &["edge"])]
}

/// Requests of one host to the gateway.
#[derive(Clone, Copy)]
struct To<'a> {
    edge: SocketAddr,
    name: &'a str,
}

impl To<'_> {
    async fn ask(self, ask: Ask) -> Result<Response> {
        ask.host(&format!("{}.example", self.name)).send(self.edge).await
    }

    async fn get(self, path: &str) -> Result<Response> {
        self.ask(Ask::get(path)).await
    }

    /// The backend that answers; an error for anything but 200.
    async fn backend(self, ask: Ask) -> Result<String> {
        let response = self.ask(ask).await?;
        ensure!(response.status == 200, "{} {}", response.status, response.body);
        Ok(response.echo().backend)
    }

    /// How often which backend answers `count` requests.
    async fn tally(self, count: usize, ask: Ask) -> Result<BTreeMap<String, usize>> {
        let mut tally = BTreeMap::new();
        for _ in 0..count {
            *tally.entry(self.backend(ask.clone()).await?).or_default() += 1;
        }
        Ok(tally)
    }

    /// Statuses of requests that are under way together.
    async fn together(self, count: usize, path: &str) -> Result<BTreeMap<u16, usize>> {
        let (mut set, mut tally) = (JoinSet::new(), BTreeMap::new());
        for _ in 0..count {
            let (ask, edge) = (Ask::get(path).host(&format!("{}.example", self.name)), self.edge);
            set.spawn(async move { ask.send(edge).await });
        }
        while let Some(response) = set.join_next().await {
            *tally.entry(response??.status).or_default() += 1;
        }
        Ok(tally)
    }
}

struct Group {
    _stage: Stage,
    envoy: Envoy,
    edge: SocketAddr,
}

impl Group {
    async fn start(mut objects: Vec<Value>, servers: Vec<Value>) -> Option<Self> {
        let edge = free_addr();
        let http = server("http", "HTTP", edge, &["*"], None);
        objects.push(gateway("edge", &[vec![http], servers].concat()));
        let stage = Stage::start("behaviour", &objects, "").await?;
        let envoy = stage.envoy(gateway_node()).await;
        Some(Group { _stage: stage, envoy, edge })
    }

    fn to<'a>(&self, name: &'a str) -> To<'a> {
        To { edge: self.edge, name }
    }

    async fn stat(&self, name: &str, stat: &str) -> u64 {
        self.envoy.stat(&format!("cluster.outbound|80||{name}.example.{stat}")).await
    }

    async fn finish(self, mut verdicts: Verdicts, group: &str) {
        verdicts.accepted("gateway", &self.envoy).await;
        verdicts.finish(group);
    }
}

fn names(names: &[&str]) -> BTreeSet<String> {
    names.iter().map(|n| (*n).to_owned()).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn load_is_balanced() {
    let [a, b, c] = [Backend::start("a").await, Backend::start("b").await, Backend::start("c").await];
    let all = [endpoint(a.addr()), endpoint(b.addr()), endpoint(c.addr())];
    let lb = |lb: Value| json!({"loadBalancer": lb});
    let hash = |hash: Value| json!({"loadBalancer": {"consistentHash": hash}});
    let objects = [
        host("robin", &all, lb(json!({"simple": "ROUND_ROBIN"}))),
        host("random", &all, lb(json!({"simple": "RANDOM"}))),
        host("least", &all[..2], lb(json!({"simple": "LEAST_REQUEST"}))),
        host("by-header", &all, hash(json!({"httpHeaderName": "x-user"}))),
        host("by-cookie", &all, hash(json!({"httpCookie": {"name": "sticky", "ttl": "60s"}}))),
        host("by-source", &all, hash(json!({"useSourceIp": true}))),
        host("by-query", &all, hash(json!({"httpQueryParameterName": "user"}))),
        host("by-maglev", &all, hash(json!({"httpHeaderName": "x-user", "maglev": {"tableSize": 1009}}))),
        host("by-ring", &all, hash(json!({"httpHeaderName": "x-user", "ringHash": {"minimumRingSize": 64}}))),
    ]
    .concat();
    let Some(group) = Group::start(objects, Vec::new()).await else { return };
    let mut verdicts = Verdicts::default();
    let evenly: BTreeMap<String, usize> = names(&["a", "b", "c"]).into_iter().map(|n| (n, 10)).collect();
    match group.to("robin").tally(30, Ask::get("/")).await {
        Ok(tally) => verdicts.equal("round robin", tally, evenly.clone()),
        failed => verdicts.note("round robin", failed.map(drop)),
    }
    verdicts.note("random", random(group.to("random"), &evenly).await);
    verdicts.note("least requests", least(group.to("least")).await);
    for name in ["by-header", "by-maglev", "by-ring"] {
        verdicts.note(name, sticks(group.to(name), |i| Ask::get("/").header("x-user", &format!("user {i}"))).await);
    }
    verdicts.note("by-query", sticks(group.to("by-query"), |i| Ask::get(&format!("/?user={i}"))).await);
    verdicts.note("by-source", sticks(group.to("by-source"), |i| Ask::get("/").from(Ipv4Addr::new(127, 0, 3, i))).await);
    verdicts.note("by-cookie", by_cookie(group.to("by-cookie")).await);
    group.finish(verdicts, "load balancing").await;
}

/// All are used, and not in turn: 30 draws that come out even by chance are one in thirty, twice one in a thousand.
async fn random(to: To<'_>, evenly: &BTreeMap<String, usize>) -> Result<()> {
    let tallies = [to.tally(30, Ask::get("/")).await?, to.tally(30, Ask::get("/")).await?, to.tally(30, Ask::get("/")).await?];
    ensure!(tallies.iter().any(|t| t != evenly), "always even");
    ensure!(tallies.iter().all(|t| t.len() == 3), "not all are used: {tallies:?}");
    Ok(())
}

/// Of two draws the less busy one answers, so that the busy one gets a quarter instead of a half.
async fn least(to: To<'_>) -> Result<()> {
    let ask = Ask::get("/sleep/4000").host("least.example");
    let edge = to.edge;
    let busy = tokio::spawn(async move { ask.send(edge).await });
    let tally = to.tally(100, Ask::get("/sleep/1")).await?;
    let busy = busy.await??.echo().backend;
    let got = tally.get(&busy).copied().unwrap_or_default();
    ensure!(got <= 40, "the busy one got {got} of 100");
    Ok(())
}

/// One key always reaches one backend, and keys spread over all of them.
async fn sticks(to: To<'_>, ask: impl Fn(u8) -> Ask) -> Result<()> {
    let mut reached = BTreeSet::new();
    for key in 1..=24 {
        let tally = to.tally(3, ask(key)).await?;
        ensure!(tally.len() == 1, "key {key} reached {tally:?}");
        reached.extend(tally.into_keys());
    }
    ensure!(reached.len() == 3, "24 keys reached {reached:?} only");
    Ok(())
}

/// Who has no cookie gets one, and with it always the same backend.
async fn by_cookie(to: To<'_>) -> Result<()> {
    let mut reached = BTreeSet::new();
    for _ in 0..16 {
        let first = to.get("/").await?;
        let cookie = first.headers.get("set-cookie").context("no cookie")?;
        ensure!(cookie.starts_with("sticky=") && cookie.contains("Max-Age=60"), "{cookie}");
        let value = cookie.split(';').next().unwrap_or_default();
        let tally = to.tally(3, Ask::get("/").header("cookie", value)).await?;
        let backend = first.echo().backend;
        ensure!(tally == BTreeMap::from([(backend.clone(), 3)]), "{backend} gave a cookie that led to {tally:?}");
        reached.insert(backend);
    }
    ensure!(reached.len() > 1, "only {reached:?}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn zones_and_failures_decide() {
    let [near, far, spare] = [Backend::start("near").await, Backend::start("far").await, Backend::start("spare").await];
    let zones = [endpoint(near.addr()).at("r1/z1/s1"), endpoint(far.addr()).at("r2/z2/s2"), endpoint(spare.addr()).at("r3/z3/s3")];
    let outliers = |more: Value| {
        let mut all = json!({"consecutive5xxErrors": 2, "interval": "60s", "baseEjectionTime": "60s", "maxEjectionPercent": 100});
        all.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        all
    };
    let locality = |setting: Value| json!({"loadBalancer": {"localityLbSetting": setting}, "outlierDetection": outliers(json!({}))});
    let tiers = [endpoint(near.addr()).labels(json!({"tier": "silver"})), endpoint(far.addr()).labels(json!({"tier": "gold"}))];
    let robin = json!({"simple": "ROUND_ROBIN"});
    let objects = [
        host("distributed", &zones, locality(json!({"distribute": [{"from": "r1/z1/*", "to": {"r2/*": 100}}]}))),
        host("shared", &zones, locality(json!({"distribute": [{"from": "r1/*", "to": {"r1/*": 50, "r3/*": 50}}]}))),
        host("failover", &zones, locality(json!({"failover": [{"from": "r1", "to": "r3"}]}))),
        host("preferred", &tiers, locality(json!({"failoverPriority": ["tier=gold"]}))),
        host("anywhere", &zones, locality(json!({"enabled": false}))),
        host("ejected", &tiers, json!({"loadBalancer": robin, "outlierDetection": outliers(json!({}))})),
        host("kept", &tiers, json!({"loadBalancer": robin, "outlierDetection": outliers(json!({"maxEjectionPercent": 0}))})),
        host(
            "gateway-errors",
            &tiers,
            json!({
                "loadBalancer": robin, "outlierDetection": outliers(json!({"consecutive5xxErrors": 0, "consecutiveGatewayErrors": 2}))
            }),
        ),
    ]
    .concat();
    let Some(group) = Group::start(objects, Vec::new()).await else { return };
    let mut verdicts = Verdicts::default();
    for (name, expected) in [
        ("distributed", names(&["far"])),
        ("shared", names(&["near", "spare"])),
        ("preferred", names(&["far"])),
        ("anywhere", names(&["near", "far", "spare"])),
    ] {
        match group.to(name).tally(40, Ask::get("/")).await {
            Ok(tally) => verdicts.equal(name, tally.into_keys().collect(), expected),
            failed => verdicts.note(name, failed.map(drop)),
        }
    }
    verdicts.note("failover", failover(group.to("failover"), near.addr()).await);
    // Two failures in a row of one backend; after that, nobody asks it again.
    for (name, failures) in [("ejected", 2), ("gateway-errors", 2), ("kept", 10)] {
        let mut statuses = BTreeMap::<u16, usize>::new();
        for _ in 0..20 {
            let status = group.to(name).get("/fail/far").await.map_or(0, |r| r.status);
            *statuses.entry(status).or_default() += 1;
        }
        verdicts.equal(name, statuses, BTreeMap::from([(200, 20 - failures), (503, failures)]));
    }
    group.finish(verdicts, "zones and failures").await;
}

/// Near, while it works; then where the rule says, past what is next in order.
async fn failover(to: To<'_>, near: SocketAddr) -> Result<()> {
    let tally = to.tally(20, Ask::get("/")).await?;
    ensure!(tally == BTreeMap::from([("near".to_owned(), 20)]), "{tally:?} at first ({near})");
    until("the failover", async || {
        let backend = to.backend(Ask::get("/fail/near")).await?;
        ensure!(backend == "spare", "{backend} answers");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    let tally = to.tally(20, Ask::get("/")).await?;
    ensure!(tally == BTreeMap::from([("spare".to_owned(), 20)]), "{tally:?} then");
    Ok(())
}

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_limited() {
    let (backend, bytes, listen) = (Backend::start("b").await, TcpBackend::start("t").await, free_addr());
    let one = [endpoint(backend.addr())];
    let pool = |tcp: Value, http: Value| json!({"connectionPool": {"tcp": tcp, "http": http}});
    let mut objects = [
        host("requests", &one, pool(json!({}), json!({"http2MaxRequests": 1}))),
        host("pending", &one, pool(json!({"maxConnections": 1}), json!({"http1MaxPendingRequests": 1}))),
        host("unlimited", &one, json!({})),
        host("one-each", &one, pool(json!({}), json!({"maxRequestsPerConnection": 1}))),
        host("reused", &one, json!({})),
        host("upgraded", &one, pool(json!({}), json!({"h2UpgradePolicy": "UPGRADE"}))),
    ]
    .concat();
    objects.push(static_entry("short", &["short.example"], "TCP", &[endpoint(bytes.addr())]));
    objects.push(policy("short", "short.example", pool(json!({"maxConnectionDuration": "0.5s"}), json!({}))));
    objects.push(routed_bytes("short", "short.example", listen));
    let Some(group) = Group::start(objects, vec![server("tcp", "TCP", listen, &["*"], None)]).await else { return };
    let mut verdicts = Verdicts::default();
    for (name, served, refused) in [("requests", 1, 3), ("pending", 2, 2), ("unlimited", 4, 0)] {
        let expected = [(200, served), (503, refused)].into_iter().filter(|(_, n)| *n > 0).collect();
        match group.to(name).together(4, "/sleep/500").await {
            Ok(statuses) => verdicts.equal(name, statuses, expected),
            failed => verdicts.note(name, failed.map(drop)),
        }
    }
    for (name, stat, expected) in
        [("one-each", "upstream_cx_total", 5), ("reused", "upstream_cx_total", 1), ("upgraded", "upstream_cx_http2_total", 1)]
    {
        let tally = group.to(name).tally(5, Ask::get("/")).await;
        verdicts.note(name, tally.map(drop));
        verdicts.equal(format_args!("{name}, {stat}"), group.stat(name, stat).await, expected);
    }
    verdicts.note("maxConnectionDuration", cut_off(listen).await);
    group.finish(verdicts, "connection pools").await;
}

/// Says nothing, and is cut off.
async fn cut_off(listen: SocketAddr) -> Result<()> {
    let began = Instant::now();
    let mut stream = TcpStream::connect(listen).await?;
    let end = tokio::time::timeout(Duration::from_secs(10), stream.read_u8()).await.context("it stays open")?;
    ensure!(end.is_err(), "something came: {end:?}");
    ensure!(began.elapsed() >= Duration::from_millis(450), "after {:?} already", began.elapsed());
    Ok(())
}

/// A backend, what it saw of its client's name, and the name that it was asked for.
type Reached = (String, Option<String>, Option<String>);

#[tokio::test(flavor = "multi_thread")]
async fn connections_are_secured() {
    let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
    let (identity, client) = (ours.issue("server", &["secure.example", "other.example"]), ours.issue("client", &[]));
    let stranger = theirs.issue("stranger", &["secure.example"]);
    let open = Backend::start_tls("open", &TlsServer::new(&identity, &["http/1.1"], false)).await;
    let demanding = Backend::start_tls("demanding", &TlsServer::new(&identity, &["http/1.1"], true)).await;
    let foreign = Backend::start_tls("foreign", &TlsServer::new(&stranger, &["http/1.1"], false)).await;
    let clear = Backend::start("clear").await;
    let (bytes, proxied, tunnelled) = (TcpBackend::start("t").await, free_addr(), free_addr());
    let tls = |mode: &str, more: Value| {
        let mut tls = json!({"mode": mode, "sni": "secure.example", "caCertificates": identity.roots()});
        tls.as_object_mut().unwrap().extend(more.as_object().cloned().unwrap());
        json!({"tls": tls})
    };
    let files = json!({"clientCertificate": client.chain(), "privateKey": client.key()});
    let secret = json!({"credentialName": "client", "caCertificates": ""});
    let at = |backend: &Backend| [endpoint(backend.addr())];
    let mut objects = [
        host("simple", &at(&open), tls("SIMPLE", json!({"subjectAltNames": ["secure.example"]}))),
        host("wrong-name", &at(&open), tls("SIMPLE", json!({"subjectAltNames": ["wrong.example"]}))),
        host("wrong-roots", &at(&foreign), tls("SIMPLE", json!({}))),
        host("unverified", &at(&foreign), tls("SIMPLE", json!({"caCertificates": "", "insecureSkipVerify": true}))),
        host("mutual", &at(&demanding), tls("MUTUAL", files)),
        host("mutual-secret", &at(&demanding), tls("MUTUAL", secret)),
        host("no-certificate", &at(&demanding), tls("SIMPLE", json!({}))),
        host("disabled", &at(&clear), json!({"tls": {"mode": "DISABLE"}})),
        host("by-port", &at(&open), json!({"portLevelSettings": [{"port": {"number": 80}, "tls": tls("SIMPLE", json!({}))["tls"]}]})),
        host("other-port", &at(&clear), json!({"portLevelSettings": [{"port": {"number": 81}, "tls": tls("SIMPLE", json!({}))["tls"]}]})),
    ]
    .concat();
    // A rule of many hosts, and the name that a client asked for where the rule says none.
    objects.push(static_entry("wild", &["other.example"], "HTTP", &at(&open)));
    objects.push(routed("wild", "other.example", &["edge"]));
    let auto = json!({"tls": {"mode": "SIMPLE", "caCertificates": identity.roots()}});
    objects.push(policy("other", "other.example", auto));
    // One subset without what the rest has.
    let labelled = [endpoint(open.addr()).labels(json!({"kind": "tls"})), endpoint(clear.addr()).labels(json!({"kind": "clear"}))];
    objects.push(static_entry("subset", &["subset.example"], "HTTP", &labelled));
    objects.push(istio(
        "networking",
        "DestinationRule",
        "subset",
        json!({
            "host": "subset.example", "trafficPolicy": tls("SIMPLE", json!({})),
            "subsets": [
                {"name": "tls", "labels": {"kind": "tls"}},
                {"name": "clear", "labels": {"kind": "clear"}, "trafficPolicy": {"tls": {"mode": "DISABLE"}}}
            ]
        }),
    ));
    let to_subset = |name: &str| json!([{"destination": {"host": "subset.example", "subset": name}}]);
    objects.push(istio(
        "networking",
        "VirtualService",
        "subset",
        json!({"hosts": ["subset.example"], "gateways": ["edge"], "http": [
            {"match": [{"uri": {"prefix": "/tls"}}], "route": to_subset("tls")}, {"route": to_subset("clear")}
        ]}),
    ));
    for (name, listen, traffic_policy) in [
        ("proxied", proxied, json!({"proxyProtocol": {"version": "V1"}})),
        ("tunnelled", tunnelled, json!({"tunnel": {"protocol": "CONNECT", "targetHost": "behind.example", "targetPort": 4711}})),
    ] {
        let host = format!("{name}.example");
        objects.push(static_entry(name, &[&host], "TCP", &[endpoint(bytes.addr())]));
        objects.push(policy(name, &host, traffic_policy));
        objects.push(routed_bytes(name, &host, listen));
    }
    objects.push(client.secret(NAMESPACE, "client"));
    let servers = vec![server("tcp-1", "TCP", proxied, &["*"], None), server("tcp-2", "TCP", tunnelled, &["*"], None)];
    let Some(group) = Group::start(objects, servers).await else { return };
    let mut verdicts = Verdicts::default();
    let seen = async |name: &str, path: &str| -> Result<Option<Reached>> {
        let response = group.to(name).get(path).await?;
        if response.status != 200 {
            return Ok(None);
        }
        let echo = response.echo();
        let (peer, sni) = echo.tls.map_or((None, None), |tls| (tls.peer, tls.sni));
        Ok(Some((echo.backend, peer, sni)))
    };
    let answer =
        |backend: &str, peer: Option<&str>, sni: Option<&str>| Some((backend.to_owned(), peer.map(str::to_owned), sni.map(str::to_owned)));
    // What the server holds comes when Envoy has asked for it.
    until("the secret", async || {
        let response = group.to("mutual-secret").get("/").await?;
        ensure!(response.status == 200, "{} {}", response.status, response.body);
        Ok::<_, anyhow::Error>(())
    })
    .await;
    let secure = Some("secure.example");
    for (name, path, expected) in [
        ("simple", "/", answer("open", None, secure)),
        ("wrong-name", "/", None),
        ("wrong-roots", "/", None),
        ("unverified", "/", answer("foreign", None, secure)),
        ("mutual", "/", answer("demanding", Some("client"), secure)),
        ("mutual-secret", "/", answer("demanding", Some("client"), secure)),
        ("no-certificate", "/", None),
        ("disabled", "/", answer("clear", None, None)),
        ("by-port", "/", answer("open", None, secure)),
        ("other-port", "/", answer("clear", None, None)),
        ("other", "/", answer("open", None, Some("other.example"))),
        ("subset", "/tls", answer("open", None, secure)),
        ("subset", "/", answer("clear", None, None)),
    ] {
        match seen(name, path).await {
            Ok(seen) => verdicts.equal(format_args!("{name} {path}"), seen, expected),
            failed => verdicts.note(name, failed.map(drop)),
        }
    }
    let heard = tcp::say(proxied, "hello").await.unwrap_or_else(|e| format!("{e:#}"));
    let words: Vec<&str> = heard.split(' ').filter(|word| !word.starts_with(|c: char| c.is_ascii_digit())).collect();
    verdicts.equal("PROXY protocol", words.join(" ").as_str(), "t: PROXY TCP4 then hello");
    let heard = tcp::say(tunnelled, "hello").await.unwrap_or_else(|e| format!("{e:#}"));
    verdicts.equal("tunnel", heard.as_str(), "t: CONNECT behind.example:4711 HTTP/1.1 then hello");
    group.finish(verdicts, "connections").await;
}
