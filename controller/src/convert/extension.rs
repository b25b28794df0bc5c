//! WasmPlugin and TrafficExtension.

use pilotfish_crds::extensions::{TrafficExtensionSpec, WasmPluginSpec};
use pilotfish_model::{ContentHash, Extension};

use super::attachment::attachment;
use super::fields::Scope;

pub(super) fn wasm_plugin(scope: &mut Scope<'_>, spec: &WasmPluginSpec) -> Extension {
    Extension {
        meta: scope.meta_without_labels(),
        attachment: attachment(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs),
        content: ContentHash::of_bytes(format!("{spec:?}").as_bytes()),
    }
}

pub(super) fn traffic_extension(scope: &mut Scope<'_>, spec: &TrafficExtensionSpec) -> Extension {
    Extension {
        meta: scope.meta_without_labels(),
        attachment: attachment(spec.selector.as_ref(), None, &spec.target_refs),
        content: ContentHash::of_bytes(format!("{spec:?}").as_bytes()),
    }
}
