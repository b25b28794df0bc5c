//! What a cluster costs that mostly has nothing to do with the mesh. Alone in its process: the heap is counted.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::sync::Arc;

use pilotfish_controller::index::Input;
use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::{Index, Settings};
use pilotfish_model::Kind;
use serde_json::{Value, json};

#[global_allocator]
static HEAP: dhat::Alloc = dhat::Alloc;

const PODS: usize = 2_000;
/// Bytes for each: 50,000 of them are to cost less than 50 MB.
const LIMIT: usize = 900;

/// Pods of Deployments with 50 replicas each, which no Service selects, with the weight that Pods have.
fn pod(i: usize) -> Value {
    let deployment = format!("job-{:03}", i % (PODS / 50));
    let name = format!("{deployment}-7c9f8d6b5-{i:05x}");
    let labels = json!({
        "app": deployment, "app.kubernetes.io/name": deployment, "app.kubernetes.io/instance": deployment, "team": format!("team-{}", i % 20),
        "pod-template-hash": "7c9f8d6b5",
    });
    let owner =
        json!({"apiVersion": "apps/v1", "kind": "ReplicaSet", "name": format!("{deployment}-7c9f8d6b5"), "uid": "u", "controller": true});
    let env: Vec<_> = (0..30).map(|n| json!({"name": format!("VARIABLE_{n}"), "value": "x".repeat(40)})).collect();
    let ports = json!([{"name": "http", "containerPort": 8080}, {"name": "metrics", "containerPort": 9090}]);
    json!({
        "apiVersion": "v1", "kind": "Pod",
        "metadata": {
            "name": name, "namespace": format!("batch-{}", i % 50), "labels": labels, "ownerReferences": [owner],
            "annotations": {"example.com/note": "y".repeat(500)},
        },
        "spec": {
            "nodeName": format!("node-{}", i % (PODS / 100)), "serviceAccountName": deployment,
            "containers": [{"name": "main", "image": "registry.example/job:1", "env": env, "ports": ports}],
        },
        "status": {
            "phase": "Running", "podIP": format!("10.{}.{}.{}", i / 65_536, i / 256 % 256, i % 256),
            "conditions": [{"type": "Ready", "status": "True"}],
        },
    })
}

#[test]
fn pods_that_nobody_serves_are_light() {
    let profiler = dhat::Profiler::builder().testing().build();
    let mut index = Index::new(Settings::default());
    let context = index.context();
    let input = |i: usize| match decode(pod(i)).unwrap() {
        Decoded::Object(object) => Input::of(&Arc::from(object), &context),
        other => panic!("{other:?}"),
    };
    let before = dhat::HeapStats::get().curr_bytes;
    index.reset(Kind::Pod, (0..PODS).map(input).collect(), |_| false);
    let facts = dhat::HeapStats::get().curr_bytes - before;
    assert!(index.publish().is_none(), "nobody is told of them");
    let after = dhat::HeapStats::get().curr_bytes - before;
    drop(profiler);
    println!("{PODS} Pods: {:.1} MB taken in, {:.1} MB joined, {} bytes each", facts as f64 / 1e6, after as f64 / 1e6, after / PODS);
    assert!(after < LIMIT * PODS, "{after} bytes");
}
