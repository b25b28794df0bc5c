//! Which workloads a policy, a patch or an extension is for.

use pilotfish_crds::policy::{LabelsSelector, PolicyTargetReference};
use pilotfish_model::attachment::{Attachment, TargetRef};

use super::fields::labels;

/// `single` is the older field for a list of one.
pub(super) fn attachment(
    selector: Option<&LabelsSelector>,
    single: Option<&PolicyTargetReference>,
    targets: &[PolicyTargetReference],
) -> Attachment {
    let target = |t: &PolicyTargetReference| TargetRef {
        group: t.group.as_str().into(),
        kind: t.kind.as_str().into(),
        name: t.name.as_str().into(),
    };
    Attachment {
        selector: selector.map(|s| labels(&s.match_labels)).unwrap_or_default(),
        targets: single.into_iter().chain(targets).map(target).collect(),
    }
}
