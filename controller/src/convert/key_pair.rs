//! Whether a certificate and a key are a pair.

use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};
use tokio_rustls::rustls::sign::CertifiedKey;
use tokio_rustls::rustls::{Error, InconsistentKeys};

/// Why a proxy could not prove itself with these, both in PEM. Kinds of keys that are unknown here are left to proxies.
pub(super) fn mistake(certificate: &[u8], key: &[u8]) -> Option<&'static str> {
    let Ok(chain) = CertificateDer::pem_slice_iter(certificate).collect::<Result<Vec<_>, _>>() else {
        return Some("the certificate is not PEM");
    };
    if chain.is_empty() {
        return Some("there is no certificate in it");
    }
    let Ok(key) = PrivateKeyDer::from_pem_slice(key) else {
        return Some("there is no usable key in it");
    };
    match CertifiedKey::from_der(chain, key, &aws_lc_rs::default_provider()) {
        Err(Error::InconsistentKeys(InconsistentKeys::KeyMismatch)) => Some("the key is not that of the certificate"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (String, String) {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec!["web.example".to_owned()]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    }

    #[test]
    fn only_pairs_go_together() {
        let ((a, key_a), (b, key_b)) = (pair(), pair());
        let chain = format!("{a}{b}");
        let says = |certificate: &str, key: &str| mistake(certificate.as_bytes(), key.as_bytes());
        assert_eq!([says(&a, &key_a), says(&b, &key_b), says(&chain, &key_a)], [None; 3]);
        let mismatch = Some("the key is not that of the certificate");
        assert_eq!([says(&a, &key_b), says(&chain, &key_b)], [mismatch; 2]);
        assert_eq!(says("junk", &key_a), Some("there is no certificate in it"));
        assert_eq!(says("-----BEGIN CERTIFICATE-----\nx\n", &key_a), Some("the certificate is not PEM"));
        assert_eq!(says(&a, "junk"), Some("there is no usable key in it"));
    }
}
