//! What listeners accept: mesh mTLS on sidecars, users' TLS on gateways.

use pilotfish_envoy::pb::envoy::config::core::v3::TransportSocket;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::quic::v3::QuicDownstreamTransport;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::TrustChainVerification;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, TlsParameters,
};
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::string_matcher::MatchPattern;
use pilotfish_model::MeshConfig;
use pilotfish_model::features::Compliance;
use pilotfish_model::mesh_config::TlsConfig;
use pilotfish_model::name::Str;
use pilotfish_model::proxy::Flavour;
use pilotfish_model::tls::{ServerTls, ServerTlsMode, TlsVersion};

use super::source::{Certificate, MeshCertificates, certificate_files, credential, credential_roots, mesh_server, root_files};
use super::{comply, exact, file, matcher, protocol, socket, tls_socket};
use crate::extensions::TRANSPORT_QUIC;
use crate::facts::UnitFacts;

/// Suites of mesh mTLS below TLS 1.3.
const MESH_CIPHERS: [&str; 6] = [
    "ECDHE-ECDSA-AES256-GCM-SHA384",
    "ECDHE-RSA-AES256-GCM-SHA384",
    "ECDHE-ECDSA-AES128-GCM-SHA256",
    "ECDHE-RSA-AES128-GCM-SHA256",
    "AES256-GCM-SHA384",
    "AES128-GCM-SHA256",
];
/// ALPN by which proxies of the mesh agree to exchange what they are.
const PEER_EXCHANGE: &str = "istio-peer-exchange";
const HTTP_ALPN: [&str; 2] = ["h2", "http/1.1"];
const HTTP3_ALPN: &str = "h3";

/// What an inbound chain offers to clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum InboundAlpn {
    /// A chain of HTTP: `h2`, `http/1.1`.
    Http,
    /// A chain of bytes: peer exchange first (Istio flavour), then as HTTP.
    Tcp,
}

/// Inputs of [`inbound`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InboundTls {
    certificates: MeshCertificates,
    trust_domains: Vec<Str>,
    peer_exchange: bool,
    min_version: TlsVersion,
    cipher_suites: Vec<Str>,
    compliance: Compliance,
}

impl InboundTls {
    /// Of a sidecar's chain.
    pub fn of(config: &MeshConfig, class: &UnitFacts, alpn: InboundAlpn) -> Self {
        InboundTls {
            certificates: mesh_server(class),
            trust_domains: match config.features.any_trust_domain {
                true => Vec::new(),
                false => std::iter::once(&config.trust_domain).chain(&config.trust_domain_aliases).cloned().collect(),
            },
            peer_exchange: alpn == InboundAlpn::Tcp && class.is_istio() && config.features.peer_exchange_alpn,
            min_version: config.mesh_mtls.min_protocol_version.version().unwrap_or(TlsVersion::V1_2),
            cipher_suites: match config.mesh_mtls.cipher_suites.as_slice() {
                [] => MESH_CIPHERS.iter().map(|c| Str::from(*c)).collect(),
                own => own.to_vec(),
            },
            compliance: config.features.compliance,
        }
    }
}

/// Mesh mTLS towards clients: any identity of the mesh's trust domains.
pub fn inbound(input: &InboundTls) -> TransportSocket {
    let trust = input.trust_domains.iter().map(|d| matcher(MatchPattern::Prefix(format!("spiffe://{d}/")))).collect();
    let mut common = CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: protocol(input.min_version),
            tls_maximum_protocol_version: protocol(TlsVersion::V1_3),
            cipher_suites: input.cipher_suites.iter().map(|c| str::to_owned(c)).collect(),
            ..Default::default()
        }),
        alpn_protocols: input.peer_exchange.then_some(PEER_EXCHANGE).into_iter().chain(HTTP_ALPN).map(str::to_owned).collect(),
        validation_context_type: Some(input.certificates.roots.trust(names(trust))),
        ..Default::default()
    };
    comply(&mut common, input.compliance);
    input.certificates.own.present(&mut common);
    tls_socket(&DownstreamTlsContext { common_tls_context: Some(common), require_client_certificate: Some(true), ..Default::default() })
}

// The field without a type is deprecated, and yet it alone matches any kind of name, as the API of the mesh means it.
#[allow(deprecated)]
fn names(match_subject_alt_names: Vec<pilotfish_envoy::pb::envoy::r#type::matcher::v3::StringMatcher>) -> CertificateValidationContext {
    CertificateValidationContext { match_subject_alt_names, ..Default::default() }
}

/// Inputs of [`gateway`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct GatewayTls {
    tls: ServerTls,
    mesh: MeshCertificates,
    defaults: TlsConfig,
    flavour: Flavour,
    quic: bool,
    compliance: Compliance,
}

impl GatewayTls {
    /// Of a server of a Gateway.
    pub fn of(config: &MeshConfig, class: &UnitFacts, tls: &ServerTls) -> Self {
        GatewayTls {
            tls: tls.clone(),
            mesh: mesh_server(class),
            defaults: config.tls_defaults.clone(),
            flavour: class.flavour,
            quic: false,
            compliance: config.features.compliance,
        }
    }

    /// The same of QUIC.
    pub fn over_quic(self) -> Self {
        GatewayTls { quic: true, ..self }
    }
}

/// A gateway's TLS; `None` if the mode does not terminate TLS or no certificate is named.
pub fn gateway(input: &GatewayTls) -> Option<TransportSocket> {
    let tls = &input.tls;
    let alpn: &[&str] = if input.quic { &[HTTP3_ALPN] } else { &HTTP_ALPN };
    let alpn_protocols = alpn.iter().map(|p| (*p).to_owned()).collect();
    let mut common = CommonTlsContext { alpn_protocols, tls_params: parameters(input), ..Default::default() };
    comply(&mut common, input.compliance);
    let (own, roots) = match tls.mode {
        ServerTlsMode::Passthrough | ServerTlsMode::AutoPassthrough => return None,
        ServerTlsMode::IstioMutual => (vec![input.mesh.own.clone()], Some(input.mesh.roots.clone())),
        _ => user_certificates(input),
    };
    if own.is_empty() {
        return None;
    }
    own.iter().for_each(|c| c.present(&mut common));
    common.validation_context_type = validation(input, roots);
    let required = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::IstioMutual);
    let context =
        DownstreamTlsContext { common_tls_context: Some(common), require_client_certificate: Some(required), ..Default::default() };
    Some(match input.quic {
        true => socket(TRANSPORT_QUIC, &QuicDownstreamTransport { downstream_tls_context: Some(context), ..Default::default() }),
        false => tls_socket(&context),
    })
}

/// The user's certificates, and roots for clients' if the mode asks for them.
fn user_certificates(input: &GatewayTls) -> (Vec<Certificate>, Option<Certificate>) {
    let tls = &input.tls;
    let asks = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    if let Some(first) = tls.credential_names.first() {
        let roots = match &*tls.ca_cert_credential_name {
            "" => credential_roots(first, input.flavour),
            name => credential(name, input.flavour),
        };
        return (tls.credential_names.iter().map(|n| credential(n, input.flavour)).collect(), asks.then_some(roots));
    }
    let files = |chain: &Str, key: &Str| certificate_files(chain, key, input.flavour);
    let several = tls.tls_certificates.iter();
    let several: Vec<_> = several.map(|c| files(&c.server_certificate, &c.private_key)).collect();
    let single =
        (!tls.server_certificate.is_empty() && !tls.private_key.is_empty()).then(|| files(&tls.server_certificate, &tls.private_key));
    let path = std::iter::once(&tls.ca_certificates).chain(tls.tls_certificates.iter().map(|c| &c.ca_certificates));
    let roots = path.into_iter().find(|p| !p.is_empty()).map(|p| root_files(p, input.flavour));
    (if several.is_empty() { single.into_iter().collect() } else { several }, roots.filter(|_| asks))
}

fn validation(input: &GatewayTls, roots: Option<Certificate>) -> Option<ValidationContextType> {
    let tls = &input.tls;
    let mut checks = names(exact(&tls.subject_alt_names));
    // The reference enforces pins beside Secrets only; where nothing has to be equal they hold for files as well.
    if !tls.credential_names.is_empty() || input.flavour != Flavour::Istio {
        checks.verify_certificate_spki = tls.verify_certificate_spki.iter().map(|s| str::to_owned(s)).collect();
        checks.verify_certificate_hash = tls.verify_certificate_hash.iter().map(|s| str::to_owned(s)).collect();
    }
    match roots {
        Some(roots) => {
            checks.crl = file(&tls.ca_crl);
            if tls.insecure_skip_verify {
                checks.trust_chain_verification = TrustChainVerification::AcceptUntrusted.into();
            }
            Some(roots.trust(checks))
        }
        None if checks != CertificateValidationContext::default() => Some(ValidationContextType::ValidationContext(checks)),
        None => None,
    }
}

/// The mesh's defaults under the server's own settings; `None` where nobody says anything.
fn parameters(input: &GatewayTls) -> Option<TlsParameters> {
    let (tls, defaults) = (&input.tls, &input.defaults);
    if tls.mode == ServerTlsMode::IstioMutual {
        return None;
    }
    let or = |own: &[Str], wide: &[Str]| if own.is_empty() { wide } else { own }.iter().map(|s| str::to_owned(s)).collect();
    let min = tls.min_version.or(defaults.min_protocol_version.version());
    let parameters = TlsParameters {
        tls_minimum_protocol_version: min.map(protocol).unwrap_or_default(),
        tls_maximum_protocol_version: tls.max_version.map(protocol).unwrap_or_default(),
        cipher_suites: or(&tls.cipher_suites, &defaults.cipher_suites),
        ecdh_curves: or(&tls.ecdh_curves, &defaults.ecdh_curves),
        ..Default::default()
    };
    (parameters != TlsParameters::default()).then_some(parameters)
}
