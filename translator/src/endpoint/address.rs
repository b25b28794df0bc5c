//! Addresses on the wire.

use pilotfish_envoy::pb::envoy::config::core::v3::{Address, Pipe, SocketAddress, address, socket_address::PortSpecifier};
use pilotfish_envoy::pb::envoy::config::endpoint::v3::{
    ClusterLoadAssignment, Endpoint, LbEndpoint, LocalityLbEndpoints, lb_endpoint::HostIdentifier,
};

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

/// A Unix domain socket.
pub fn pipe(path: &str) -> Address {
    Address { address: Some(address::Address::Pipe(Pipe { path: path.to_owned(), ..Default::default() })) }
}

/// An endpoint there, without anything else.
pub fn endpoint(address: Address) -> HostIdentifier {
    HostIdentifier::Endpoint(Endpoint { address: Some(address), ..Default::default() })
}

/// An assignment of one endpoint.
pub fn single(name: &str, address: Address) -> ClusterLoadAssignment {
    let endpoint = LbEndpoint { host_identifier: Some(endpoint(address)), ..Default::default() };
    ClusterLoadAssignment {
        cluster_name: name.to_owned(),
        endpoints: vec![LocalityLbEndpoints { lb_endpoints: vec![endpoint], ..Default::default() }],
        ..Default::default()
    }
}
