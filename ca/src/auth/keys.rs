//! [`Keys`]: public keys of an issuer (RFC 7517), and whether one of them signed a token.

use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED, ECDSA_P384_SHA384_FIXED, RSA_PKCS1_2048_8192_SHA256, RSA_PKCS1_2048_8192_SHA384, RSA_PKCS1_2048_8192_SHA512,
    RsaParameters, RsaPublicKeyComponents, UnparsedPublicKey,
};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;

use super::jwt::Unproved;

/// More keys than that of one issuer are not looked at.
const MOST: usize = 64;

/// Whether a token is signed by one of the keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Proof {
    /// It is.
    Signed,
    /// It names a key, or is of a kind of key, that is not there.
    UnknownKey,
    /// It is not.
    Forged,
}

/// See the module's documentation.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Keys(Vec<Key>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct Key {
    id: Option<String>,
    /// The one algorithm that the key is for, if it says so.
    algorithm: Option<String>,
    public: Public,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Public {
    Rsa { n: Vec<u8>, e: Vec<u8> },
    P256(Vec<u8>),
    P384(Vec<u8>),
}

#[derive(Deserialize)]
struct Set {
    keys: Vec<serde_json::Value>,
}

#[derive(Deserialize)]
#[serde(default)]
#[derive(Default)]
struct Jwk {
    kty: String,
    kid: Option<String>,
    alg: Option<String>,
    r#use: Option<String>,
    crv: String,
    n: String,
    e: String,
    x: String,
    y: String,
}

impl Keys {
    /// Reads a set. Keys of other kinds are left out; `None` if it is no set at all.
    pub fn parse(json: &[u8]) -> Option<Keys> {
        let set: Set = serde_json::from_slice(json).ok()?;
        let keys = set.keys.into_iter().take(MOST).filter_map(|key| Key::read(serde_json::from_value(key).ok()?));
        Some(Keys(keys.collect()))
    }

    /// True without any.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Whether one of the keys signed the token.
    pub fn prove(&self, token: &Unproved<'_>) -> Proof {
        let named = |key: &&Key| token.key_id.is_none() || key.id.is_none() || key.id == token.key_id;
        let mut proof = Proof::UnknownKey;
        for key in self.0.iter().filter(named) {
            match key.verify(token) {
                Some(true) => return Proof::Signed,
                Some(false) => proof = Proof::Forged,
                None => {}
            }
        }
        proof
    }
}

impl Key {
    fn read(jwk: Jwk) -> Option<Key> {
        if jwk.r#use.as_deref().is_some_and(|usage| usage != "sig") {
            return None;
        }
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text.trim_end_matches('=')).ok().filter(|bytes| !bytes.is_empty());
        // Uncompressed, as X9.62 writes it.
        let point = |size: usize| {
            let (x, y) = (decode(&jwk.x)?, decode(&jwk.y)?);
            (x.len() == size && y.len() == size).then(|| [&[4][..], &x, &y].concat())
        };
        let public = match (jwk.kty.as_str(), jwk.crv.as_str()) {
            ("RSA", _) => Public::Rsa { n: decode(&jwk.n)?, e: decode(&jwk.e)? },
            ("EC", "P-256") => Public::P256(point(32)?),
            ("EC", "P-384") => Public::P384(point(48)?),
            _ => return None,
        };
        Some(Key { id: jwk.kid, algorithm: jwk.alg, public })
    }

    /// `None`: the token is of an algorithm that is not this key's.
    fn verify(&self, token: &Unproved<'_>) -> Option<bool> {
        let algorithm = token.algorithm.as_str();
        if self.algorithm.as_deref().is_some_and(|own| own != algorithm) {
            return None;
        }
        let (signed, signature) = (token.signed, &token.signature);
        match (&self.public, algorithm) {
            (Public::Rsa { n, e }, _) => {
                let parameters: &RsaParameters = match algorithm {
                    "RS256" => &RSA_PKCS1_2048_8192_SHA256,
                    "RS384" => &RSA_PKCS1_2048_8192_SHA384,
                    "RS512" => &RSA_PKCS1_2048_8192_SHA512,
                    _ => return None,
                };
                let leading = |bytes: &[u8]| bytes.iter().position(|b| *b != 0).unwrap_or(bytes.len());
                let (n, e) = (&n[leading(n)..], &e[leading(e)..]);
                Some(RsaPublicKeyComponents { n, e }.verify(parameters, signed, signature).is_ok())
            }
            (Public::P256(point), "ES256") => {
                Some(UnparsedPublicKey::new(&ECDSA_P256_SHA256_FIXED, point).verify(signed, signature).is_ok())
            }
            (Public::P384(point), "ES384") => {
                Some(UnparsedPublicKey::new(&ECDSA_P384_SHA384_FIXED, point).verify(signed, signature).is_ok())
            }
            _ => None,
        }
    }
}
