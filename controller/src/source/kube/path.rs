//! Where the API server has a kind.

use std::fmt::Write as _;

use http::StatusCode;
use pilotfish_model::name::Str;
use pilotfish_model::{Kind, ObjectId};

use super::driver::Ask;
use crate::object::served_version;

/// How many objects a page has: enough to be quick, few enough not to burden the server.
const PAGE: usize = 500;

/// What one watch is about: all objects of a kind, or only those of a name and namespace.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Target {
    pub(crate) kind: Kind,
    /// Only there.
    pub(crate) namespace: Option<Str>,
    /// Only those of this name.
    pub(crate) name: Option<Str>,
}

impl Target {
    pub(crate) fn all(kind: Kind) -> Target {
        Target { kind, namespace: None, name: None }
    }

    /// Objects of a name in all namespaces.
    pub(crate) fn named(kind: Kind, name: Str) -> Target {
        Target { kind, namespace: None, name: Some(name) }
    }

    /// One object.
    pub(crate) fn one(id: &ObjectId) -> Target {
        Target { kind: id.kind, namespace: Some(id.namespace.clone()), name: Some(id.name.clone()) }
    }

    /// Whether a list of it would have an object.
    pub(crate) fn covers(&self, id: &ObjectId) -> bool {
        let fits = |wanted: &Option<Str>, is: &Str| wanted.as_ref().is_none_or(|w| w == is);
        self.kind == id.kind && fits(&self.namespace, &id.namespace) && fits(&self.name, &id.name)
    }
}

impl std::fmt::Display for Target {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(self.kind.as_str())?;
        self.name.iter().try_for_each(|name| write!(f, " {}/{name}", self.namespace.as_deref().unwrap_or("*")))
    }
}

/// Kinds that every cluster has.
pub(super) fn is_core(kind: Kind) -> bool {
    !kind.group().ends_with(".istio.io")
}

/// Kinds that are read as protobuf.
pub(super) fn is_protobuf(kind: Kind) -> bool {
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

/// A page of a list.
pub(super) fn page(target: &Target, version: &str, token: Option<&str>) -> String {
    let mut path = format!("{}limit={PAGE}", place(target, version));
    if let Some(token) = token {
        let _ = write!(path, "&continue={}", escape(token));
    }
    path
}

/// A watch, which ends after some seconds.
pub(super) fn watch(target: &Target, version: &str, ask: &Ask, seconds: u64) -> String {
    let from = match ask {
        Ask::Watch { version } => format!("resourceVersion={}", escape(version)),
        _ => "sendInitialEvents=true&resourceVersionMatch=NotOlderThan".to_owned(),
    };
    format!("{}watch=1&allowWatchBookmarks=true&timeoutSeconds={seconds}&{from}", place(target, version))
}

/// Where the objects are, up to further parts of the query.
fn place(target: &Target, version: &str) -> String {
    let mut path = format!("{}?", collection(target.kind, target.namespace.as_deref(), version));
    if let Some(name) = &target.name {
        let _ = write!(path, "fieldSelector={}&", escape(&format!("metadata.name={name}")));
    }
    path
}

fn collection(kind: Kind, namespace: Option<&str>, version: &str) -> String {
    let within = namespace.filter(|_| !kind.is_cluster_scoped()).map(|ns| format!("namespaces/{ns}/")).unwrap_or_default();
    match kind.group() {
        "" => format!("/api/{version}/{within}{}", plural(kind)),
        group => format!("/apis/{group}/{version}/{within}{}", plural(kind)),
    }
}

/// One object.
pub(crate) fn object(id: &ObjectId, version: &str) -> String {
    format!("{}/{}", collection(id.kind, Some(&id.namespace), version), id.name)
}

/// A kind's name in paths.
pub(crate) fn plural(kind: Kind) -> String {
    let name = kind.as_str().to_ascii_lowercase();
    match name.strip_suffix('y') {
        Some(stem) if !stem.ends_with(['a', 'e', 'o', 'u']) => format!("{stem}ies"),
        _ => format!("{name}s"),
    }
}

/// What to say of a kind that we may not read: what is missing, in the words of a role.
pub(super) fn denied(kind: Kind, status: StatusCode, said: &str) -> String {
    let group = if kind.group().is_empty() { "core" } else { kind.group() };
    let what = if status == StatusCode::UNAUTHORIZED { "our credentials are not accepted" } else { "the verbs list and watch are needed" };
    format!("may not read {} of the API group {group} ({status}): {what}; nothing is served before it was listed: {said}", plural(kind))
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
            assert_eq!(page(&Target::all(kind), versions(kind)[0], None), expected);
        }
        assert!(page(&Target::all(Kind::Pod), "v1", Some("a+b/c=")).ends_with("&continue=a%2Bb%2Fc%3D"));
        assert_eq!(
            denied(Kind::ServiceEntry, StatusCode::FORBIDDEN, "no"),
            "may not read serviceentries of the API group networking.istio.io (403 Forbidden): the verbs list and watch are needed; \
             nothing is served before it was listed: no"
        );
    }

    #[test]
    fn only_what_is_named_is_asked_for() {
        let named = Target::named(Kind::Secret, "cert".into());
        assert_eq!(page(&named, "v1", None), "/api/v1/secrets?fieldSelector=metadata.name%3Dcert&limit=500");
        let id = ObjectId::new(Kind::ConfigMap, "istio-system", "istio");
        let one = Target::one(&id);
        let path = watch(&one, "v1", &Ask::Watch { version: "7".into() }, 9);
        let query = "fieldSelector=metadata.name%3Distio&watch=1&allowWatchBookmarks=true&timeoutSeconds=9&resourceVersion=7";
        assert_eq!(path, format!("/api/v1/namespaces/istio-system/configmaps?{query}"));
        assert_eq!(object(&id, "v1"), "/api/v1/namespaces/istio-system/configmaps/istio");
        assert_eq!(object(&ObjectId::new(Kind::Node, "", "n1"), "v1"), "/api/v1/nodes/n1");
        assert!(one.covers(&id) && !named.covers(&id) && Target::all(Kind::ConfigMap).covers(&id));
        assert!(!one.covers(&ObjectId::new(Kind::ConfigMap, "other", "istio")));
    }
}
