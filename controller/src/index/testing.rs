//! Builders for tests.

use std::sync::Arc;

use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::{ChangeSet, Host, Mesh};

use super::{Index, Settings};
use crate::object::{Decoded, Object, decode};
use crate::source::yaml;

/// Objects out of a multi-document text; anything wrong with it fails the test.
pub(crate) fn yaml_objects(text: &str) -> Vec<Arc<Object>> {
    let one = |d: yaml::Document<'_>| match decode(yaml::parse(d.text).unwrap()).unwrap() {
        Decoded::Object(object) => Arc::new(*object),
        other => panic!("{other:?}"),
    };
    yaml::split(text).into_iter().map(one).collect()
}

/// An index that holds objects, not published yet.
pub(crate) fn index_of(objects: Vec<Arc<Object>>) -> Index {
    let mut index = Index::new(Settings::default());
    objects.into_iter().for_each(|o| index.apply(o));
    index
}

pub(crate) fn mk_service(name: &str, extra: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: ns}}\nspec: {{clusterIP: 10.1.0.1, selector: {{app: {name}}}, \
         ports: [{{name: http, port: 80, targetPort: web}}]{extra}}}\n---\n"
    )
}

pub(crate) fn mk_pod(name: &str, app: &str, ip: &str) -> String {
    format!(
        "apiVersion: v1\nkind: Pod\nmetadata: {{name: {name}, namespace: ns, labels: {{app: {app}, security.istio.io/tlsMode: istio}}}}\n\
         spec: {{nodeName: n1, serviceAccountName: acc, containers: [{{ports: [{{name: web, containerPort: 8080}}]}}]}}\n\
         status: {{phase: Running, podIP: {ip}}}\n---\n"
    )
}

/// Endpoints are `pod=ip` or `pod=ip!conditions`, without a Pod `=ip`.
pub(crate) fn mk_slice(service: &str, endpoints: &[&str]) -> String {
    let one = |e: &&str| {
        let (pod, ip) = e.split_once('=').unwrap();
        let (ip, conditions) = ip.split_once('!').unwrap_or((ip, "ready: true"));
        let target = if pod.is_empty() { String::new() } else { format!(", targetRef: {{kind: Pod, name: {pod}}}") };
        format!("{{addresses: [{ip}], conditions: {{{conditions}}}{target}}}")
    };
    format!(
        "apiVersion: discovery.k8s.io/v1\nkind: EndpointSlice\nmetadata: {{name: {service}-x, namespace: ns, labels: \
         {{kubernetes.io/service-name: {service}}}}}\naddressType: IPv4\nports: [{{name: http, port: 8080}}]\nendpoints: [{}]\n---\n",
        endpoints.iter().map(one).collect::<Vec<_>>().join(", ")
    )
}

pub(crate) fn mk_istio(kind: &str, name: &str, spec: &str) -> String {
    format!("apiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: ns}}\nspec: {spec}\n---\n")
}

pub(crate) fn apply(index: &mut Index, text: &str) -> Option<(Arc<Mesh>, ChangeSet)> {
    yaml_objects(text).into_iter().for_each(|o| index.apply(o));
    index.publish()
}

/// A service of namespace `ns`.
pub(crate) fn key(host: &str) -> ServiceKey {
    ServiceKey { namespace: "ns".into(), host: Host::new(host) }
}
