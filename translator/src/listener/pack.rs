//! Small wrappers of Envoy's config messages that every builder needs.

use std::time::Duration;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::core::v3::{Address, Pipe, SocketAddress, address, socket_address};
use pilotfish_envoy::pb::envoy::config::listener::v3::{Filter, ListenerFilter, filter, listener_filter};
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpFilter, http_filter};
use pilotfish_envoy::pb::google::protobuf::Any;
use prost::{Message, Name};

/// A network filter.
pub(crate) fn filter<M: Message + Name>(name: &str, config: &M) -> Filter {
    packed_filter(name, any(config))
}

/// A network filter whose config is packed already.
pub(crate) fn packed_filter(name: &str, config: Any) -> Filter {
    Filter { name: name.to_owned(), config_type: Some(filter::ConfigType::TypedConfig(config)) }
}

/// An HTTP filter.
pub(crate) fn http_filter<M: Message + Name>(name: &str, config: &M) -> HttpFilter {
    HttpFilter { name: name.to_owned(), config_type: Some(http_filter::ConfigType::TypedConfig(any(config))), ..Default::default() }
}

/// A listener filter.
pub(super) fn listener_filter<M: Message + Name>(name: &str, config: &M) -> ListenerFilter {
    ListenerFilter { name: name.to_owned(), config_type: Some(listener_filter::ConfigType::TypedConfig(any(config))), ..Default::default() }
}

/// A duration. Longer ones than Envoy can hold do not occur: they are parsed from user input with the same limit.
pub(crate) fn duration(d: Duration) -> prost_types::Duration {
    prost_types::Duration { seconds: i64::try_from(d.as_secs()).unwrap_or(i64::MAX), nanos: d.subsec_nanos() as i32 }
}

/// A socket address, or a Unix socket where `bind` is a path.
pub(super) fn address(bind: &str, port: u16) -> Address {
    let path = bind.strip_prefix("unix://").or_else(|| bind.starts_with(['/', '@']).then_some(bind));
    let address = match path {
        Some(path) => address::Address::Pipe(Pipe { path: path.to_owned(), ..Default::default() }),
        None => address::Address::SocketAddress(SocketAddress {
            address: bind.to_owned(),
            port_specifier: Some(socket_address::PortSpecifier::PortValue(port.into())),
            ..Default::default()
        }),
    };
    Address { address: Some(address) }
}

/// The same for datagrams.
pub(super) fn datagrams(bind: &str, port: u16) -> Address {
    let mut made = address(bind, port);
    if let Some(address::Address::SocketAddress(socket)) = &mut made.address {
        socket.protocol = socket_address::Protocol::Udp.into();
    }
    made
}
