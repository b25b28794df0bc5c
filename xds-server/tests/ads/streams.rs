//! Many streams, slow streams, ends of streams; work is counted.

use std::num::NonZeroUsize;
use std::time::Duration;

use pilotfish_envoy::TypeUrl::{Cluster, Endpoint, Listener};
use pilotfish_xds_server::{Config, Work};
use pretty_assertions::assert_eq;
use tonic::Code;

use crate::fake::{Change, Running, World, start};
use pilotfish_testkit::ads::{Delta, Sotw, channel, said, sidecar};

fn clusters(content: &str) -> World {
    World::default().with(Cluster, &[("a", content)])
}

fn only(namespace: &str) -> Change {
    Change { only: Some([namespace.to_owned()].into()), classes: false }
}

/// Polls until `check` holds.
pub(crate) async fn until(what: &str, check: impl Fn() -> bool) {
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
    assert_eq!((work.responses, work.live_scopes, work.live_classes, work.live_streams), (200, 2, 2, 200));
    // A stream that came while its scope was being made asked for it once more, and found it made.
    let (views, compared) = (work.views, work.compared);

    let report = running.publish(&clusters("2")).await;
    assert_eq!((report.scopes, report.classes, report.streams), (2, 2, 200));
    assert_eq!(running.server.work().views, views + 2);
    for client in &mut clients {
        assert_eq!(said(&client.take().await), (Cluster, vec!["a"], vec![]));
    }
    // What changed was found out once; each stream looks at that alone.
    assert_eq!(running.server.work().compared, compared + 200);

    // The same once more costs a look at each scope and no byte.
    let bytes = running.server.work().bytes;
    let report = running.publish(&clusters("2")).await;
    assert_eq!((report.scopes, report.classes, report.streams), (2, 0, 0));
    clients[0].expect_silence().await;
    assert_eq!(running.server.work().bytes, bytes);

    // An edit that one namespace sees costs the other nothing.
    let before = running.server.work();
    let report = running.change(&clusters("3"), only("odd")).await;
    assert_eq!((report.scopes, report.classes, report.streams), (1, 1, 100));
    let work = running.server.work();
    assert_eq!((work.views - before.views, work.untouched - before.untouched), (1, 1));
    let views = work.views;

    drop(clients);
    until("all streams gone", || running.server.work().live_streams == 0).await;
    assert_eq!(running.server.work().live_classes, 0);
    // Their resources wait for them, until something touches these; nothing is made for nobody.
    assert_eq!(running.server.work().kept_scopes, 2);
    let mut back = Delta::on(channel, sidecar("even")).await;
    back.subscribe(Cluster, &["*"]).await;
    back.take().await;
    assert_eq!(running.server.work().views, views + 1);
    running.change(&clusters("4"), only("odd")).await;
    assert_eq!(running.server.work().views, views + 1);
}

#[tokio::test]
async fn who_comes_back_is_served_the_endpoints_of_now() {
    let running = start(Config { keep: Duration::from_secs(600), ..Config::default() }).await;
    let world = clusters("1").with(Endpoint, &[("a", "before")]);
    running.publish(&world).await;
    let mut client = subscribed(&running, "shop").await;
    client.take().await;
    drop(client);
    until("it has gone", || running.server.work().live_streams == 0).await;
    let steps = running.server.work().endpoint_steps;
    running.publish_endpoints(&world.with(Endpoint, &[("a", "after")])).await;
    assert_eq!(running.server.work().endpoint_steps, steps);
    let mut client = subscribed(&running, "shop").await;
    client.take().await;
    client.subscribe(Endpoint, &["a"]).await;
    assert_eq!(client.take().await.resources[0].resource, Some(crate::fake::resource(Endpoint, "a", "after").to_any()));
}

#[tokio::test]
async fn what_nobody_comes_back_for_is_dropped() {
    let running = start(Config { keep: Duration::from_millis(20), ..Config::default() }).await;
    running.publish(&clusters("1")).await;
    let mut client = subscribed(&running, "shop").await;
    client.take().await;
    assert_eq!(running.server.work().kept_scopes, 1);
    drop(client);
    until("it is dropped", || running.server.work().kept_scopes == 0).await;
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
    assert_eq!(running.server.work().failed, 1);
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

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn endpoints_do_not_wait_for_a_view_that_is_being_made() {
    let running = start(Config::default()).await;
    let world = clusters("1").with(Endpoint, &[("a", "two endpoints")]);
    running.publish(&world).await;
    let mut client = subscribed(&running, "shop").await;
    client.take().await;
    client.subscribe(Endpoint, &["a"]).await;
    client.take().await;

    let (gate, held) = (running.gate.clone(), running.server.clone());
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let (release, released) = std::sync::mpsc::channel::<()>();
    // Holds up all views until it is told to let go.
    let holder = std::thread::spawn(move || {
        let _held = gate.lock().unwrap();
        locked.send(()).unwrap();
        released.recv().unwrap();
    });
    is_locked.await.unwrap();
    let world = clusters("2").with(Endpoint, &[("a", "two endpoints")]);
    running.server.publish(world.clone().into());
    let push = tokio::spawn(held.push(Change::default(), tokio::time::Instant::now()));
    until("the view is being made", || running.server.work().views == 2).await;

    let report = running.publish_endpoints(&world.with(Endpoint, &[("a", "one endpoint")])).await;
    assert_eq!((report.scopes, report.streams), (1, 1));
    assert_eq!(client.take().await.resources[0].resource, Some(crate::fake::resource(Endpoint, "a", "one endpoint").to_any()));
    assert!(!push.is_finished());
    release.send(()).unwrap();
    holder.join().unwrap();
    push.await.unwrap();
    // The view that was under way was begun with the older endpoints, and does not bring them back.
    assert_eq!(said(&client.take().await), (Cluster, vec!["a"], vec![]));
    // Envoy wants them again after their cluster changed.
    assert_eq!(client.take().await.resources[0].resource, Some(crate::fake::resource(Endpoint, "a", "one endpoint").to_any()));
}

#[tokio::test]
async fn a_proxy_moves_to_another_class() {
    let running = start(Config::default()).await;
    running.publish(&clusters("of {ns}")).await;
    let mut client = subscribed(&running, "shop").await;
    client.take().await;
    let moved = World { moved: [("shop".to_owned(), "bank".to_owned())].into(), ..clusters("of {ns}") };
    running.change(&moved, only("nobody")).await;
    client.expect_silence().await;
    running.publish(&moved).await;
    let response = client.take().await;
    assert_eq!(response.resources[0].resource, Some(crate::fake::resource(Cluster, "a", "of bank").to_any()));
    assert_eq!((running.server.work().live_scopes, running.server.work().live_classes), (1, 1));
}

#[tokio::test]
async fn a_client_that_answers_late_under_constant_change_costs_one_response_at_a_time() {
    let running = start(Config::default()).await;
    running.publish(&clusters("0")).await;
    let mut client = subscribed(&running, "shop").await;
    let mut held = client.next().await;
    // A hundred changes a second, an answer every two seconds.
    for i in 1..=1_000 {
        running.publish(&clusters(&i.to_string())).await;
        if i % 200 == 0 {
            client.ack(&held).await;
            held = client.next().await;
            assert_eq!(held.resources[0].resource, Some(crate::fake::resource(Cluster, "a", &i.to_string()).to_any()));
        }
        assert_eq!(running.server.work().responses, 1 + i / 200);
    }
    running.publish(&clusters("last")).await;
    client.ack(&held).await;
    assert_eq!(client.take().await.resources[0].resource, Some(crate::fake::resource(Cluster, "a", "last").to_any()));
    client.expect_silence().await;
    let work = running.server.work();
    // Each response held one resource: what was skipped is not made up for.
    assert_eq!((work.responses, work.resources), (7, 7));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_herd_is_let_in_one_after_the_other_and_nobody_is_refused() {
    let config = Config { parallel_connects: NonZeroUsize::MIN, ..Config::default() };
    let running = start(config).await;
    running.publish(&clusters("1")).await;
    let channel = channel(&running.url).await;
    let connect = || {
        let channel = channel.clone();
        async move {
            let mut client = Delta::on(channel, sidecar("shop")).await;
            client.subscribe(Cluster, &["*"]).await;
            client.take().await;
            client
        }
    };
    let tasks: Vec<_> = (0..300).map(|_| tokio::spawn(connect())).collect();
    for task in tasks {
        task.await.unwrap();
    }
    assert_eq!(running.server.work().responses, 300);
}
