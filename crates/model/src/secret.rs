//! Key material that objects refer to. Never hashed into classes, logged or dumped.

use std::fmt;
use std::sync::Arc;

/// A TLS Secret: either part may be missing.
#[derive(Clone, PartialEq, Eq, Default)]
pub struct Secret {
    /// PEM certificate chain.
    pub certificate: Arc<[u8]>,
    /// PEM key.
    pub private_key: Arc<[u8]>,
    /// PEM roots.
    pub ca_certificate: Arc<[u8]>,
    /// PEM revocation list.
    pub crl: Arc<[u8]>,
    /// DER OCSP response.
    pub ocsp_staple: Arc<[u8]>,
    /// Why nobody can prove itself with the certificate and key.
    pub mistake: Option<&'static str>,
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
