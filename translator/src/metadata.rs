//! `filter_metadata`: what telemetry and filters read beside a resource.

use pilotfish_envoy::{Metadata, Struct, Value};

/// Key of Istio's own metadata.
pub const ISTIO: &str = "istio";

/// Metadata with only Istio's entry.
pub fn istio<K: AsRef<str>>(fields: impl IntoIterator<Item = (K, Value)>) -> Metadata {
    Metadata::new([(ISTIO, Struct::new(fields))])
}
