//! What this crate asks of a Kubernetes API, as data: roles are made from it.

use pilotfish_model::Kind;

use crate::source::kube::{kinds, path};
use crate::status::WRITTEN;

/// Verbs on resources of a group.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Rule {
    /// Empty for the core group.
    pub group: &'static str,
    /// As in paths, with subresource: `virtualservices/status`.
    pub resources: Vec<String>,
    /// What is done.
    pub verbs: &'static [&'static str],
    /// Only in the control plane's own namespace.
    pub own_namespace: bool,
}

/// Everything that is used, in the order of what uses it.
pub fn rules() -> Vec<Rule> {
    let mut rules = grouped(kinds(), "", &["list", "watch"]);
    // Every write is preceded by a look at what is there.
    rules.extend(grouped(WRITTEN.iter().copied(), "", &["get"]));
    rules.extend(grouped(WRITTEN.iter().copied(), "/status", &["patch"]));
    let lease = vec!["leases".to_owned()];
    rules.push(Rule { group: "coordination.k8s.io", resources: lease, verbs: &["get", "create", "update"], own_namespace: true });
    rules
}

fn grouped(kinds: impl Iterator<Item = Kind>, subresource: &str, verbs: &'static [&'static str]) -> Vec<Rule> {
    let mut rules: Vec<Rule> = Vec::new();
    for kind in kinds {
        let resource = format!("{}{subresource}", path::plural(kind));
        match rules.iter_mut().find(|r| r.group == kind.group()) {
            Some(rule) => rule.resources.push(resource),
            None => rules.push(Rule { group: kind.group(), resources: vec![resource], verbs, own_namespace: false }),
        }
    }
    rules
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn writes_are_few() {
        let writes: Vec<_> =
            rules().into_iter().filter(|r| !r.verbs.contains(&"list")).map(|r| (r.group, r.resources.join(" "), r.verbs)).collect();
        let networking = "destinationrules gateways serviceentries sidecars virtualservices workloadentries";
        let with_status = networking.split(' ').map(|n| format!("{n}/status")).collect::<Vec<_>>().join(" ");
        assert_eq!(
            writes,
            [
                ("networking.istio.io", networking.to_owned(), &["get"][..]),
                ("security.istio.io", "peerauthentications".to_owned(), &["get"]),
                ("networking.istio.io", with_status, &["patch"]),
                ("security.istio.io", "peerauthentications/status".to_owned(), &["patch"]),
                ("coordination.k8s.io", "leases".to_owned(), &["get", "create", "update"]),
            ]
        );
    }
}
