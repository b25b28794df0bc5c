//! TLS settings.

use pilotfish_crds::networking::tls as api;
use pilotfish_model::name::Str;
use pilotfish_model::tls::{ClientTls, ClientTlsMode, ServerTls, ServerTlsMode, TlsCertificatePaths, TlsVersion};

use super::fields::{Path, Scope, strs};

pub(super) fn client(scope: &mut Scope<'_>, path: &Path<'_>, t: &api::ClientTlsSettings) -> ClientTls {
    let mode = match t.mode {
        api::ClientTlsMode::Disable => ClientTlsMode::Disable,
        api::ClientTlsMode::Simple => ClientTlsMode::Simple,
        api::ClientTlsMode::Mutual => ClientTlsMode::Mutual,
        api::ClientTlsMode::IstioMutual => ClientTlsMode::IstioMutual,
    };
    if mode == ClientTlsMode::Mutual && t.credential_name.is_empty() {
        for (name, value) in [("clientCertificate", &t.client_certificate), ("privateKey", &t.private_key)] {
            if value.is_empty() {
                scope.error(&path.field(name), "mode MUTUAL needs a certificate and its key, or a credentialName");
            }
        }
    }
    let has_files = [&t.client_certificate, &t.private_key, &t.ca_certificates].iter().any(|f| !f.is_empty());
    if has_files && !t.credential_name.is_empty() {
        scope.error(&path.field("credentialName"), "excludes certificate files");
    }
    ClientTls {
        mode,
        client_certificate: t.client_certificate.as_str().into(),
        private_key: t.private_key.as_str().into(),
        ca_certificates: t.ca_certificates.as_str().into(),
        ca_crl: t.ca_crl.as_str().into(),
        credential_name: t.credential_name.as_str().into(),
        subject_alt_names: strs(&t.subject_alt_names),
        sni: t.sni.as_str().into(),
        insecure_skip_verify: t.insecure_skip_verify.unwrap_or_default(),
    }
}

pub(super) fn server(scope: &mut Scope<'_>, path: &Path<'_>, t: &api::ServerTlsSettings) -> ServerTls {
    let mode = match t.mode {
        api::ServerTlsMode::Passthrough => ServerTlsMode::Passthrough,
        api::ServerTlsMode::Simple => ServerTlsMode::Simple,
        api::ServerTlsMode::Mutual => ServerTlsMode::Mutual,
        api::ServerTlsMode::AutoPassthrough => ServerTlsMode::AutoPassthrough,
        api::ServerTlsMode::IstioMutual => ServerTlsMode::IstioMutual,
        api::ServerTlsMode::OptionalMutual => ServerTlsMode::OptionalMutual,
    };
    let credential_names: Vec<Str> = match t.credential_name.as_str() {
        "" => strs(&t.credential_names),
        first => std::iter::once(first.into()).chain(strs(&t.credential_names)).collect(),
    };
    let terminated = matches!(mode, ServerTlsMode::Simple | ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
    if terminated && credential_names.is_empty() && t.tls_certificates.is_empty() {
        for (name, value) in [("serverCertificate", &t.server_certificate), ("privateKey", &t.private_key)] {
            if value.is_empty() {
                scope.error(&path.field(name), "a server that terminates TLS needs a certificate and its key, or a credentialName");
            }
        }
    }
    let (min_version, max_version) = (version(t.min_protocol_version), version(t.max_protocol_version));
    if let (Some(min), Some(max)) = (min_version, max_version)
        && min > max
    {
        scope.error(&path.field("minProtocolVersion"), "is above maxProtocolVersion");
    }
    ServerTls {
        https_redirect: t.https_redirect,
        mode,
        server_certificate: t.server_certificate.as_str().into(),
        private_key: t.private_key.as_str().into(),
        ca_certificates: t.ca_certificates.as_str().into(),
        ca_crl: t.ca_crl.as_str().into(),
        tls_certificates: t
            .tls_certificates
            .iter()
            .map(|c| TlsCertificatePaths {
                server_certificate: c.server_certificate.as_str().into(),
                private_key: c.private_key.as_str().into(),
                ca_certificates: c.ca_certificates.as_str().into(),
            })
            .collect(),
        credential_names,
        ca_cert_credential_name: t.ca_cert_credential_name.as_str().into(),
        subject_alt_names: strs(&t.subject_alt_names),
        verify_certificate_spki: strs(&t.verify_certificate_spki),
        verify_certificate_hash: strs(&t.verify_certificate_hash),
        min_version,
        max_version,
        cipher_suites: strs(&t.cipher_suites),
        ecdh_curves: strs(&t.ecdh_curves),
        insecure_skip_verify: t.insecure_skip_verify == Some(true),
    }
}

fn version(v: api::TlsProtocol) -> Option<TlsVersion> {
    Some(match v {
        api::TlsProtocol::Auto => return None,
        api::TlsProtocol::V1_0 => TlsVersion::V1_0,
        api::TlsProtocol::V1_1 => TlsVersion::V1_1,
        api::TlsProtocol::V1_2 => TlsVersion::V1_2,
        api::TlsProtocol::V1_3 => TlsVersion::V1_3,
    })
}
