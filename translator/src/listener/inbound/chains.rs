//! Filter chains of one inbound port: by what is spoken, and by what the port's mTLS mode accepts.

use pilotfish_model::name::Str;
use pilotfish_model::peer_authentication::MtlsMode;
use pilotfish_model::service::Protocol;

use super::ports::InboundPort;
use crate::context::OwnContext;
use crate::listener::hcm::{Http, Routes};
use crate::listener::network_filters::{Reading, TcpProxy, TcpTarget};
use crate::listener::spec::{ChainSpec, Content, Matching, PLAIN_HTTP_ALPN, Tls, plain_http};
use crate::listener::stat_prefix;
use crate::naming;
use crate::tls::{self, GatewayTls, InboundAlpn, InboundTls};

/// What mesh clients offer for HTTP.
const MESH_HTTP_ALPN: &[&str] = &["istio-http/1.0", "istio-http/1.1", "istio-h2"];
/// What mesh clients offer for bytes.
const MESH_TCP_ALPN: &[&str] = &["istio-peer-exchange", "istio"];
/// What any mesh client may offer.
const MESH_ALPN: &[&str] = &["istio-peer-exchange", "istio", "istio-http/1.0", "istio-http/1.1", "istio-h2"];

const TLS: &str = "tls";
const CLEAR: &str = "raw_buffer";

/// One chain: which connections, whether they are read as HTTP, whether their TLS ends here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Kind {
    transport: &'static str,
    alpn: &'static [&'static str],
    http: bool,
    mesh_tls: bool,
}

const fn kind(transport: &'static str, alpn: &'static [&'static str], http: bool, mesh_tls: bool) -> Kind {
    Kind { transport, alpn, http, mesh_tls }
}

/// The chains that a protocol and a mode ask for. TLS that is not the mesh's is the application's own and passed on,
/// unless the mode wants every connection to be the mesh's.
fn kinds(protocol: Protocol, mode: MtlsMode) -> &'static [Kind] {
    const AUTO_PERMISSIVE: &[Kind] = &[
        kind(TLS, MESH_HTTP_ALPN, true, true),
        kind(CLEAR, PLAIN_HTTP_ALPN, true, false),
        kind(TLS, MESH_TCP_ALPN, false, true),
        kind(CLEAR, &[], false, false),
        kind(TLS, &[], false, false),
    ];
    const AUTO_STRICT: &[Kind] = &[kind(TLS, MESH_HTTP_ALPN, true, true), kind(TLS, &[], false, true)];
    const AUTO_DISABLE: &[Kind] = &[kind(CLEAR, PLAIN_HTTP_ALPN, true, false), kind(CLEAR, &[], false, false)];
    const HTTP_PERMISSIVE: &[Kind] = &[kind(TLS, MESH_ALPN, true, true), kind(CLEAR, &[], true, false)];
    const HTTP_STRICT: &[Kind] = &[kind(TLS, &[], true, true)];
    const HTTP_DISABLE: &[Kind] = &[kind(CLEAR, &[], true, false)];
    const TCP_PERMISSIVE: &[Kind] = &[kind(TLS, MESH_ALPN, false, true), kind(TLS, &[], false, false), kind(CLEAR, &[], false, false)];
    const TCP_STRICT: &[Kind] = &[kind(TLS, &[], false, true)];
    const TCP_DISABLE: &[Kind] = &[kind(CLEAR, &[], false, false)];
    match (protocol, mode) {
        (Protocol::Auto, MtlsMode::Permissive) => AUTO_PERMISSIVE,
        (Protocol::Auto, MtlsMode::Strict) => AUTO_STRICT,
        (Protocol::Auto, MtlsMode::Disable) => AUTO_DISABLE,
        (p, MtlsMode::Permissive) if p.is_http() => HTTP_PERMISSIVE,
        (p, MtlsMode::Strict) if p.is_http() => HTTP_STRICT,
        (p, MtlsMode::Disable) if p.is_http() => HTTP_DISABLE,
        (_, MtlsMode::Permissive) => TCP_PERMISSIVE,
        (_, MtlsMode::Strict) => TCP_STRICT,
        (_, MtlsMode::Disable) => TCP_DISABLE,
    }
}

/// A plain client without a certificate cannot accept what is voluntary; what is demanded stays, so that it is never
/// silently clear text.
fn can_serve(context: &OwnContext<'_>, port: &InboundPort, kind: Kind) -> bool {
    let certified = context.class.is_istio() || context.class.settings.server_certificate.is_some();
    !kind.mesh_tls || certified || port.mtls == MtlsMode::Strict
}

pub(super) fn chains(context: &OwnContext<'_>, port: &InboundPort) -> Vec<ChainSpec> {
    if let Some(own) = &port.tls {
        // Without a certificate there is nothing to answer with, and clear text is not what was asked for.
        let kind = kind(TLS, &[], port.protocol.is_http(), false);
        let chain = |own: &GatewayTls| ChainSpec { tls: Some(Tls::Gateway(Box::new(own.clone()))), ..chain(context, port, kind) };
        return Some(own).filter(|own| tls::gateway(own).is_some()).map(chain).into_iter().collect();
    }
    let usable = kinds(port.protocol, port.mtls).iter().filter(|k| can_serve(context, port, **k));
    usable.map(|k| chain(context, port, *k)).collect()
}

fn chain(context: &OwnContext<'_>, port: &InboundPort, kind: Kind) -> ChainSpec {
    let name: Str = match port.names {
        Some((http, bytes)) => if kind.http { http } else { bytes }.into(),
        None => naming::listener(&port.bind, port.target_port.unwrap_or_default()).into(),
    };
    let alpn = if kind.http { InboundAlpn::Http } else { InboundAlpn::Tcp };
    let content = if kind.http { Content::Http(http(port, &name)) } else { Content::Tcp(bytes(port)) };
    ChainSpec {
        name,
        matching: Matching {
            destination_port: port.target_port,
            transport: kind.transport,
            alpn: if kind.alpn == PLAIN_HTTP_ALPN { plain_http(&context.config().features) } else { kind.alpn }.to_vec(),
            ..Matching::default()
        },
        tls: kind.mesh_tls.then(|| Tls::Mesh(InboundTls::of(context.config(), &context.class.unit, alpn))),
        content,
        config: port.config.clone(),
        handshake_limit: false,
    }
}

fn http(port: &InboundPort, name: &str) -> Http {
    let stat_prefix = if port.names.is_some() { stat_prefix::cluster(&port.route.cluster) } else { stat_prefix::inbound(name) };
    Http {
        routes: Routes::Inbound(port.route.clone()),
        grpc_web: port.protocol == Protocol::GrpcWeb,
        http2: port.protocol.is_http2(),
        ..Http::rds(stat_prefix, Str::default())
    }
}

fn bytes(port: &InboundPort) -> TcpProxy {
    TcpProxy {
        stat_prefix: port.stat_prefix.clone(),
        target: TcpTarget::Cluster(port.route.cluster.clone()),
        reading: Reading::of(port.protocol),
        exchange_metadata: true,
        ..TcpProxy::to_cluster(port.route.cluster.clone())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn strict_ports_have_no_chain_without_mesh_tls_and_open_ports_none_with_it() {
        for protocol in [Protocol::Auto, Protocol::Http, Protocol::Grpc, Protocol::Tcp, Protocol::Tls] {
            assert!(kinds(protocol, MtlsMode::Strict).iter().all(|k| k.mesh_tls), "{protocol:?}");
            assert!(kinds(protocol, MtlsMode::Disable).iter().all(|k| !k.mesh_tls), "{protocol:?}");
            let both = kinds(protocol, MtlsMode::Permissive);
            assert!(both.iter().any(|k| k.mesh_tls) && both.iter().any(|k| k.transport == CLEAR), "{protocol:?}");
        }
    }

    #[test]
    fn an_http_port_never_passes_foreign_tls_on() {
        assert!(kinds(Protocol::Http, MtlsMode::Permissive).iter().all(|k| k.http));
        assert!(kinds(Protocol::Tcp, MtlsMode::Permissive).iter().any(|k| k.transport == TLS && !k.mesh_tls));
    }
}
