//! AuthorizationPolicy.

use pilotfish_crds::security::AuthorizationPolicySpec;
use pilotfish_model::{AuthorizationPolicy, ContentHash};

use super::attachment::attachment;
use super::fields::Scope;

pub(super) fn convert(scope: &mut Scope<'_>, spec: &AuthorizationPolicySpec) -> AuthorizationPolicy {
    AuthorizationPolicy {
        meta: scope.meta_without_labels(),
        attachment: attachment(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs),
        content: ContentHash::of_bytes(format!("{spec:?}").as_bytes()),
    }
}
