//! TLS of clusters: none, always, or where the endpoint speaks it.

use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pilotfish_envoy::pb::envoy::config::core::v3::proxy_protocol_config::Version;
use pilotfish_envoy::pb::envoy::config::core::v3::{ProxyProtocolConfig, TransportSocket};
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::proxy_protocol::v3::ProxyProtocolUpstreamTransport;
use pilotfish_model::destination_rule::ProxyProtocolVersion;

use crate::tls::{self, UpstreamTls, by_endpoint};

pub(super) const PROXY_PROTOCOL: &str = "envoy.transport_sockets.upstream_proxy_protocol";

/// How connections are secured.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Security {
    /// TLS.
    pub tls: TlsChoice,
    /// PROXY protocol before anything else.
    pub proxy_protocol: Option<ProxyProtocolVersion>,
}

/// Which connections have TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub enum TlsChoice {
    /// None.
    #[default]
    None,
    /// All.
    Always(Box<UpstreamTls>),
    /// Those to endpoints that say in their metadata that they speak mesh mTLS.
    ByEndpoint(Box<UpstreamTls>),
}

pub(super) fn apply(security: &Security, cluster: &mut Cluster) {
    let wrapped = |socket: TransportSocket| match security.proxy_protocol {
        Some(version) => with_proxy_protocol(socket, version),
        None => socket,
    };
    match &security.tls {
        TlsChoice::None if security.proxy_protocol.is_none() => {}
        TlsChoice::None => cluster.transport_socket = Some(wrapped(tls::raw_socket())),
        TlsChoice::Always(tls) => cluster.transport_socket = Some(wrapped(tls::upstream(tls))),
        TlsChoice::ByEndpoint(tls) => {
            let matching = |istio, socket| by_endpoint::matching(istio, wrapped(socket));
            cluster.transport_socket_matches = match security.proxy_protocol {
                None => vec![by_endpoint::usual(tls).unwrap_or_else(|| matching(true, tls::upstream(tls))), by_endpoint::CLEAR.clone()],
                Some(_) => vec![matching(true, tls::upstream(tls)), matching(false, tls::raw_socket())],
            };
        }
    }
}

fn with_proxy_protocol(inner: TransportSocket, version: ProxyProtocolVersion) -> TransportSocket {
    let version = match version {
        ProxyProtocolVersion::V1 => Version::V1,
        ProxyProtocolVersion::V2 => Version::V2,
    };
    let config = ProxyProtocolUpstreamTransport {
        config: Some(ProxyProtocolConfig { version: version.into(), ..Default::default() }),
        transport_socket: Some(inner),
        ..Default::default()
    };
    tls::socket(PROXY_PROTOCOL, &config)
}
