//! Whether the proxy runs as an init container that stays (a native sidecar).

use std::collections::BTreeMap;

use super::annotations::{NATIVE, parse_bool};

/// Minor version of the first Kubernetes release whose native sidecars are relied on.
const FIRST_MINOR: u32 = 33;

/// What the control plane knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NativeSidecars {
    /// Decided by a setting.
    Forced(bool),
    /// By what runs on the nodes.
    Nodes {
        /// Version of the kubelet of each node, by name.
        kubelets: BTreeMap<String, String>,
    },
}

impl Default for NativeSidecars {
    fn default() -> Self {
        NativeSidecars::Nodes { kubelets: BTreeMap::new() }
    }
}

impl NativeSidecars {
    /// Decides for a pod; `node` is where it runs, if that is known already.
    pub(crate) fn decide(&self, annotations: &BTreeMap<String, String>, node: Option<&str>) -> bool {
        if let Some(asked) = annotations.get(NATIVE).and_then(|v| parse_bool(v)) {
            return asked;
        }
        match self {
            NativeSidecars::Forced(on) => *on,
            NativeSidecars::Nodes { kubelets } => match node.and_then(|n| kubelets.get(n)) {
                Some(version) => new_enough(version),
                // Without any node nobody says that it would not work.
                None => kubelets.values().all(|v| new_enough(v)),
            },
        }
    }
}

/// A version that cannot be read is too old: a container works everywhere.
fn new_enough(version: &str) -> bool {
    let mut parts = version.trim_start_matches('v').split('.').map(|p| p.trim_end_matches('+').parse::<u32>().ok());
    match (parts.next().flatten(), parts.next().flatten()) {
        (Some(1), Some(minor)) => minor >= FIRST_MINOR,
        (Some(major), Some(_)) => major > 1,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn order_of_precedence() {
        let nodes = |list: &[(&str, &str)]| NativeSidecars::Nodes {
            kubelets: list.iter().map(|(n, v)| ((*n).to_owned(), (*v).to_owned())).collect(),
        };
        let none = BTreeMap::new();
        let off = BTreeMap::from([(NATIVE.to_owned(), "false".to_owned())]);
        assert!(!NativeSidecars::Forced(true).decide(&off, None), "the pod decides");
        assert!(NativeSidecars::Forced(true).decide(&none, None));
        let mixed = nodes(&[("new", "v1.33.0"), ("old", "v1.28.3")]);
        assert!(!mixed.decide(&none, None));
        assert!(mixed.decide(&none, Some("new")));
        assert!(!nodes(&[("a", "v1.33.0"), ("b", "what")]).decide(&none, None));
        assert!(nodes(&[("a", "v1.33.0+k3s1"), ("b", "v1.40.1-gke.1")]).decide(&none, None));
    }
}
