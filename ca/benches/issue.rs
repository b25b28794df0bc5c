//! How long one certificate takes, request checked, on one thread. Prints name and microseconds.

#![allow(missing_docs, clippy::expect_used)]

use std::time::{Duration, Instant, SystemTime};

use pilotfish_ca::Material;
use pilotfish_ca::issue::{Policy, issue};
use pilotfish_ca::root::{Key, Options, generate};
use pilotfish_model::Identity;
use rcgen::{CertificateParams, KeyPair, PKCS_ECDSA_P256_SHA256, PKCS_RSA_SHA256};

const BATCH: u32 = 10;
const AT_LEAST: Duration = Duration::from_secs(2);

fn main() {
    let now = SystemTime::now();
    let identity: Identity = "spiffe://cluster.local/ns/shop/sa/web".parse().expect("an identity");
    for (signer, key) in [("rsa2048", Key::Rsa(2048)), ("p256", Key::P256), ("p384", Key::P384)] {
        let files = generate("cluster.local", &Options { key, ..Options::default() }, now).expect("a root");
        let material = Material::load(&files, now).expect("material");
        for (asker, algorithm) in [("rsa2048", &PKCS_RSA_SHA256), ("p256", &PKCS_ECDSA_P256_SHA256)] {
            let key = KeyPair::generate_for(algorithm).expect("a key");
            let csr = CertificateParams::default().serialize_request(&key).and_then(|csr| csr.pem()).expect("a request");
            let one = || issue(&material, &Policy::default(), &csr, std::slice::from_ref(&identity), 0, now).expect("a certificate");
            let (began, mut best) = (Instant::now(), Duration::MAX);
            while began.elapsed() < AT_LEAST {
                let batch = Instant::now();
                for _ in 0..BATCH {
                    one();
                }
                // Others may want the core too: the quickest is the one that had it.
                best = best.min(batch.elapsed());
            }
            println!("issue/{signer}_for_{asker}\t{:.1}", best.as_secs_f64() * 1e6 / f64::from(BATCH));
        }
    }
}
