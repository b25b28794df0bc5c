//! Mesh mTLS where the endpoint speaks it: what chooses it among the transport sockets of a cluster, encoded. Nearly every
//! cluster has it, and messages are nested nine deep in it, of which the innermost differ: who the server must be, and its SNI.

use std::sync::LazyLock;

use bytes::Bytes;
use pilotfish_envoy::any::type_url;
use pilotfish_envoy::pb::envoy::config::cluster::v3::cluster::TransportSocketMatch;
use pilotfish_envoy::pb::envoy::config::core::v3::TransportSocket;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, UpstreamTlsContext,
};
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_envoy::{Frame, Struct, Value, field};
use pilotfish_model::features::Compliance;
use pilotfish_model::name::Str;
use prost::Message;

use super::raw_socket;
use super::source::OF_AGENT;
use super::upstream::{Kind, UpstreamTls, sni, without_checks};
use crate::extensions;

// Field numbers: of `TransportSocketMatch`, `TransportSocket`, `Any`, `UpstreamTlsContext`, `CommonTlsContext`,
// `CombinedCertificateValidationContext`, `CertificateValidationContext`, `StringMatcher`.
const TRANSPORT_SOCKET: u32 = 3;
const TYPED_CONFIG: u32 = 3;
const VALUE: u32 = 2;
const COMMON_TLS_CONTEXT: u32 = 1;
const SNI: u32 = 2;
const COMBINED_VALIDATION_CONTEXT: u32 = 8;
const DEFAULT_VALIDATION_CONTEXT: u32 = 1;
const MATCH_SUBJECT_ALT_NAMES: u32 = 9;
const EXACT: u32 = 1;

/// A match, encoded: endpoints that speak mesh mTLS (`istio`), or any other.
pub(crate) fn matching(istio: bool, socket: TransportSocket) -> Bytes {
    TransportSocketMatch { transport_socket: Some(socket), ..head(istio) }.encode_to_vec().into()
}

fn head(istio: bool) -> TransportSocketMatch {
    let (name, fields) = match istio {
        true => ("tlsMode-istio", vec![("tlsMode", Value::text("istio"))]),
        false => ("tlsMode-disabled", Vec::new()),
    };
    TransportSocketMatch { name: name.to_owned(), r#match: Some(Struct::new(fields)), transport_socket: None }
}

/// The match of all others: clear text.
pub(crate) static CLEAR: LazyLock<Bytes> = LazyLock::new(|| matching(false, raw_socket()));

/// The match of endpoints that speak mesh mTLS, if that has the usual certificates and parameters.
pub(crate) fn usual(input: &UpstreamTls) -> Option<Bytes> {
    let Kind::Mesh { certificates, peer_exchange } = &input.kind else { return None };
    let plain = input.crl.is_empty() && input.ecdh_curves.is_empty() && input.cipher_suites.is_empty();
    if !plain || input.compliance != Compliance::None || *certificates != *OF_AGENT {
        return None;
    }
    let common = &COMMON[usize::from(*peer_exchange)][usize::from(input.http2)];
    let (names, sni) = (&input.subject_alt_names, sni(input));
    let checks_len = names.iter().map(|name| field::len(field::len(name.len()))).sum();
    let common_len = common.len(checks_len);
    let context_len = field::len(common_len) + field::len_of_text(sni);
    let mut out = Vec::with_capacity(SOCKET.len(context_len));
    SOCKET.put(context_len, &mut out, |out| {
        field::open(COMMON_TLS_CONTEXT, common_len, out);
        common.put(checks_len, out, |out| {
            for name in names {
                // One of several: written even if it is empty.
                field::open(MATCH_SUBJECT_ALT_NAMES, field::len(name.len()), out);
                field::put(EXACT, name.as_bytes(), out);
            }
        });
        field::text(SNI, sni, out);
    });
    Some(out.into())
}

/// From the match to an `UpstreamTlsContext`.
static SOCKET: LazyLock<Frame> = LazyLock::new(|| {
    let socket = TransportSocket { name: extensions::TRANSPORT_TLS.to_owned(), config_type: None };
    let config = Any { type_url: type_url::<UpstreamTlsContext>(), value: Bytes::new() };
    Frame::default().level(head(true).encode_to_vec(), TRANSPORT_SOCKET, []).level(socket.encode_to_vec(), TYPED_CONFIG, []).level(
        config.encode_to_vec(),
        VALUE,
        [],
    )
});

/// From a `CommonTlsContext` to what is asked of the server: with peer exchange or not, with HTTP/2 or not.
static COMMON: LazyLock<[[Frame; 2]; 2]> =
    LazyLock::new(|| [false, true].map(|exchange| [false, true].map(|http2| common(exchange, http2))));

fn common(peer_exchange: bool, http2: bool) -> Frame {
    let none = UpstreamTls {
        kind: Kind::Mesh { certificates: OF_AGENT.clone(), peer_exchange },
        sni: Str::default(),
        subject_alt_names: Vec::new(),
        http2,
        crl: Str::default(),
        ecdh_curves: Vec::new(),
        cipher_suites: Vec::new(),
        compliance: Compliance::None,
    };
    let whole = without_checks(&none);
    // One of several is written where the first of them would be.
    let before = CommonTlsContext { tls_params: whole.tls_params.clone(), ..Default::default() };
    let behind = CommonTlsContext { tls_params: None, ..whole };
    let roots = match OF_AGENT.roots.trust(CertificateValidationContext::default()) {
        ValidationContextType::CombinedValidationContext(combined) => {
            CombinedCertificateValidationContext { default_validation_context: None, ..combined }
        }
        _ => Default::default(),
    };
    Frame::default().level(before.encode_to_vec(), COMBINED_VALIDATION_CONTEXT, behind.encode_to_vec()).level(
        [],
        DEFAULT_VALIDATION_CONTEXT,
        roots.encode_to_vec(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tls::upstream;

    #[test]
    fn what_is_usual_has_the_bytes_that_its_messages_have() {
        let long = "x".repeat(300);
        for (peer_exchange, http2) in [(false, false), (false, true), (true, false), (true, true)] {
            for (sni, names) in [("", vec![]), ("a.b", vec!["spiffe://a"]), (&long, vec!["", &long, "b"])] {
                let input = UpstreamTls {
                    kind: Kind::Mesh { certificates: OF_AGENT.clone(), peer_exchange },
                    sni: sni.into(),
                    subject_alt_names: names.into_iter().map(Into::into).collect(),
                    http2,
                    crl: Str::default(),
                    ecdh_curves: Vec::new(),
                    cipher_suites: Vec::new(),
                    compliance: Compliance::None,
                };
                assert_eq!(usual(&input), Some(matching(true, upstream(&input))));
                assert_eq!(usual(&UpstreamTls { crl: "crl".into(), ..input.clone() }), None);
                assert_eq!(usual(&UpstreamTls { compliance: Compliance::PostQuantum, ..input.clone() }), None);
                assert_eq!(usual(&UpstreamTls { cipher_suites: vec!["a".into()], ..input }), None);
            }
        }
    }
}
