//! [`Attachment`]: which workloads a policy, a patch or an extension is for.

use std::sync::Arc;

use crate::name::{Labels, Meta, Str, selects};

/// Label of workloads that belong to a gateway of the Gateway API: its name.
pub const GATEWAY_NAME: &str = "gateway.networking.k8s.io/gateway-name";

/// See the module. One that says nothing is for all workloads of its namespace, or of the mesh if that is the root namespace.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Attachment {
    /// Labels of the workloads; empty: all.
    pub selector: Labels,
    /// Objects of the Gateway API instead.
    pub targets: Vec<TargetRef>,
}

/// An object of the same namespace that a policy names.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TargetRef {
    /// API group, empty for the core group.
    pub group: Str,
    /// Kind.
    pub kind: Str,
    /// Name.
    pub name: Str,
}

impl Attachment {
    /// Whether it is for a workload with these labels. Only what belongs to a gateway of the Gateway API can be named as target.
    pub fn covers(&self, labels: &Labels) -> bool {
        if self.targets.is_empty() {
            return selects(&self.selector, labels);
        }
        let gateway = labels.get(GATEWAY_NAME);
        let names = |t: &TargetRef| &*t.kind == "Gateway" && &*t.group == "gateway.networking.k8s.io" && gateway == Some(&t.name);
        self.targets.iter().any(names)
    }

    /// Keys of labels that decide.
    pub fn keys(&self) -> impl Iterator<Item = &Str> {
        self.selector.keys()
    }
}

/// An object that is for workloads.
pub trait Attached {
    /// Identity and age.
    fn meta(&self) -> &Meta;
    /// Which workloads.
    fn attachment(&self) -> &Attachment;
}

impl<T: Attached> Attached for Arc<T> {
    fn meta(&self) -> &Meta {
        (**self).meta()
    }

    fn attachment(&self) -> &Attachment {
        (**self).attachment()
    }
}

/// Implements [`Attached`] for structs with these fields.
macro_rules! attached {
    ($type:ty) => {
        impl $crate::attachment::Attached for $type {
            fn meta(&self) -> &$crate::name::Meta {
                &self.meta
            }

            fn attachment(&self) -> &$crate::attachment::Attachment {
                &self.attachment
            }
        }
    };
}
pub(crate) use attached;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_of_gateways_only() {
        let labels = |pairs: &[(&str, &str)]| pairs.iter().map(|(k, v)| (Str::from(*k), Str::from(*v))).collect::<Labels>();
        let target = |group: &str, kind: &str| Attachment {
            targets: vec![TargetRef { group: group.into(), kind: kind.into(), name: "edge".into() }],
            ..Attachment::default()
        };
        let edge = labels(&[(GATEWAY_NAME, "edge"), ("app", "edge")]);
        let (all, web) = (Attachment::default(), Attachment { selector: labels(&[("app", "web")]), ..Attachment::default() });
        let gateway = target("gateway.networking.k8s.io", "Gateway");
        let covers = [&all, &web, &gateway, &target("", "Gateway"), &target("", "Service")].map(|a| a.covers(&edge));
        assert_eq!(covers, [true, false, true, false, false]);
        let web_labels = labels(&[("app", "web")]);
        assert_eq!([&all, &web, &gateway].map(|a| a.covers(&web_labels)), [true, true, false]);
    }
}
