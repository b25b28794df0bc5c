//! Sidecar to sidecar as it is in a cluster: each workload in a network of its own, connections captured by iptables, mutual
//! TLS between two stock Envoys. Nothing that the workloads do names a proxy.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Result, ensure};
use pilotfish_testkit::envoy::{self, Protocol};
use pilotfish_testkit::pilotfish::{self, Options};
use pilotfish_testkit::tls::TlsClient;
use pilotfish_testkit::{Ask, Authority, Backend, Envoy, Identity, Namespace, Pilotfish, TcpBackend, netns, tcp, until};
use pilotfish_tests::{MeshDir, NAMESPACE, istio};
use serde_json::{Value, json};

/// Group of the proxies: what they send is not captured again.
const PROXY_GROUP: u32 = 1337;
const CLIENT: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 1);
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// A machine without a proxy, beside both.
const OUTSIDE: Ipv4Addr = Ipv4Addr::new(10, 78, 0, 1);
const ADS: SocketAddr = addr(SERVER, 15_010);
/// The Service's address, that no machine has.
const HTTP: SocketAddr = addr(Ipv4Addr::new(10, 88, 0, 10), 80);
const BYTES: SocketAddr = addr(Ipv4Addr::new(10, 88, 0, 10), 9000);
const APP: SocketAddr = addr(SERVER, 8080);
const BYTES_APP: SocketAddr = addr(SERVER, 9001);

const fn addr(ip: Ipv4Addr, port: u16) -> SocketAddr {
    SocketAddr::new(std::net::IpAddr::V4(ip), port)
}

fn spiffe(account: &str) -> String {
    format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{account}")
}

/// The rules by which an agent captures: everything that comes, but for the control plane's port, and everything that goes,
/// but for what the proxy sends and what stays inside.
fn capture(namespace: &Namespace) {
    for rule in [
        "-A PREROUTING -p tcp --dport 15010 -j RETURN",
        "-A PREROUTING -p tcp -j REDIRECT --to-ports 15006",
        "-A OUTPUT -o lo -s 127.0.0.6/32 -j RETURN",
        "-A OUTPUT -m owner --gid-owner 1337 -j RETURN",
        "-A OUTPUT -d 127.0.0.1/32 -j RETURN",
        "-A OUTPUT -p tcp -j REDIRECT --to-ports 15001",
    ] {
        namespace.nat(rule);
    }
}

fn pod(app: &str, account: &str, ip: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": app, "namespace": NAMESPACE, "labels": {"app": app, "security.istio.io/tlsMode": "istio"}},
        "spec": {"serviceAccountName": account, "containers": [{"name": "main"}]},
        "status": {"phase": "Running", "podIP": ip.to_string(), "conditions": [{"type": "Ready", "status": "True"}]}
    })
}

/// A server whose Pod runs as `account`, and a client.
fn workloads(account: &str) -> Vec<Value> {
    let meta = |labels: Value| json!({"name": "server", "namespace": NAMESPACE, "labels": labels});
    let ports = json!([
        {"name": "http", "port": HTTP.port(), "targetPort": APP.port()}, {"name": "tcp", "port": BYTES.port(), "targetPort": BYTES_APP.port()}
    ]);
    vec![
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta(json!({})),
            "spec": {"clusterIP": HTTP.ip().to_string(), "selector": {"app": "server"}, "ports": ports}
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta(json!({"kubernetes.io/service-name": "server"})),
            "addressType": "IPv4", "ports": [{"name": "http", "port": APP.port()}, {"name": "tcp", "port": BYTES_APP.port()}],
            "endpoints": [{
                "addresses": [SERVER.to_string()], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": "server", "namespace": NAMESPACE}
            }]
        }),
        pod("server", account, SERVER),
        pod("client", "client", CLIENT),
    ]
}

fn mtls(mode: &str) -> Value {
    istio("security", "PeerAuthentication", "default", json!({"mtls": {"mode": mode}}))
}

fn node(app: &str, ip: Ipv4Addr, identity: &Identity) -> Value {
    let mut metadata = json!({"NAMESPACE": NAMESPACE, "LABELS": {"app": app}});
    for side in ["CLIENT", "SERVER"] {
        metadata[format!("TLS_{side}_CERT_CHAIN")] = json!(identity.chain());
        metadata[format!("TLS_{side}_KEY")] = json!(identity.key());
        metadata[format!("TLS_{side}_ROOT_CERT")] = json!(identity.roots());
    }
    json!({"id": format!("sidecar~{ip}~{app}.{NAMESPACE}~{NAMESPACE}.svc.cluster.local"), "cluster": format!("{app}.{NAMESPACE}"), "metadata": metadata})
}

/// Three machines: a client and a server with proxies, and one outside the mesh. What is declared first ends first.
struct Cluster {
    proxies: [Arc<Envoy>; 2],
    _apps: (Backend, TcpBackend, TcpBackend),
    _pilotfish: Pilotfish,
    mesh: MeshDir,
    client: Namespace,
    server: Namespace,
    outside: Namespace,
    roots: Authority,
    _identities: [Identity; 2],
}

impl Cluster {
    async fn start() -> Option<Self> {
        let (pilotfish, binary) = (pilotfish::binary("netns")?, envoy::binary("netns")?);
        netns::possible("netns")?;
        let [client, server, outside] = ["client", "server", "outside"].map(Namespace::new);
        client.connect(CLIENT, &server, SERVER);
        outside.connect(OUTSIDE, &server, Ipv4Addr::new(10, 78, 0, 2));
        outside.connect(Ipv4Addr::new(10, 79, 0, 1), &client, Ipv4Addr::new(10, 79, 0, 2));
        client.default_route(SERVER);
        outside.default_route(Ipv4Addr::new(10, 78, 0, 2));
        capture(&client);
        capture(&server);

        let roots = Authority::new("mesh");
        // A name beside the identity is for the clients outside, which verify that.
        let identities = ["client", "server"].map(|account| roots.issue(account, &[&spiffe(account), "server.example"]));
        let mesh = MeshDir::default();
        mesh.write("workloads.yaml", &workloads("server"));
        mesh.write("policy.yaml", &[mtls("STRICT")]);
        let options = Options { config: vec![mesh.path().into()], grpc: Some(ADS), ..Options::default() };
        let pilotfish = server.run(async move || Pilotfish::serve(&pilotfish, options).await).await;
        let app = server.run(async || Backend::start_on("app", APP).await).await;
        let bytes = server.run(async || TcpBackend::start_on("bytes", BYTES_APP).await).await;
        let stranger = outside.run(async || TcpBackend::start_on("stranger", addr(Ipv4Addr::new(10, 79, 0, 1), 7000)).await).await;
        let proxy = async |namespace: &Namespace, node: Value| {
            let (binary, bootstrap): (PathBuf, _) = (binary.clone(), envoy::bootstrap(node, ADS, Protocol::Delta));
            Arc::new(namespace.run(async move || Envoy::start_in_group(&binary, bootstrap, PROXY_GROUP).await).await)
        };
        let proxies =
            [proxy(&client, node("client", CLIENT, &identities[0])).await, proxy(&server, node("server", SERVER, &identities[1])).await];
        let apps = (app, bytes, stranger);
        Some(Cluster { proxies, _apps: apps, _pilotfish: pilotfish, mesh, client, server, outside, roots, _identities: identities })
    }

    /// A request of the client's to the Service's address: status, and what the server's proxy told about the client.
    async fn ask(&self) -> Result<(u16, Option<String>)> {
        self.client
            .run(async || {
                let response = Ask::get("/hello").host("server").send(HTTP).await?;
                let forwarded = (response.status == 200).then(|| response.echo().headers.get("x-forwarded-client-cert").cloned()).flatten();
                Ok((response.status, forwarded))
            })
            .await
    }

    /// The client's bytes to some address.
    async fn say(&self, to: SocketAddr) -> Result<String> {
        self.client.run(async move || tcp::say(to, "hello").await).await
    }

    /// Waits until the client is answered with this status.
    async fn until_answer(&self, status: u16) {
        until(&format!("an answer with {status}"), async || match self.ask().await {
            Ok((got, _)) if got == status => Ok(()),
            other => Err(format!("{other:?}")),
        })
        .await;
    }

    /// A request from outside straight to the server's Pod, with mutual TLS if a certificate is given.
    async fn intrude(&self, identity: Option<Identity>) -> Result<u16> {
        let root = self.roots.root();
        self.outside
            .run(async move || {
                let ask = Ask::get("/hello");
                let tls = TlsClient::new(root).alpn(&["istio"]);
                Ok(match identity {
                    Some(identity) => tls.certificate(&identity).send(APP, "server.example", &ask).await?.0.status,
                    None => tls.send(APP, "server.example", &ask).await?.0.status,
                })
            })
            .await
    }

    /// The same in clear text.
    async fn intrude_in_the_clear(&self) -> Result<u16> {
        self.outside.run(async || Ok(Ask::get("/hello").host("server").send(APP).await?.status)).await
    }

    /// A statistic of the client's proxy or the server's.
    async fn stat(&self, of_server: bool, name: &'static str) -> u64 {
        let envoy = self.proxies[usize::from(of_server)].clone();
        let namespace = if of_server { &self.server } else { &self.client };
        namespace.run(async move || envoy.stat(name).await).await
    }

    /// Bytes from outside straight to the server's Pod, by some identity.
    async fn bytes_of(&self, identity: Identity) -> Result<String> {
        let root = self.roots.root();
        self.outside
            .run(async move || {
                let tls = TlsClient::new(root).alpn(&["istio"]).certificate(&identity);
                tcp::say_on(tls.connect(BYTES_APP, "server.example").await?.0, "hello").await
            })
            .await
    }

    fn identity(&self, account: &str) -> Identity {
        self.roots.issue(account, &[&spiffe(account)])
    }

    async fn rejected(&self) -> [u64; 2] {
        let [client, server] = self.proxies.clone();
        [self.client.run(async move || client.rejected().await).await, self.server.run(async move || server.rejected().await).await]
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn captured_traffic_is_mutual_tls() {
    let Some(cluster) = Cluster::start().await else { return };
    // HTTP and bytes reach the server by the Service's address, and it learns who the client is.
    let (status, forwarded) = cluster.ask().await.unwrap();
    let forwarded = forwarded.unwrap_or_default();
    assert_eq!(status, 200);
    assert!(forwarded.contains(&format!("URI={}", spiffe("client"))), "{forwarded}");
    assert_eq!(cluster.say(BYTES).await.unwrap(), "bytes: hello");
    assert_eq!(cluster.stat(true, "listener.0.0.0.0_15006.ssl.handshake").await, 2);
    assert_eq!(cluster.stat(false, "cluster.outbound|80||server.shop.svc.cluster.local.ssl.handshake").await, 1);

    // Nobody gets in without a certificate of the mesh.
    let foreign = Authority::new("foreign").issue("client", &[&spiffe("client")]);
    assert!(cluster.intrude_in_the_clear().await.is_err());
    assert!(cluster.intrude(None).await.is_err());
    assert!(cluster.intrude(Some(foreign)).await.is_err());
    assert_eq!(cluster.intrude(Some(cluster.identity("other"))).await.unwrap(), 200);

    // The client does not speak to a server that is somebody else.
    cluster.mesh.write("workloads.yaml", &workloads("another"));
    cluster.until_answer(503).await;
    cluster.mesh.write("workloads.yaml", &workloads("server"));
    cluster.until_answer(200).await;

    // Clear text is let in once the policy says so.
    cluster.mesh.write("policy.yaml", &[mtls("PERMISSIVE")]);
    until("clear text", async || {
        let status = cluster.intrude_in_the_clear().await?;
        ensure!(status == 200, "{status}");
        Ok::<_, anyhow::Error>(())
    })
    .await;
    cluster.until_answer(200).await;
    assert_eq!(cluster.rejected().await, [0, 0]);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_nobody_knows_passes_unless_forbidden() {
    let Some(cluster) = Cluster::start().await else { return };
    let unknown = addr(Ipv4Addr::new(10, 79, 0, 1), 7000);
    assert_eq!(cluster.say(unknown).await.unwrap(), "stranger: hello");
    let before = cluster.stat(false, "cluster.PassthroughCluster.upstream_cx_total").await;
    assert_eq!(before, 1, "it did not go through the proxy");
    let only = istio(
        "networking",
        "Sidecar",
        "default",
        json!({"outboundTrafficPolicy": {"mode": "REGISTRY_ONLY"}, "egress": [{"hosts": ["./*"]}]}),
    );
    cluster.mesh.write("sidecar.yaml", &[only]);
    until("that it is forbidden", async || match cluster.say(unknown).await {
        Ok(heard) if heard.is_empty() => Ok(()),
        Err(_) => Ok(()),
        Ok(heard) => Err(heard),
    })
    .await;
    // What is known by its address passes again, to where it was going.
    let entry = istio(
        "networking",
        "ServiceEntry",
        "stranger",
        json!({
            "hosts": ["stranger.example"], "addresses": [format!("{}/32", unknown.ip())], "resolution": "NONE", "location": "MESH_EXTERNAL",
            "ports": [{"number": unknown.port(), "name": "tcp", "protocol": "TCP"}]
        }),
    );
    cluster.mesh.write("entry.yaml", &[entry]);
    until("that it is known", async || match cluster.say(unknown).await {
        Ok(heard) if heard == "stranger: hello" => Ok(()),
        other => Err(format!("{other:?}")),
    })
    .await;
    cluster.until_answer(200).await;
    assert_eq!(cluster.rejected().await, [0, 0]);
}

/// A policy for the server alone.
fn policy(name: &str, action: &str, rules: Value) -> Value {
    let spec = json!({"selector": {"matchLabels": {"app": "server"}}, "action": action, "rules": rules});
    istio("security", "AuthorizationPolicy", name, spec)
}

#[tokio::test(flavor = "multi_thread")]
async fn identities_are_let_in_or_not() {
    let Some(cluster) = Cluster::start().await else { return };
    assert_eq!(cluster.intrude(Some(cluster.identity("other"))).await.unwrap(), 200);
    let from = |source: Value| json!([{"from": [{"source": source}]}]);
    let principal = |account: &str| format!("cluster.local/ns/{NAMESPACE}/sa/{account}");
    // Who is meant, and whether requests and bytes of the client, and of two others with certificates of the mesh, get in.
    for (case, policies, client, friend, other) in [
        ("one identity", vec![policy("a", "ALLOW", from(json!({"principals": [principal("client")]})))], true, false, false),
        ("all but one", vec![policy("d", "DENY", from(json!({"principals": [principal("other")]})))], true, true, false),
        (
            "some by pattern",
            vec![policy("a", "ALLOW", from(json!({"principals": ["*/sa/friend", principal("client")]})))],
            true,
            true,
            false,
        ),
        ("a namespace", vec![policy("a", "ALLOW", from(json!({"namespaces": [NAMESPACE]})))], true, true, true),
        ("another namespace", vec![policy("a", "ALLOW", from(json!({"namespaces": ["elsewhere"]})))], false, false, false),
        ("nobody", vec![istio("security", "AuthorizationPolicy", "n", json!({}))], false, false, false),
        ("no policy", vec![], true, true, true),
    ] {
        cluster.mesh.write("authorization.yaml", &policies);
        let status = |allowed: bool| if allowed { 200 } else { 403 };
        let others = [("friend", friend), ("other", other)];
        until(case, async || {
            let got = cluster.ask().await?.0;
            ensure!(got == status(client), "{got} for the client");
            for (account, allowed) in others {
                let got = cluster.intrude(Some(cluster.identity(account))).await?;
                ensure!(got == status(allowed), "{got} for {account}");
            }
            Ok::<_, anyhow::Error>(())
        })
        .await;
        // Connections that are not read as HTTP are closed without a word.
        assert_eq!(cluster.say(BYTES).await.unwrap_or_default() == "bytes: hello", client, "{case}: bytes of the client");
        for (account, allowed) in others {
            let got = cluster.bytes_of(cluster.identity(account)).await.unwrap_or_default();
            assert_eq!(got == "bytes: hello", allowed, "{case}: bytes of {account}");
        }
    }
    assert_eq!(cluster.rejected().await, [0, 0]);
}
