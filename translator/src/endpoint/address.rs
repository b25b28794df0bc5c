//! Addresses on the wire.

use pilotfish_envoy::pb::envoy::config::core::v3::{Address, HealthStatus, SocketAddress, address, socket_address::PortSpecifier};
use pilotfish_envoy::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use pilotfish_envoy::{EndpointFields, HostAddress, LocalityEndpoints};

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
    let mut endpoints = LocalityEndpoints::default();
    endpoints.push(&EndpointFields { address, more: &[], health: HealthStatus::Unknown, metadata: None, weight: None });
    ClusterLoadAssignment { cluster_name: name.to_owned(), endpoints: vec![endpoints.finish(None, 0)], ..Default::default() }
}
