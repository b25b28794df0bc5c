//! Addresses on the wire.

use pilotfish_envoy::pb::envoy::config::core::v3::{Address, HealthStatus, SocketAddress, address, socket_address::PortSpecifier};
use pilotfish_envoy::pb::envoy::config::endpoint::v3::{ClusterLoadAssignment, LocalityLbEndpoints};
use pilotfish_envoy::{HostAddress, LbEndpoint};

/// A host (address or name) and port.
pub fn socket(host: &str, port: u16) -> Address {
    Address {
        address: Some(address::Address::SocketAddress(SocketAddress {
            address: host.to_owned(),
            port_specifier: Some(PortSpecifier::PortValue(port.into())),
            ..Default::default()
        })),
    }
}

/// An assignment of one endpoint.
pub fn single(name: &str, address: HostAddress<'_>) -> ClusterLoadAssignment {
    let endpoint = LbEndpoint::new(address, HealthStatus::Unknown, None, None);
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
        ..Default::default()
    }
}
