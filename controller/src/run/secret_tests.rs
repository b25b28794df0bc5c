//! Secrets of a cluster: those that somebody refers to, and no others.

use std::collections::BTreeSet;

use pilotfish_model::Kind;
use pretty_assertions::assert_eq;

use super::cluster_tests::Run;
use super::*;
use crate::index::testing::mk_istio;
use crate::source::kube::fake::FakeApi;

fn secret(namespace: &str, name: &str, certificate: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Secret\nmetadata: {{name: {name}, namespace: {namespace}}}\ndata: {{tls.crt: {certificate}, tls.key: a2V5}}\n---\n"
    )
}

fn gateway(name: &str, credential: &str) -> String {
    let server = format!(
        "{{port: {{number: 443, name: https, protocol: HTTPS}}, hosts: [a.b], tls: {{mode: SIMPLE, credentialName: {credential}}}}}"
    );
    mk_istio("Gateway", name, &format!("{{servers: [{server}]}}"))
}

/// Secrets as `namespace/name certificate`.
fn secrets(mesh: &Arc<Mesh>) -> Vec<String> {
    let one = |(key, secret): (&pilotfish_model::mesh::ObjectKey, &Arc<pilotfish_model::secret::Secret>)| {
        format!("{}/{} {}", key.namespace, key.name, String::from_utf8_lossy(&secret.certificate))
    };
    mesh.secrets.iter().map(one).collect()
}

/// Names of Secrets that were asked for; panics at a request for all.
fn asked(requests: &[String]) -> BTreeSet<String> {
    let paths = requests.iter().filter(|r| r.contains("secrets"));
    paths.map(|r| r.split("metadata.name%3D").nth(1).expect("all Secrets were asked for").split('&').next().unwrap().to_owned()).collect()
}

#[tokio::test]
async fn only_secrets_that_are_referred_to_are_read() {
    let api = FakeApi::start().await;
    api.put(
        &[gateway("g", "cert"), secret("ns", "cert", "b25l"), secret("other", "cert", "dHdv"), secret("ns", "foreign", "eA==")].concat(),
    );
    api.hold(Kind::Secret, true);
    let mut run = Run::start(api.kubeconfig());
    api.requested(|r| asked(r).len() == 2).await;
    assert!(run.handle.initial.try_recv().is_err(), "the first mesh has its keys");
    api.hold(Kind::Secret, false);
    assert_eq!(secrets(&run.initial().await), ["ns/cert one", "other/cert two"]);

    // A renewed one counts at once.
    api.put(&secret("ns", "cert", "bmV3"));
    assert_eq!(secrets(&run.next().await.mesh), ["ns/cert new", "other/cert two"]);
    // One that nobody knew is fetched.
    api.put(&gateway("h", "foreign"));
    let mesh = run.until(|mesh| mesh.secrets.len() == 3).await;
    assert_eq!(secrets(&mesh), ["ns/cert new", "ns/foreign x", "other/cert two"]);
    // And forgotten with the last reference.
    api.delete(Kind::Gateway, "ns", "g");
    assert_eq!(secrets(&run.until(|mesh| mesh.gateways.len() == 1).await), ["ns/foreign x"]);
    api.put(&secret("ns", "cert", "b25l"));
    // Wanted again, it is what it is by then.
    api.put(&gateway("h", "cert"));
    assert_eq!(secrets(&run.until(|mesh| mesh.secrets.len() == 2).await), ["ns/cert one", "other/cert two"]);
    assert_eq!(asked(&api.requests()), ["cert", "cert-cacert", "foreign", "foreign-cacert"].map(str::to_owned).into());
}

#[tokio::test]
async fn keys_that_may_not_be_read_hold_nobody_up() {
    let api = FakeApi::start().await;
    api.refuse(Kind::Secret, Some(403));
    api.put(&gateway("g", "cert"));
    let mesh = Run::start(api.kubeconfig()).initial().await;
    assert_eq!((mesh.gateways.len(), mesh.secrets.len()), (1, 0));
}
