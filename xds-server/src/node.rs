//! The node of a first request: from protos to [`pilotfish_model::proxy::Node`].

use std::collections::BTreeSet;

use pilotfish_envoy::pb::envoy::config::core::v3 as core;
use pilotfish_model::Locality;
use pilotfish_model::proxy::{BadNode, Metadata, Node};
use prost_types::value::Kind;
use prost_types::{Struct, Value as ProtoValue};
use serde_json::{Map, Number, Value};

/// Why a stream is refused: InvalidArgument.
#[derive(Debug, thiserror::Error)]
pub(crate) enum NodeError {
    #[error(transparent)]
    Bad(#[from] BadNode),
    #[error("node metadata {path}: {reason}")]
    Metadata { path: String, reason: String },
}

/// Reads a node; its metadata are parsed once, here.
pub(crate) fn read(node: &core::Node) -> Result<Node, NodeError> {
    if node.id.is_empty() {
        return Err(BadNode::Missing.into());
    }
    let metadata = node.metadata.as_ref().map_or_else(|| Value::Object(Map::new()), |m| object(&m.decoded()));
    let metadata: Metadata = serde_path_to_error::deserialize(metadata)
        .map_err(|e| NodeError::Metadata { path: e.path().to_string(), reason: e.inner().to_string() })?;
    let locality = node.locality.as_ref().map_or_else(Locality::default, |l| Locality {
        region: l.region.as_str().into(),
        zone: l.zone.as_str().into(),
        sub_zone: l.sub_zone.as_str().into(),
    });
    let extensions: BTreeSet<_> = node.extensions.iter().filter(|e| !e.disabled).map(|e| e.name.as_str().into()).collect();
    Ok(Node {
        id: node.id.clone(),
        cluster: node.cluster.clone(),
        locality,
        metadata,
        extensions,
        user_agent: node.user_agent_name.clone(),
    })
}

/// A protobuf Struct as JSON.
pub(crate) fn object(message: &Struct) -> Value {
    Value::Object(message.fields.iter().map(|(k, v)| (k.clone(), value(v))).collect())
}

fn value(message: &ProtoValue) -> Value {
    match &message.kind {
        None | Some(Kind::NullValue(_)) => Value::Null,
        Some(Kind::BoolValue(v)) => Value::Bool(*v),
        Some(Kind::NumberValue(v)) => number(*v),
        Some(Kind::StringValue(v)) => Value::String(v.clone()),
        Some(Kind::StructValue(v)) => object(v),
        Some(Kind::ListValue(v)) => v.values.iter().map(value).collect(),
    }
}

/// Struct knows doubles only; whole numbers become integers, so that integer fields take them.
fn number(v: f64) -> Value {
    const EXACT: f64 = 9_007_199_254_740_992.0;
    if v.fract() == 0.0 && v.abs() < EXACT { Value::from(v as i64) } else { Number::from_f64(v).map_or(Value::Null, Value::Number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(v: &str) -> ProtoValue {
        ProtoValue { kind: Some(Kind::StringValue(v.into())) }
    }

    fn node(metadata: &[(&str, ProtoValue)]) -> core::Node {
        let fields = metadata.iter().map(|(k, v)| (k.to_string(), v.clone())).collect();
        core::Node { id: "edge".into(), metadata: Some((&Struct { fields }).into()), ..Default::default() }
    }

    #[test]
    fn metadata_become_the_models() {
        let labels = Struct { fields: [("app".to_owned(), text("web"))].into() };
        let read = read(&node(&[
            ("NAMESPACE", text("shop")),
            ("LABELS", ProtoValue { kind: Some(Kind::StructValue(labels)) }),
            ("HTTP_PROXY_PORT", ProtoValue { kind: Some(Kind::NumberValue(15002.0)) }),
        ]))
        .unwrap();
        assert_eq!(read.metadata.namespace.as_deref(), Some("shop"));
        assert_eq!(read.metadata.labels.get("app").map(|v| &**v), Some("web"));
        assert_eq!(read.metadata.http_proxy_port.and_then(|p| p.number::<u16>()), Some(15002));
    }

    #[test]
    fn a_key_that_does_not_parse_is_named() {
        let error = read(&node(&[("NAMESPACE", ProtoValue { kind: Some(Kind::BoolValue(true)) })])).unwrap_err();
        assert!(error.to_string().starts_with("node metadata NAMESPACE: "), "{error}");
        assert!(matches!(read(&core::Node::default()), Err(NodeError::Bad(BadNode::Missing))));
    }
}
