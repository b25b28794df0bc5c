//! What clients would refuse, and what they get instead.

use std::sync::Arc;

use pilotfish_envoy::validate::Violation;
use pilotfish_envoy::{Layer, Resource, TypeUrl};

use crate::leaf::{Broken, Built};

/// A resource, or a virtual host of one, that is kept in: it breaks the validation rules of Envoy's protos.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refused {
    /// Its type.
    pub type_url: TypeUrl,
    /// Its name; of a virtual host that of its route configuration, a slash, and its own.
    pub name: Arc<str>,
    /// What it breaks.
    pub violations: Arc<[Violation]>,
    /// Its last good form is served instead.
    pub replaced: bool,
}

/// The resource to serve: the new one, or of a broken one the form that was served `before`.
pub(crate) fn resolve(built: &Built, before: Option<&Arc<Layer>>, refused: &mut Vec<Refused>) -> Option<Resource> {
    match built {
        Built::Sound(resource) => Some(resource.clone()),
        Built::Broken(Broken { type_url, name, violations }) => {
            let last_good = before.and_then(|l| l.get(name)).cloned();
            let (type_url, name, violations, replaced) = (*type_url, name.clone(), violations.clone(), last_good.is_some());
            refused.push(Refused { type_url, name, violations, replaced });
            last_good
        }
    }
}
