//! Sidecar: what a workload sees and serves.

use crate::destination_rule::ConnectionPool;
use crate::name::{Host, Labels, Meta, Str};
use crate::service::Protocol;
use crate::tls::ServerTls;

/// A sidecar object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Sidecar {
    /// Identity and age.
    pub meta: Meta,
    /// Workloads it is for; `None`: all of its namespace (of the mesh, in the root namespace).
    pub selector: Option<Labels>,
    /// Listeners for incoming traffic; empty: from Services.
    pub ingress: Vec<IngressListener>,
    /// What it sees; empty: everything visible.
    pub egress: Vec<EgressListener>,
    /// Unknown outbound traffic; `None`: the mesh's setting.
    pub outbound_policy: Option<OutboundPolicy>,
    /// Connection pool for incoming traffic.
    pub inbound_connection_pool: Option<ConnectionPool>,
}

/// Whether listeners capture or bind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum CaptureMode {
    /// As the proxy intercepts.
    #[default]
    Default,
    /// Captured by iptables.
    Iptables,
    /// Bound to its port.
    None,
}

/// A port of a listener.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ListenerPort {
    /// Number; 0 for Unix sockets.
    pub number: u16,
    /// Protocol.
    pub protocol: Protocol,
    /// Name.
    pub name: Str,
}

/// A listener for incoming traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct IngressListener {
    /// Port.
    pub port: ListenerPort,
    /// Address.
    pub bind: Option<Str>,
    /// Capture.
    pub capture: CaptureMode,
    /// Where traffic goes: `127.0.0.1:p`, `[::1]:p`, `0.0.0.0:p` (the workload's address) or `unix://path`.
    pub default_endpoint: Str,
    /// TLS to terminate.
    pub tls: Option<ServerTls>,
    /// Connection pool.
    pub connection_pool: Option<ConnectionPool>,
}

/// A listener for outgoing traffic, and what is seen through it.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressListener {
    /// Port; `None`: those of the services.
    pub port: Option<ListenerPort>,
    /// Address, or a Unix path.
    pub bind: Option<Str>,
    /// Capture.
    pub capture: CaptureMode,
    /// What is seen, as written order.
    pub hosts: Vec<EgressHost>,
}

/// One `namespace/host` entry.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EgressHost {
    /// Whose services.
    pub namespace: EgressNamespace,
    /// Which hosts.
    pub host: Host,
    /// An exclusion (`~namespace/host`).
    pub exclude: bool,
}

/// Whose services an egress host names.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum EgressNamespace {
    /// Any (`*`).
    Any,
    /// Nobody's (`~/*`).
    Nothing,
    /// A namespace; `.` is resolved at look-up against the proxy's own.
    Own,
    /// A named one.
    Named(Str),
}

/// Unknown outbound traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct OutboundPolicy {
    /// What happens to it.
    pub mode: OutboundMode,
    /// A service that takes it instead: host, port, subset.
    pub egress_proxy: Option<(Host, u16, Str)>,
}

/// What happens to unknown outbound traffic.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum OutboundMode {
    /// Dropped.
    RegistryOnly,
    /// Passed through.
    AllowAny,
    /// Passed through by the name that the request carries.
    AllowAnyDynamicDns,
}
