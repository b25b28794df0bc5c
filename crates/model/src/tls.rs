//! TLS settings that several kinds share.

use crate::name::Str;

/// A TLS protocol version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum TlsVersion {
    V1_0,
    V1_1,
    V1_2,
    V1_3,
}

/// How a client secures a connection (DestinationRule).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ClientTlsMode {
    /// Clear text.
    Disable,
    /// Server authentication only.
    Simple,
    /// With a client certificate of the user.
    Mutual,
    /// With the mesh's own certificates.
    IstioMutual,
}

/// Client-side TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ClientTls {
    /// Mode.
    pub mode: ClientTlsMode,
    /// Path of the client certificate on the proxy.
    pub client_certificate: Str,
    /// Path of its key.
    pub private_key: Str,
    /// Path of the trusted roots; empty: the system's.
    pub ca_certificates: Str,
    /// Path of a revocation list.
    pub ca_crl: Str,
    /// Name of a Secret that holds them instead.
    pub credential_name: Str,
    /// Names that the server must present.
    pub subject_alt_names: Vec<Str>,
    /// Server name to ask for.
    pub sni: Str,
    /// Do not verify the server.
    pub insecure_skip_verify: bool,
}

impl ClientTls {
    /// Settings with nothing but a mode.
    pub fn of_mode(mode: ClientTlsMode) -> Self {
        let none = Str::from("");
        ClientTls {
            mode,
            client_certificate: none.clone(),
            private_key: none.clone(),
            ca_certificates: none.clone(),
            ca_crl: none.clone(),
            credential_name: none.clone(),
            subject_alt_names: Vec::new(),
            sni: none,
            insecure_skip_verify: false,
        }
    }
}

/// How a gateway or sidecar ingress treats TLS from clients.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ServerTlsMode {
    /// Not terminated; routed by SNI.
    Passthrough,
    /// Terminated.
    Simple,
    /// Terminated, client certificate required.
    Mutual,
    /// Terminated, client certificate verified if given.
    OptionalMutual,
    /// Not terminated; routed by the SNI that sidecars write.
    AutoPassthrough,
    /// Terminated with the mesh's own certificates.
    IstioMutual,
}

/// Server-side TLS.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct ServerTls {
    /// Redirect clear-text HTTP to HTTPS.
    pub https_redirect: bool,
    /// Mode.
    pub mode: ServerTlsMode,
    /// Path of the certificate on the proxy.
    pub server_certificate: Str,
    /// Path of its key.
    pub private_key: Str,
    /// Path of the roots for client certificates.
    pub ca_certificates: Str,
    /// Path of a revocation list.
    pub ca_crl: Str,
    /// Several certificate and key paths, at most one per key type.
    pub tls_certificates: Vec<TlsCertificatePaths>,
    /// Names of Secrets; the first is `credentialName`.
    pub credential_names: Vec<Str>,
    /// Name of a Secret with the roots, where it is not `<credential>-cacert`.
    pub ca_cert_credential_name: Str,
    /// Names a client must present.
    pub subject_alt_names: Vec<Str>,
    /// Base64 SHA-256 of accepted client public keys.
    pub verify_certificate_spki: Vec<Str>,
    /// Hex SHA-256 of accepted client certificates.
    pub verify_certificate_hash: Vec<Str>,
    /// Lowest version.
    pub min_version: Option<TlsVersion>,
    /// Highest version.
    pub max_version: Option<TlsVersion>,
    /// OpenSSL names.
    pub cipher_suites: Vec<Str>,
    /// Curve names.
    pub ecdh_curves: Vec<Str>,
    /// Client certificates that lead to no root are taken as well: who is behind has to look at them.
    pub insecure_skip_verify: bool,
}

impl ServerTls {
    /// Settings with nothing but a mode.
    pub fn of_mode(mode: ServerTlsMode) -> Self {
        let none = Str::default();
        ServerTls {
            https_redirect: false,
            mode,
            server_certificate: none.clone(),
            private_key: none.clone(),
            ca_certificates: none.clone(),
            ca_crl: none.clone(),
            tls_certificates: Vec::new(),
            credential_names: Vec::new(),
            ca_cert_credential_name: none,
            subject_alt_names: Vec::new(),
            verify_certificate_spki: Vec::new(),
            verify_certificate_hash: Vec::new(),
            min_version: None,
            max_version: None,
            cipher_suites: Vec::new(),
            ecdh_curves: Vec::new(),
            insecure_skip_verify: false,
        }
    }
}

/// A certificate and its key by path.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct TlsCertificatePaths {
    /// Certificate chain.
    pub server_certificate: Str,
    /// Key.
    pub private_key: Str,
    /// Roots for client certificates.
    pub ca_certificates: Str,
}
