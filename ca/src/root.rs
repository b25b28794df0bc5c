//! A certificate authority that vouches for itself: [`generate`].

use std::time::{Duration, SystemTime};

use rcgen::{BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, KeyPair, KeyUsagePurpose, RsaKeySize, SerialNumber};

use crate::material::Files;

/// What a new root is like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Options {
    /// How long it holds.
    pub ttl: Duration,
    /// Its key.
    pub key: Key,
}

/// Kinds of keys of a root.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Key {
    /// RSA of so many bits: 2048, 3072 or 4096.
    Rsa(u16),
    /// The curve P-256.
    P256,
    /// The curve P-384.
    P384,
}

impl Default for Options {
    fn default() -> Self {
        Options { ttl: Duration::from_secs(87_600 * 3600), key: Key::Rsa(2048) }
    }
}

/// No root could be made.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("no root can be made: {0}")]
pub struct Failed(String);

/// Clocks of others may be that much behind.
pub(crate) const SKEW: Duration = Duration::from_secs(120);

/// A new key and its certificate, in the layout of `istio-ca-secret`.
pub fn generate(trust_domain: &str, options: &Options, now: SystemTime) -> Result<Files, Failed> {
    let failed = |e: rcgen::Error| Failed(e.to_string());
    let key = match options.key {
        Key::P256 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P256_SHA256),
        Key::P384 => KeyPair::generate_for(&rcgen::PKCS_ECDSA_P384_SHA384),
        Key::Rsa(bits) => {
            let size = match bits {
                ..=2048 => RsaKeySize::_2048,
                2049..=3072 => RsaKeySize::_3072,
                _ => RsaKeySize::_4096,
            };
            KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, size)
        }
    };
    let key = key.map_err(failed)?;
    let mut params = CertificateParams::default();
    params.distinguished_name = DistinguishedName::new();
    params.distinguished_name.push(DnType::OrganizationName, trust_domain);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign, KeyUsagePurpose::DigitalSignature];
    params.not_before = (now - SKEW).into();
    params.not_after = (now + options.ttl).into();
    params.serial_number = Some(serial().ok_or_else(|| Failed("no randomness".into()))?);
    let certificate = params.self_signed(&key).map_err(failed)?.pem();
    let file = |name: &str, text: &str| (name.to_owned(), text.as_bytes().to_vec());
    Ok([
        file("ca-cert.pem", &certificate),
        file("ca-key.pem", &key.serialize_pem()),
        file("root-cert.pem", &certificate),
        file("cert-chain.pem", ""),
        file("key.pem", ""),
    ]
    .into())
}

/// A random number of 127 bits: positive in any reading of it.
pub(crate) fn serial() -> Option<SerialNumber> {
    let mut bytes = [0; 16];
    aws_lc_rs::rand::fill(&mut bytes).ok()?;
    bytes[0] = bytes[0] & 0x7f | 0x40;
    Some(SerialNumber::from(bytes.to_vec()))
}
