//! JSON Web Tokens (RFC 7519): taken apart, and proved by public keys. Which algorithm is used is the key's to say, not the
//! token's.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Deserialize;
use serde_json::Value;

/// The longest token that is looked at, in bytes.
pub const LONGEST: usize = 16 << 10;

/// Not a token, or not one to be believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Bad {
    /// Not of the form of a signed token.
    #[error("not a signed token")]
    Form,
    /// Something in it must be understood and is not.
    #[error("it demands something that is not known here")]
    Critical,
}

/// A token that nothing proves yet.
#[derive(Debug)]
pub struct Unproved<'a> {
    pub(super) algorithm: String,
    pub(super) key_id: Option<String>,
    pub(super) signed: &'a [u8],
    pub(super) signature: Vec<u8>,
    claims: Vec<u8>,
}

#[derive(Deserialize)]
struct Header {
    alg: String,
    #[serde(default)]
    kid: Option<String>,
    #[serde(default)]
    crit: Option<Value>,
    #[serde(default)]
    b64: Option<Value>,
}

/// What a token says.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Claims {
    /// Who says so.
    pub iss: String,
    /// Of whom.
    pub sub: String,
    /// To whom.
    pub aud: Audience,
    /// Seconds since 1970 from which on it does not hold.
    pub exp: Option<f64>,
    /// Seconds since 1970 before which it does not hold.
    pub nbf: Option<f64>,
    /// What Kubernetes adds.
    #[serde(rename = "kubernetes.io")]
    pub kubernetes: Option<Kubernetes>,
}

/// One or several.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Audience(pub Vec<String>);

impl<'de> Deserialize<'de> for Audience {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        #[derive(Deserialize)]
        #[serde(untagged)]
        enum Form {
            One(String),
            Many(Vec<String>),
        }
        Ok(Audience(match Form::deserialize(deserializer)? {
            Form::One(one) => vec![one],
            Form::Many(many) => many,
        }))
    }
}

/// Claims of a service account.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Kubernetes {
    /// Its namespace.
    pub namespace: String,
    /// The account.
    pub serviceaccount: Object,
    /// The Pod that the token was given to.
    pub pod: Option<Object>,
}

/// A named object.
#[derive(Clone, Debug, Default, Deserialize, PartialEq)]
#[serde(default)]
pub struct Object {
    /// Its name.
    pub name: String,
    /// Its UID.
    pub uid: String,
}

impl<'a> Unproved<'a> {
    /// Takes a token apart.
    pub fn parse(token: &'a str) -> Result<Unproved<'a>, Bad> {
        if token.len() > LONGEST {
            return Err(Bad::Form);
        }
        let (signed, signature) = token.rsplit_once('.').ok_or(Bad::Form)?;
        let (header, claims) = signed.split_once('.').ok_or(Bad::Form)?;
        if claims.contains('.') {
            return Err(Bad::Form);
        }
        let decode = |text: &str| URL_SAFE_NO_PAD.decode(text).map_err(|_| Bad::Form);
        let header: Header = serde_json::from_slice(&decode(header)?).map_err(|_| Bad::Form)?;
        if header.crit.is_some() || header.b64.is_some() {
            return Err(Bad::Critical);
        }
        let (claims, signature) = (decode(claims)?, decode(signature)?);
        Ok(Unproved { algorithm: header.alg, key_id: header.kid, signed: signed.as_bytes(), signature, claims })
    }

    /// What it claims, proved or not.
    pub fn claims(&self) -> Result<Claims, Bad> {
        serde_json::from_slice(&self.claims).map_err(|_| Bad::Form)
    }
}
