//! Whether a pod is injected. The first rule that decides wins.

use pilotfish_model::mesh_config::LabelSelector;
use pilotfish_model::name::Labels;
use serde_json::Value;

use super::tree::{flag, text, texts};

/// Namespaces of the cluster itself, never injected.
pub const IGNORED_NAMESPACES: &[&str] = &["kube-system", "kube-public", "kube-node-lease", "local-path-storage"];

/// Label and annotation by which a pod asks to be injected or not.
pub const INJECT: &str = "sidecar.istio.io/inject";

/// Namespaces without a word of their own are injected, or not.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Policy {
    /// Unless a pod opts out.
    #[default]
    Enabled,
    /// Only pods that ask for it.
    Disabled,
    /// Not understood: nothing is injected, whatever else says so.
    Unknown,
}

impl Policy {
    /// Reads what a configuration says.
    pub fn parse(text: &str) -> Policy {
        match text {
            "enabled" => Policy::Enabled,
            "disabled" => Policy::Disabled,
            _ => Policy::Unknown,
        }
    }
}

/// Why, for people.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It gets a sidecar.
    Inject,
    /// It does not, and why not.
    Skip(&'static str),
}

/// What decides beside the pod.
#[derive(Clone, Debug, Default)]
pub struct Rules {
    /// The default.
    pub policy: Policy,
    /// Pods that are left alone, unless they ask themselves.
    pub never: Vec<LabelSelector>,
    /// Pods that are injected, unless they opt out.
    pub always: Vec<LabelSelector>,
}

impl Rules {
    /// Decides about a pod of a namespace.
    pub fn decide(&self, pod: &Value, namespace: &str) -> Decision {
        use Decision::{Inject, Skip};
        if flag(pod, &["spec", "hostNetwork"]) {
            return Skip("host network");
        }
        if IGNORED_NAMESPACES.contains(&namespace) {
            return Skip("system namespace");
        }
        if self.policy == Policy::Unknown {
            tracing::error!("the injection policy is neither enabled nor disabled: nothing is injected");
            return Skip("unknown policy");
        }
        let asked = text(pod, &["metadata", "labels", INJECT]).or_else(|| text(pod, &["metadata", "annotations", INJECT]));
        match asked {
            Some("true") => return Inject,
            Some("false") => return Skip("the pod opts out"),
            Some(other) => tracing::warn!(value = other, "{INJECT} is neither true nor false, and ignored"),
            None => {}
        }
        let labels: Labels = texts(pod, &["metadata", "labels"]).iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect();
        let selected = |selectors: &[LabelSelector]| selectors.iter().any(|s| *s != LabelSelector::default() && s.matches(&labels));
        if selected(&self.never) {
            return Skip("a never-inject selector");
        }
        if selected(&self.always) || self.policy == Policy::Enabled { Inject } else { Skip("not enabled") }
    }
}
