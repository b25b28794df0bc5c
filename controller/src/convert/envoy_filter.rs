//! EnvoyFilter.

use pilotfish_crds::networking::EnvoyFilterSpec;
use pilotfish_model::attachment::Attachment;
use pilotfish_model::{ContentHash, EnvoyFilter};

use super::attachment::attachment;
use super::fields::{Scope, labels};

pub(super) fn convert(scope: &mut Scope<'_>, spec: &EnvoyFilterSpec) -> EnvoyFilter {
    EnvoyFilter {
        meta: scope.meta_without_labels(),
        attachment: Attachment {
            selector: spec.workload_selector.as_ref().map(|s| labels(&s.labels)).unwrap_or_default(),
            ..attachment(None, None, &spec.target_refs)
        },
        content: ContentHash::of_bytes(format!("{spec:?}").as_bytes()),
    }
}
