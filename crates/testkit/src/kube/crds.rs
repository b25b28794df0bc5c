//! Istio's kinds as CustomResourceDefinitions without schemas: an API server stores them, and checks nothing but their shape.

use serde_json::{Value, json};

struct Kind {
    group: &'static str,
    kind: &'static str,
    plural: &'static str,
    /// The first is what is stored.
    versions: &'static [&'static str],
}

const fn kind(group: &'static str, kind: &'static str, plural: &'static str, versions: &'static [&'static str]) -> Kind {
    Kind { group, kind, plural, versions }
}

const NETWORKING: &str = "networking.istio.io";
const SECURITY: &str = "security.istio.io";
const THREE: &[&str] = &["v1", "v1beta1", "v1alpha3"];
const TWO: &[&str] = &["v1", "v1beta1"];

const KINDS: &[Kind] = &[
    kind(NETWORKING, "DestinationRule", "destinationrules", THREE),
    kind(NETWORKING, "EnvoyFilter", "envoyfilters", &["v1alpha3"]),
    kind(NETWORKING, "Gateway", "gateways", THREE),
    kind(NETWORKING, "ProxyConfig", "proxyconfigs", &["v1beta1"]),
    kind(NETWORKING, "ServiceEntry", "serviceentries", THREE),
    kind(NETWORKING, "Sidecar", "sidecars", THREE),
    kind(NETWORKING, "VirtualService", "virtualservices", THREE),
    kind(NETWORKING, "WorkloadEntry", "workloadentries", THREE),
    kind(NETWORKING, "WorkloadGroup", "workloadgroups", THREE),
    kind(SECURITY, "AuthorizationPolicy", "authorizationpolicies", TWO),
    kind(SECURITY, "PeerAuthentication", "peerauthentications", TWO),
    kind(SECURITY, "RequestAuthentication", "requestauthentications", TWO),
    kind("telemetry.istio.io", "Telemetry", "telemetries", &["v1", "v1alpha1"]),
    kind("extensions.istio.io", "TrafficExtension", "trafficextensions", &["v1alpha1"]),
    kind("extensions.istio.io", "WasmPlugin", "wasmplugins", &["v1alpha1"]),
];

/// The CustomResourceDefinitions of all of Istio's kinds.
pub fn istio_crds() -> Vec<Value> {
    KINDS.iter().map(Kind::crd).collect()
}

impl Kind {
    fn crd(&self) -> Value {
        let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
        let version = |name: &&str| {
            json!({
                "name": name, "served": true, "storage": *name == self.versions[0], "subresources": {"status": {}},
                "schema": {"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}},
            })
        };
        let singular = self.kind.to_lowercase();
        json!({
            "apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition",
            "metadata": {"name": format!("{}.{}", self.plural, self.group)},
            "spec": {
                "group": self.group, "scope": "Namespaced",
                "names": {"kind": self.kind, "listKind": format!("{}List", self.kind), "plural": self.plural, "singular": singular},
                "versions": self.versions.iter().map(version).collect::<Vec<_>>(),
            },
        })
    }
}
