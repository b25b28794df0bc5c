//! Bytes of strangers: nothing panics, nothing is believed.
//!
//! `PROPTEST_CASES=1000000 cargo test -p pilotfish-ca fuzz` looks for longer.

use pilotfish_ca::auth::jwt::Unproved;
use pilotfish_ca::auth::keys::{Keys, Proof};
use pilotfish_ca::issue::{Policy, issue};
use pilotfish_ca::{Material, chain, pem};
use pilotfish_model::Identity;
use pilotfish_testkit::token::Issuer;
use proptest::prelude::*;
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::pki_types::pem::PemObject as _;

use super::tokens::keys;
use super::{csr, der, identity, material, now};

fn shared() -> &'static Material {
    static MATERIAL: std::sync::OnceLock<Material> = std::sync::OnceLock::new();
    MATERIAL.get_or_init(material)
}

fn as_request(der: &[u8]) -> String {
    pem::certificate(der).replace("CERTIFICATE", "CERTIFICATE REQUEST")
}

proptest! {
    #[test]
    fn requests_out_of_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..600), text in ".{0,200}") {
        for request in [as_request(&bytes), text] {
            prop_assert!(issue(shared(), &Policy::default(), &request, &[identity("a", "b")], 0, now()).is_err());
        }
    }

    /// A good request with bytes changed: refused, or for the same key, and never for another name.
    #[test]
    fn requests_with_holes(changes in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..4), seconds in any::<i64>()) {
        static REQUEST: std::sync::OnceLock<String> = std::sync::OnceLock::new();
        let good = REQUEST.get_or_init(|| csr(&PKCS_ECDSA_P256_SHA256, "spiffe://x/ns/evil/sa/evil").0);
        let good = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
        let mut bytes = good.to_vec();
        for (at, byte) in changes {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        if let Ok(issued) = issue(shared(), &Policy::default(), &as_request(&bytes), &[identity("a", "b")], seconds, now()) {
            let leaf = der(&issued.chain[0]);
            let parsed = chain::parse(&leaf).unwrap();
            prop_assert_eq!(chain::identities(&parsed), vec![identity("a", "b")]);
            prop_assert!(!parsed.is_ca());
        }
    }

    #[test]
    fn tokens_out_of_nothing(text in ".{0,300}", parts in proptest::collection::vec("[A-Za-z0-9_=-]{0,80}", 0..5)) {
        for token in [text, parts.join(".")] {
            if let Ok(token) = Unproved::parse(&token) {
                let _ = token.claims();
                prop_assert_ne!(keys(&[&Issuer::new("k")]).prove(&token), Proof::Signed);
            }
        }
    }

    #[test]
    fn tokens_with_holes(at in any::<prop::sample::Index>(), byte in "[A-Za-z0-9_.-]") {
        let issuer = Issuer::new("k");
        let good = issuer.sign(&serde_json::json!({"iss": "i", "exp": 1e10, "sub": "system:serviceaccount:a:b"}));
        let at = at.index(good.len());
        let bad = format!("{}{byte}{}", &good[..at], &good[at + 1..]);
        let proved = Unproved::parse(&bad).is_ok_and(|token| keys(&[&issuer]).prove(&token) == Proof::Signed);
        prop_assert_eq!(proved, bad == good);
    }

    #[test]
    fn keys_and_names_out_of_nothing(bytes in proptest::collection::vec(any::<u8>(), 0..300), text in ".{0,200}") {
        let _ = Keys::parse(&bytes);
        let _ = Keys::parse(format!(r#"{{"keys":[{{"kty":"RSA","n":"{text}","e":"AQAB"}}]}}"#).as_bytes());
        let _ = chain::parse(&bytes);
        let _ = pem::certificates(&bytes);
        if let Ok(identity) = text.parse::<Identity>() {
            prop_assert_eq!(identity.to_string(), text);
        }
    }
}
