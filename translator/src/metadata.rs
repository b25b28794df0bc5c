//! `filter_metadata`: what telemetry and filters read beside a resource.

use pilotfish_envoy::pb::udpa::r#type::v1::TypedStruct;
use pilotfish_envoy::{Metadata, Struct, Value};

/// Key of Istio's own metadata.
pub const ISTIO: &str = "istio";

/// Metadata with only Istio's entry.
pub fn istio<K: AsRef<str>>(fields: impl IntoIterator<Item = (K, Value)>) -> Metadata {
    Metadata::new([(ISTIO, Struct::new(fields))])
}

/// Settings of the filter by which Istio's proxies tell each other what they are, in the first bytes of a connection.
pub fn exchange() -> TypedStruct {
    TypedStruct {
        type_url: "type.googleapis.com/envoy.tcp.metadataexchange.config.MetadataExchange".to_owned(),
        value: Some(Struct::new([("enable_discovery", Value::boolean(true)), ("protocol", Value::text("istio-peer-exchange"))])),
    }
}
