//! Telemetry.

use pilotfish_crds::telemetry::TelemetrySpec;
use pilotfish_model::{ContentHash, Telemetry};

use super::attachment::attachment;
use super::fields::Scope;

pub(super) fn convert(scope: &mut Scope<'_>, spec: &TelemetrySpec) -> Telemetry {
    Telemetry {
        meta: scope.meta_without_labels(),
        attachment: attachment(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs),
        content: ContentHash::of_bytes(format!("{spec:?}").as_bytes()),
    }
}
