//! [`Authority`]: a certificate authority of one test, and the identities that it issues, as files.

use std::path::PathBuf;

use rcgen::string::Ia5String;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair, SanType};
use tempfile::TempDir;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;

/// An authority with a key of its own.
pub struct Authority {
    issuer: CertifiedIssuer<'static, KeyPair>,
}

/// A certificate with its key, in a folder of its own: `chain.pem`, `key.pem`, and `roots.pem` of its authority.
pub struct Identity {
    dir: TempDir,
    /// The certificate.
    pub der: CertificateDer<'static>,
    /// That of its authority.
    pub root: CertificateDer<'static>,
    /// The key, PKCS #8.
    pub key: Vec<u8>,
}

impl Authority {
    /// With this common name.
    pub fn new(name: &str) -> Self {
        let mut params = named(name);
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Authority { issuer: CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap() }
    }

    /// A certificate for servers and clients: a common name, and names of which those with `://` are URIs.
    pub fn issue(&self, name: &str, names: &[&str]) -> Identity {
        let key = KeyPair::generate().unwrap();
        let mut params = named(name);
        params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        params.subject_alt_names = names.iter().map(|name| alternative(name)).collect();
        let certificate = params.signed_by(&key, &self.issuer).unwrap();
        let dir = tempfile::tempdir().unwrap();
        let files = [("chain.pem", certificate.pem()), ("key.pem", key.serialize_pem()), ("roots.pem", self.issuer.pem())];
        for (file, text) in files {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        Identity { dir, der: certificate.der().clone(), root: self.root(), key: key.serialize_der() }
    }

    /// Its own certificate.
    pub fn root(&self) -> CertificateDer<'static> {
        self.issuer.der().clone()
    }
}

impl Identity {
    /// Somebody else's certificates: what leads to a root (the leaf first), and all roots.
    pub fn of(chain: &str, roots: &str, key: &KeyPair) -> Self {
        let dir = tempfile::tempdir().unwrap();
        for (file, text) in [("chain.pem", chain), ("key.pem", &key.serialize_pem()), ("roots.pem", roots)] {
            std::fs::write(dir.path().join(file), text).unwrap();
        }
        let first = |pem: &str| CertificateDer::from_pem_slice(pem.as_bytes()).unwrap();
        Identity { dir, der: first(chain), root: first(roots), key: key.serialize_der() }
    }

    /// Path of the certificate.
    pub fn chain(&self) -> PathBuf {
        self.dir.path().join("chain.pem")
    }

    /// Path of the key.
    pub fn key(&self) -> PathBuf {
        self.dir.path().join("key.pem")
    }

    /// Path of the authority's certificate.
    pub fn roots(&self) -> PathBuf {
        self.dir.path().join("roots.pem")
    }

    /// A Secret that holds it, with roots.
    pub fn secret(&self, namespace: &str, name: &str) -> serde_json::Value {
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        serde_json::json!({
            "apiVersion": "v1", "kind": "Secret", "type": "kubernetes.io/tls", "metadata": {"name": name, "namespace": namespace},
            "stringData": {"tls.crt": read(self.chain()), "tls.key": read(self.key()), "ca.crt": read(self.roots())}
        })
    }
}

fn named(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.distinguished_name.push(DnType::CommonName, name);
    params
}

fn alternative(name: &str) -> SanType {
    let text = Ia5String::try_from(name).unwrap();
    if name.contains("://") { SanType::URI(text) } else { SanType::DnsName(text) }
}
