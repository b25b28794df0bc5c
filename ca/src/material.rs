//! [`Material`]: a key that signs, the certificates that vouch for it, and the roots that are trusted. What is not whole is
//! refused before it is used.

use std::collections::BTreeMap;
use std::fmt;
use std::time::{Duration, SystemTime};

use rcgen::{Issuer, KeyPair, PublicKeyData as _};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer, pem::PemObject as _};
use x509_parser::prelude::FromDer;
use x509_parser::revocation_list::CertificateRevocationList;

use crate::chain::{self, Untrusted};
use crate::pem::{self, BadPem};

/// Files by name, as a folder or a Secret holds them.
pub type Files = BTreeMap<String, Vec<u8>>;

/// Why files are no certificate authority. Nothing of it is used then.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum MaterialError {
    /// A file that must be there is not.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A file cannot be read.
    #[error("{file}: {source}")]
    Pem {
        /// Which.
        file: &'static str,
        /// Why.
        source: BadPem,
    },
    /// The key cannot be read. Never says what it looks like.
    #[error("{0}: not a private key of a kind that can sign (RSA or ECDSA)")]
    Key(&'static str),
    /// The certificate is not the key's.
    #[error("the certificate does not belong to the key")]
    Mismatch,
    /// The certificate is not one of a certificate authority.
    #[error("the certificate may not sign others")]
    NotCa,
    /// The certificate leads to no root of the file of roots.
    #[error("the certificate: {0}")]
    Untrusted(#[from] Untrusted),
    /// A root may not sign.
    #[error("a root may not sign others")]
    RootNotCa,
    /// A revocation list is of nobody in the chain.
    #[error("{0}: a revocation list that no certificate of the chain has signed")]
    ForeignCrl(&'static str),
}

/// Names of the files of one layout.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
struct Layout {
    certificate: &'static str,
    key: &'static str,
    roots: &'static str,
    chain: Option<&'static str>,
}

/// As cert-manager and kubectl write them.
const TLS: Layout = Layout { certificate: "tls.crt", key: "tls.key", roots: "ca.crt", chain: None };
/// As `cacerts` and `istio-ca-secret` have them.
const CA: Layout = Layout { certificate: "ca-cert.pem", key: "ca-key.pem", roots: "root-cert.pem", chain: Some("cert-chain.pem") };
/// Revocation lists in either layout.
const CRL: &str = "ca-crl.pem";

/// See the module's documentation.
pub struct Material {
    pub(crate) issuer: Issuer<'static, KeyPair>,
    certificate: CertificateDer<'static>,
    /// From the signing certificate to below the root; empty if that signs itself.
    chain: Vec<CertificateDer<'static>>,
    roots: Vec<CertificateDer<'static>>,
    crl: Option<(String, Vec<CertificateRevocationListDer<'static>>)>,
    not_before: SystemTime,
    not_after: SystemTime,
}

impl fmt::Debug for Material {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Material").field("not_after", &self.not_after).field("roots", &self.roots.len()).finish_non_exhaustive()
    }
}

impl Material {
    /// Takes files of either layout.
    pub fn load(files: &Files, now: SystemTime) -> Result<Material, MaterialError> {
        let layout = if files.contains_key(TLS.certificate) { TLS } else { CA };
        let get = |name: &'static str| files.get(name).filter(|f| !f.is_empty()).ok_or(MaterialError::Missing(name));
        let certificates = |name| pem::certificates(get(name)?).map_err(|source| MaterialError::Pem { file: name, source });

        let signing = certificates(layout.certificate)?;
        let key = key_pair(get(layout.key)?).ok_or(MaterialError::Key(layout.key))?;
        let roots = certificates(layout.roots)?;
        let mut between: Vec<_> = signing[1..].to_vec();
        if let Some(name) = layout.chain.filter(|name| files.get(*name).is_some_and(|f| !f.is_empty())) {
            between.extend(certificates(name)?);
        }
        let certificate = signing[0].clone();
        check(&certificate, &key, &between, &roots, now)?;

        let parsed = chain::parse(&certificate)?;
        if !(chain::may_sign(&parsed, 0) || roots.contains(&certificate) && chain::is_ancient(&parsed)) {
            return Err(MaterialError::NotCa);
        }
        let (not_before, not_after) = (chain::not_before(&parsed), chain::not_after(&parsed));
        let mut path: Vec<CertificateDer<'static>> = Vec::new();
        for der in std::iter::once(&certificate).chain(&between) {
            if !roots.contains(der) && !path.contains(der) {
                path.push(der.clone());
            }
        }
        let crl = match files.get(CRL).filter(|f| !f.is_empty()) {
            None => None,
            Some(file) => Some((String::from_utf8_lossy(file).into_owned(), lists(file, &path, &roots)?)),
        };
        let issuer = Issuer::from_ca_cert_der(&certificate, key).map_err(|_| Untrusted::Malformed)?;
        Ok(Material { issuer, certificate, chain: path, roots, crl, not_before, not_after })
    }

    /// The certificate that signs.
    pub fn certificate(&self) -> &CertificateDer<'static> {
        &self.certificate
    }

    /// What a leaf needs beside itself to lead to a root, from its issuer upwards.
    pub fn chain(&self) -> &[CertificateDer<'static>] {
        &self.chain
    }

    /// The roots that are trusted.
    pub fn roots(&self) -> &[CertificateDer<'static>] {
        &self.roots
    }

    /// Revocation lists as they were given.
    pub fn crl(&self) -> Option<&str> {
        self.crl.as_ref().map(|(text, _)| text.as_str())
    }

    /// Revocation lists, parsed.
    pub fn revocation_lists(&self) -> &[CertificateRevocationListDer<'static>] {
        self.crl.as_ref().map(|(_, lists)| lists.as_slice()).unwrap_or_default()
    }

    /// When nothing can be signed any more.
    pub fn not_after(&self) -> SystemTime {
        self.not_after
    }

    /// The part of its time that is left, of a hundred.
    pub fn percent_left(&self, now: SystemTime) -> u32 {
        let whole = self.not_after.duration_since(self.not_before).unwrap_or(Duration::ZERO).as_secs_f64();
        let left = self.not_after.duration_since(now).unwrap_or(Duration::ZERO).as_secs_f64();
        if whole <= 0.0 { 0 } else { (left / whole * 100.0) as u32 }
    }
}

/// Whether a certificate, its key and what vouches for it belong together.
pub fn check(
    certificate: &CertificateDer<'_>,
    key: &KeyPair,
    between: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), MaterialError> {
    let parsed = chain::parse(certificate)?;
    if parsed.public_key().subject_public_key.data.as_ref() != key.der_bytes() {
        return Err(MaterialError::Mismatch);
    }
    let mut any = false;
    for root in roots {
        let root = chain::parse(root)?;
        any |= chain::may_sign(&root, 0) || chain::is_ancient(&root);
    }
    if !any {
        return Err(MaterialError::RootNotCa);
    }
    Ok(chain::verify(certificate, between, roots, now)?)
}

/// A private key: PKCS#8, PKCS#1 or SEC1.
pub fn key_pair(file: &[u8]) -> Option<KeyPair> {
    let der = PrivateKeyDer::from_pem_slice(file).ok()?;
    KeyPair::try_from(&der).ok()
}

fn lists(
    file: &[u8],
    path: &[CertificateDer<'static>],
    roots: &[CertificateDer<'static>],
) -> Result<Vec<CertificateRevocationListDer<'static>>, MaterialError> {
    let lists = pem::revocation_lists(file).map_err(|source| MaterialError::Pem { file: CRL, source })?;
    for der in &lists {
        let list = CertificateRevocationList::from_der(der).ok().filter(|(rest, _)| rest.is_empty()).map(|(_, list)| list);
        let signed = list.is_some_and(|list| {
            path.iter()
                .chain(roots)
                .filter_map(|der| chain::parse(der).ok())
                .any(|issuer| issuer.subject().as_raw() == list.issuer().as_raw() && list.verify_signature(issuer.public_key()).is_ok())
        });
        if !signed {
            return Err(MaterialError::ForeignCrl(CRL));
        }
    }
    Ok(lists)
}
