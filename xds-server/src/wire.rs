//! Between protos and the state machines: requests in, encoded responses out.

use bytes::{BufMut, BytesMut};
use pilotfish_envoy::pb::envoy::config::core::v3::Node;
use pilotfish_envoy::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use prost::encoding::{WireType, encode_key, encode_varint};

use crate::body::Message;
use crate::client::Response;
use crate::subscription::{Interest, Protocol, Request};

/// What both requests have.
pub(crate) trait WireRequest: prost::Message + Default + Send + 'static {
    /// The variant of xDS that it belongs to.
    const PROTOCOL: Protocol;
    fn type_url(&self) -> &str;
    fn take_node(&mut self) -> Option<Node>;
    /// The client holds resources from an earlier stream.
    fn is_resumed(&self) -> bool;
    fn into_request(self) -> Request;
}

impl WireRequest for DiscoveryRequest {
    const PROTOCOL: Protocol = Protocol::Sotw;
    fn type_url(&self) -> &str {
        &self.type_url
    }
    fn take_node(&mut self) -> Option<Node> {
        self.node.take()
    }
    fn is_resumed(&self) -> bool {
        !self.version_info.is_empty()
    }
    fn into_request(self) -> Request {
        Request {
            nonce: self.response_nonce,
            error: self.error_detail.map(|e| e.message),
            interest: Interest::Sotw { names: self.resource_names, version: self.version_info },
        }
    }
}

impl WireRequest for DeltaDiscoveryRequest {
    const PROTOCOL: Protocol = Protocol::Delta;
    fn type_url(&self) -> &str {
        &self.type_url
    }
    fn take_node(&mut self) -> Option<Node> {
        self.node.take()
    }
    fn is_resumed(&self) -> bool {
        !self.initial_resource_versions.is_empty()
    }
    fn into_request(self) -> Request {
        Request {
            nonce: self.response_nonce,
            error: self.error_detail.map(|e| e.message),
            interest: Interest::Delta {
                subscribe: self.resource_names_subscribe,
                unsubscribe: self.resource_names_unsubscribe,
                initial: self.initial_resource_versions,
            },
        }
    }
}

/// Length of gRPC's prefix of a message: a flag and the length.
pub(crate) const PREFIX: usize = 5;

// Field numbers of the two responses in envoy/service/discovery/v3/discovery.proto. Fields may come in any order, so that
// everything but the resources, which bring their own tag, goes into the head.
const VERSION: u32 = 1;
const TYPE_URL: u32 = 4;
const NONCE: u32 = 5;
const REMOVED: u32 = 6;

/// A response as a gRPC message made of a small head and the resources' own, shared bytes.
pub(crate) fn encode(response: Response, protocol: Protocol) -> Message {
    let mut head = BytesMut::with_capacity(256);
    put(VERSION, response.version.to_string().as_bytes(), &mut head);
    put(TYPE_URL, response.type_url.as_str().as_bytes(), &mut head);
    put(NONCE, response.nonce.as_bytes(), &mut head);
    // State of the world has no such field.
    for name in response.removed.iter().filter(|_| protocol == Protocol::Delta) {
        put(REMOVED, name.as_bytes(), &mut head);
    }
    Message::new(head.freeze(), response.resources, protocol)
}

fn put(tag: u32, value: &[u8], buf: &mut BytesMut) {
    encode_key(tag, WireType::LengthDelimited, buf);
    encode_varint(value.len() as u64, buf);
    buf.put_slice(value);
}

#[cfg(test)]
mod tests {
    use super::*;
    use http_body::Body;
    use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
    use pilotfish_envoy::pb::envoy::service::discovery::v3::{DeltaDiscoveryResponse, DiscoveryResponse};
    use pilotfish_envoy::{Resource, TypeUrl, Version};
    use pretty_assertions::assert_eq;
    use prost::Message as _;

    fn resource(name: &str, padding: usize) -> Resource {
        Resource::new(name, &Cluster { name: name.into(), alt_stat_name: "x".repeat(padding), ..Default::default() })
    }

    fn response() -> Response {
        Response {
            type_url: TypeUrl::Cluster,
            nonce: "7/1-2".into(),
            version: Version(5),
            resources: vec![resource("a", 0), resource("big", 100_000), resource("c", 3)],
            removed: vec!["gone".into()],
            since: None,
        }
    }

    /// What a client's gRPC library would hand to its decoder.
    fn received(protocol: Protocol) -> Vec<u8> {
        let body = crate::body::AdsBody::new(Default::default(), |tx| async move {
            tx.send(encode(response(), protocol)).await;
            Ok(())
        });
        let mut body = std::pin::pin!(body);
        let mut cx = std::task::Context::from_waker(std::task::Waker::noop());
        let (mut bytes, mut status) = (Vec::new(), None);
        while let std::task::Poll::Ready(Some(frame)) = body.as_mut().poll_frame(&mut cx) {
            match frame.unwrap().into_data() {
                Ok(data) => bytes.extend_from_slice(&data),
                Err(frame) => status = frame.into_trailers().unwrap().get("grpc-status").cloned(),
            }
        }
        assert_eq!(status.unwrap(), "0");
        assert_eq!((bytes[0], u32::from_be_bytes(bytes[1..5].try_into().unwrap()) as usize), (0, bytes.len() - 5));
        bytes.split_off(5)
    }

    #[test]
    fn sotw_is_what_prost_would_write() {
        let expected = DiscoveryResponse {
            version_info: Version(5).to_string(),
            type_url: TypeUrl::Cluster.as_str().into(),
            nonce: "7/1-2".into(),
            resources: response().resources.iter().map(|r| r.to_any()).collect(),
            ..Default::default()
        };
        let mut got = DiscoveryResponse::decode(received(Protocol::Sotw).as_slice()).unwrap();
        got.resource_errors.clear();
        assert_eq!(got, expected);
    }

    #[test]
    fn delta_is_what_prost_would_write() {
        let got = DeltaDiscoveryResponse::decode(received(Protocol::Delta).as_slice()).unwrap();
        let named: Vec<_> = got.resources.iter().map(|r| (r.name.as_str(), r.version.clone())).collect();
        let expected: Vec<_> = response().resources.iter().map(|r| (r.name().to_string(), r.version().to_string())).collect();
        assert_eq!(named, expected.iter().map(|(n, v)| (n.as_str(), v.clone())).collect::<Vec<_>>());
        assert_eq!((got.removed_resources, got.nonce.as_str()), (vec!["gone".to_owned()], "7/1-2"));
        assert_eq!(
            got.resources.into_iter().map(|r| r.resource.unwrap()).collect::<Vec<_>>(),
            response().resources.iter().map(|r| r.to_any()).collect::<Vec<_>>()
        );
    }
}
