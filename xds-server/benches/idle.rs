//! What one stream holds while nothing happens: bytes on the heap beside what its class shares. Prints name and bytes.

#![allow(missing_docs, clippy::expect_used, clippy::panic)]

use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pilotfish_envoy::{Resource, ResourceSet, Snapshot, TypeUrl};
use pilotfish_xds_server::client::{Client, Next, Target};
use pilotfish_xds_server::subscription::{Interest, Protocol, Request};

#[global_allocator]
static HEAP: dhat::Alloc = dhat::Alloc;

const STREAMS: usize = 100;

fn main() {
    let _profiler = dhat::Profiler::builder().testing().build();
    for resources in [20, 1_400] {
        let target = target(resources);
        let before = dhat::HeapStats::get().curr_bytes;
        let clients: Vec<Client> = (0..STREAMS).map(|i| settled(i as u64, &target)).collect();
        let held = dhat::HeapStats::get().curr_bytes - before;
        println!("idle_stream/clusters_{resources}\t{}", held / clients.len());
    }
}

fn target(resources: usize) -> Target {
    let name = |i: usize| format!("outbound|8080||service-{i}.namespace-{}.svc.cluster.local", i % 50);
    let mut snapshot = Snapshot::new();
    for type_url in [TypeUrl::Cluster, TypeUrl::Endpoint, TypeUrl::Listener, TypeUrl::Route] {
        let count = if matches!(type_url, TypeUrl::Cluster | TypeUrl::Endpoint) { resources } else { 4 };
        let made = (0..count).map(|i| Resource::new(name(i), &Cluster { name: name(i), ..Cluster::default() }));
        snapshot.insert(type_url, ResourceSet::new(made));
    }
    Target { generation: 1, snapshot: Arc::new(snapshot), since: None }
}

/// A client that asked for everything, got it and confirmed it.
fn settled(id: u64, target: &Target) -> Client {
    let now = Instant::now();
    let mut client = Client::new(Protocol::Delta, id, Duration::from_secs(5));
    client.retarget(target.clone());
    for (type_url, set) in target.snapshot.iter() {
        let named = if type_url.is_wildcard() { Vec::new() } else { set.iter().map(|r| r.name().to_string()).collect() };
        client.on_request(type_url, request("", named));
        let Next::Send(response) = client.next(now, SystemTime::UNIX_EPOCH) else { panic!("nothing is sent") };
        client.on_request(type_url, request(&response.nonce, Vec::new()));
    }
    assert_eq!(client.next(now, SystemTime::UNIX_EPOCH), Next::Idle(None));
    client
}

fn request(nonce: &str, subscribe: Vec<String>) -> Request {
    let interest = Interest::Delta { subscribe, unsubscribe: Vec::new(), initial: Default::default() };
    Request { nonce: nonce.to_owned(), interest, ..Request::default() }
}
