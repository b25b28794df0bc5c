//! [`Issuer`]: gives tokens out as a cluster does, and the public key that proves them.

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair as _};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

/// An issuer with an ES256 key of its own.
pub struct Issuer {
    key: EcdsaKeyPair,
    id: &'static str,
}

impl Issuer {
    /// Its key has this id.
    pub fn new(id: &'static str) -> Self {
        let document = EcdsaKeyPair::generate_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, &SystemRandom::new()).unwrap();
        Issuer { key: EcdsaKeyPair::from_pkcs8(&ECDSA_P256_SHA256_FIXED_SIGNING, document.as_ref()).unwrap(), id }
    }

    /// Its public key.
    pub fn jwk(&self) -> Value {
        let point = self.key.public_key().as_ref();
        let (x, y) = (URL_SAFE_NO_PAD.encode(&point[1..33]), URL_SAFE_NO_PAD.encode(&point[33..]));
        json!({"kty": "EC", "crv": "P-256", "kid": self.id, "alg": "ES256", "use": "sig", "x": x, "y": y})
    }

    /// A token of these claims.
    pub fn sign(&self, claims: &Value) -> String {
        self.sign_with(&json!({"alg": "ES256", "kid": self.id}), claims)
    }

    /// The same with any header.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> String {
        let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", encode(header), encode(claims));
        let signature = self.key.sign(&SystemRandom::new(), signed.as_bytes()).unwrap();
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(signature.as_ref()))
    }
}

/// Claims of a service account, for a far future.
pub fn service_account(issuer: &str, audience: &str, namespace: &str, account: &str) -> Value {
    json!({"iss": issuer, "aud": [audience], "exp": 32_503_680_000_u64, "sub": format!("system:serviceaccount:{namespace}:{account}")})
}
