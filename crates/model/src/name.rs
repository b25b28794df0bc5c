//! Names: hosts, labels, object identities. Cheap to clone, parsed once.

use std::borrow::Borrow;
use std::collections::BTreeMap;
use std::fmt;
use std::net::IpAddr;
use std::sync::Arc;

use serde::{Deserialize, Serialize};

use crate::time::Timestamp;

/// An immutable shared string.
pub type Str = Arc<str>;

/// Labels or annotations, ordered so that equal sets hash and print alike.
pub type Labels = BTreeMap<Str, Str>;

/// True if `labels` holds every pair of `selector`. An empty selector selects everything.
pub fn selects(selector: &Labels, labels: &Labels) -> bool {
    selector.iter().all(|(k, v)| labels.get(k) == Some(v))
}

/// Labels that say what a workload's service is called in telemetry, the one that counts most first.
pub const CANONICAL_NAME: [&str; 3] = ["service.istio.io/canonical-name", "app.kubernetes.io/name", "app"];
/// Labels that say which version of it that is.
pub const CANONICAL_REVISION: [&str; 3] = ["service.istio.io/canonical-revision", "app.kubernetes.io/version", "version"];

/// The value of the first of these labels that is there.
pub fn first_label<'a>(labels: &'a Labels, keys: &[&str]) -> Option<&'a Str> {
    keys.iter().find_map(|key| labels.get(*key))
}

/// An address as its `Display` writes it. Every endpoint has one, and formatting is slow.
pub fn ip_text(ip: IpAddr) -> String {
    let IpAddr::V4(ip) = ip else { return ip.to_string() };
    let mut text = String::with_capacity(15);
    for (at, octet) in ip.octets().into_iter().enumerate() {
        if at > 0 {
            text.push('.');
        }
        for digit in [octet / 100, octet / 10].into_iter().filter(|digit| *digit > 0) {
            text.push(char::from(b'0' + digit % 10));
        }
        text.push(char::from(b'0' + octet % 10));
    }
    text
}

/// A host name in lower case, without a trailing dot; a wildcard is `*` or starts with `*.` (or `*-`, as Istio allows).
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(from = "String")]
pub struct Host(Str);

impl Host {
    /// Takes any spelling; the result is normalised.
    pub fn new(name: &str) -> Self {
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.bytes().any(|b| b.is_ascii_uppercase()) { Host(name.to_ascii_lowercase().into()) } else { Host(name.into()) }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// True for `*` and `*.suffix`.
    pub fn is_wildcard(&self) -> bool {
        self.0.starts_with('*')
    }

    /// True if every name that `other` stands for is one that `self` stands for (`*.com` covers `a.com` and `*.a.com`).
    pub fn covers(&self, other: &Host) -> bool {
        match self.0.strip_prefix('*') {
            Some(suffix) => {
                let other = other.0.strip_prefix('*').unwrap_or(&other.0);
                // `*.com` covers itself, but not the bare `com`.
                other.ends_with(suffix)
            }
            None => self == other,
        }
    }

    /// True if some name is matched by both: one covers the other.
    pub fn overlaps(&self, other: &Host) -> bool {
        self.covers(other) || other.covers(self)
    }

    /// The more specific first: exact names before wildcards, longer before shorter, then alphabetical.
    pub fn cmp_specific(&self, other: &Host) -> std::cmp::Ordering {
        (self.is_wildcard(), other.0.len(), &self.0).cmp(&(other.is_wildcard(), self.0.len(), &other.0))
    }
}

impl fmt::Display for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Host {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.0, f)
    }
}

impl From<String> for Host {
    fn from(name: String) -> Self {
        Host::new(&name)
    }
}

impl From<&str> for Host {
    fn from(name: &str) -> Self {
        Host::new(name)
    }
}

impl Borrow<str> for Host {
    fn borrow(&self) -> &str {
        &self.0
    }
}

/// A host as a user wrote it inside an object of `namespace`: a name without dots is a service of that namespace.
pub fn resolve_short_host(host: &str, namespace: &str, domain: &str) -> Host {
    if host.contains('.') || host.starts_with('*') { Host::new(host) } else { Host::new(&format!("{host}.{namespace}.svc.{domain}")) }
}

/// What kind an object is of. The names are those that users write.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[allow(missing_docs)]
pub enum Kind {
    MeshConfig,
    Namespace,
    Node,
    Service,
    EndpointSlice,
    Pod,
    Secret,
    ConfigMap,
    VirtualService,
    DestinationRule,
    Gateway,
    ServiceEntry,
    WorkloadEntry,
    WorkloadGroup,
    Sidecar,
    EnvoyFilter,
    ProxyConfig,
    PeerAuthentication,
    RequestAuthentication,
    AuthorizationPolicy,
    Telemetry,
    WasmPlugin,
    TrafficExtension,
}

impl Kind {
    /// Every kind, in declaration order.
    pub const ALL: &[Kind] = &[
        Kind::MeshConfig,
        Kind::Namespace,
        Kind::Node,
        Kind::Service,
        Kind::EndpointSlice,
        Kind::Pod,
        Kind::Secret,
        Kind::ConfigMap,
        Kind::VirtualService,
        Kind::DestinationRule,
        Kind::Gateway,
        Kind::ServiceEntry,
        Kind::WorkloadEntry,
        Kind::WorkloadGroup,
        Kind::Sidecar,
        Kind::EnvoyFilter,
        Kind::ProxyConfig,
        Kind::PeerAuthentication,
        Kind::RequestAuthentication,
        Kind::AuthorizationPolicy,
        Kind::Telemetry,
        Kind::WasmPlugin,
        Kind::TrafficExtension,
    ];

    /// The API group, empty for the core group.
    pub fn group(self) -> &'static str {
        use Kind::*;
        match self {
            MeshConfig | Namespace | Node | Service | Pod | Secret | ConfigMap => "",
            EndpointSlice => "discovery.k8s.io",
            VirtualService | DestinationRule | Gateway | ServiceEntry | WorkloadEntry | WorkloadGroup | Sidecar | EnvoyFilter
            | ProxyConfig => "networking.istio.io",
            PeerAuthentication | RequestAuthentication | AuthorizationPolicy => "security.istio.io",
            Telemetry => "telemetry.istio.io",
            WasmPlugin | TrafficExtension => "extensions.istio.io",
        }
    }

    /// The kind as it stands in a manifest.
    pub fn as_str(self) -> &'static str {
        use Kind::*;
        match self {
            MeshConfig => "MeshConfig",
            Namespace => "Namespace",
            Node => "Node",
            Service => "Service",
            EndpointSlice => "EndpointSlice",
            Pod => "Pod",
            Secret => "Secret",
            ConfigMap => "ConfigMap",
            VirtualService => "VirtualService",
            DestinationRule => "DestinationRule",
            Gateway => "Gateway",
            ServiceEntry => "ServiceEntry",
            WorkloadEntry => "WorkloadEntry",
            WorkloadGroup => "WorkloadGroup",
            Sidecar => "Sidecar",
            EnvoyFilter => "EnvoyFilter",
            ProxyConfig => "ProxyConfig",
            PeerAuthentication => "PeerAuthentication",
            RequestAuthentication => "RequestAuthentication",
            AuthorizationPolicy => "AuthorizationPolicy",
            Telemetry => "Telemetry",
            WasmPlugin => "WasmPlugin",
            TrafficExtension => "TrafficExtension",
        }
    }

    /// True for objects that live outside namespaces.
    pub fn is_cluster_scoped(self) -> bool {
        matches!(self, Kind::Namespace | Kind::Node | Kind::MeshConfig)
    }
}

/// Which object: kind, namespace (empty if cluster scoped) and name.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub struct ObjectId {
    /// What it is.
    pub kind: Kind,
    /// Its namespace, empty for cluster-scoped kinds.
    pub namespace: Str,
    /// Its name.
    pub name: Str,
}

impl ObjectId {
    /// Names an object.
    pub fn new(kind: Kind, namespace: impl Into<Str>, name: impl Into<Str>) -> Self {
        ObjectId { kind, namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for ObjectId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &*self.namespace {
            "" => write!(f, "{} {}", self.kind.as_str(), self.name),
            ns => write!(f, "{} {ns}/{}", self.kind.as_str(), self.name),
        }
    }
}

/// What every configuration object carries beside its content.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Meta {
    /// Namespace of the object.
    pub namespace: Str,
    /// Name of the object.
    pub name: Str,
    /// When it was created; the epoch where the source does not say.
    pub created: Timestamp,
    /// Its own labels (not a selector).
    pub labels: Labels,
    /// Its annotations, those that mean something to the mesh.
    pub annotations: Labels,
}

impl Meta {
    /// Where age decides between objects the older wins, then the name, then the namespace.
    pub fn age_order(&self) -> (Timestamp, &str, &str) {
        (self.created, &self.name, &self.namespace)
    }

    /// Names the object, which is of this kind.
    pub fn id(&self, kind: Kind) -> ObjectId {
        ObjectId::new(kind, self.namespace.clone(), self.name.clone())
    }

    /// Whether the object has the namespace and name of `id`; its kind is not looked at.
    pub fn is(&self, id: &ObjectId) -> bool {
        self.name == id.name && self.namespace == id.namespace
    }
}

/// Who may see a service or rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum Visibility {
    /// Every namespace (`*`).
    #[default]
    Public,
    /// Only its own namespace (`.`).
    Private,
    /// Nobody (`~`).
    None,
    /// The named namespaces; its own where `.` was among them.
    Namespaces(std::collections::BTreeSet<Str>),
}

impl Visibility {
    /// Whether an object of namespace `own` with this visibility is seen from namespace `from`.
    pub fn allows(&self, own: &str, from: &str) -> bool {
        match self {
            Visibility::Public => true,
            Visibility::Private => own == from,
            Visibility::None => false,
            Visibility::Namespaces(list) => list.contains(from),
        }
    }

    /// From the entries of an `exportTo` list inside `own`; `None` if the list is empty, so that a default applies.
    pub fn parse<S: AsRef<str>>(entries: &[S], own: &str) -> Option<Visibility> {
        if entries.is_empty() {
            return None;
        }
        if entries.iter().any(|e| e.as_ref() == "*") {
            return Some(Visibility::Public);
        }
        if entries.iter().any(|e| e.as_ref() == "~") {
            return Some(Visibility::None);
        }
        let names: std::collections::BTreeSet<Str> =
            entries.iter().map(|e| if e.as_ref() == "." { own.into() } else { Str::from(e.as_ref()) }).collect();
        Some(if names.len() == 1 && names.contains(own) { Visibility::Private } else { Visibility::Namespaces(names) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wildcard_covers_what_ends_alike() {
        for (wide, narrow, covered) in [
            ("*", "a.com", true),
            ("*.com", "a.com", true),
            ("*.com", "*.a.com", true),
            ("*.com", "*.com", true),
            ("*.com", "com", false),
            ("a.com", "*.com", false),
            ("a.com", "A.com.", true),
        ] {
            assert_eq!(Host::new(wide).covers(&Host::new(narrow)), covered, "{wide} covers {narrow}");
        }
    }

    #[test]
    fn specific_hosts_come_first() {
        let mut hosts = ["*", "*.b.com", "b.com", "a.b.com", "*.com"].map(Host::new);
        hosts.sort_by(Host::cmp_specific);
        assert_eq!(hosts.map(|h| h.to_string()), ["a.b.com", "b.com", "*.b.com", "*.com", "*"]);
    }

    #[test]
    fn visibility_of_export_to_lists() {
        let see = |list: &[&str], from| Visibility::parse(list, "own").unwrap().allows("own", from);
        assert!(see(&["*"], "x") && see(&[".", "x"], "x") && see(&[".", "x"], "own") && see(&["."], "own"));
        assert!(!see(&["."], "x") && !see(&["~"], "own") && !see(&["x"], "own"));
        assert_eq!(Visibility::parse::<&str>(&[], "own"), None);
    }

    #[test]
    fn addresses_are_written_as_they_are_displayed() {
        for octet in 0..=u8::MAX {
            let ips = [IpAddr::from([octet, 0, 9, octet]), IpAddr::from([10, octet, 100, 255])];
            assert_eq!(ips.map(ip_text), ips.map(|ip| ip.to_string()));
        }
        let ip: IpAddr = "fd00:10:96::a".parse().unwrap();
        assert_eq!(ip_text(ip), ip.to_string());
    }
}
