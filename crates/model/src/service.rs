//! Services: what clients address. From Kubernetes Services and from ServiceEntries alike.

use std::collections::BTreeSet;
use std::net::IpAddr;
use std::sync::Arc;

use ipnet::IpNet;
use serde::Serialize;

use crate::name::{Host, Labels, ObjectId, Str, Visibility};
use crate::time::Timestamp;

/// The application protocol of a port.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
#[allow(missing_docs)]
pub enum Protocol {
    Tcp,
    Udp,
    Grpc,
    GrpcWeb,
    Http,
    HttpProxy,
    Http2,
    Https,
    Tls,
    Mongo,
    Redis,
    Mysql,
    /// HBONE tunnels.
    Hbone,
    /// Not said: HTTP is told from other traffic by looking at it.
    Auto,
}

impl Protocol {
    /// From a port name's prefix, an appProtocol or a Gateway's protocol, any case. `None` for what is not a protocol.
    pub fn parse(text: &str) -> Option<Protocol> {
        Some(match text.to_ascii_lowercase().as_str() {
            "tcp" => Protocol::Tcp,
            "udp" => Protocol::Udp,
            "grpc" => Protocol::Grpc,
            "grpc-web" => Protocol::GrpcWeb,
            "http" => Protocol::Http,
            "http_proxy" => Protocol::HttpProxy,
            "http2" => Protocol::Http2,
            "https" => Protocol::Https,
            "tls" => Protocol::Tls,
            "mongo" => Protocol::Mongo,
            "redis" => Protocol::Redis,
            "mysql" => Protocol::Mysql,
            "hbone" => Protocol::Hbone,
            _ => return None,
        })
    }

    /// The name that listings show.
    pub fn as_str(self) -> &'static str {
        match self {
            Protocol::Tcp => "TCP",
            Protocol::Udp => "UDP",
            Protocol::Grpc => "GRPC",
            Protocol::GrpcWeb => "GRPC-Web",
            Protocol::Http => "HTTP",
            Protocol::HttpProxy => "HTTP_PROXY",
            Protocol::Http2 => "HTTP2",
            Protocol::Https => "HTTPS",
            Protocol::Tls => "TLS",
            Protocol::Mongo => "Mongo",
            Protocol::Redis => "Redis",
            Protocol::Mysql => "MySQL",
            Protocol::Hbone => "HBONE",
            Protocol::Auto => "UnsupportedProtocol",
        }
    }

    /// Spoken in clear text and routed by HTTP.
    pub fn is_http(self) -> bool {
        matches!(self, Protocol::Http | Protocol::HttpProxy | Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// HTTP/2 from the first byte.
    pub fn is_http2(self) -> bool {
        matches!(self, Protocol::Http2 | Protocol::Grpc | Protocol::GrpcWeb)
    }

    /// TLS passed through.
    pub fn is_tls(self) -> bool {
        matches!(self, Protocol::Https | Protocol::Tls)
    }

    /// Bytes, as far as a proxy can tell.
    pub fn is_tcp(self) -> bool {
        matches!(self, Protocol::Tcp | Protocol::Https | Protocol::Tls | Protocol::Mongo | Protocol::Redis | Protocol::Mysql)
    }
}

/// How a client turns a service into addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Resolution {
    /// Endpoints are known (EDS).
    Static,
    /// The proxy resolves host names, all answers are endpoints.
    Dns,
    /// To the address the client asked for.
    Passthrough,
    /// The proxy resolves host names and uses one answer at a time.
    DnsRoundRobin,
    /// Another name of a service (ExternalName).
    Alias,
    /// The proxy resolves what the request names, for wildcard hosts.
    DynamicDns,
}

/// Which kind of registry a service came from.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize)]
pub enum Registry {
    /// A Kubernetes Service.
    Kubernetes,
    /// A ServiceEntry.
    External,
}

/// One port.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServicePort {
    /// Name, unique in the service; may be empty where there is one port.
    pub name: Str,
    /// The number that clients use.
    pub port: u16,
    /// What is spoken on it.
    pub protocol: Protocol,
    /// Where a ServiceEntry of resolution NONE sends to instead, or where DNS endpoints listen by default.
    pub target_port: Option<u16>,
}

/// An address that a client may use for a service.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Address {
    /// One address.
    Ip(IpAddr),
    /// A range (ServiceEntries).
    Net(IpNet),
}

impl Address {
    /// The family.
    pub fn is_ipv4(&self) -> bool {
        match self {
            Address::Ip(ip) => ip.is_ipv4(),
            Address::Net(net) => net.addr().is_ipv4(),
        }
    }
}

impl std::fmt::Display for Address {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Address::Ip(ip) => ip.fmt(f),
            Address::Net(net) => net.fmt(f),
        }
    }
}

/// Where traffic to a service prefers to stay.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum TrafficDistribution {
    /// No preference.
    #[default]
    Any,
    /// The same network, region, zone first.
    PreferSameZone,
    /// As above, down to sub-zone and node.
    PreferSameNode,
}

/// A service.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Service {
    /// The name that clients use; a ServiceEntry may have a wildcard.
    pub host: Host,
    /// Namespace of the object behind it.
    pub namespace: Str,
    /// Name of the Kubernetes Service; of a ServiceEntry its host.
    pub name: Str,
    /// Where it came from.
    pub registry: Registry,
    /// The object behind it.
    pub source: ObjectId,
    /// What other objects of its namespace say of the same host, oldest first: clients may see these instead, find them at their own
    /// addresses, and reach their endpoints.
    pub twins: Vec<Arc<Service>>,
    /// When that object was created.
    pub created: Timestamp,
    /// Labels of that object.
    pub labels: Labels,
    /// Selector of its workloads, empty if it has none.
    pub selector: Labels,
    /// Who sees it.
    pub visibility: Visibility,
    /// Virtual addresses; empty for headless services and ServiceEntries without addresses. The first is the default.
    pub addresses: Vec<Address>,
    /// Addresses allocated to a ServiceEntry that has none, used by proxies that capture DNS.
    pub auto_addresses: Vec<IpAddr>,
    /// Ports, in the order of the object.
    pub ports: Vec<ServicePort>,
    /// How clients find endpoints.
    pub resolution: Resolution,
    /// A headless Kubernetes Service.
    pub headless: bool,
    /// Outside the mesh: no automatic mTLS.
    pub mesh_external: bool,
    /// SPIFFE names that servers may present in addition to those of the endpoints.
    pub service_accounts: BTreeSet<Str>,
    /// Target of an ExternalName Service.
    pub external_name: Option<Host>,
    /// Kubernetes' `spec.type` (`ClusterIP`, `NodePort`, `LoadBalancer`, `ExternalName`); empty for others.
    pub k8s_type: Str,
    /// Addresses under which the outside reaches it (load balancer, external IPs).
    pub external_addresses: Vec<Str>,
    /// Only endpoints on the client's node (`internalTrafficPolicy: Local`).
    pub node_local: bool,
    /// Endpoints count before they are ready.
    pub publish_not_ready: bool,
    /// Its labels ask for persistent sessions: draining endpoints are kept. Labels of the mesh say which, so the index says it.
    pub persistent_session: bool,
    /// Preference for near endpoints.
    pub traffic_distribution: TrafficDistribution,
    /// Of a name's addresses the first one that takes a connection is used.
    pub races_addresses: bool,
}

impl Service {
    /// The port of that number.
    pub fn port(&self, number: u16) -> Option<&ServicePort> {
        self.ports.iter().find(|p| p.port == number)
    }

    /// It and its twins.
    pub fn all(&self) -> impl Iterator<Item = &Service> + '_ {
        std::iter::once(self).chain(self.twins.iter().map(|t| &**t))
    }

    /// The port of that number, of the first that has it.
    pub fn port_of_any(&self, number: u16) -> Option<&ServicePort> {
        self.all().find_map(|s| s.port(number))
    }

    /// Whether ports of another service of the same host go beside these: clients see and find both in the same way.
    pub fn takes_ports_of(&self, more: &Service) -> bool {
        more.namespace == self.namespace
            && more.registry == self.registry
            && more.resolution == self.resolution
            && more.labels == self.labels
            && more.selector == self.selector
            && more.visibility == self.visibility
    }

    /// The virtual addresses, plain ones only.
    pub fn vips(&self) -> impl Iterator<Item = IpAddr> + '_ {
        self.addresses.iter().filter_map(|a| match a {
            Address::Ip(ip) => Some(*ip),
            Address::Net(_) => None,
        })
    }
}
