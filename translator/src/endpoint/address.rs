//! Addresses on the wire.

use pilotfish_envoy::pb::envoy::config::core::v3::{Address, HealthStatus, SocketAddress, address, socket_address::PortSpecifier};
use pilotfish_envoy::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use pilotfish_envoy::{Assignment, EndpointFields, HostAddress, LocalityEndpoints};

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
    let (mut assignment, mut endpoints) = (Assignment::new(name), LocalityEndpoints::default());
    endpoints.push(&EndpointFields { address, more: &[], health: HealthStatus::Unknown, metadata: None, weight: None });
    assignment.push(endpoints, None, 0);
    assignment.into_message()
}
