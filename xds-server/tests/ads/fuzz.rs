//! First messages of strangers: whatever they are, the stream ends with a reason, and others are served on.
//!
//! `PROPTEST_CASES=100000 cargo test -p pilotfish-xds-server --test ads fuzz` looks for longer. Cases that failed once stay
//! in `tests/ads/fuzz.txt` and are tried first.

use std::time::Duration;

use bytes::{Buf, BufMut};
use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::pb::envoy::config::core::v3::{Extension, Locality, Node};
use pilotfish_envoy::pb::envoy::service::discovery::v3::{DeltaDiscoveryRequest, DiscoveryRequest};
use pilotfish_testkit::ads::{Delta, channel, said, sidecar};
use pilotfish_xds_server::{ADS_METHODS, Config};
use proptest::collection::{btree_map, vec};
use proptest::prelude::*;
use proptest::sample::{Index, select};
use proptest::test_runner::{Config as Cases, FileFailurePersistence, TestRunner};
use prost::Message as _;
use prost_types::value::Kind;
use prost_types::{ListValue, Struct, Value};
use tonic::codec::{Codec, DecodeBuf, Decoder, EncodeBuf, Encoder};
use tonic::transport::Channel;
use tonic::{Code, Request, Status};

use crate::fake::{World, start};

/// Words that mean something somewhere in a node.
const WORDS: &[&str] = &[
    "",
    "~",
    "~~~",
    "sidecar~10.0.0.1~web-0.shop~shop.svc.cluster.local",
    "router~::1~a.b~c",
    "sidecar~x~y~z",
    "ztunnel~1.1.1.1~a.b~c",
    "NAMESPACE",
    "LABELS",
    "ISTIO_VERSION",
    "GENERATOR",
    "grpc",
    "SERVICE_ACCOUNT",
    "INTERCEPTION_MODE",
    "REDIRECT",
    "NONE",
    "TLS_CLIENT_KEY",
    "CLUSTER_ID",
    "PROXY_CONFIG",
    "1.31.0",
    "99999999999999999999.1",
    "true",
    "10.0.0.0/8",
    "\n",
    "\u{0}",
    "a/b",
    "..",
    "*",
    "INSTANCE_IPS",
    "ROUTER_MODE",
];

fn word() -> impl Strategy<Value = String> {
    prop_oneof![3 => select(WORDS).prop_map(str::to_owned), 1 => ".{0,20}"]
}

fn value() -> impl Strategy<Value = Value> {
    let leaf = prop_oneof![
        Just(None),
        any::<f64>().prop_map(|v| Some(Kind::NumberValue(v))),
        any::<bool>().prop_map(|v| Some(Kind::BoolValue(v))),
        word().prop_map(|v| Some(Kind::StringValue(v))),
    ];
    let leaf = leaf.prop_map(|kind| Value { kind });
    leaf.prop_recursive(4, 32, 6, |inner| {
        prop_oneof![
            vec(inner.clone(), 0..6).prop_map(|values| Value { kind: Some(Kind::ListValue(ListValue { values })) }),
            btree_map(word(), inner, 0..6).prop_map(|fields| Value { kind: Some(Kind::StructValue(Struct { fields })) }),
        ]
    })
}

fn any_node() -> impl Strategy<Value = Node> {
    (word(), word(), btree_map(word(), value(), 0..8), vec(word(), 0..4), word()).prop_map(|(id, cluster, fields, extensions, zone)| Node {
        id,
        cluster,
        metadata: Some((&Struct { fields }).into()),
        extensions: extensions.into_iter().map(|name| Extension { name, ..Default::default() }).collect(),
        locality: Some(Locality { zone, ..Default::default() }),
        ..Default::default()
    })
}

/// A request of either variant, with some bytes changed; or no request at all.
fn message() -> impl Strategy<Value = (bool, Vec<u8>)> {
    let type_url = prop_oneof![select(TypeUrl::ALL.to_vec()).prop_map(|t| t.as_str().to_owned()), word()];
    let request = (any::<bool>(), proptest::option::of(any_node()), type_url, vec(word(), 0..5), word());
    let whole = request.prop_map(|(delta, node, type_url, names, nonce)| {
        let bytes = if delta {
            let request =
                DeltaDiscoveryRequest { node, type_url, resource_names_subscribe: names, response_nonce: nonce, ..Default::default() };
            request.encode_to_vec()
        } else {
            DiscoveryRequest { node, type_url, resource_names: names, response_nonce: nonce, ..Default::default() }.encode_to_vec()
        };
        (delta, bytes)
    });
    let whole = whole.boxed();
    let changed = (whole.clone(), vec((any::<Index>(), any::<u8>()), 1..4)).prop_map(|((delta, mut bytes), changes)| {
        for (at, byte) in changes.into_iter().filter(|_| !bytes.is_empty()).collect::<Vec<_>>() {
            let at = at.index(bytes.len());
            bytes[at] = byte;
        }
        (delta, bytes)
    });
    prop_oneof![2 => whole, 2 => changed, 1 => (any::<bool>(), vec(any::<u8>(), 0..200))]
}

/// Bytes as they are.
struct Raw;

impl Codec for Raw {
    type Encode = Vec<u8>;
    type Decode = usize;
    type Encoder = Raw;
    type Decoder = Raw;
    fn encoder(&mut self) -> Raw {
        Raw
    }
    fn decoder(&mut self) -> Raw {
        Raw
    }
}

impl Encoder for Raw {
    type Item = Vec<u8>;
    type Error = Status;
    fn encode(&mut self, item: Vec<u8>, buffer: &mut EncodeBuf<'_>) -> Result<(), Status> {
        buffer.put_slice(&item);
        Ok(())
    }
}

impl Decoder for Raw {
    type Item = usize;
    type Error = Status;
    fn decode(&mut self, buffer: &mut DecodeBuf<'_>) -> Result<Option<usize>, Status> {
        let len = buffer.remaining();
        buffer.advance(len);
        Ok(Some(len))
    }
}

/// Says one thing and hangs up; how the stream ended.
async fn say(channel: Channel, delta: bool, bytes: Vec<u8>) -> Code {
    let exchange = async {
        let mut grpc = tonic::client::Grpc::new(channel);
        grpc.ready().await.unwrap();
        let method = ADS_METHODS[usize::from(delta)].parse().unwrap();
        let mut answers = grpc.streaming(Request::new(tokio_stream::once(bytes)), method, Raw).await?.into_inner();
        while answers.message().await?.is_some() {}
        Ok::<_, Status>(())
    };
    let ended = tokio::time::timeout(Duration::from_secs(20), exchange).await.expect("the stream ends");
    ended.map_or_else(|status| status.code(), |()| Code::Ok)
}

#[test]
fn first_messages_of_strangers() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let running = runtime.block_on(start(Config::default()));
    let world = World::default().with(TypeUrl::Cluster, &[("c", "1")]);
    runtime.block_on(running.publish(&world));
    let strangers = runtime.block_on(channel(&running.url));
    let kept = FileFailurePersistence::Direct(concat!(env!("CARGO_MANIFEST_DIR"), "/tests/ads/fuzz.txt"));
    let mut runner = TestRunner::new(Cases { failure_persistence: Some(Box::new(kept)), ..Cases::default() });
    let outcome = runner.run(&message(), |(delta, bytes)| {
        let code = runtime.block_on(say(strangers.clone(), delta, bytes));
        // A panic would cut the connection.
        let said = matches!(
            code,
            Code::Ok | Code::InvalidArgument | Code::Internal | Code::PermissionDenied | Code::Unauthenticated | Code::ResourceExhausted
        );
        prop_assert!(said, "{code:?}");
        Ok(())
    });
    outcome.unwrap();
    runtime.block_on(async {
        let mut client = Delta::connect(&running.url, sidecar("shop")).await;
        client.subscribe(TypeUrl::Cluster, &["*"]).await;
        assert_eq!(said(&client.take().await), (TypeUrl::Cluster, vec!["c"], vec![]));
    });
}
