//! Where certificates and roots come from.

use std::sync::LazyLock;

use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::certificate_validation_context::SystemRootCerts;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CombinedCertificateValidationContext, ValidationContextType,
};
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{CertificateValidationContext, CommonTlsContext, SdsSecretConfig};
use pilotfish_model::name::Str;
use pilotfish_model::proxy::Flavour;

use crate::config_source;
use crate::facts::{CertificatePaths, UnitFacts};

/// Name of the workload's certificate.
const OWN_CERTIFICATE: &str = "default";
/// Name of the mesh's roots.
const MESH_ROOTS: &str = "ROOTCA";
/// Path that stands for the roots of the operating system.
pub const SYSTEM_ROOTS: &str = "system";
/// Start of the name of what comes out of a Secret.
pub(crate) const KUBERNETES: &str = "kubernetes://";
/// End of a roots' name.
pub(crate) const ROOTS_SUFFIX: &str = "-cacert";

/// A certificate, or roots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Certificate {
    /// By name, from the agent or this server.
    Sds(SdsSource),
    /// The roots of the operating system.
    SystemRoots,
}

/// A secret by name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum SdsSource {
    /// The mesh's own, from the agent; Envoy waits for it without limit.
    Agent(Str),
    /// Files that the agent watches and serves.
    AgentFile(Str),
    /// From this server, and what asks for it. It does not answer for a secret that does not exist.
    Server(Str, Flavour),
}

/// The mesh's own certificate and roots.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MeshCertificates {
    /// Certificate of the workload.
    pub own: Certificate,
    /// Roots of the mesh.
    pub roots: Certificate,
}

/// What a class presents to clients. A plain Envoy without files gets its certificate from this server.
pub fn mesh_server(class: &UnitFacts) -> MeshCertificates {
    match (&class.settings.server_certificate, class.flavour) {
        (Some(paths), flavour) => of_paths(paths, flavour),
        (None, Flavour::Istio) => OF_AGENT.clone(),
        (None, _) => of_server(),
    }
}

/// What a class presents to servers; `None` for a plain Envoy that has no certificate files.
pub fn mesh_client(class: &UnitFacts) -> Option<MeshCertificates> {
    match (&class.settings.client_certificate, class.flavour) {
        (Some(paths), flavour) => Some(of_paths(paths, flavour)),
        (None, Flavour::Istio) => Some(OF_AGENT.clone()),
        (None, _) => None,
    }
}

/// Those that the agent has. Made once: nearly every cluster has them.
pub(super) static OF_AGENT: LazyLock<MeshCertificates> = LazyLock::new(|| {
    let sds = |name: &str| Certificate::Sds(SdsSource::Agent(name.into()));
    MeshCertificates { own: sds(OWN_CERTIFICATE), roots: sds(MESH_ROOTS) }
});

fn of_server() -> MeshCertificates {
    let sds = |name: &str| Certificate::Sds(SdsSource::Server(name.into(), Flavour::Plain));
    MeshCertificates { own: sds(OWN_CERTIFICATE), roots: sds(MESH_ROOTS) }
}

fn of_paths(paths: &CertificatePaths, flavour: Flavour) -> MeshCertificates {
    MeshCertificates { own: certificate_files(&paths.chain, &paths.key, flavour), roots: root_files(&paths.roots, flavour) }
}

/// Name of a certificate from files.
pub(super) fn certificate_file_name(chain: &str, key: &str) -> Str {
    format!("file-cert:{chain}~{key}").into()
}

/// Name of roots from a file.
pub(super) fn root_file_name(path: &str) -> Str {
    format!("file-root:{path}").into()
}

/// A certificate from files: the agent serves them where there is one. Otherwise this server names the paths in a secret
/// of their own, so that a missing file costs one secret and not a whole listener.
pub(super) fn certificate_files(chain: &Str, key: &Str, flavour: Flavour) -> Certificate {
    file_secret(certificate_file_name(chain, key), flavour)
}

/// Roots from a file, or [`SYSTEM_ROOTS`].
pub(super) fn root_files(path: &Str, flavour: Flavour) -> Certificate {
    match (&**path, flavour) {
        (SYSTEM_ROOTS, Flavour::Plain | Flavour::Grpc) => Certificate::SystemRoots,
        _ => file_secret(root_file_name(path), flavour),
    }
}

fn file_secret(name: Str, flavour: Flavour) -> Certificate {
    Certificate::Sds(if flavour == Flavour::Istio { SdsSource::AgentFile(name) } else { SdsSource::Server(name, flavour) })
}

/// Name of a certificate out of a Secret. A name that is a URI already stays.
pub(super) fn credential_name(name: &str) -> Str {
    if name.contains("://") { name.into() } else { format!("{KUBERNETES}{name}").into() }
}

/// Name of the roots that belong to a credential.
pub(super) fn credential_roots_name(name: &str) -> Str {
    credential_name(&format!("{}{ROOTS_SUFFIX}", name.strip_suffix(ROOTS_SUFFIX).unwrap_or(name)))
}

/// A certificate out of a Secret.
pub(super) fn credential(name: &str, flavour: Flavour) -> Certificate {
    Certificate::Sds(SdsSource::Server(credential_name(name), flavour))
}

/// Roots that belong to a credential.
pub(super) fn credential_roots(name: &str, flavour: Flavour) -> Certificate {
    Certificate::Sds(SdsSource::Server(credential_roots_name(name), flavour))
}

impl SdsSource {
    fn config(&self) -> SdsSecretConfig {
        let (name, source) = match self {
            SdsSource::Agent(name) => (name, config_source::AGENT.clone()),
            SdsSource::AgentFile(name) => (name, config_source::AGENT_FILES.clone()),
            SdsSource::Server(name, Flavour::Istio) => (name, config_source::SECRETS.clone()),
            SdsSource::Server(name, _) => (name, config_source::MISSING_SECRETS.clone()),
        };
        SdsSecretConfig { name: str::to_owned(name), sds_config: Some(source) }
    }
}

impl Certificate {
    /// Adds it to what the proxy presents.
    pub(super) fn present(&self, context: &mut CommonTlsContext) {
        match self {
            Certificate::Sds(source) => context.tls_certificate_sds_secret_configs.push(source.config()),
            Certificate::SystemRoots => {}
        }
    }

    /// Trusts these roots, under the conditions of `checks`.
    pub(super) fn trust(&self, mut checks: CertificateValidationContext) -> ValidationContextType {
        match self {
            Certificate::Sds(source) => ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
                default_validation_context: Some(checks),
                validation_context_sds_secret_config: Some(source.config()),
                ..Default::default()
            }),
            Certificate::SystemRoots => {
                checks.system_root_certs = Some(SystemRootCerts {});
                ValidationContextType::ValidationContext(checks)
            }
        }
    }
}
