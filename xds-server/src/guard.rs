//! Keeps resources in that a client would refuse: what breaks the validation rules of Envoy's protos never leaves.
//!
//! Only what is new is checked, so an edit costs its own resources. A broken resource is replaced by its last good form, or
//! left out if there is none; everything else is served.

use std::sync::Arc;

use pilotfish_envoy::validate::{Violation, validate_any};
use pilotfish_envoy::{Resource, ResourceSet, Snapshot, TypeUrl};

/// A resource that was kept in.
#[derive(Debug)]
pub(crate) struct Refused {
    pub(crate) type_url: TypeUrl,
    pub(crate) name: Arc<str>,
    pub(crate) violations: Vec<Violation>,
    /// Its last good form is served instead.
    pub(crate) replaced: bool,
}

/// The snapshot without broken resources.
pub(crate) fn sound(last_good: Option<&Snapshot>, new: Snapshot) -> (Snapshot, Vec<Refused>) {
    let mut refused = Vec::new();
    let mut kept = Snapshot::new();
    for (type_url, set) in new.iter() {
        let before = last_good.map(|s| s.get(type_url).clone()).unwrap_or_default();
        let broken = refused.len();
        let checked: Vec<Resource> = set.iter().filter_map(|r| check(type_url, r, &before, &mut refused)).collect();
        kept.insert(type_url, if refused.len() == broken { set.clone() } else { Arc::new(ResourceSet::new(checked)) });
    }
    (kept, refused)
}

fn check(type_url: TypeUrl, resource: &Resource, before: &ResourceSet, refused: &mut Vec<Refused>) -> Option<Resource> {
    let known = before.get(resource.name());
    if known.is_some_and(|k| k.version() == resource.version()) {
        return Some(resource.clone());
    }
    match validate_any(&resource.to_any()) {
        Ok(()) => Some(resource.clone()),
        Err(violations) => {
            refused.push(Refused { type_url, name: resource.name().clone(), violations, replaced: known.is_some() });
            known.cloned()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;

    fn snapshot(clusters: &[(&str, Cluster)]) -> Snapshot {
        let mut snapshot = Snapshot::new();
        snapshot.insert(TypeUrl::Cluster, ResourceSet::new(clusters.iter().map(|(name, c)| Resource::new(*name, c))));
        snapshot
    }

    fn good(name: &str) -> Cluster {
        Cluster { name: name.into(), ..Cluster::default() }
    }

    #[test]
    fn a_broken_resource_keeps_its_last_good_form_and_harms_no_other() {
        let broken = Cluster { alt_stat_name: "x".into(), ..Cluster::default() };
        let before = snapshot(&[("a", good("a")), ("b", good("b"))]);
        let (kept, refused) = sound(Some(&before), snapshot(&[("a", broken.clone()), ("b", good("b")), ("c", broken), ("d", good("d"))]));
        assert_eq!(kept, snapshot(&[("a", good("a")), ("b", good("b")), ("d", good("d"))]));
        let told: Vec<_> = refused.iter().map(|r| (&*r.name, r.replaced, r.violations.len())).collect();
        assert_eq!(told, [("a", true, 1), ("c", false, 1)]);
    }

    #[test]
    fn what_is_sound_keeps_its_pointer() {
        let new = snapshot(&[("a", good("a"))]);
        let set = new.get(TypeUrl::Cluster).clone();
        let (kept, refused) = sound(None, new);
        assert!(refused.is_empty() && Arc::ptr_eq(&kept.get(TypeUrl::Cluster), &set));
    }
}
