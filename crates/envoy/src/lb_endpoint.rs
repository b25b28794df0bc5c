//! [`Assignment`], [`LocalityEndpoints`] and [`LbEndpoint`]: assignments of endpoints, as they go over the wire. A mesh has more
//! endpoints than anything else, and their address alone is a message in a message in a message.

use prost::encoding::encode_varint;
use prost::encoding::encoded_len_varint;

use crate::field;
use crate::pb::envoy::config::core::v3::HealthStatus;
use crate::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use crate::raw::encoded;
use crate::structs::Metadata;

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

// Field numbers: of `LocalityLbEndpoints`, of `LbEndpoint`, of `Endpoint`, of `Address`, of `SocketAddress`.
const LOCALITY: u32 = 1;
const LB_ENDPOINTS: u32 = 2;
const LOCALITY_WEIGHT: u32 = 3;
const PRIORITY: u32 = 5;
/// The highest that Envoy takes.
const MAX_PRIORITY: u32 = 128;
const HEALTH_STATUS: u32 = 2;
const METADATA: u32 = 3;
const LOAD_BALANCING_WEIGHT: u32 = 4;
const ADDITIONAL_ADDRESSES: u32 = 4;
const SOCKET_ADDRESS: u32 = 1;
const PIPE: u32 = 2;
const ADDRESS: u32 = 2;
const PORT_VALUE: u32 = 3;

/// What an endpoint of ours says.
#[derive(Clone, Copy, Debug)]
pub struct EndpointFields<'a> {
    /// Where it listens.
    pub address: HostAddress<'a>,
    /// Further addresses of it.
    pub more: &'a [HostAddress<'a>],
    /// How it is.
    pub health: HealthStatus,
    /// Its metadata.
    pub metadata: Option<&'a Metadata>,
    /// Its weight among those of its locality.
    pub weight: Option<u32>,
}

impl EndpointFields<'_> {
    /// Length of the `LbEndpoint`.
    fn len(&self) -> usize {
        let address = field::len(self.len_of_endpoint());
        let health = field::len_of_number(i32::from(self.health) as u64);
        address + health + self.metadata.map_or(0, |m| field::len(m.0.len())) + field::len_of_wrapped(self.weight)
    }

    /// Length of the `Endpoint`: an address in it, and others each in a message of its own.
    fn len_of_endpoint(&self) -> usize {
        let more: usize = self.more.iter().map(|a| field::len(field::len(field::len(a.len())))).sum();
        field::len(field::len(self.address.len())) + more
    }

    /// Whether it surely breaks no rule.
    fn is_surely_sound(&self) -> bool {
        let has_text = |address: &HostAddress<'_>| match address {
            HostAddress::Socket(text, _) | HostAddress::Pipe(text) => !text.is_empty(),
        };
        has_text(&self.address)
            && self.more.iter().all(has_text)
            && self.weight != Some(0)
            && self.metadata.is_none_or(Metadata::is_surely_sound)
    }

    fn put(&self, out: &mut Vec<u8>) {
        // The endpoint, its address, and the kind of that.
        field::open(1, self.len_of_endpoint(), out);
        self.address.put_address(out);
        for address in self.more {
            field::open(ADDITIONAL_ADDRESSES, field::len(field::len(address.len())), out);
            address.put_address(out);
        }
        field::number(HEALTH_STATUS, i32::from(self.health) as u64, out);
        if let Some(metadata) = self.metadata {
            field::put(METADATA, &metadata.0, out);
        }
        field::wrapped(LOAD_BALANCING_WEIGHT, self.weight, out);
    }
}

impl From<EndpointFields<'_>> for LbEndpoint {
    fn from(fields: EndpointFields<'_>) -> Self {
        let mut out = Vec::with_capacity(fields.len());
        fields.put(&mut out);
        LbEndpoint(out)
    }
}

/// An encoded `envoy.config.endpoint.v3.LocalityLbEndpoints`, endpoint by endpoint.
#[derive(Debug, Default)]
pub struct LocalityEndpoints {
    out: Vec<u8>,
    /// One of them may break a rule.
    unsure: bool,
}

/// A `envoy.config.endpoint.v3.ClusterLoadAssignment`, and whether it needs to be checked.
#[derive(Debug)]
pub struct Assignment {
    message: ClusterLoadAssignment,
    unsure: bool,
}

impl Assignment {
    /// Without endpoints.
    pub fn new(cluster: &str) -> Self {
        let message = ClusterLoadAssignment { cluster_name: cluster.to_owned(), ..Default::default() };
        Assignment { message, unsure: cluster.is_empty() }
    }

    /// Adds a locality. `weight`: among the localities of the priority.
    pub fn push(&mut self, mut locality: LocalityEndpoints, weight: Option<u32>, priority: u32) {
        field::wrapped(LOCALITY_WEIGHT, weight, &mut locality.out);
        field::number(PRIORITY, priority.into(), &mut locality.out);
        self.unsure |= locality.unsure || weight == Some(0) || priority > MAX_PRIORITY;
        self.message.endpoints.push(locality.out.into());
    }

    /// Whether it surely breaks no rule of Envoy's: all that was put in could be told to be good, which is faster than to look
    /// into what came out. False says nothing.
    pub fn is_surely_sound(&self) -> bool {
        !self.unsure
    }

    /// The message.
    pub fn message(&self) -> &ClusterLoadAssignment {
        &self.message
    }

    /// The message.
    pub fn into_message(self) -> ClusterLoadAssignment {
        self.message
    }
}

impl LocalityEndpoints {
    /// With room for so many endpoints of the usual size. `locality`: region, zone and sub-zone.
    pub fn new(locality: [&str; 3], endpoints: usize) -> Self {
        let mut out = Vec::with_capacity(64 + endpoints * 128);
        field::open(LOCALITY, locality.iter().map(|name| field::len_of_text(name)).sum(), &mut out);
        (1..).zip(locality).for_each(|(tag, name)| field::text(tag, name, &mut out));
        LocalityEndpoints { out, unsure: false }
    }

    /// One more.
    pub fn push(&mut self, endpoint: &EndpointFields<'_>) {
        self.unsure |= !endpoint.is_surely_sound();
        field::open(LB_ENDPOINTS, endpoint.len(), &mut self.out);
        endpoint.put(&mut self.out);
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

    /// The `Address` as a first field.
    fn put_address(self, out: &mut Vec<u8>) {
        let len = self.len();
        field::open(1, field::len(len), out);
        self.put(len, out);
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
    use crate::pb::envoy::config::core::v3::{Address, Locality, Pipe, SocketAddress, address, socket_address::PortSpecifier};
    use crate::pb::envoy::config::endpoint::v3::{Endpoint, LocalityLbEndpoints, endpoint::AdditionalAddress};
    use crate::validate::validate_message;

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

    fn pipe_endpoint() -> EndpointFields<'static> {
        EndpointFields {
            address: HostAddress::Pipe("/a"),
            more: &[],
            health: HealthStatus::Healthy,
            metadata: None,
            weight: Some(1_000_000),
        }
    }

    #[test]
    fn a_locality_has_the_bytes_that_its_typed_form_has() {
        let long = "x".repeat(200);
        for (names, endpoints, weight, priority) in
            [(["r", "z", "s"], 2, Some(7), 0), (["", &long, ""], 0, Some(0), 3), (["", "", ""], 200, None, 300)]
        {
            let (mut assignment, mut ours) = (Assignment::new("c"), LocalityEndpoints::new(names, endpoints));
            (0..endpoints).for_each(|_| ours.push(&pipe_endpoint()));
            assignment.push(ours, weight, priority);
            assert_eq!(assignment.is_surely_sound(), validate_message(&assignment.message).is_ok());
            let [region, zone, sub_zone] = names.map(str::to_owned);
            let theirs = LocalityLbEndpoints {
                locality: Some(Locality { region, zone, sub_zone }),
                lb_endpoints: vec![pipe_endpoint().into(); endpoints],
                load_balancing_weight: weight,
                priority,
                ..Default::default()
            };
            assert_eq!(assignment.into_message().endpoints, [theirs.encode_to_vec()]);
        }
    }

    #[test]
    fn what_is_surely_sound_breaks_no_rule() {
        let good = pipe_endpoint();
        let unnamed = Metadata::texts(&[("", &[])]);
        let empty = HostAddress::Socket("", 80);
        let (more, named) = ([empty], Metadata::texts(&[("f", &[("k", "")])]));
        for (endpoint, is_sound) in [
            (good, true),
            (EndpointFields { address: HostAddress::Socket("a", 0), metadata: Some(&named), weight: None, ..good }, true),
            (EndpointFields { address: empty, ..good }, false),
            (EndpointFields { address: HostAddress::Pipe(""), ..good }, false),
            (EndpointFields { more: &more, ..good }, false),
            (EndpointFields { weight: Some(0), ..good }, false),
            (EndpointFields { metadata: Some(&unnamed), ..good }, false),
        ] {
            let mut locality = LocalityEndpoints::default();
            locality.push(&endpoint);
            let mut assignment = Assignment::new("c");
            assignment.push(locality, None, 128);
            assert_eq!(assignment.is_surely_sound(), is_sound, "{endpoint:?}");
            assert_eq!(validate_message(&assignment.message).is_ok(), is_sound, "{endpoint:?}");
        }
        assert!(!Assignment::new("").is_surely_sound());
    }

    #[test]
    fn an_endpoint_has_the_bytes_that_its_typed_form_has() {
        let long = "x".repeat(300);
        let filters = Metadata::texts(&[("f", &[("k", &long)])]);
        for (host, port) in [("10.0.0.1", 80), ("fd00::1", 65535), ("", 0), (&long, 1)] {
            for (health, metadata, weight) in [
                (HealthStatus::Healthy, Some(&filters), Some(1)),
                (HealthStatus::Unknown, None, None),
                (HealthStatus::Draining, None, Some(0)),
            ] {
                let ours =
                    LbEndpoint::from(EndpointFields { address: HostAddress::Socket(host, port), more: &[], health, metadata, weight });
                assert_eq!(ours.0.capacity(), ours.0.len(), "its length is known before");
                let port_specifier = Some(PortSpecifier::PortValue(port.into()));
                let socket = SocketAddress { address: host.to_owned(), port_specifier, ..Default::default() };
                let theirs = typed(address::Address::SocketAddress(socket), health, metadata.cloned(), weight);
                assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
                assert_eq!(LbEndpoint::decode(theirs.encode_to_vec().as_slice()).unwrap(), ours);
            }
        }
        let ours = LbEndpoint::from(pipe_endpoint());
        let pipe = address::Address::Pipe(Pipe { path: "/a".to_owned(), ..Default::default() });
        assert_eq!(ours.encode_to_vec(), typed(pipe, HealthStatus::Healthy, None, Some(1_000_000)).encode_to_vec());
    }

    #[test]
    fn further_addresses_stand_behind_the_first() {
        let socket = |host: &str, port: u16| {
            let port_specifier = Some(PortSpecifier::PortValue(port.into()));
            address::Address::SocketAddress(SocketAddress { address: host.to_owned(), port_specifier, ..Default::default() })
        };
        let long = "y".repeat(200);
        for more in [&["fd00::1"][..], &["fd00::1", &long]] {
            let given: Vec<HostAddress<'_>> = more.iter().map(|host| HostAddress::Socket(host, 8080)).collect();
            let (address, health) = (HostAddress::Socket("10.0.0.1", 8080), HealthStatus::Healthy);
            let ours = LbEndpoint::from(EndpointFields { address, more: &given, health, metadata: None, weight: Some(1) });
            assert_eq!(ours.0.capacity(), ours.0.len(), "its length is known before");
            let further = |host: &&str| AdditionalAddress { address: Some(Address { address: Some(socket(host, 8080)) }) };
            let mut theirs = typed(socket("10.0.0.1", 8080), health, None, Some(1));
            theirs.endpoint.as_mut().unwrap().additional_addresses = more.iter().map(further).collect();
            assert_eq!(ours.encode_to_vec(), theirs.encode_to_vec());
        }
    }
}
