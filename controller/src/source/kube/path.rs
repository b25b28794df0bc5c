//! Where the API server has a kind.

use std::fmt::Write as _;

use pilotfish_model::{Kind, ObjectId};

use super::driver::Ask;
use crate::object::served_version;

/// How many objects a page has: enough to be quick, few enough not to burden the server.
const PAGE: usize = 500;

/// Kinds that every cluster has, and that are read as protobuf.
pub(super) fn is_core(kind: Kind) -> bool {
    matches!(kind, Kind::Namespace | Kind::Node | Kind::Service | Kind::EndpointSlice | Kind::Pod)
}

/// Versions of a kind that a cluster may serve, the best one first.
pub(crate) fn versions(kind: Kind) -> Vec<&'static str> {
    let best = served_version(kind);
    if is_core(kind) {
        return vec![best];
    }
    let others = ["v1", "v1beta1", "v1alpha3", "v1alpha1"];
    std::iter::once(best).chain(others.into_iter().filter(|v| *v != best)).collect()
}

/// A page of the list of all objects.
pub(super) fn page(kind: Kind, version: &str, token: Option<&str>) -> String {
    let mut path = format!("{}?limit={PAGE}", collection(kind, version));
    if let Some(token) = token {
        let _ = write!(path, "&continue={}", escape(token));
    }
    path
}

/// A watch of all objects, which ends after some seconds.
pub(super) fn watch(kind: Kind, version: &str, ask: &Ask, seconds: u64) -> String {
    let from = match ask {
        Ask::Watch { version } => format!("resourceVersion={}", escape(version)),
        _ => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
    };
    format!("{}?watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&{from}", collection(kind, version))
}

fn collection(kind: Kind, version: &str) -> String {
    match kind.group() {
        "" => format!("/api/{version}/{}", plural(kind)),
        group => format!("/apis/{group}/{version}/{}", plural(kind)),
    }
}

/// One object.
pub(crate) fn object(id: &ObjectId, version: &str) -> String {
    let Some((group, plural)) = Some((id.kind.group(), plural(id.kind))).filter(|_| !id.kind.is_cluster_scoped()) else {
        return format!("{}/{}", collection(id.kind, version), id.name);
    };
    let root = if group.is_empty() { format!("/api/{version}") } else { format!("/apis/{group}/{version}") };
    format!("{root}/namespaces/{}/{plural}/{}", id.namespace, id.name)
}

/// A kind's name in paths.
pub(crate) fn plural(kind: Kind) -> String {
    let name = kind.as_str().to_ascii_lowercase();
    match name.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{name}s"),
    }
}

/// For a value in a query.
fn escape(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    for b in text.bytes() {
        match b {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'_' | b'.' | b'~' => out.push(char::from(b)),
            _ => drop(write!(out, "%{b:02X}")),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn kinds_are_where_clusters_have_them() {
        for (kind, expected) in [
            (Kind::Pod, "/api/v1/pods?limit=500"),
            (Kind::EndpointSlice, "/apis/discovery.k8s.io/v1/endpointslices?limit=500"),
            (Kind::Gateway, "/apis/networking.istio.io/v1/gateways?limit=500"),
            (Kind::ServiceEntry, "/apis/networking.istio.io/v1/serviceentries?limit=500"),
            (Kind::AuthorizationPolicy, "/apis/security.istio.io/v1/authorizationpolicies?limit=500"),
            (Kind::Telemetry, "/apis/telemetry.istio.io/v1/telemetries?limit=500"),
            (Kind::WasmPlugin, "/apis/extensions.istio.io/v1alpha1/wasmplugins?limit=500"),
            (Kind::EnvoyFilter, "/apis/networking.istio.io/v1alpha3/envoyfilters?limit=500"),
        ] {
            assert_eq!(page(kind, versions(kind)[0], None), expected);
        }
        assert!(page(Kind::Pod, "v1", Some("a+b/c=")).ends_with("&continue=a%2Bb%2Fc%3D"));
    }
}
