//! What behaviour suites share: expectations of single answers, and a group of cases that shares one server and its Envoys.
//!
//! A case that fails does not hide the next: [`Verdicts`] collects, and the group panics at its end.

use std::fmt::Display;
use std::net::SocketAddr;

use anyhow::{Result, ensure};
use pilotfish_testkit::envoy::{self, Protocol};
use pilotfish_testkit::http::Response;
use pilotfish_testkit::pilotfish::{self, Options};
use pilotfish_testkit::{Ask, Envoy, Pilotfish};
use serde_json::{Value, json};

use crate::MeshDir;

/// What an answer must be. Only what is said is looked at, but for the status.
#[derive(Clone, Debug, Default)]
pub struct Expect {
    status: u16,
    backend: Option<&'static str>,
    path: Option<&'static str>,
    host: Option<&'static str>,
    body: Option<&'static str>,
    upstream: Vec<(&'static str, Option<&'static str>)>,
    answered: Vec<(&'static str, Option<&'static str>)>,
}

/// Status 200 of this backend.
pub fn to(backend: &'static str) -> Expect {
    Expect { status: 200, backend: Some(backend), ..Expect::default() }
}

/// This status, whoever says so.
pub fn status(status: u16) -> Expect {
    Expect { status, ..Expect::default() }
}

impl Expect {
    /// The backend was asked for this path.
    #[must_use]
    pub fn path(mut self, path: &'static str) -> Self {
        self.path = Some(path);
        self
    }

    /// The backend was asked as this host.
    #[must_use]
    pub fn host(mut self, host: &'static str) -> Self {
        self.host = Some(host);
        self
    }

    /// The answer's body.
    #[must_use]
    pub fn body(mut self, body: &'static str) -> Self {
        self.body = Some(body);
        self
    }

    /// The backend got this header (`None`: did not get it).
    #[must_use]
    pub fn sends(mut self, name: &'static str, value: impl Into<Option<&'static str>>) -> Self {
        self.upstream.push((name, value.into()));
        self
    }

    /// The answer has this header (`None`: has not).
    #[must_use]
    pub fn answers(mut self, name: &'static str, value: impl Into<Option<&'static str>>) -> Self {
        self.answered.push((name, value.into()));
        self
    }

    /// Whether an answer is so.
    pub fn check(&self, response: &Response) -> Result<()> {
        let Response { status, headers, body } = response;
        ensure!(*status == self.status, "status {status} instead of {}: {body}", self.status);
        for (name, value) in &self.answered {
            let got = headers.get(*name).map(String::as_str);
            ensure!(got == *value, "the answer's {name} is {got:?} instead of {value:?}");
        }
        if let Some(expected) = self.body {
            ensure!(body == expected, "the body is {body:?}");
        }
        if self.backend.is_none() && self.path.is_none() && self.host.is_none() && self.upstream.is_empty() {
            return Ok(());
        }
        let echo = response.echo();
        for (what, got, expected) in
            [("backend", &echo.backend, self.backend), ("path", &echo.path, self.path), ("host", &echo.host, self.host)]
        {
            ensure!(expected.is_none_or(|e| e == got), "the {what} is {got} instead of {expected:?}");
        }
        for (name, value) in &self.upstream {
            let got = echo.headers.get(*name).map(String::as_str);
            ensure!(got == *value, "upstream {name} is {got:?} instead of {value:?}");
        }
        Ok(())
    }
}

/// Sends and checks.
pub async fn expect(addr: SocketAddr, ask: Ask, expected: &Expect) -> Result<()> {
    expected.check(&ask.send(addr).await?)
}

/// What came of the cases of a group.
#[derive(Debug, Default)]
pub struct Verdicts {
    held: usize,
    failed: Vec<String>,
}

impl Verdicts {
    /// One more.
    pub fn note(&mut self, case: impl Display, result: Result<()>) {
        match result {
            Ok(()) => self.held += 1,
            Err(error) => self.failed.push(format!("{case}: {error:#}")),
        }
    }

    /// One more, that holds if `got` is `expected`.
    pub fn equal<T: PartialEq + std::fmt::Debug>(&mut self, case: impl Display, got: T, expected: T) {
        let wrong = || Err(anyhow::anyhow!("{got:?} instead of {expected:?}"));
        self.note(case, if got == expected { Ok(()) } else { wrong() });
    }

    /// One more, that holds if each of two answers comes about every second time. Less than 10 of 60 comes once in ten
    /// million.
    pub async fn halves(&mut self, case: impl Display, mut ask: impl AsyncFnMut() -> String, answers: [&str; 2]) {
        let mut seen = [0, 0];
        for _ in 0..60 {
            let answer = ask().await;
            seen.iter_mut().zip(answers).filter(|(_, a)| *a == answer).for_each(|(n, _)| *n += 1);
        }
        self.equal(format_args!("{case}: {seen:?}"), seen[0] + seen[1] == 60 && seen.iter().all(|n| *n >= 10), true);
    }

    /// One more, that holds if an Envoy has rejected nothing.
    pub async fn accepted(&mut self, name: &str, envoy: &Envoy) {
        self.equal(format_args!("{name}: rejected updates"), envoy.rejected().await, 0);
    }

    /// Panics if a case failed; says how many held.
    pub fn finish(self, group: &str) {
        assert!(self.failed.is_empty(), "{group}: {} held, {} failed:\n  {}", self.held, self.failed.len(), self.failed.join("\n  "));
        println!("{group}: {} cases held", self.held);
    }
}

/// One server with the objects of a group, and the binary of its Envoys.
pub struct Stage {
    /// The objects.
    pub mesh: MeshDir,
    /// The server.
    pub pilotfish: Pilotfish,
    binary: std::path::PathBuf,
    _config: tempfile::NamedTempFile,
}

impl Stage {
    /// Serves these objects under this MeshConfig (YAML).
    pub async fn start(suite: &str, objects: &[Value], mesh_config: &str) -> Option<Self> {
        Self::start_with(suite, objects, mesh_config, &[]).await
    }

    /// The same with further arguments.
    pub async fn start_with(suite: &str, objects: &[Value], mesh_config: &str, args: &[&str]) -> Option<Self> {
        let (pilotfish, binary) = (pilotfish::binary(suite)?, envoy::binary(suite)?);
        let (mesh, config) = (MeshDir::default(), tempfile::NamedTempFile::new().ok()?);
        std::fs::write(config.path(), mesh_config).ok()?;
        mesh.write("objects.yaml", objects);
        let options = Options {
            config: vec![mesh.path().into()],
            mesh_config: Some(config.path().into()),
            args: args.iter().map(Into::into).collect(),
            ..Options::default()
        };
        Some(Stage { mesh, pilotfish: Pilotfish::serve(&pilotfish, options).await, binary, _config: config })
    }

    /// An Envoy with this node; the JSON may leave out everything but the id.
    pub async fn envoy(&self, node: Value) -> Envoy {
        self.envoy_with(node, |_| ()).await
    }

    /// The same with a bootstrap that has more.
    pub async fn envoy_with(&self, node: Value, more: impl FnOnce(&mut Value)) -> Envoy {
        let mut bootstrap = envoy::bootstrap(node, self.pilotfish.grpc(), Protocol::Delta);
        more(&mut bootstrap);
        Envoy::start(&self.binary, bootstrap).await
    }
}

/// Node of a gateway that Gateways with `istio: edge` select, in a zone.
pub fn gateway_node() -> Value {
    json!({
        "id": "edge-1", "cluster": "edge", "metadata": {"NAMESPACE": crate::NAMESPACE, "LABELS": {"istio": "edge"}},
        "locality": {"region": "r1", "zone": "z1", "sub_zone": "s1"}
    })
}

/// Node of a sidecar whose traffic is not intercepted, on an address that no endpoint has.
pub fn sidecar_node(name: &str, metadata: Value) -> Value {
    let mut all = json!({"NAMESPACE": crate::NAMESPACE, "INTERCEPTION_MODE": "NONE", "LABELS": {"app": name}});
    all.as_object_mut().unwrap().extend(metadata.as_object().cloned().unwrap_or_default());
    json!({"id": format!("sidecar~127.9.9.9~{name}.shop~shop.svc.cluster.local"), "cluster": format!("{name}.shop"), "metadata": all})
}

/// A server of a Gateway on this address.
pub fn server(name: &str, protocol: &str, listen: SocketAddr, hosts: &[&str], tls: Option<Value>) -> Value {
    let port = json!({"number": listen.port(), "name": name, "protocol": protocol});
    let mut server = json!({"port": port, "bind": listen.ip().to_string(), "hosts": hosts});
    if let Some(tls) = tls {
        server["tls"] = tls;
    }
    server
}

/// A Gateway on [`gateway_node`].
pub fn gateway(name: &str, servers: &[Value]) -> Value {
    crate::istio("networking", "Gateway", name, json!({"selector": {"istio": "edge"}, "servers": servers}))
}

/// An endpoint of a ServiceEntry.
#[derive(Clone, Debug)]
pub struct Endpoint {
    addr: SocketAddr,
    locality: String,
    labels: Value,
}

/// In no zone and without labels.
pub fn endpoint(addr: SocketAddr) -> Endpoint {
    Endpoint { addr, locality: String::new(), labels: json!({}) }
}

impl Endpoint {
    /// In `region/zone/subzone`.
    #[must_use]
    pub fn at(mut self, locality: &str) -> Self {
        self.locality = locality.to_owned();
        self
    }

    /// With these labels.
    #[must_use]
    pub fn labels(mut self, labels: Value) -> Self {
        self.labels = labels;
        self
    }
}

/// A ServiceEntry of hosts with one port, 80, and fixed endpoints.
pub fn static_entry(name: &str, hosts: &[&str], protocol: &str, endpoints: &[Endpoint]) -> Value {
    let of = |e: &Endpoint| json!({"address": e.addr.ip().to_string(), "ports": {"main": e.addr.port()}, "locality": e.locality, "labels": e.labels});
    let endpoints: Vec<Value> = endpoints.iter().map(of).collect();
    let port = json!({"number": 80, "name": "main", "protocol": protocol});
    crate::istio(
        "networking",
        "ServiceEntry",
        name,
        json!({"hosts": hosts, "resolution": "STATIC", "location": "MESH_EXTERNAL", "ports": [port], "endpoints": endpoints}),
    )
}

/// A DestinationRule.
pub fn policy(name: &str, host: &str, policy: Value) -> Value {
    crate::istio("networking", "DestinationRule", name, json!({"host": host, "trafficPolicy": policy}))
}

/// A VirtualService that sends all requests for a host to the service of that host.
pub fn routed(name: &str, host: &str, gateways: &[&str]) -> Value {
    let http = json!([{"route": [{"destination": {"host": host, "port": {"number": 80}}}]}]);
    crate::istio("networking", "VirtualService", name, json!({"hosts": [host], "gateways": gateways, "http": http}))
}

/// A VirtualService that sends all connections to a gateway's port to a host.
pub fn routed_bytes(name: &str, host: &str, listen: SocketAddr) -> Value {
    let tcp = json!([{"match": [{"port": listen.port()}], "route": [{"destination": {"host": host, "port": {"number": 80}}}]}]);
    crate::istio("networking", "VirtualService", name, json!({"hosts": [host], "gateways": ["edge"], "tcp": tcp}))
}
