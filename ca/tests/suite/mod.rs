mod fuzz;
mod issuing;
mod pki;
mod rotating;
mod serving;
mod tokens;

use std::time::{Duration, SystemTime};

use pilotfish_ca::material::Files;
use pilotfish_ca::root::{Key, Options, generate};
use pilotfish_ca::{Material, pem};
use pilotfish_model::Identity;
use rcgen::{CertificateParams, KeyPair};

/// A moment of these tests: 2026-01-01.
pub(crate) fn now() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_secs(1_767_225_600)
}

pub(crate) fn root(key: Key) -> Files {
    generate("cluster.local", &Options { key, ..Options::default() }, now()).unwrap()
}

pub(crate) fn material() -> Material {
    Material::load(&root(Key::P256), now()).unwrap()
}

pub(crate) fn identity(namespace: &str, account: &str) -> Identity {
    Identity { trust_domain: "cluster.local".into(), namespace: namespace.into(), account: account.into() }
}

/// A request that names somebody, and its key.
pub(crate) fn csr(algorithm: &'static rcgen::SignatureAlgorithm, name: &str) -> (String, KeyPair) {
    let key = KeyPair::generate_for(algorithm).unwrap();
    let mut params = CertificateParams::default();
    params.distinguished_name = rcgen::DistinguishedName::new();
    params.subject_alt_names = vec![rcgen::SanType::URI(name.try_into().unwrap())];
    (params.serialize_request(&key).unwrap().pem().unwrap(), key)
}

pub(crate) fn der(pem: &str) -> rustls::pki_types::CertificateDer<'static> {
    pem::certificates(pem.as_bytes()).unwrap().remove(0)
}
