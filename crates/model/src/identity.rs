//! [`Identity`]: who a workload is, as certificates say it; and [`Caller`]: what is known of whoever asks.
//!
//! `spiffe://<trust domain>/ns/<namespace>/sa/<service account>`, see the SPIFFE-ID standard. Parsed once, where it is read.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use crate::name::Str;

/// The scheme of SPIFFE names.
const SCHEME: &str = "spiffe://";
/// The longest name (SPIFFE-ID, section 2.3).
const LONGEST: usize = 2048;

/// A service account of a trust domain.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    /// Whose word it is.
    pub trust_domain: Str,
    /// Namespace of the service account.
    pub namespace: Str,
    /// Its name.
    pub account: Str,
}

/// Not a name of a service account.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not of the form spiffe://<trust domain>/ns/<namespace>/sa/<service account>")]
pub struct BadIdentity;

impl FromStr for Identity {
    type Err = BadIdentity;

    fn from_str(text: &str) -> Result<Self, BadIdentity> {
        let path = text.strip_prefix(SCHEME).filter(|_| text.len() <= LONGEST).ok_or(BadIdentity)?;
        let parts: Vec<&str> = path.split('/').collect();
        match parts[..] {
            [domain, "ns", namespace, "sa", account] if is_domain(domain) && is_segment(namespace) && is_segment(account) => {
                Ok(Identity { trust_domain: domain.into(), namespace: namespace.into(), account: account.into() })
            }
            _ => Err(BadIdentity),
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{SCHEME}{}/ns/{}/sa/{}", self.trust_domain, self.namespace, self.account)
    }
}

/// Characters of a path segment. Namespaces and service accounts of Kubernetes have fewer.
fn is_segment(text: &str) -> bool {
    !text.is_empty() && text != "." && text != ".." && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'.' | b'_'))
}

fn is_domain(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.' | b'_'))
}

/// The Pod that a token was given to.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct PodRef {
    /// Its name; the namespace is that of the identity.
    pub name: Str,
    /// Its UID.
    pub uid: Str,
}

/// Who asks, as far as that was proved.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Caller {
    /// All that it is; empty for nobody in particular. Most have one.
    pub identities: Arc<[Identity]>,
    /// The Pod, where a token names one.
    pub pod: Option<PodRef>,
}

impl Caller {
    /// Somebody who proved nothing.
    pub fn anonymous() -> Caller {
        Caller::default()
    }

    /// Somebody who is this.
    pub fn of(identity: Identity) -> Caller {
        Caller { identities: Arc::from([identity]), pod: None }
    }

    /// True if nothing was proved.
    pub fn is_anonymous(&self) -> bool {
        self.identities.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_of_service_accounts_are_parsed_and_written_alike() {
        let text = "spiffe://cluster.local/ns/shop/sa/web-1";
        let identity: Identity = text.parse().unwrap();
        let expected = Identity { trust_domain: "cluster.local".into(), namespace: "shop".into(), account: "web-1".into() };
        assert_eq!((&identity, identity.to_string().as_str()), (&expected, text));
    }

    #[test]
    fn nothing_else_is_one() {
        for text in [
            "",
            "spiffe://",
            "spiffe:///ns/a/sa/b",
            "spiffe://td/ns//sa/b",
            "spiffe://td/ns/a/sa/",
            "spiffe://td/ns/a/sa/b/",
            "spiffe://td/ns/a/sa/b/c",
            "spiffe://td/ns/../sa/b",
            "spiffe://td/ns/a%2f/sa/b",
            "spiffe://td/ns/a b/sa/b",
            "spiffe://td/ns/a/sa/b?x",
            "spiffe://td:80/ns/a/sa/b",
            "spiffe://u@td/ns/a/sa/b",
            "SPIFFE://td/ns/a/sa/b",
            "https://td/ns/a/sa/b",
            "spiffe://td/sa/a/ns/b",
            "spiffe://td/ns/ä/sa/b",
        ] {
            assert_eq!(text.parse::<Identity>(), Err(BadIdentity), "{text}");
        }
        let long = format!("spiffe://td/ns/{}/sa/b", "a".repeat(2048));
        assert_eq!(long.parse::<Identity>(), Err(BadIdentity));
    }
}
