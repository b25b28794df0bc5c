//! Instruction counts of what every push costs each stream (callgrind: repeatable on one machine type).

#![allow(missing_docs, clippy::expect_used, clippy::panic)]

use std::pin::pin;
use std::sync::Arc;
use std::task::{Context, Waker};
use std::time::{Duration, Instant, SystemTime};

use bytes::Bytes;
use gungraun::{library_benchmark, library_benchmark_group, main};
use http_body::Body;
use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pilotfish_envoy::{Layer, Resource, ResourceSet, Snapshot, TypeUrl};
use pilotfish_xds_server::body::{AdsBody, Message};
use pilotfish_xds_server::client::{Client, Next, Target};
use pilotfish_xds_server::subscription::{Interest, Protocol, Request};

const RESOURCES: usize = 1_400;

fn resource(i: usize, content: &str) -> Resource {
    let name = format!("outbound|8080||service-{i}.namespace-{}.svc.cluster.local", i % 50);
    Resource::new(name.clone(), &Cluster { name, alt_stat_name: content.repeat(60), ..Cluster::default() })
}

fn layer() -> Arc<Layer> {
    Arc::new(Layer::new((0..RESOURCES).map(|i| resource(i, "content "))))
}

fn target(generation: u64, layer: &Arc<Layer>) -> Target {
    let mut snapshot = Snapshot::new();
    snapshot.insert(TypeUrl::Cluster, ResourceSet::layered(layer, &Layer::empty()));
    Target { generation, snapshot: Arc::new(snapshot), since: None }
}

/// A client that has confirmed everything, and a target in which one resource differs; where the difference is `known`,
/// nobody has to look for it.
fn one_change(known: bool) -> (Client, Target, Instant) {
    let (before, now) = (layer(), Instant::now());
    let mut client = Client::new(Protocol::Delta, 1, Duration::from_secs(5));
    let interest = Interest::Delta { subscribe: Vec::new(), unsubscribe: Vec::new(), initial: Default::default() };
    client.on_request(TypeUrl::Cluster, Request { interest, ..Request::default() });
    client.retarget(target(1, &before));
    let Next::Send(first) = client.next(now, SystemTime::UNIX_EPOCH) else { panic!("nothing is sent") };
    let interest = Interest::Delta { subscribe: Vec::new(), unsubscribe: Vec::new(), initial: Default::default() };
    client.on_request(TypeUrl::Cluster, Request { nonce: first.nonce.to_string(), interest, ..Request::default() });
    let changed = resource(700, "other ");
    let after = match known {
        true => before.updated([(changed.name().clone(), Some(changed))]),
        false => Arc::new(Layer::new((0..RESOURCES).map(|i| resource(i, if i == 700 { "other " } else { "content " })))),
    };
    (client, target(2, &after), now)
}

// From the new target to the response.
#[library_benchmark]
#[bench::known_difference(args = (true), setup = one_change)]
#[bench::compared(args = (false), setup = one_change)]
fn set_diff_1400_with_one_change((mut client, target, now): (Client, Target, Instant)) -> (Next, Client) {
    client.retarget(target);
    (std::hint::black_box(client.next(now, SystemTime::UNIX_EPOCH)), client)
}

fn resources(_: usize) -> Vec<Resource> {
    layer().iter().cloned().collect()
}

// All frames of a response, as the connection takes them.
#[library_benchmark]
#[bench::of_1400(args = (RESOURCES), setup = resources)]
fn assemble_response(resources: Vec<Resource>) -> usize {
    let message = Message::new(Bytes::from_static(b"head"), resources, Protocol::Delta);
    let mut body = pin!(AdsBody::new(Default::default(), |tx| async move {
        tx.send(message).await;
        Ok(())
    }));
    let mut context = Context::from_waker(Waker::noop());
    let mut sent = 0;
    while let std::task::Poll::Ready(Some(Ok(frame))) = body.as_mut().poll_frame(&mut context) {
        sent += frame.data_ref().map_or(0, Bytes::len);
    }
    std::hint::black_box(sent)
}

library_benchmark_group!(name = streams, benchmarks = [set_diff_1400_with_one_change, assemble_response]);
main!(library_benchmark_groups = streams);
