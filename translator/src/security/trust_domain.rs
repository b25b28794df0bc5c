//! Principals in a mesh whose trust domain has other names, too.

use std::borrow::Cow;
use std::collections::BTreeSet;

use pilotfish_model::MeshConfig;
use pilotfish_model::authorization_policy::Value;
use pilotfish_model::name::Str;

/// What stands for the mesh's own trust domain wherever it is written.
const ANY_LOCAL: &str = "cluster.local";

/// The mesh's trust domain, then its other names in order.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct TrustDomains(Vec<Str>);

impl TrustDomains {
    pub(super) fn of(config: &MeshConfig) -> Self {
        let aliases: BTreeSet<&Str> = config.trust_domain_aliases.iter().filter(|a| **a != config.trust_domain).collect();
        TrustDomains(std::iter::once(&config.trust_domain).chain(aliases).cloned().collect())
    }

    /// Principals with each that names the mesh's trust domain under all of its names. Only whole identities are (trust
    /// domain, namespace, service account): shorter ones name no trust domain, or only look like it.
    pub(super) fn expand<'a>(&self, principals: &'a [Value]) -> Cow<'a, [Value]> {
        if !principals.iter().any(|p| self.split(p).is_some()) {
            return Cow::Borrowed(principals);
        }
        let mut expanded = Vec::with_capacity(principals.len() * self.0.len());
        for principal in principals {
            let Some((domain, rest, whole)) = self.split(principal) else {
                expanded.push(principal.clone());
                continue;
            };
            // A wildcard is kept for what it covers, once.
            let mut kept = false;
            for own in &self.0 {
                if !covers(domain, own) {
                    expanded.push(Value::Text(format!("{own}/{rest}").into()));
                } else if !std::mem::replace(&mut kept, true) {
                    expanded.push(Value::Text(whole.clone()));
                }
            }
        }
        Cow::Owned(expanded)
    }

    /// Trust domains with each that is one of the mesh's names replaced by all of them.
    pub(super) fn expand_domains<'a>(&self, domains: &'a [Value]) -> Cow<'a, [Value]> {
        let is_own = |domain: &Value| matches!(domain, Value::Text(text) if self.0.contains(text));
        if !domains.iter().any(is_own) {
            return Cow::Borrowed(domains);
        }
        let mut expanded: Vec<Value> = Vec::new();
        for domain in domains {
            let all: Vec<Value> = if is_own(domain) { self.0.iter().cloned().map(Value::Text).collect() } else { vec![domain.clone()] };
            for domain in all {
                if !expanded.contains(&domain) {
                    expanded.push(domain);
                }
            }
        }
        Cow::Owned(expanded)
    }

    /// Trust domain, the rest, and the whole, of a principal that names the mesh's trust domain.
    fn split<'a>(&self, principal: &'a Value) -> Option<(&'a str, &'a str, &'a Str)> {
        let Value::Text(text) = principal else { return None };
        let (domain, rest) = text.split_once('/')?;
        let is_whole = rest.bytes().filter(|b| *b == b'/').count() == 3;
        (is_whole && (domain == ANY_LOCAL || self.0.iter().any(|own| covers(domain, own)))).then_some((domain, rest, text))
    }
}

fn covers(pattern: &str, domain: &str) -> bool {
    pattern.strip_prefix('*').map_or(pattern == domain, |suffix| domain.ends_with(suffix))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn own_names_stand_for_each_other() {
        let config = MeshConfig {
            trust_domain: "own".into(),
            trust_domain_aliases: vec!["older".into(), "cluster.local".into(), "own".into()],
            ..MeshConfig::default()
        };
        let domains = TrustDomains::of(&config);
        let expand = |texts: &[&str]| -> Vec<String> {
            let values: Vec<Value> = texts.iter().map(|t| Value::Text((*t).into())).collect();
            let text = |v: &Value| if let Value::Text(t) = v { t.to_string() } else { panic!("no text") };
            domains.expand(&values).iter().map(text).collect()
        };
        let all = ["own/ns/a/sa/b", "cluster.local/ns/a/sa/b", "older/ns/a/sa/b"];
        assert_eq!(expand(&["older/ns/a/sa/b"]), all);
        assert_eq!(expand(&["older/ns/a/sa/b", "own/ns/a/sa/b"]), [all, all].concat());
        assert_eq!(expand(&["foreign/ns/a/sa/b", "*", "own/ns/a/*"]), ["foreign/ns/a/sa/b", "*", "own/ns/a/*"]);
        assert_eq!(expand(&["*/ns/a/sa/b"]), ["*/ns/a/sa/b"]);
        let domains_of = |texts: &[&str]| -> Vec<String> {
            let values: Vec<Value> = texts.iter().map(|t| Value::Text((*t).into())).collect();
            let text = |v: &Value| if let Value::Text(t) = v { t.to_string() } else { panic!("no text") };
            domains.expand_domains(&values).iter().map(text).collect()
        };
        assert_eq!(domains_of(&["foreign", "older", "own"]), ["foreign", "own", "cluster.local", "older"]);
        assert_eq!(domains_of(&["foreign", "*", "foreign"]), ["foreign", "*", "foreign"]);
        assert_eq!(expand(&["*er/ns/a/sa/b"]), ["own/ns/a/sa/b", "cluster.local/ns/a/sa/b", "*er/ns/a/sa/b"]);
    }
}
