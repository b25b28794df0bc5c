//! PEM in and out.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer};

/// What is wrong with a PEM file.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct BadPem(pub(crate) String);

/// All certificates of a file, in order. At least one.
pub fn certificates(file: &[u8]) -> Result<Vec<CertificateDer<'static>>, BadPem> {
    let all: Result<Vec<_>, _> = CertificateDer::pem_slice_iter(file).collect();
    let all = all.map_err(|e| BadPem(e.to_string()))?;
    if all.is_empty() { Err(BadPem("there is no certificate in it".into())) } else { Ok(all) }
}

/// All revocation lists of a file, in order. At least one.
pub fn revocation_lists(file: &[u8]) -> Result<Vec<CertificateRevocationListDer<'static>>, BadPem> {
    let all: Result<Vec<_>, _> = CertificateRevocationListDer::pem_slice_iter(file).collect();
    let all = all.map_err(|e| BadPem(e.to_string()))?;
    if all.is_empty() { Err(BadPem("there is no revocation list in it".into())) } else { Ok(all) }
}

/// A certificate as PEM, with a final newline.
pub fn certificate(der: &[u8]) -> String {
    write("CERTIFICATE", der)
}

/// Certificates one after the other.
pub fn bundle<'a>(all: impl IntoIterator<Item = &'a CertificateDer<'static>>) -> String {
    all.into_iter().map(|der| certificate(der)).collect()
}

fn write(label: &str, der: &[u8]) -> String {
    let text = STANDARD.encode(der);
    let mut out = format!("-----BEGIN {label}-----\n");
    let mut rest = text.as_str();
    while !rest.is_empty() {
        let (line, more) = rest.split_at(rest.len().min(64));
        out.push_str(line);
        out.push('\n');
        rest = more;
    }
    out.push_str(&format!("-----END {label}-----\n"));
    out
}
