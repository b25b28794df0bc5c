//! TLS contexts: of the mesh's own certificates, of users' DestinationRules, of gateways.
//!
//! [`downstream`] secures what listeners accept, [`mod@upstream`] what clusters open. [`source`] says where certificates come
//! from: the agent beside an Istio proxy, or this server (SDS over ADS), which for a plain Envoy's own files names no more
//! than their paths. [`secrets`] lists what this server is asked for.

pub(crate) mod by_endpoint;
pub mod downstream;
pub(crate) mod key_provider;
pub mod secrets;
pub mod source;
pub mod upstream;

use std::sync::LazyLock;

use pilotfish_envoy::pb::envoy::config::core::v3::transport_socket::ConfigType;
use pilotfish_envoy::pb::envoy::config::core::v3::{DataSource, TransportSocket, data_source};
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::raw_buffer::v3::RawBuffer;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, Secret as SecretMessage, TlsCertificate, secret,
    tls_parameters::{CompliancePolicy, TlsProtocol},
};
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::{StringMatcher, string_matcher::MatchPattern};
use pilotfish_envoy::{Resource, any};
use pilotfish_model::features::Compliance;
use pilotfish_model::name::Str;
use pilotfish_model::proxy_config::PrivateKeyProvider;
use pilotfish_model::secret::Secret;
use pilotfish_model::tls::TlsVersion;
use prost::{Message, Name};

use crate::extensions;

pub use downstream::{GatewayTls, InboundAlpn, InboundTls, gateway, inbound};
pub use secrets::{Credential, credentials, file_secrets};
pub use source::{Certificate, SdsSource, mesh_client, mesh_server};
pub use upstream::{UpstreamTls, upstream};

/// A transport socket of that name.
pub fn socket<M: Message + Name>(name: &str, config: &M) -> TransportSocket {
    TransportSocket { name: name.to_owned(), config_type: Some(ConfigType::TypedConfig(any(config))) }
}

/// A TLS transport socket.
pub(crate) fn tls_socket<M: Message + Name>(context: &M) -> TransportSocket {
    socket(extensions::TRANSPORT_TLS, context)
}

/// A clear-text transport socket.
pub fn raw_socket() -> TransportSocket {
    static RAW: LazyLock<TransportSocket> = LazyLock::new(|| socket(extensions::TRANSPORT_RAW, &RawBuffer {}));
    RAW.clone()
}

/// The Secret as Envoy takes it, under the name that a listener or cluster asks for. Names of roots end in `-cacert`.
/// Key material: the caller decides who may see it, and keeps it out of shared caches.
/// `provider`: signs with the key.
pub fn secret_resource(secret: &Secret, name: &str, provider: Option<PrivateKeyProvider>) -> Resource {
    let bytes = |data: &[u8]| {
        (!data.is_empty())
            .then(|| DataSource { specifier: Some(data_source::Specifier::InlineBytes(data.to_vec().into())), ..Default::default() })
    };
    let kind = if name.ends_with(source::ROOTS_SUFFIX) {
        secret::Type::ValidationContext(CertificateValidationContext {
            trusted_ca: bytes(&secret.ca_certificate),
            crl: bytes(&secret.crl),
            ..Default::default()
        })
    } else {
        secret::Type::TlsCertificate(TlsCertificate {
            certificate_chain: bytes(&secret.certificate),
            private_key: bytes(&secret.private_key).filter(|_| provider.is_none()),
            private_key_provider: provider.map(|p| key_provider::message(p, &secret.private_key)),
            ocsp_staple: bytes(&secret.ocsp_staple),
            ..Default::default()
        })
    };
    Resource::new(name, &SecretMessage { name: name.to_owned(), r#type: Some(kind) })
}

/// Suites of TLS 1.2 that the policies allow.
const APPROVED: [&str; 4] =
    ["ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-RSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384", "ECDHE-RSA-AES256-GCM-SHA384"];

/// Makes the parameters of a context keep a policy, whatever was said before.
fn comply(context: &mut CommonTlsContext, compliance: Compliance) {
    let parameters = match compliance {
        Compliance::None => return,
        _ => context.tls_params.get_or_insert_default(),
    };
    match compliance {
        Compliance::None => {}
        Compliance::Fips140V2 => {
            parameters.tls_minimum_protocol_version = protocol(TlsVersion::V1_2);
            parameters.tls_maximum_protocol_version = protocol(TlsVersion::V1_2);
            // Where none are named a client that is built for the policy uses what it allows.
            parameters.cipher_suites.retain(|s| APPROVED.contains(&s.as_str()));
            parameters.ecdh_curves.clear();
        }
        Compliance::Fips140V3 => parameters.compliance_policies = vec![CompliancePolicy::Fips202205.into()],
        Compliance::PostQuantum => {
            parameters.tls_minimum_protocol_version = protocol(TlsVersion::V1_3);
            parameters.cipher_suites = APPROVED.map(str::to_owned).to_vec();
            parameters.ecdh_curves = vec!["X25519MLKEM768".to_owned()];
        }
    }
}

fn file(path: &str) -> Option<DataSource> {
    (!path.is_empty()).then(|| DataSource { specifier: Some(data_source::Specifier::Filename(path.to_owned())), ..Default::default() })
}

fn protocol(version: TlsVersion) -> i32 {
    let protocol = match version {
        TlsVersion::V1_0 => TlsProtocol::TlSv10,
        TlsVersion::V1_1 => TlsProtocol::TlSv11,
        TlsVersion::V1_2 => TlsProtocol::TlSv12,
        TlsVersion::V1_3 => TlsProtocol::TlSv13,
    };
    protocol.into()
}

pub(crate) fn exact(names: &[Str]) -> Vec<StringMatcher> {
    names.iter().map(|n| matcher(MatchPattern::Exact(str::to_owned(n)))).collect()
}

fn matcher(pattern: MatchPattern) -> StringMatcher {
    StringMatcher { match_pattern: Some(pattern), ..Default::default() }
}

#[cfg(test)]
mod tests;
