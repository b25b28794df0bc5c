//! [`LbEndpoint`]: an endpoint of an assignment, as it goes over the wire. A mesh has more of them than of anything else, and
//! their address alone is a message in a message in a message.

use prost::encoding::encode_varint;
use prost::encoding::encoded_len_varint;

use crate::field;
use crate::pb::envoy::config::core::v3::HealthStatus;
use crate::raw::encoded;
use crate::structs::{FilterTexts, filters_len, put_filters};

/// An encoded `envoy.config.endpoint.v3.LbEndpoint`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct LbEndpoint(Vec<u8>);

/// Where something listens.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HostAddress<'a> {
    /// An IP address or a name, and a port.
    Socket(&'a str, u16),
    /// The path of a Unix domain socket.
    Pipe(&'a str),
}

// Field numbers: of `LbEndpoint`, of `Address`, of `SocketAddress`.
const HEALTH_STATUS: u32 = 2;
const METADATA: u32 = 3;
const LOAD_BALANCING_WEIGHT: u32 = 4;
const SOCKET_ADDRESS: u32 = 1;
const PIPE: u32 = 2;
const ADDRESS: u32 = 2;
const PORT_VALUE: u32 = 3;

impl LbEndpoint {
    /// An endpoint there, with these texts in its metadata.
    pub fn new(address: HostAddress<'_>, health: HealthStatus, metadata: Option<&FilterTexts<'_>>, weight: Option<u32>) -> Self {
        let inner = address.len();
        let metadata = metadata.map(|filters| (filters, filters_len(filters)));
        // Health and weight take eleven bytes at most.
        let room = field::len(field::len(field::len(inner))) + metadata.map_or(0, |(_, len)| field::len(len)) + 11;
        let mut out = Vec::with_capacity(room);
        // The endpoint, its address, and the kind of that.
        field::open(1, field::len(field::len(inner)), &mut out);
        field::open(1, field::len(inner), &mut out);
        address.put(inner, &mut out);
        field::number(HEALTH_STATUS, i32::from(health) as u64, &mut out);
        if let Some((filters, len)) = metadata {
            field::open(METADATA, len, &mut out);
            put_filters(filters, &mut out);
        }
        if let Some(weight) = weight {
            let len = if weight == 0 { 0 } else { 1 + encoded_len_varint(weight.into()) };
            field::open(LOAD_BALANCING_WEIGHT, len, &mut out);
            field::number(1, weight.into(), &mut out);
        }
        LbEndpoint(out)
    }
}

encoded!(LbEndpoint);

impl HostAddress<'_> {
    /// Length of the `SocketAddress` or `Pipe`.
    fn len(self) -> usize {
        match self {
            HostAddress::Socket(host, port) => field::len_of_text(host) + 1 + encoded_len_varint(port.into()),
            HostAddress::Pipe(path) => field::len_of_text(path),
        }
    }

    fn put(self, len: usize, out: &mut Vec<u8>) {
        match self {
            HostAddress::Socket(host, port) => {
                field::open(SOCKET_ADDRESS, len, out);
                field::text(ADDRESS, host, out);
                // One of several: written even if it is 0.
                out.push((PORT_VALUE << 3) as u8);
                encode_varint(port.into(), out);
            }
            HostAddress::Pipe(path) => {
                field::open(PIPE, len, out);
                field::text(1, path, out);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use prost::Message;

    use super::*;
    use crate::pb::envoy::config::core::v3::{Address, Pipe, SocketAddress, address, socket_address::PortSpecifier};
    use crate::pb::envoy::config::endpoint::v3::Endpoint;
    use crate::structs::Metadata;

    /// The message as the generator would have it.
    #[derive(Clone, PartialEq, Message)]
    struct Typed {
        #[prost(message, optional, tag = "1")]
        endpoint: Option<Endpoint>,
        #[prost(enumeration = "HealthStatus", tag = "2")]
        health_status: i32,
        #[prost(message, optional, tag = "3")]
        metadata: Option<Metadata>,
        #[prost(message, optional, tag = "4")]
        load_balancing_weight: Option<u32>,
    }

    fn typed(address: address::Address, health: HealthStatus, metadata: Option<Metadata>, weight: Option<u32>) -> Typed {
        let endpoint = Endpoint { address: Some(Address { address: Some(address) }), ..Default::default() };
        Typed { endpoint: Some(endpoint), health_status: health.into(), metadata, load_balancing_weight: weight }
    }

    #[test]
    fn an_endpoint_has_the_bytes_that_its_typed_form_has() {
        let long = "x".repeat(300);
        let filters: &FilterTexts<'_> = &[("f", &[("k", &long)])];
        for (host, port) in [("10.0.0.1", 80), ("fd00::1", 65535), ("", 0), (&long, 1)] {
            for (health, metadata, weight) in [
                (HealthStatus::Healthy, Some(filters), Some(1)),
                (HealthStatus::Unknown, None, None),
                (HealthStatus::Draining, None, Some(0)),
            ] {
                let ours = LbEndpoint::new(HostAddress::Socket(host, port), health, metadata, weight);
                let port_specifier = Some(PortSpecifier::PortValue(port.into()));
                let socket = SocketAddress { address: host.to_owned(), port_specifier, ..Default::default() };
                let theirs = typed(address::Address::SocketAddress(socket), health, metadata.map(Metadata::texts), weight);
                assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
                assert_eq!(LbEndpoint::decode(theirs.encode_to_vec().as_slice()).unwrap(), ours);
            }
        }
        let ours = LbEndpoint::new(HostAddress::Pipe("/a"), HealthStatus::Healthy, None, Some(1_000_000));
        let pipe = address::Address::Pipe(Pipe { path: "/a".to_owned(), ..Default::default() });
        assert_eq!(ours.encode_to_vec(), typed(pipe, HealthStatus::Healthy, None, Some(1_000_000)).encode_to_vec());
    }
}
