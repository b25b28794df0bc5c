//! Who may see ServiceEntries, whatever they say themselves: an upper bound of what they export.

use serde::Deserialize;

use super::LabelSelector;
use crate::name::{Labels, Visibility};

/// See the module.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ServiceEntryVisibility {
    /// Where no policy matches.
    pub default_visibility: Bound,
    /// The first that matches holds.
    pub policies: Vec<VisibilityPolicy>,
    /// It holds for Envoys; otherwise for ambient mode only.
    pub apply_to_sidecars: bool,
}

/// A bound, and for which ServiceEntries.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct VisibilityPolicy {
    pub visibility: Bound,
    /// All must match; none: it is for all.
    pub matching_rules: Vec<VisibilityRule>,
}

/// A condition.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct VisibilityRule {
    /// Of the namespace of the ServiceEntry. Without it the rule matches nothing.
    pub namespace_selector: Option<LabelSelector>,
}

/// Who may see it at most.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum Bound {
    #[default]
    #[serde(alias = "UNSPECIFIED")]
    Public,
    Namespace,
    None,
}

impl ServiceEntryVisibility {
    /// What of the visibility that a ServiceEntry asks for is left, in a namespace with these labels.
    pub fn bound(&self, namespace: &str, labels: &Labels, asked: Visibility) -> Visibility {
        let of_policy = |p: &&VisibilityPolicy| {
            p.matching_rules.iter().all(|rule| rule.namespace_selector.as_ref().is_some_and(|selector| selector.matches(labels)))
        };
        let bound = self.policies.iter().find(of_policy).map_or(self.default_visibility, |p| p.visibility);
        match bound {
            _ if !self.apply_to_sidecars => asked,
            Bound::Public => asked,
            Bound::Namespace if asked.allows(namespace, namespace) => Visibility::Private,
            Bound::Namespace | Bound::None => Visibility::None,
        }
    }
}
