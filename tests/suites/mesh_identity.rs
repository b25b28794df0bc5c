//! A mesh whose identities all come from Pilotfish's certificate authority, with everything real but the agents: a Kubernetes
//! API, stock Envoys in networks of their own that are captured by iptables, tokens of service accounts, certificates that live
//! for seconds. Roots follow each other meanwhile, and nobody notices.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeSet;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use pilotfish_envoy::pb::envoy::config::core::v3::Node;
use pilotfish_testkit::envoy::{self, Protocol};
use pilotfish_testkit::pilotfish::{self, Options};
use pilotfish_testkit::{Agent, Ask, Backend, Envoy, KubeCluster, Load, Namespace, Pilotfish, agent, get, kube, netns, until};
use pilotfish_tests::{NAMESPACE, istio};
use serde_json::{Value, json};
use tokio::sync::watch;

const PROXY_GROUP: u32 = 1337;
const SECURE: u16 = 15_012;
const NAME: &str = "istiod.istio-system.svc";
const SERVER: Ipv4Addr = Ipv4Addr::new(10, 77, 0, 2);
/// The Service's address, that no machine has.
const HTTP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(Ipv4Addr::new(10, 100, 0, 10)), 80);
const APP: SocketAddr = SocketAddr::new(std::net::IpAddr::V4(SERVER), 8080);
const ACCOUNTS: [&str; 3] = ["server", "client", "other"];
/// Certificates hold so many seconds.
const HOLD: i64 = 10;

/// What agents capture; the control plane is reached as it is.
fn capture(namespace: &Namespace) {
    for rule in [
        "-A PREROUTING -p tcp -j REDIRECT --to-ports 15006",
        "-A OUTPUT -o lo -s 127.0.0.6/32 -j RETURN",
        "-A OUTPUT -m owner --gid-owner 1337 -j RETURN",
        "-A OUTPUT -d 127.0.0.1/32 -j RETURN",
        "-A OUTPUT -p tcp --dport 15012 -j RETURN",
        "-A OUTPUT -p tcp -j REDIRECT --to-ports 15001",
    ] {
        namespace.nat(rule);
    }
}

/// Addresses of a workload: towards the control plane, and of the control plane towards it.
fn control_cable(number: u8) -> [Ipv4Addr; 2] {
    [2, 1].map(|end| Ipv4Addr::new(10, 81 + number, 0, end))
}

fn pod(app: &str, ip: Ipv4Addr) -> Value {
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {"name": app, "namespace": NAMESPACE, "labels": {"app": app, "security.istio.io/tlsMode": "istio"}},
        "spec": {"serviceAccountName": app, "containers": [{"name": "main", "image": "none"}]},
        "status": {"phase": "Running", "podIP": ip.to_string(), "podIPs": [{"ip": ip.to_string()}], "conditions": [{"type": "Ready", "status": "True"}]}
    })
}

fn objects(log: &Path) -> Vec<Value> {
    let meta = |name: &str, labels: Value| json!({"name": name, "namespace": NAMESPACE, "labels": labels});
    let format =
        "%UPSTREAM_CLUSTER% %RESPONSE_CODE% from=%DOWNSTREAM_PEER_URI_SAN% by=%DOWNSTREAM_LOCAL_URI_SAN% to=%UPSTREAM_PEER_URI_SAN%\n";
    let config = json!({"accessLogFile": log, "accessLogFormat": format});
    let mut all = vec![
        json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": NAMESPACE}}),
        json!({
            "apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "istio", "namespace": "istio-system"},
            "data": {"mesh": config.to_string()}
        }),
        json!({
            "apiVersion": "v1", "kind": "Service", "metadata": meta("server", json!({})),
            "spec": {"clusterIP": HTTP.ip().to_string(), "selector": {"app": "server"}, "ports": [{"name": "http", "port": HTTP.port(), "targetPort": APP.port()}]}
        }),
        json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice", "metadata": meta("server", json!({"kubernetes.io/service-name": "server"})),
            "addressType": "IPv4", "ports": [{"name": "http", "port": APP.port()}],
            "endpoints": [{
                "addresses": [SERVER.to_string()], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": "server", "namespace": NAMESPACE}
            }]
        }),
        istio("security", "PeerAuthentication", "default", json!({"mtls": {"mode": "STRICT"}})),
        // Every request is a handshake.
        istio(
            "networking",
            "DestinationRule",
            "server",
            json!({"host": "server", "trafficPolicy": {"connectionPool": {"http": {"maxRequestsPerConnection": 1}}}}),
        ),
        istio(
            "security",
            "AuthorizationPolicy",
            "server",
            json!({
                "selector": {"matchLabels": {"app": "server"}},
                "rules": [{"from": [{"source": {"principals": [format!("cluster.local/ns/{NAMESPACE}/sa/client")]}}]}]
            }),
        ),
    ];
    for account in ACCOUNTS {
        all.push(json!({"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta(account, json!({}))}));
    }
    all
}

/// What the control plane's machine sees of the cluster.
struct Seen {
    /// Roots that Pods of the namespace have mounted.
    mounted: watch::Receiver<String>,
    /// Certificates that signed, in order.
    signed: Arc<Mutex<Vec<String>>>,
}

/// Looks at the API by `api` a few times a second, as the kubelets would.
fn look(api: SocketAddr) -> Seen {
    let (sender, mounted) = watch::channel(String::new());
    let signed = Arc::<Mutex<Vec<String>>>::default();
    let seen = signed.clone();
    tokio::spawn(async move {
        let read = async |path: &str, field: &str| -> Result<String> {
            let answer = get(api, "localhost", path, &[]).await?;
            ensure!(answer.status == 200, "{}", answer.status);
            Ok(answer.json()["data"][field].as_str().context("no such field")?.to_owned())
        };
        loop {
            if let Ok(roots) = read(&format!("/api/v1/namespaces/{NAMESPACE}/configmaps/istio-ca-root-cert"), "root-cert.pem").await {
                sender.send_if_modified(|known| std::mem::replace(known, roots.clone()) != roots);
            }
            if let Ok(signer) = read("/api/v1/namespaces/istio-system/secrets/istio-ca-secret", "ca-cert.pem").await {
                let mut all = seen.lock().unwrap();
                if all.last() != Some(&signer) {
                    all.push(signer);
                }
            }
            tokio::time::sleep(Duration::from_millis(250)).await;
        }
    });
    Seen { mounted, signed }
}

struct Workload {
    envoy: Arc<Envoy>,
    agent: Arc<Agent>,
}

/// What is declared first ends first.
struct Mesh {
    workloads: Vec<Workload>,
    _app: Backend,
    _pilotfish: Pilotfish,
    _api: pilotfish_testkit::process::Process,
    _cluster: KubeCluster,
    machines: Vec<Namespace>,
    _control: Namespace,
    log: tempfile::NamedTempFile,
    seen: Seen,
}

/// A bootstrap whose ADS goes over TLS to the control plane, with the agent's files, by name: SDS from files.
fn bootstrap(node: Value, control: SocketAddr, agent: &Agent) -> Value {
    let mut all = envoy::bootstrap(node, control, Protocol::Delta);
    let [own, roots] = agent.secrets();
    let sds =
        |name: &str, path: &Path| json!({"name": name, "sds_config": {"resource_api_version": "V3", "path_config_source": {"path": path}}});
    all["static_resources"]["clusters"][0]["transport_socket"] = json!({"name": "envoy.transport_sockets.tls", "typed_config": {
        "@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.UpstreamTlsContext",
        "sni": NAME,
        "common_tls_context": {
            "alpn_protocols": ["h2"],
            "tls_certificate_sds_secret_configs": [sds("own", &own)],
            "combined_validation_context": {
                "default_validation_context": {"match_typed_subject_alt_names": [{"san_type": "DNS", "matcher": {"exact": NAME}}]},
                "validation_context_sds_secret_config": sds("roots", &roots)
            }
        }
    }});
    all
}

impl Mesh {
    async fn start() -> Option<Self> {
        let (pilotfish, binary) = (pilotfish::binary("mesh_identity")?, envoy::binary("mesh_identity")?);
        let assets = kube::assets("mesh_identity")?;
        netns::possible("mesh_identity")?;
        let control = Namespace::new("control");
        let machines: Vec<Namespace> = ACCOUNTS.iter().map(|account| Namespace::new(account)).collect();
        for (number, machine) in (0..).zip(&machines) {
            let [own, other] = control_cable(number);
            machine.connect(own, &control, other);
            capture(machine);
        }
        let addresses = [SERVER, Ipv4Addr::new(10, 77, 0, 1), Ipv4Addr::new(10, 78, 0, 1)];
        for (machine, own, gateway) in [(1, addresses[1], SERVER), (2, addresses[2], Ipv4Addr::new(10, 78, 0, 2))] {
            machines[machine].connect(own, &machines[0], gateway);
            machines[machine].default_route(gateway);
        }
        let log = tempfile::NamedTempFile::new().unwrap();
        let (all, pods) = (objects(log.path()), ACCOUNTS.iter().zip(addresses).map(|(app, ip)| pod(app, ip)).collect::<Vec<_>>());
        // An API server, and Pilotfish with the rights that it ships. Roots hold for twenty minutes, of which a tenth and a bit
        // (twelve seconds) may pass before the next is due.
        let (cluster, pilotfish, (api, addr), tokens) = control
            .run(async move || {
                let cluster = KubeCluster::start(&assets, kube::Options::default()).await;
                cluster.install_crds().await;
                cluster.apply(&all).await;
                cluster.apply(&pods).await;
                for pod in &pods {
                    let (name, patch) = (pod["metadata"]["name"].as_str().unwrap(), json!({"status": pod["status"]}).to_string());
                    cluster.kubectl(&["patch", "pod", name, "-n", NAMESPACE, "--subresource=status", "--type=merge", "-p", &patch]).await;
                }
                let args = [
                    ("--lease-duration", "3s"),
                    ("--ca-check-interval", "300ms"),
                    ("--root-ttl", "20m"),
                    ("--root-grace-percent", "90"),
                    ("--root-mount-time", "2s"),
                    ("--max-workload-cert-ttl", "10s"),
                ];
                let mut args: Vec<std::ffi::OsString> = args.iter().flat_map(|(flag, value)| [(*flag).into(), (*value).into()]).collect();
                args.extend(["--kubeconfig".into(), cluster.pilotfish_kubeconfig().into()]);
                let secure = Some((Ipv4Addr::UNSPECIFIED, SECURE).into());
                let pilotfish = Pilotfish::serve(&pilotfish, Options { args, secure, ..Options::default() }).await;
                let mut tokens = Vec::new();
                for account in ACCOUNTS {
                    let args = ["create", "token", account, "-n", NAMESPACE, "--audience", "istio-ca"];
                    tokens.push(cluster.kubectl(&args).await.trim().to_owned());
                }
                let api = cluster.proxy().await;
                (cluster, pilotfish, api, tokens)
            })
            .await;
        let seen = control.run(async move || look(addr)).await;
        let app = machines[0].run(async || Backend::start_on("app", APP).await).await;
        let mut workloads = Vec::new();
        for (number, token) in (0..).zip(tokens) {
            let (machine, account) = (&machines[usize::from(number)], ACCOUNTS[usize::from(number)]);
            let control = SocketAddr::from((control_cable(number)[1], SECURE));
            let id = format!("sidecar~{}~{account}.{NAMESPACE}~{NAMESPACE}.svc.cluster.local", addresses[usize::from(number)]);
            let (mounted, binary) = (seen.mounted.clone(), binary.clone());
            let workload = machine.run(async move || {
                let node = Node { id: id.clone(), cluster: account.into(), ..Default::default() };
                let options = agent::Options { control, name: NAME.into(), token, seconds: HOLD, node };
                let agent = Agent::start(options, mounted).await;
                let mut metadata = json!({"NAMESPACE": NAMESPACE, "SERVICE_ACCOUNT": account, "LABELS": {"app": account}});
                for side in ["CLIENT", "SERVER"] {
                    metadata[format!("TLS_{side}_CERT_CHAIN")] = json!(agent.own());
                    metadata[format!("TLS_{side}_KEY")] = json!(agent.own());
                    metadata[format!("TLS_{side}_ROOT_CERT")] = json!(agent.roots());
                }
                let node = json!({"id": id, "cluster": account, "metadata": metadata});
                let envoy = Envoy::start_in_group(&binary, bootstrap(node, control, &agent), PROXY_GROUP).await;
                Workload { envoy: Arc::new(envoy), agent: Arc::new(agent) }
            });
            workloads.push(workload.await);
        }
        Some(Mesh { workloads, _app: app, _pilotfish: pilotfish, _api: api, _cluster: cluster, machines, _control: control, log, seen })
    }

    /// A request from a machine to the Service's address.
    async fn ask(&self, from: usize) -> Result<u16> {
        self.machines[from].run(async || Ok(Ask::get("/hello").host("server").send(HTTP).await?.status)).await
    }

    async fn stat(&self, of: usize, name: &'static str) -> u64 {
        let envoy = self.workloads[of].envoy.clone();
        self.machines[of].run(async move || envoy.stat(name).await).await
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn roots_follow_each_other_and_no_request_fails() {
    let Some(mesh) = Mesh::start().await else { return };
    let [_, client, other] = [0, 1, 2];
    for (from, status) in [(client, 200), (other, 403)] {
        until("whom the policy names gets in, others do not", async || match mesh.ask(from).await {
            Ok(got) if got == status => Ok(()),
            answer => Err(format!("{} is answered {answer:?}", ACCOUNTS[from])),
        })
        .await;
    }
    // Both ends say who they are, and who the other is.
    let [server, client_name, other_name] = ACCOUNTS.map(|account| format!("spiffe://cluster.local/ns/{NAMESPACE}/sa/{account}"));
    let lines = [
        format!("inbound|8080|| 200 from={client_name} by={server} to=-"),
        format!("outbound|80||server.{NAMESPACE}.svc.cluster.local 200 from=- by=- to={server}"),
        format!("inbound|8080|| 403 from={other_name} by={server} to=-"),
    ];
    for line in lines {
        until(&line, async || {
            let log = std::fs::read_to_string(mesh.log.path()).unwrap();
            if log.lines().any(|l| l == line) { Ok(()) } else { Err(log) }
        })
        .await;
    }

    let handshakes = mesh.stat(0, "listener.0.0.0.0_15006.ssl.handshake").await;
    let (signed, began) = (mesh.seen.signed.lock().unwrap().len(), Instant::now());
    let load = mesh.machines[client].run(async || Load::start(1, HTTP, "server", "/hello")).await;
    let switched = || mesh.seen.signed.lock().unwrap().len() - signed;
    pilotfish_testkit::poll::until_within(Duration::from_secs(60), "three rotations", async || {
        let n = switched();
        if n >= 3 { Ok(()) } else { Err(format!("{n} so far: {:?}", load.report())) }
    })
    .await;
    let took = began.elapsed();
    // Everybody has a certificate of the last one.
    let certificates: Vec<u64> = mesh.workloads.iter().map(|w| w.agent.certificates()).collect();
    until("two more certificates each", async || {
        let more = mesh.workloads.iter().zip(&certificates).all(|(w, before)| w.agent.certificates() >= before + 2);
        if more { Ok(()) } else { Err("not yet") }
    })
    .await;
    load.more(50).await;
    let report = mesh.machines[client].run(async move || load.stop().await).await;
    let handshakes = mesh.stat(0, "listener.0.0.0.0_15006.ssl.handshake").await - handshakes;
    println!("{} requests, {handshakes} handshakes, {} rotations in {took:?}", report.total, switched());
    assert_eq!((report.failed, report.failures.clone()), (0, vec![]), "of {}", report.total);
    assert!(handshakes >= report.total, "{handshakes} handshakes of {} requests", report.total);
    for (account, workload) in ACCOUNTS.iter().zip(&mesh.workloads) {
        assert_eq!(workload.agent.failures(), Vec::<String>::new(), "{account}");
        assert!(workload.agent.signers() >= 3, "{account} has seen {} signers", workload.agent.signers());
    }
    assert_eq!(mesh.ask(other).await.unwrap(), 403);

    // Old ones are forgotten: what is mounted has the one that signs, the one that comes next, and those whose certificates
    // may still hold.
    let mounted: BTreeSet<String> = mesh.seen.mounted.borrow().split_inclusive("-----END CERTIFICATE-----\n").map(str::to_owned).collect();
    let first = String::from_utf8(STANDARD.decode(&mesh.seen.signed.lock().unwrap()[0]).unwrap()).unwrap();
    assert!(mounted.len() <= 3 && !mounted.contains(&first), "{} roots are mounted", mounted.len());
}
