//! Gateway: ports that gateways open, and for which hosts.

use crate::name::{Host, Labels, Meta, Str};
use crate::service::Protocol;
use crate::tls::ServerTls;

/// A gateway object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Gateway {
    /// Identity and age.
    pub meta: Meta,
    /// Labels of the gateway workloads that it configures. Empty: all gateways.
    pub selector: Labels,
    /// Servers in order.
    pub servers: Vec<GatewayServer>,
}

/// One server.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayServer {
    /// Port number as the user wrote it: a port of the gateway's Service.
    pub port: u16,
    /// Port name, part of route names.
    pub port_name: Str,
    /// Protocol. [`Protocol::Auto`] never occurs.
    pub protocol: Protocol,
    /// Address to bind instead of all; a Unix path is refused at conversion.
    pub bind: Option<Str>,
    /// Hosts in order.
    pub hosts: Vec<GatewayHost>,
    /// TLS.
    pub tls: Option<ServerTls>,
    /// Name given by the user.
    pub name: Str,
}

/// A host, and whose VirtualServices may serve it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct GatewayHost {
    /// Namespace of VirtualServices; `None`: any (`*` or nothing written). `.` is resolved.
    pub namespace: Option<Str>,
    /// The host.
    pub host: Host,
}
