//! [`TokenIssuer`]: signs JSON web tokens with a key of its own.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use rcgen::{KeyPair, PKCS_ED25519, SigningKey};
use serde_json::{Value, json};

/// An issuer of tokens.
pub struct TokenIssuer {
    name: String,
    key: KeyPair,
}

impl TokenIssuer {
    /// With a new Ed25519 key.
    pub fn new(name: &str) -> Self {
        TokenIssuer { name: name.to_owned(), key: KeyPair::generate_for(&PKCS_ED25519).unwrap() }
    }

    /// Its public key, as a set of keys.
    pub fn jwks(&self) -> String {
        let x = URL_SAFE_NO_PAD.encode(self.key.public_key_raw());
        json!({"keys": [{"kty": "OKP", "crv": "Ed25519", "alg": "EdDSA", "use": "sig", "kid": "1", "x": x}]}).to_string()
    }

    /// A token with these claims beside issuer and times, good for an hour.
    pub fn token(&self, claims: Value) -> String {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        self.token_until(claims, now + Duration::from_secs(3600))
    }

    /// The same with an end of one's choice, since 1970.
    pub fn token_until(&self, claims: Value, end: Duration) -> String {
        let mut all = json!({"iss": self.name, "iat": 0, "exp": end.as_secs()});
        all.as_object_mut().unwrap().extend(claims.as_object().cloned().unwrap_or_default());
        let part = |value: Value| URL_SAFE_NO_PAD.encode(value.to_string());
        let signed = format!("{}.{}", part(json!({"alg": "EdDSA", "typ": "JWT", "kid": "1"})), part(all));
        format!("{signed}.{}", URL_SAFE_NO_PAD.encode(self.key.sign(signed.as_bytes()).unwrap()))
    }
}
