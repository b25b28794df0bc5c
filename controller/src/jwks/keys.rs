//! Whether a JSON Web Key Set (RFC 7517) holds keys that Envoy can use. It refuses a whole listener for a set without any.

use base64::Engine;
use base64::engine::DecodePaddingMode;
use base64::engine::general_purpose::{GeneralPurpose, GeneralPurposeConfig};
use serde_json::{Map, Value};

/// Why a set is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadKeys {
    /// Not what RFC 7517 says.
    #[error("is not a JSON object with a list of keys")]
    NoSet,
    /// It has no key.
    #[error("has no key")]
    Empty,
    /// It has none that could be used.
    #[error("has no usable key: {0}")]
    Unusable(BadKey),
}

/// A key that cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("key {0} {1}")]
pub struct BadKey(usize, &'static str);

/// Takes a set with a key that can be used. Returned are those that cannot, which proxies pass over.
pub fn check(text: &str) -> Result<Vec<BadKey>, BadKeys> {
    let set: Value = serde_json::from_str(text).map_err(|_| BadKeys::NoSet)?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or(BadKeys::NoSet)?;
    let verdict = |key: &Value| key.as_object().ok_or("is not an object").and_then(is_usable);
    let bad = keys.iter().enumerate().filter_map(|(i, key)| Some(BadKey(i, verdict(key).err()?)));
    let mut bad: Vec<BadKey> = bad.collect();
    match (keys.len(), bad.len()) {
        (0, _) => Err(BadKeys::Empty),
        (keys, bad_ones) if keys == bad_ones => Err(BadKeys::Unusable(bad.swap_remove(0))),
        _ => Ok(bad),
    }
}

/// Families of algorithms by the type of key (RFC 7518, RFC 8037).
const TYPES: &[(&str, &[&str], &[&str])] =
    &[("RSA", &["RS", "PS"], &["n", "e"]), ("EC", &["ES"], &["x", "y"]), ("oct", &["HS"], &["k"]), ("OKP", &["EdDSA"], &["x"])];

fn is_usable(key: &Map<String, Value>) -> Result<(), &'static str> {
    let text = |name: &str| key.get(name).and_then(Value::as_str);
    let kty = text("kty").ok_or("has no type")?;
    let (_, families, numbers) = TYPES.iter().find(|(name, ..)| *name == kty).ok_or("is of a type that proxies do not know")?;
    if let Some(alg) = key.get("alg") {
        let alg = alg.as_str().ok_or("has an algorithm that is not a text")?;
        if !families.iter().any(|f| alg.starts_with(f)) {
            return Err("is of another type than its algorithm asks for");
        }
    }
    if ["kid", "use"].iter().any(|name| key.get(*name).is_some_and(|v| !v.is_string())) {
        return Err("has an id or a use that is not a text");
    }
    let is_known_curve = match kty {
        "EC" => text("crv").is_none_or(|c| ["P-256", "P-384", "P-521"].contains(&c)),
        "OKP" => text("crv") == Some("Ed25519"),
        _ => true,
    };
    if !is_known_curve {
        return Err("is on a curve that proxies do not know");
    }
    // A certificate may stand for the numbers of an RSA key, but then all of them are in it.
    if kty == "RSA" && key.contains_key("x5c") && !key.contains_key("n") {
        return Ok(());
    }
    let is_number = |name: &&str| text(name).is_some_and(|n| !n.is_empty() && NUMBERS.decode(n).is_ok());
    if numbers.iter().all(is_number) { Ok(()) } else { Err("lacks a part, or one is not in base64url") }
}

/// With padding or without: both are in use.
const NUMBERS: GeneralPurpose = GeneralPurpose::new(
    &base64::alphabet::URL_SAFE,
    GeneralPurposeConfig::new().with_decode_padding_mode(DecodePaddingMode::Indifferent).with_decode_allow_trailing_bits(true),
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sets_that_envoy_would_refuse_are_refused() {
        let verdict = |key: &str| check(&format!("{{\"keys\":[{key}]}}"));
        for good in [
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"RS256","use":"sig","kid":"a"}"#,
            r#"{"kty":"EC","crv":"P-256","x":"AQAB","y":"AQAB","alg":"ES256"}"#,
            r#"{"kty":"oct","k":"c2VjcmV0LXNlY3JldC1zZWNyZXQ","alg":"HS256"}"#,
            r#"{"kty":"OKP","crv":"Ed25519","x":"AQAB"}"#,
            r#"{"kty":"RSA","x5c":["MII="]}"#,
        ] {
            assert_eq!(verdict(good), Ok(Vec::new()), "{good}");
        }
        for bad in [
            "7",
            r#"{"n":"AQAB","e":"AQAB"}"#,
            r#"{"kty":"RSA","n":"AQAB"}"#,
            r#"{"kty":"RSA","n":"!","e":"AQAB"}"#,
            r#"{"kty":"RSA","n":"AQAB","e":"AQAB","alg":"ES256"}"#,
            r#"{"kty":"EC","crv":"secp256k1","x":"AQAB","y":"AQAB"}"#,
            r#"{"kty":"PQ"}"#,
        ] {
            assert!(matches!(verdict(bad), Err(BadKeys::Unusable(BadKey(0, _)))), "{bad}");
        }
        assert_eq!(check("nonsense"), Err(BadKeys::NoSet));
        assert_eq!(check("{\"keys\":{}}"), Err(BadKeys::NoSet));
        assert_eq!(check("{\"keys\":[]}"), Err(BadKeys::Empty));
    }

    #[test]
    fn one_bad_key_is_passed_over() {
        let bad = check(r#"{"keys":[{"kty":"PQ"},{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#);
        assert_eq!(bad, Ok(vec![BadKey(0, "is of a type that proxies do not know")]));
    }
}
