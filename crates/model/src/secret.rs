//! Key material that objects refer to. Never hashed into classes, logged or dumped.

use std::fmt;
use std::sync::Arc;

/// A Secret for TLS or for a registry: any part may be missing.
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
    /// What images are pulled with.
    pub registry: Registry,
}

/// Credentials for registries of images, or why there are none.
#[derive(Clone, PartialEq, Eq)]
pub enum Registry {
    /// A Docker configuration, as JSON.
    Config(Arc<str>),
    /// Why the Secret holds none.
    None(&'static str),
}

impl Default for Registry {
    fn default() -> Self {
        Registry::None("its type is another than kubernetes.io/dockerconfigjson")
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret(..)")
    }
}
