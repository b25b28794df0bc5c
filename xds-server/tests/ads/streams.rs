//! Many streams, slow streams, ends of streams; work is counted.

use std::time::Duration;

use pilotfish_envoy::TypeUrl::{Cluster, Listener};
use pilotfish_xds_server::{Config, Work};
use pretty_assertions::assert_eq;
use tonic::Code;

use crate::client::{Delta, Sotw, channel, said, sidecar};
use crate::fake::{Running, World, start};

fn clusters(content: &str) -> World {
    World::default().with(Cluster, &[("a", content)])
}

/// Polls until `check` holds.
async fn until(what: &str, check: impl Fn() -> bool) {
    for _ in 0..2_000 {
        if check() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("never: {what}");
}

async fn subscribed(running: &Running, namespace: &str) -> Delta {
    let mut client = Delta::connect(&running.url, sidecar(namespace)).await;
    client.subscribe(Cluster, &["*"]).await;
    client
}

#[tokio::test]
async fn nothing_is_served_before_the_first_world() {
    let running = start(Config::default()).await;
    let mut client = subscribed(&running, "shop").await;
    client.expect_silence().await;
    running.publish(&clusters("1")).await;
    assert_eq!(said(&client.take().await), (Cluster, vec!["a"], vec![]));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_class_is_translated_once_for_all_its_streams() {
    let running = start(Config::default()).await;
    running.publish(&clusters("1")).await;
    let channel = channel(&running.url).await;
    let connect = |i: u32| {
        let channel = channel.clone();
        async move {
            let mut client = Delta::on(channel, sidecar(if i.is_multiple_of(2) { "even" } else { "odd" })).await;
            client.subscribe(Cluster, &["*"]).await;
            client.take().await;
            client
        }
    };
    let tasks: Vec<_> = (0..200).map(|i| tokio::spawn(connect(i))).collect();
    let mut clients = Vec::new();
    for task in tasks {
        clients.push(task.await.unwrap());
    }
    let work = running.server.work();
    assert_eq!((work.translations, work.responses, work.live_classes, work.live_streams), (2, 200, 2, 200));

    let report = running.server.publish(clusters("2").into()).await;
    assert_eq!((report.generation, report.classes, report.streams), (2, 2, 200));
    for client in &mut clients {
        assert_eq!(said(&client.take().await), (Cluster, vec!["a"], vec![]));
    }
    // The same once more costs two translations and no byte.
    let bytes = running.server.work().bytes;
    running.publish(&clusters("2")).await;
    clients[0].expect_silence().await;
    assert_eq!((running.server.work().bytes, running.server.work().translations), (bytes, 6));

    drop(clients);
    until("all streams gone", || running.server.work().live_streams == 0).await;
    assert_eq!(running.server.work().live_classes, 0);
    running.publish(&clusters("3")).await;
    assert_eq!(running.server.work().translations, 6);
}

#[tokio::test]
async fn a_slow_client_skips_to_the_newest_state() {
    let running = start(Config::default()).await;
    running.publish(&clusters("0")).await;
    let mut client = subscribed(&running, "shop").await;
    let first = client.next().await;
    for i in 1..=50 {
        running.publish(&clusters(&i.to_string())).await;
    }
    client.expect_silence().await;
    assert_eq!(running.server.work().responses, 1);
    client.ack(&first).await;
    let last = client.take().await;
    assert_eq!(last.resources[0].resource, Some(crate::fake::resource(Cluster, "a", "50").to_any()));
    client.expect_silence().await;
}

#[tokio::test]
async fn a_panic_costs_one_class_one_update() {
    let running = start(Config::default()).await;
    running.publish(&clusters("1 {ns}")).await;
    let (mut healthy, mut poisoned) = (subscribed(&running, "healthy").await, subscribed(&running, "poisoned").await);
    healthy.take().await;
    poisoned.take().await;
    running.publish(&World { poison: Some("poisoned".into()), ..clusters("2 {ns}") }).await;
    healthy.take().await;
    poisoned.expect_silence().await;
    assert_eq!(running.server.work().failed_translations, 1);
    running.publish(&clusters("3 {ns}")).await;
    assert_eq!(said(&poisoned.take().await), (Cluster, vec!["a"], vec![]));
}

#[tokio::test]
async fn drain_ends_streams_and_the_server() {
    let running = start(Config::default()).await;
    running.publish(&clusters("1")).await;
    let mut delta = subscribed(&running, "shop").await;
    delta.take().await;
    let mut sotw = Sotw::connect(&running.url, sidecar("shop")).await;
    sotw.ask(Listener, &[]).await;
    sotw.next().await;
    running.drain.cancel();
    assert_eq!(delta.receive().await.unwrap_err().code(), Code::Unavailable);
    assert_eq!(sotw.receive().await.unwrap_err().code(), Code::Unavailable);
    until("no stream is left", || matches!(running.server.work(), Work { live_streams: 0, live_classes: 0, .. })).await;
}
