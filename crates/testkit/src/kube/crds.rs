//! Istio's kinds as an API server is told of them.

use serde_json::{Value, json};

/// The CustomResourceDefinitions of all of Istio's kinds, as they are shipped.
pub fn istio_crds() -> Vec<Value> {
    pilotfish_crds::definitions()
}

/// The same without schemas, rules and columns: what an API server stores of them need not make sense. Definitions of another
/// age are like that where it matters: they let through what ours would not.
pub fn schemaless_crds() -> Vec<Value> {
    let anything = json!({"type": "object", "x-kubernetes-preserve-unknown-fields": true});
    let mut crds = istio_crds();
    for version in crds.iter_mut().filter_map(|crd| crd["spec"]["versions"].as_array_mut()).flatten() {
        version["schema"] = json!({"openAPIV3Schema": {"type": "object", "properties": {"spec": anything, "status": anything}}});
    }
    crds
}
