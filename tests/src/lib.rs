//! What the suites share: a mesh in a folder that a test edits while it is served.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod behaviour;
pub mod installed;

use std::net::SocketAddr;
use std::path::Path;
use std::sync::Arc;

use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

/// Namespace of everything that a suite makes.
pub const NAMESPACE: &str = "shop";

/// A folder with objects. Files are replaced as a whole (written aside, then renamed), as careful editors do.
pub struct MeshDir(TempDir);

impl Default for MeshDir {
    fn default() -> Self {
        MeshDir(tempfile::tempdir().unwrap())
    }
}

impl MeshDir {
    /// The folder.
    pub fn path(&self) -> &Path {
        self.0.path()
    }

    /// Writes one file of objects.
    pub fn write(&self, name: &str, objects: &[Value]) {
        let text: Vec<String> = objects.iter().map(Value::to_string).collect();
        let aside = self.0.path().join(format!(".{name}.tmp"));
        std::fs::write(&aside, text.join("\n---\n")).unwrap();
        std::fs::rename(aside, self.0.path().join(name)).unwrap();
    }
}

/// An object of an Istio kind.
pub fn istio(group: &str, kind: &str, name: &str, spec: Value) -> Value {
    json!({"apiVersion": format!("{group}.istio.io/v1"), "kind": kind, "metadata": {"name": name, "namespace": NAMESPACE}, "spec": spec})
}

/// A Service whose Pods are the given endpoints: version label and address. Every endpoint has an EndpointSlice of its
/// own, because backends on one machine have different ports.
pub fn service(name: &str, port_name: &str, port: u16, endpoints: &[(&str, SocketAddr)]) -> Vec<Value> {
    let meta = |suffix: &str, labels: Value| json!({"name": format!("{name}{suffix}"), "namespace": NAMESPACE, "labels": labels});
    let mut objects = vec![json!({
        "apiVersion": "v1", "kind": "Service", "metadata": meta("", json!({"app": name})),
        "spec": {"clusterIP": "10.7.7.7", "selector": {"app": name}, "ports": [{"name": port_name, "port": port, "targetPort": "main"}]}
    })];
    for (version, addr) in endpoints {
        let suffix = format!("-{version}-{}", addr.port());
        objects.push(json!({
            "apiVersion": "v1", "kind": "Pod", "metadata": meta(&suffix, json!({"app": name, "version": version})),
            "spec": {"containers": [{"name": "main", "ports": [{"name": "main", "containerPort": addr.port()}]}]},
            "status": {"phase": "Running", "podIP": addr.ip().to_string(), "conditions": [{"type": "Ready", "status": "True"}]}
        }));
        objects.push(json!({
            "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
            "metadata": meta(&suffix, json!({"kubernetes.io/service-name": name})),
            "addressType": "IPv4", "ports": [{"name": port_name, "port": addr.port()}],
            "endpoints": [{
                "addresses": [addr.ip().to_string()], "conditions": {"ready": true},
                "targetRef": {"kind": "Pod", "name": format!("{name}{suffix}"), "namespace": NAMESPACE}
            }]
        }));
    }
    objects
}

/// A server that answers each request, given as text, with a status, header lines and a body.
pub async fn answering<B: Into<String>>(answer: impl Fn(&str) -> (u16, &'static str, B) + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = String::new();
                let mut byte = [0];
                while !request.ends_with("\r\n\r\n") && stream.read(&mut byte).await.is_ok_and(|n| n == 1) {
                    request.push(byte[0].into());
                }
                let (status, headers, body) = answer(&request);
                let body: String = body.into();
                let head = format!("HTTP/1.1 {status} X\r\n{headers}content-length: {}\r\nconnection: close\r\n\r\n", body.len());
                let _ = stream.write_all((head + &body).as_bytes()).await;
            });
        }
    });
    addr
}

/// Subsets v1 and v2 by the version label.
pub fn subsets(host: &str) -> Value {
    let subset = |v: &str| json!({"name": v, "labels": {"version": v}});
    istio("networking", "DestinationRule", host, json!({"host": host, "subsets": [subset("v1"), subset("v2")]}))
}

/// An HTTP rule that splits all requests between v1 and v2.
pub fn split(host: &str, v1: u32, v2: u32) -> Value {
    let to = |subset: &str, weight: u32| json!({"destination": {"host": host, "subset": subset}, "weight": weight});
    json!({"route": [to("v1", v1), to("v2", v2)]})
}

/// Whether `hits` of `n` draws at probability `p` lie within the 99 % confidence bound of the normal approximation.
pub fn within_99(hits: u64, n: u64, p: f64) -> bool {
    let (n, hits) = (n as f64, hits as f64);
    (hits - n * p).abs() <= 2.576 * (n * p * (1.0 - p)).sqrt()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bound_is_that_of_the_binomial() {
        assert!(within_99(100, 1000, 0.1) && within_99(124, 1000, 0.1) && within_99(76, 1000, 0.1));
        assert!(!within_99(125, 1000, 0.1) && !within_99(75, 1000, 0.1));
    }
}
