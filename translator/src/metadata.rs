//! `filter_metadata`: what telemetry and filters read beside a resource.

use pilotfish_envoy::pb::udpa::r#type::v1::TypedStruct;
use pilotfish_envoy::{Metadata, Struct, Value};
use pilotfish_model::name::Str;

/// Key of Istio's own metadata.
pub const ISTIO: &str = "istio";

/// Metadata with only Istio's entry.
pub fn istio<K: AsRef<str>>(fields: impl IntoIterator<Item = (K, Value)>) -> Metadata {
    Metadata::new([(ISTIO, Struct::new(fields))])
}

/// Settings of the filter by which Istio's proxies tell each other what they are, in the first bytes of a connection.
pub fn exchange(labels: &[Str]) -> TypedStruct {
    let settings = [("enable_discovery", Value::boolean(true)), ("protocol", Value::text("istio-peer-exchange"))];
    TypedStruct {
        type_url: "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange".to_owned(),
        value: Some(Struct::new(settings.into_iter().chain(additional_labels(labels)))),
    }
}

/// Labels that proxies tell each other beside the usual ones.
pub fn additional_labels(labels: &[Str]) -> Option<(&'static str, Value)> {
    (!labels.is_empty()).then(|| ("additional_labels", Value::list(labels.iter().map(|l| Value::text(l)))))
}
