//! What clusters open: mesh mTLS, and TLS as DestinationRules ask for it.

use pilotfish_envoy::pb::envoy::config::core::v3::TransportSocket;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::ValidationContextType;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateValidationContext, CommonTlsContext, TlsParameters, UpstreamTlsContext,
};
use pilotfish_model::MeshConfig;
use pilotfish_model::features::Compliance;
use pilotfish_model::mesh_config::TlsConfig;
use pilotfish_model::name::Str;
use pilotfish_model::tls::{ClientTls, ClientTlsMode, TlsVersion};

use super::source::{
    Certificate, MeshCertificates, SYSTEM_ROOTS, certificate_files, credential, credential_roots, mesh_client, root_files,
};
use super::{comply, exact, file, protocol, tls_socket};
use crate::facts::UnitFacts;

/// The longest server name that Envoy takes, in bytes.
const MAX_SNI: usize = 255;

/// Inputs of [`upstream`].
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct UpstreamTls {
    pub(super) kind: Kind,
    pub(super) sni: Str,
    /// Names one of which the server must present.
    pub(super) subject_alt_names: Vec<Str>,
    /// HTTP/2 from the first byte.
    pub(super) http2: bool,
    pub(super) crl: Str,
    pub(super) ecdh_curves: Vec<Str>,
    pub(super) cipher_suites: Vec<Str>,
    pub(super) compliance: Compliance,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) enum Kind {
    /// With the mesh's certificates; `peer_exchange`: offers to exchange what the proxies are.
    Mesh { certificates: MeshCertificates, peer_exchange: bool },
    /// As the user says. Without roots the server is not verified.
    User { own: Option<Certificate>, roots: Option<Certificate> },
}

impl UpstreamTls {
    /// Mesh mTLS. `None` if the class has no certificate of its own. A proxy with certificate files uses plain mutual TLS.
    pub fn mesh(config: &MeshConfig, class: &UnitFacts, sni: impl Into<Str>, subject_alt_names: Vec<Str>, http2: bool) -> Option<Self> {
        let certificates = mesh_client(class)?;
        let own_files = class.settings.client_certificate.is_some();
        let kind = if own_files && class.is_istio() {
            Kind::User { own: Some(certificates.own), roots: Some(certificates.roots) }
        } else {
            Kind::Mesh { certificates, peer_exchange: class.is_istio() && config.features.peer_exchange_alpn }
        };
        let none = Vec::new();
        Some(UpstreamTls {
            kind,
            sni: sni.into(),
            subject_alt_names,
            http2,
            crl: Str::default(),
            ecdh_curves: none.clone(),
            cipher_suites: none,
            compliance: config.features.compliance,
        })
    }

    /// SIMPLE or MUTUAL of a DestinationRule. `None` for other modes, and for MUTUAL without a certificate: nothing must
    /// go out in clear text or without the client's name then.
    pub fn user(config: &MeshConfig, class: &UnitFacts, tls: &ClientTls, http2: bool) -> Option<Self> {
        let own = match tls.mode {
            ClientTlsMode::Simple => None,
            ClientTlsMode::Mutual if !tls.credential_name.is_empty() => Some(credential(&tls.credential_name, class.flavour)),
            ClientTlsMode::Mutual if tls.client_certificate.is_empty() || tls.private_key.is_empty() => return None,
            ClientTlsMode::Mutual => Some(certificate_files(&tls.client_certificate, &tls.private_key, class.flavour)),
            _ => return None,
        };
        let verified = config.verify_certificate_at_client.unwrap_or(true);
        let roots = match (&*tls.ca_certificates, tls.insecure_skip_verify) {
            (_, true) => None,
            _ if !tls.credential_name.is_empty() => Some(credential_roots(&tls.credential_name, class.flavour)),
            ("", _) => verified.then(|| root_files(&SYSTEM_ROOTS.into(), class.flavour)),
            _ => Some(root_files(&tls.ca_certificates, class.flavour)),
        };
        let TlsConfig { ecdh_curves, cipher_suites, .. } = config.tls_defaults.clone();
        Some(UpstreamTls {
            kind: Kind::User { own, roots },
            sni: tls.sni.clone(),
            subject_alt_names: tls.subject_alt_names.clone(),
            http2,
            crl: tls.ca_crl.clone(),
            ecdh_curves,
            cipher_suites,
            compliance: config.features.compliance,
        })
    }
}

impl UpstreamTls {
    /// With the mesh's certificates, by the mesh's ALPN.
    pub fn is_mesh(&self) -> bool {
        matches!(self.kind, Kind::Mesh { .. })
    }
}

/// A cluster's TLS.
pub fn upstream(input: &UpstreamTls) -> TransportSocket {
    let mut common = without_checks(input);
    let roots = match &input.kind {
        Kind::Mesh { certificates, .. } => Some(&certificates.roots),
        Kind::User { roots, .. } => roots.as_ref(),
    };
    common.validation_context_type = Some(match roots {
        Some(roots) => roots.trust(checks(input)),
        None => ValidationContextType::ValidationContext(CertificateValidationContext::default()),
    });
    tls_socket(&UpstreamTlsContext { common_tls_context: Some(common), sni: sni(input).to_owned(), ..Default::default() })
}

/// The names of a long subset and a long host together may exceed what TLS can carry; mesh mTLS works without.
pub(super) fn sni(input: &UpstreamTls) -> &str {
    if input.sni.len() > MAX_SNI { "" } else { &input.sni }
}

/// All but what the server is asked for.
pub(super) fn without_checks(input: &UpstreamTls) -> CommonTlsContext {
    let mut common = CommonTlsContext {
        tls_params: Some(TlsParameters {
            tls_minimum_protocol_version: protocol(TlsVersion::V1_2),
            tls_maximum_protocol_version: protocol(TlsVersion::V1_3),
            ecdh_curves: input.ecdh_curves.iter().map(|s| str::to_owned(s)).collect(),
            cipher_suites: input.cipher_suites.iter().map(|s| str::to_owned(s)).collect(),
            ..Default::default()
        }),
        alpn_protocols: alpn(input).into_iter().map(str::to_owned).collect(),
        ..Default::default()
    };
    comply(&mut common, input.compliance);
    let own = match &input.kind {
        Kind::Mesh { certificates, .. } => Some(&certificates.own),
        Kind::User { own, .. } => own.as_ref(),
    };
    if let Some(own) = own {
        own.present(&mut common);
    }
    common
}

// The field without a type is deprecated, and yet it alone matches any kind of name, as the API of the mesh means it.
#[allow(deprecated)]
fn checks(input: &UpstreamTls) -> CertificateValidationContext {
    CertificateValidationContext { match_subject_alt_names: exact(&input.subject_alt_names), crl: file(&input.crl), ..Default::default() }
}

/// Inside the mesh the ALPN tells the server's listener that it is mesh mTLS; a plain Envoy says so too, so that an Istio
/// sidecar picks the right chain.
fn alpn(input: &UpstreamTls) -> Vec<&'static str> {
    let h2 = input.http2.then_some("h2");
    match &input.kind {
        Kind::Mesh { peer_exchange, .. } => peer_exchange.then_some("istio-peer-exchange").into_iter().chain(["istio"]).chain(h2).collect(),
        Kind::User { .. } => h2.into_iter().collect(),
    }
}
