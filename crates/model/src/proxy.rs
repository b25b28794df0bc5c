//! Who asks: a proxy as its node describes it.
//!
//! A node id in Istio's form (`type~ip~name.namespace~domain`) gives type, address and namespace. Any other id is a plain
//! gateway named by that id, so that an Envoy with a stock bootstrap can connect.

use std::borrow::Cow;
use std::collections::{BTreeMap, BTreeSet};
use std::net::IpAddr;

use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use crate::endpoint::Locality;
use crate::name::{Labels, Str};
use crate::proxy_config::ProxyConfig;
use crate::time::Span;

/// What the proxy is for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum ProxyType {
    /// Beside a workload.
    Sidecar,
    /// A gateway.
    Router,
    /// An ambient layer 7 proxy.
    Waypoint,
    /// The ambient node proxy.
    Ztunnel,
}

impl ProxyType {
    /// As node ids spell it.
    pub fn as_str(self) -> &'static str {
        match self {
            ProxyType::Sidecar => "sidecar",
            ProxyType::Router => "router",
            ProxyType::Waypoint => "waypoint",
            ProxyType::Ztunnel => "ztunnel",
        }
    }
}

/// Which dialect the client speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Flavour {
    /// Envoy as Istio builds it, beside an Istio agent: Istio's filters exist, certificates come from the agent.
    Istio,
    /// Any other Envoy: stock extensions only.
    Plain,
    /// A gRPC library (`GENERATOR=grpc`).
    Grpc,
}

/// How traffic gets into a sidecar.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Interception {
    /// iptables REDIRECT.
    #[default]
    Redirect,
    /// iptables TPROXY: the source address is kept.
    Tproxy,
    /// None: listeners bind their ports.
    None,
}

/// A proxy's version, from `ISTIO_VERSION`. A missing or odd one counts as the newest.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ProxyVersion(pub u16, pub u16, pub u16);

impl ProxyVersion {
    /// Newer than any release.
    pub const NEWEST: ProxyVersion = ProxyVersion(u16::MAX, u16::MAX, u16::MAX);

    /// `1.29`, `1.29.1`, `1.29.1-dev`; without a patch number the last patch of that release.
    pub fn parse(text: &str) -> ProxyVersion {
        let mut numbers = text.split(['.', '-', '+']).map(str::parse::<u16>);
        match (numbers.next(), numbers.next(), numbers.next()) {
            (Some(Ok(major)), Some(Ok(minor)), Some(Ok(patch))) => ProxyVersion(major, minor, patch),
            (Some(Ok(major)), Some(Ok(minor)), _) => ProxyVersion(major, minor, u16::MAX),
            _ => ProxyVersion::NEWEST,
        }
    }
}

/// The node as xDS delivers it, before it is understood. Reads from the form that bootstraps write.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(default)]
pub struct Node {
    /// `node.id`.
    pub id: String,
    /// `node.cluster`.
    pub cluster: String,
    /// `node.locality`.
    pub locality: Locality,
    /// `node.metadata`.
    pub metadata: Metadata,
    /// Names of the extensions compiled into the client, from `node.extensions`; empty if it does not say.
    #[serde(deserialize_with = "extension_names")]
    pub extensions: BTreeSet<Str>,
    /// `node.user_agent_name`.
    #[serde(rename = "user_agent_name")]
    pub user_agent: String,
}

/// The metadata that Pilotfish reads; other keys are ignored. Agents write booleans and lists as strings.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE", default)]
#[allow(missing_docs)]
pub struct Metadata {
    pub proxy_config: Option<ProxyConfig>,
    pub istio_version: Option<String>,
    /// Revision of Istio's Envoy build: marks one whose agent hides its version.
    pub istio_proxy_sha: Option<String>,
    pub labels: Labels,
    pub static_labels: Labels,
    pub annotations: Labels,
    #[serde(rename = "INSTANCE_IPS", deserialize_with = "comma_list")]
    pub instance_ips: Vec<String>,
    pub namespace: Option<Str>,
    pub name: Option<Str>,
    pub node_name: Option<Str>,
    pub workload_name: Option<Str>,
    pub owner: Option<Str>,
    pub interception_mode: Option<String>,
    pub service_account: Option<Str>,
    pub mesh_id: Option<Str>,
    pub cluster_id: Option<Str>,
    pub network: Option<Str>,
    #[serde(rename = "REQUESTED_NETWORK_VIEW", deserialize_with = "comma_list")]
    pub requested_network_view: Vec<String>,
    /// JSON inside a string: `[{"name":..,"containerPort":..,"protocol":..}]`.
    pub pod_ports: Option<String>,
    pub http_proxy_port: Option<Text>,
    pub idle_timeout: Option<Span>,
    pub http10: Option<Text>,
    pub generator: Option<String>,
    #[serde(deserialize_with = "boolean")]
    pub enable_self_discovery: bool,
    #[serde(deserialize_with = "boolean")]
    pub dns_capture: bool,
    #[serde(deserialize_with = "boolean")]
    pub dns_auto_allocate: bool,
    #[serde(deserialize_with = "boolean")]
    pub unprivileged_pod: bool,
    #[serde(deserialize_with = "boolean")]
    pub inbound_listener_exact_balance: bool,
    #[serde(deserialize_with = "boolean")]
    pub outbound_listener_exact_balance: bool,
    #[serde(deserialize_with = "boolean")]
    pub metadata_discovery: bool,
    pub envoy_status_port: Option<Text>,
    pub envoy_prometheus_port: Option<Text>,
    pub tls_server_cert_chain: Option<Str>,
    pub tls_server_key: Option<Str>,
    pub tls_server_root_cert: Option<Str>,
    pub tls_client_cert_chain: Option<Str>,
    pub tls_client_key: Option<Str>,
    pub tls_client_root_cert: Option<Str>,
    /// Texts under all other keys.
    #[serde(flatten, deserialize_with = "texts")]
    pub other: Labels,
}

impl Metadata {
    /// A text by its key, as far as it is one. Lists and booleans are given as agents write them.
    pub fn text(&self, key: &str) -> Option<Cow<'_, str>> {
        let list = |l: &[String]| (!l.is_empty()).then(|| l.join(",").into());
        let flag = |set: bool| set.then(|| "true".into());
        match key {
            "ISTIO_VERSION" => self.istio_version.as_deref().map(Cow::from),
            "ISTIO_PROXY_SHA" => self.istio_proxy_sha.as_deref().map(Cow::from),
            "INSTANCE_IPS" => list(&self.instance_ips),
            "NAMESPACE" => self.namespace.as_deref().map(Cow::from),
            "NAME" => self.name.as_deref().map(Cow::from),
            "NODE_NAME" => self.node_name.as_deref().map(Cow::from),
            "WORKLOAD_NAME" => self.workload_name.as_deref().map(Cow::from),
            "OWNER" => self.owner.as_deref().map(Cow::from),
            "INTERCEPTION_MODE" => self.interception_mode.as_deref().map(Cow::from),
            "SERVICE_ACCOUNT" => self.service_account.as_deref().map(Cow::from),
            "MESH_ID" => self.mesh_id.as_deref().map(Cow::from),
            "CLUSTER_ID" => self.cluster_id.as_deref().map(Cow::from),
            "NETWORK" => self.network.as_deref().map(Cow::from),
            "REQUESTED_NETWORK_VIEW" => list(&self.requested_network_view),
            "POD_PORTS" => self.pod_ports.as_deref().map(Cow::from),
            "HTTP_PROXY_PORT" => self.http_proxy_port.as_ref().map(|t| t.0.as_str().into()),
            "HTTP10" => self.http10.as_ref().map(|t| t.0.as_str().into()),
            "GENERATOR" => self.generator.as_deref().map(Cow::from),
            "ENABLE_SELF_DISCOVERY" => flag(self.enable_self_discovery),
            "DNS_CAPTURE" => flag(self.dns_capture),
            "DNS_AUTO_ALLOCATE" => flag(self.dns_auto_allocate),
            "UNPRIVILEGED_POD" => flag(self.unprivileged_pod),
            "INBOUND_LISTENER_EXACT_BALANCE" => flag(self.inbound_listener_exact_balance),
            "OUTBOUND_LISTENER_EXACT_BALANCE" => flag(self.outbound_listener_exact_balance),
            "METADATA_DISCOVERY" => flag(self.metadata_discovery),
            "ENVOY_STATUS_PORT" => self.envoy_status_port.as_ref().map(|t| t.0.as_str().into()),
            "ENVOY_PROMETHEUS_PORT" => self.envoy_prometheus_port.as_ref().map(|t| t.0.as_str().into()),
            key => self.other.get(key).map(|v| Cow::from(&**v)),
        }
    }
}

/// A value that some agents write as text and others as a number or boolean.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Text(pub String);

impl<'de> Deserialize<'de> for Text {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Any {
            Text(String),
            Bool(bool),
            Number(f64),
        }
        Ok(Text(match Any::deserialize(d)? {
            Any::Text(t) => t,
            Any::Bool(b) => b.to_string(),
            Any::Number(n) => n.to_string(),
        }))
    }
}

impl Text {
    /// As a number, if it is one.
    pub fn number<T: std::str::FromStr>(&self) -> Option<T> {
        self.0.parse().ok()
    }
}

fn boolean<'de, D: Deserializer<'de>>(d: D) -> Result<bool, D::Error> {
    Text::deserialize(d).map(|t| matches!(t.0.as_str(), "true" | "1" | "True" | "TRUE" | "t" | "T"))
}

fn comma_list<'de, D: Deserializer<'de>>(d: D) -> Result<Vec<String>, D::Error> {
    String::deserialize(d).map(|t| t.split(',').map(str::trim).filter(|s| !s.is_empty()).map(str::to_owned).collect())
}

fn texts<'de, D: Deserializer<'de>>(d: D) -> Result<Labels, D::Error> {
    #[derive(Deserialize)]
    #[serde(untagged)]
    enum Given {
        Text(Str),
        Other(IgnoredAny),
    }
    let given = BTreeMap::<Str, Given>::deserialize(d)?;
    Ok(given.into_iter().filter_map(|(key, value)| if let Given::Text(text) = value { Some((key, text)) } else { None }).collect())
}

fn extension_names<'de, D: Deserializer<'de>>(d: D) -> Result<BTreeSet<Str>, D::Error> {
    #[derive(Deserialize)]
    struct Extension {
        name: Str,
    }
    Vec::<Extension>::deserialize(d).map(|list| list.into_iter().map(|e| e.name).collect())
}

/// A node that was understood.
#[derive(Clone, Debug)]
pub struct Proxy {
    /// The whole node id.
    pub id: Str,
    /// What shows up in listings: `name.namespace` of an Istio id, else the id itself.
    pub name: Str,
    /// What it is for.
    pub kind: ProxyType,
    /// Which dialect it speaks.
    pub flavour: Flavour,
    /// Its addresses, the first being its own idea of its main one. Empty only for plain clients.
    pub ips: Vec<IpAddr>,
    /// The namespace whose configuration applies.
    pub namespace: Str,
    /// Suffix that short host names get, such as `shop.svc.cluster.local`.
    pub dns_domain: Str,
    /// `node.cluster`.
    pub cluster: Str,
    /// Where it runs, as far as the node says.
    pub locality: Locality,
    /// Its version.
    pub version: ProxyVersion,
    /// Workload labels from the metadata. Labels from the registry win where there is such a workload.
    pub labels: Labels,
    /// How traffic gets in.
    pub interception: Interception,
    /// All metadata.
    pub metadata: Metadata,
    /// Extensions compiled into it, empty if it does not say.
    pub extensions: BTreeSet<Str>,
}

/// Why a node is refused. The stream ends with InvalidArgument.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadNode {
    /// No id at all.
    #[error("missing node information: the first request must carry node.id")]
    Missing,
    /// An Istio id with an unknown type.
    #[error("node id {0:?} has an unknown type; expected sidecar, router, waypoint or ztunnel")]
    UnknownType(String),
    /// An Istio id whose parts do not hold.
    #[error("node id {id:?}: {reason}")]
    Malformed {
        /// The id.
        id: String,
        /// What is wrong.
        reason: String,
    },
    /// Neither id nor metadata give a usable address.
    #[error("node id {id:?} has no valid IP address ({found:?})")]
    NoAddress {
        /// The id.
        id: String,
        /// What stood in its place.
        found: String,
    },
}

impl Proxy {
    /// Understands a node. `root_namespace` is where a plain gateway that names no namespace belongs.
    pub fn parse(node: Node, root_namespace: &str, domain: &str) -> Result<Proxy, BadNode> {
        if node.id.is_empty() {
            return Err(BadNode::Missing);
        }
        if node.id.matches('~').count() == 3 {
            Self::parse_istio(node, domain)
        } else {
            Ok(Self::plain_gateway(node, root_namespace, domain))
        }
    }

    fn parse_istio(node: Node, domain: &str) -> Result<Proxy, BadNode> {
        let id = node.id.clone();
        let parts: Vec<&str> = id.split('~').collect();
        let [kind, ip, name, dns_domain] = parts[..] else {
            return Err(BadNode::Malformed { id, reason: "expected type~ip~name.namespace~domain".into() });
        };
        let kind = match kind {
            "sidecar" => ProxyType::Sidecar,
            "router" => ProxyType::Router,
            "waypoint" => ProxyType::Waypoint,
            "ztunnel" => ProxyType::Ztunnel,
            other => return Err(BadNode::UnknownType(other.to_owned())),
        };
        let texts: Vec<&str> =
            if node.metadata.instance_ips.is_empty() { vec![ip] } else { node.metadata.instance_ips.iter().map(String::as_str).collect() };
        let parsed: Result<Vec<IpAddr>, _> = texts.iter().map(|t| t.parse()).collect();
        let ips = parsed.map_err(|_| BadNode::NoAddress { id: id.clone(), found: texts.join(",") })?;
        let dns_namespace = dns_domain.split('.').next().unwrap_or_default();
        let namespace = match node.metadata.namespace.as_deref().unwrap_or(dns_namespace) {
            "" => return Err(BadNode::Malformed { id, reason: "no namespace in its domain or in metadata NAMESPACE".into() }),
            ns => Str::from(ns),
        };
        let dns_domain = if dns_domain.is_empty() { format!("{namespace}.svc.{domain}") } else { dns_domain.to_owned() };
        let name = Str::from(name);
        Ok(Self::from_parts(node, kind, ips, name, namespace, dns_domain))
    }

    fn plain_gateway(mut node: Node, root_namespace: &str, domain: &str) -> Proxy {
        let namespace: Str = node.metadata.namespace.clone().unwrap_or_else(|| root_namespace.into());
        if node.metadata.labels.is_empty() && node.metadata.static_labels.is_empty() && !node.cluster.is_empty() {
            node.metadata.labels.insert("istio".into(), node.cluster.as_str().into());
        }
        let ips = node.metadata.instance_ips.iter().filter_map(|t| t.parse().ok()).collect();
        let (name, dns_domain) = (Str::from(node.id.as_str()), format!("{namespace}.svc.{domain}"));
        Self::from_parts(node, ProxyType::Router, ips, name, namespace, dns_domain)
    }

    fn from_parts(node: Node, kind: ProxyType, ips: Vec<IpAddr>, name: Str, namespace: Str, dns_domain: String) -> Proxy {
        let m = &node.metadata;
        let flavour = match m.generator.as_deref() {
            Some("grpc") => Flavour::Grpc,
            _ if m.istio_version.is_some() || m.istio_proxy_sha.is_some() => Flavour::Istio,
            _ => Flavour::Plain,
        };
        let mut labels = m.static_labels.clone();
        labels.extend(m.labels.clone());
        Proxy {
            id: node.id.as_str().into(),
            name,
            kind,
            flavour,
            ips,
            namespace,
            dns_domain: dns_domain.into(),
            cluster: node.cluster.as_str().into(),
            locality: node.locality,
            version: m.istio_version.as_deref().map_or(ProxyVersion::NEWEST, ProxyVersion::parse),
            labels,
            interception: match m.interception_mode.as_deref() {
                Some("TPROXY") => Interception::Tproxy,
                Some("NONE") => Interception::None,
                _ => Interception::Redirect,
            },
            extensions: node.extensions,
            metadata: node.metadata,
        }
    }

    /// True if the client has an extension, or does not say what it has.
    pub fn has_extension(&self, name: &str) -> bool {
        self.extensions.is_empty() || self.extensions.contains(name)
    }

    /// The cluster its registry data comes from.
    pub fn cluster_id(&self) -> &str {
        self.metadata.cluster_id.as_deref().unwrap_or(crate::mesh_config::DEFAULT_CLUSTER_ID)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(id: &str) -> Node {
        Node { id: id.into(), ..Node::default() }
    }

    #[test]
    fn an_istio_id_says_it_all() {
        let p = Proxy::parse(node("sidecar~10.0.0.7~web-0.shop~shop.svc.cluster.local"), "istio-system", "cluster.local").unwrap();
        assert_eq!((p.kind, &*p.name, &*p.namespace, &*p.dns_domain), (ProxyType::Sidecar, "web-0.shop", "shop", "shop.svc.cluster.local"));
        assert_eq!((p.ips, p.flavour), (vec!["10.0.0.7".parse::<IpAddr>().unwrap()], Flavour::Plain));
    }

    #[test]
    fn any_other_id_is_a_gateway_of_the_root_namespace() {
        let p = Proxy::parse(Node { cluster: "edge".into(), ..node("my-envoy") }, "istio-system", "cluster.local").unwrap();
        assert_eq!((p.kind, &*p.name, &*p.namespace), (ProxyType::Router, "my-envoy", "istio-system"));
        assert_eq!(p.labels, Labels::from([("istio".into(), "edge".into())]));
    }

    #[test]
    fn bad_nodes_are_refused_with_a_reason() {
        let parse = |id| Proxy::parse(node(id), "istio-system", "cluster.local").map(|_| ()).unwrap_err();
        assert_eq!(parse(""), BadNode::Missing);
        assert_eq!(parse("robot~1.1.1.1~a.b~b.svc"), BadNode::UnknownType("robot".into()));
        assert!(matches!(parse("sidecar~nowhere~a.b~b.svc"), BadNode::NoAddress { .. }));
        assert!(matches!(parse("sidecar~1.1.1.1~a~"), BadNode::Malformed { .. }));
    }

    #[test]
    fn metadata_are_texts_whether_they_are_read_or_not() {
        let json = serde_json::json!({
            "MESH_ID": "m", "INSTANCE_IPS": "10.0.0.1,10.0.0.2", "DNS_CAPTURE": "true", "APP_CONTAINERS": "app", "PILOT_SAN": ["x"],
            "HTTP_PROXY_PORT": 15002,
        });
        let metadata: Metadata = serde_json::from_value(json).unwrap();
        assert_eq!(metadata.other, Labels::from([("APP_CONTAINERS".into(), "app".into())]));
        let texts = ["MESH_ID", "INSTANCE_IPS", "DNS_CAPTURE", "APP_CONTAINERS", "PILOT_SAN", "HTTP_PROXY_PORT", "NONE"];
        let texts = texts.map(|key| metadata.text(key).map(Cow::into_owned).unwrap_or_default());
        assert_eq!(texts, ["m", "10.0.0.1,10.0.0.2", "true", "app", "", "15002", ""]);
    }

    #[test]
    fn versions() {
        assert_eq!(ProxyVersion::parse("1.29.1"), ProxyVersion(1, 29, 1));
        assert_eq!(ProxyVersion::parse("1.29"), ProxyVersion(1, 29, u16::MAX));
        assert_eq!(ProxyVersion::parse("1.29.0-dev"), ProxyVersion(1, 29, 0));
        assert_eq!(ProxyVersion::parse("unknown"), ProxyVersion::NEWEST);
    }
}
