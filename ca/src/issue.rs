//! [`issue`]: a certificate out of a request, a verified identity and the time. Pure but for the randomness of its number.
//!
//! Of the request, only the public key and whether its owner asks are used. Whom the certificate names is what was proved.

use std::time::{Duration, SystemTime};

use pilotfish_model::Identity;
use rcgen::{
    CertificateParams, CustomExtension, DistinguishedName, DnType, ExtendedKeyUsagePurpose, KeyUsagePurpose, PublicKeyData,
    SubjectPublicKeyInfo,
};
use rustls::pki_types::CertificateSigningRequestDer;
use rustls::pki_types::pem::PemObject as _;
use x509_parser::certification_request::X509CertificationRequest;
use x509_parser::prelude::FromDer;
use x509_parser::public_key::PublicKey;

use crate::material::Material;
use crate::pem;
use crate::root::{SKEW, serial};

/// How long certificates hold.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Where nothing is asked for.
    pub default_ttl: Duration,
    /// At most.
    pub max_ttl: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Policy { default_ttl: Duration::from_secs(24 * 3600), max_ttl: Duration::from_secs(2160 * 3600) }
    }
}

/// The longest request that is looked at, in bytes.
pub const LONGEST_CSR: usize = 32 << 10;
/// The longest common name of X.509.
const LONGEST_NAME: usize = 64;
/// RSA keys are of that many bits.
const RSA_BITS: std::ops::RangeInclusive<usize> = 2048..=8192;

/// Why there is no certificate.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IssueError {
    /// The request is not one, or of a key that is not served, or not of the key's owner.
    #[error("{0}")]
    Csr(&'static str),
    /// Asked for longer than allowed.
    #[error("requested TTL {requested:?} is greater than the max allowed TTL {max:?}")]
    Ttl {
        /// What was asked for.
        requested: Duration,
        /// What is allowed.
        max: Duration,
    },
    /// Nobody to name.
    #[error("no identity")]
    NoIdentity,
    /// The signer's time is over, or has not come.
    #[error("the signing certificate is not valid")]
    SignerExpired,
    /// Signing failed.
    #[error("signing failed")]
    Sign,
}

/// A certificate.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Issued {
    /// PEM: the leaf, then what leads to a root, one per element. Roots are not among them.
    pub chain: Vec<String>,
    /// When it ends.
    pub not_after: SystemTime,
}

/// Issues a certificate for these identities. `seconds` is what was asked for; nothing or less for the default.
pub fn issue(
    material: &Material,
    policy: &Policy,
    csr: &str,
    identities: &[Identity],
    seconds: i64,
    now: SystemTime,
) -> Result<Issued, IssueError> {
    if identities.is_empty() {
        return Err(IssueError::NoIdentity);
    }
    let ttl = match u64::try_from(seconds) {
        Err(_) | Ok(0) => policy.default_ttl.min(policy.max_ttl),
        Ok(seconds) => Duration::from_secs(seconds),
    };
    if ttl > policy.max_ttl {
        return Err(IssueError::Ttl { requested: ttl, max: policy.max_ttl });
    }
    let request = Request::parse(csr)?;
    if material.not_after() <= now {
        return Err(IssueError::SignerExpired);
    }
    let not_after = (now + ttl).min(material.not_after());
    let leaf = params(identities, request.named, now - SKEW, not_after)?;
    let leaf = leaf.signed_by(&request.key, &material.issuer).map_err(|_| IssueError::Sign)?;
    let chain = std::iter::once(leaf.der()).chain(material.chain()).map(|der| pem::certificate(der)).collect();
    Ok(Issued { chain, not_after })
}

/// What a certificate of these identities says.
fn params(identities: &[Identity], named: bool, not_before: SystemTime, not_after: SystemTime) -> Result<CertificateParams, IssueError> {
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    let names: Vec<String> = identities.iter().map(ToString::to_string).collect();
    if named && names[0].len() <= LONGEST_NAME {
        params.distinguished_name.push(DnType::CommonName, names[0].as_str());
    }
    params.not_before = not_before.into();
    params.not_after = not_after.into();
    params.serial_number = Some(serial().ok_or(IssueError::Sign)?);
    params.key_usages = vec![KeyUsagePurpose::DigitalSignature, KeyUsagePurpose::KeyEncipherment];
    params.extended_key_usages = vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
    params.use_authority_key_identifier_extension = true;
    params.is_ca = rcgen::IsCa::ExplicitNoCa;
    params.custom_extensions = vec![names_extension(&names)];
    Ok(params)
}

/// The subject alternative name, critical whether or not there is a subject.
fn names_extension(uris: &[String]) -> CustomExtension {
    const SUBJECT_ALT_NAME: &[u64] = &[2, 5, 29, 17];
    const URI: u8 = 0x86;
    const SEQUENCE: u8 = 0x30;
    let names: Vec<u8> = uris.iter().flat_map(|uri| tagged(URI, uri.as_bytes())).collect();
    let mut extension = CustomExtension::from_oid_content(SUBJECT_ALT_NAME, tagged(SEQUENCE, &names));
    extension.set_criticality(true);
    extension
}

/// DER: tag, length, content.
fn tagged(tag: u8, content: &[u8]) -> Vec<u8> {
    let len = content.len();
    let mut out = vec![tag];
    match u8::try_from(len) {
        Ok(short) if short < 0x80 => out.push(short),
        _ => {
            let bytes = len.to_be_bytes();
            let used: Vec<u8> = bytes.into_iter().skip_while(|b| *b == 0).collect();
            out.push(0x80 | used.len() as u8);
            out.extend(used);
        }
    }
    out.extend_from_slice(content);
    out
}

struct Request {
    key: SubjectPublicKeyInfo,
    /// It has a common name.
    named: bool,
}

impl Request {
    fn parse(csr: &str) -> Result<Request, IssueError> {
        if csr.len() > LONGEST_CSR {
            return Err(IssueError::Csr("the request is too long"));
        }
        let der = CertificateSigningRequestDer::from_pem_slice(csr.as_bytes()).map_err(|_| IssueError::Csr("not a PEM encoded request"))?;
        let (rest, csr) = X509CertificationRequest::from_der(&der).map_err(|_| IssueError::Csr("not a PKCS#10 request"))?;
        if !rest.is_empty() {
            return Err(IssueError::Csr("something follows the request"));
        }
        let info = &csr.certification_request_info;
        let key = SubjectPublicKeyInfo::from_der(info.subject_pki.raw).map_err(|_| IssueError::Csr("unsupported kind of key"))?;
        let supported = match info.subject_pki.parsed() {
            Ok(PublicKey::RSA(key)) => RSA_BITS.contains(&key.key_size()),
            Ok(PublicKey::EC(_)) => {
                let kind = key.algorithm();
                kind == &rcgen::PKCS_ECDSA_P256_SHA256 || kind == &rcgen::PKCS_ECDSA_P384_SHA384
            }
            _ => false,
        };
        if !supported {
            return Err(IssueError::Csr("unsupported kind of key"));
        }
        csr.verify_signature().map_err(|_| IssueError::Csr("the request is not signed by its key"))?;
        let named = info.subject.iter_common_name().next().is_some();
        Ok(Request { key, named })
    }
}
