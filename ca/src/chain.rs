//! Whether a certificate leads to a trusted root: [`verify`], and what a certificate says: [`identities`].
//!
//! TLS libraries answer this for leaves only; here a signing certificate is asked about too.

use std::time::SystemTime;

use pilotfish_model::Identity;
use rustls::pki_types::CertificateDer;
use x509_parser::certificate::X509Certificate;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::FromDer;
use x509_parser::time::ASN1Time;
use x509_parser::x509::X509Version;

/// More certificates than that between a leaf and its root are not followed.
const DEEPEST: usize = 8;

/// Why a certificate is not to be trusted.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Untrusted {
    /// Not X.509.
    #[error("not a certificate")]
    Malformed,
    /// Its time, or that of all that vouch for it, has not come or is over.
    #[error("not valid at this time")]
    Time,
    /// Nobody vouches for it.
    #[error("no certificate authority that is trusted vouches for it")]
    Unknown,
}

/// Parses a certificate that nothing follows.
pub fn parse(der: &[u8]) -> Result<X509Certificate<'_>, Untrusted> {
    match X509Certificate::from_der(der) {
        Ok(([], certificate)) => Ok(certificate),
        _ => Err(Untrusted::Malformed),
    }
}

/// Whether `leaf` (a certificate of any purpose) leads to one of `roots`, over any of `between`.
pub fn verify(
    leaf: &CertificateDer<'_>,
    between: &[CertificateDer<'_>],
    roots: &[CertificateDer<'_>],
    now: SystemTime,
) -> Result<(), Untrusted> {
    let now = asn1(now)?;
    let leaf = parse(leaf)?;
    // What is not a certificate vouches for nobody.
    let read = |all: &'_ [CertificateDer<'_>]| -> Vec<_> { all.iter().map(|der| der.to_vec()).collect::<Vec<_>>() };
    let (between, roots) = (read(between), read(roots));
    let between: Vec<_> = between.iter().filter_map(|der| parse(der).ok()).collect();
    let roots: Vec<_> = roots.iter().filter_map(|der| parse(der).ok()).collect();
    if !leaf.validity().is_valid_at(now) {
        return Err(Untrusted::Time);
    }
    let mut expired = false;
    if leads(&leaf, &between, &roots, now, 0, &mut expired) {
        return Ok(());
    }
    Err(if expired { Untrusted::Time } else { Untrusted::Unknown })
}

/// `below`: how many certificate authorities there are under `one`.
fn leads(
    one: &X509Certificate<'_>,
    between: &[X509Certificate<'_>],
    roots: &[X509Certificate<'_>],
    now: ASN1Time,
    below: usize,
    expired: &mut bool,
) -> bool {
    if roots.iter().any(|root| root.tbs_certificate.as_ref() == one.tbs_certificate.as_ref()) {
        return true;
    }
    if below >= DEEPEST {
        return false;
    }
    let mut vouches = |issuer: &X509Certificate<'_>, is_anchor: bool| {
        let is_one = issuer.subject().as_raw() == one.issuer().as_raw()
            && (may_sign(issuer, below) || is_anchor && is_ancient(issuer))
            && one.verify_signature(Some(issuer.public_key())).is_ok();
        if is_one && !issuer.validity().is_valid_at(now) {
            *expired = true;
            return false;
        }
        is_one
    };
    if roots.iter().any(|root| vouches(root, true)) {
        return true;
    }
    let next: Vec<_> = between.iter().filter(|issuer| issuer.subject() != issuer.issuer() && vouches(issuer, false)).collect();
    next.into_iter().any(|issuer| leads(issuer, between, roots, now, below + 1, expired))
}

/// Whether a certificate is a certificate authority's, with so many others under it.
pub fn may_sign(certificate: &X509Certificate<'_>, below: usize) -> bool {
    let Ok(Some(constraints)) = certificate.basic_constraints() else { return false };
    let deep_enough = constraints.value.path_len_constraint.is_none_or(|most| below <= most as usize);
    let signs = match certificate.key_usage() {
        Ok(usage) => usage.is_none_or(|usage| usage.value.key_cert_sign()),
        Err(_) => false,
    };
    constraints.value.ca && deep_enough && signs
}

/// Version 1 knew no extensions that could say what a certificate is for. As a root, somebody has chosen it for just that.
pub fn is_ancient(certificate: &X509Certificate<'_>) -> bool {
    certificate.version() == X509Version::V1
}

/// The service accounts that a certificate names. Names of other forms are left out.
pub fn identities(certificate: &X509Certificate<'_>) -> Vec<Identity> {
    let Ok(Some(names)) = certificate.subject_alternative_name() else { return Vec::new() };
    let uri = |name: &GeneralName<'_>| if let GeneralName::URI(uri) = name { uri.parse().ok() } else { None };
    names.value.general_names.iter().filter_map(uri).collect()
}

pub(crate) fn asn1(at: SystemTime) -> Result<ASN1Time, Untrusted> {
    let seconds = at.duration_since(SystemTime::UNIX_EPOCH).map_err(|_| Untrusted::Time)?.as_secs();
    ASN1Time::from_timestamp(i64::try_from(seconds).unwrap_or(i64::MAX)).map_err(|_| Untrusted::Time)
}

/// When the time of an encoded certificate is over.
pub fn ends(der: &[u8]) -> Option<SystemTime> {
    parse(der).ok().map(|certificate| not_after(&certificate))
}

/// When a certificate's time is over.
pub(crate) fn not_after(certificate: &X509Certificate<'_>) -> SystemTime {
    system(certificate.validity().not_after)
}

/// When a certificate's time begins.
pub(crate) fn not_before(certificate: &X509Certificate<'_>) -> SystemTime {
    system(certificate.validity().not_before)
}

fn system(time: ASN1Time) -> SystemTime {
    let seconds = u64::try_from(time.timestamp()).unwrap_or_default();
    SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(seconds)
}
