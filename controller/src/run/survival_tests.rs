//! What a cluster does to a controller that runs: nothing is lost, nothing is emptied, and it can be seen. Mostly on a paused
//! clock, with an API server in the same runtime.

use pilotfish_model::Kind;
use pretty_assertions::assert_eq;
use serde_json::json;
use tokio::time::timeout;

use super::cluster_tests::{LONG, Run, api, names};
use super::*;
use crate::index::testing::{mk_pod, mk_service, mk_slice};
use crate::source::kube::health::KindHealth;
use crate::source::kube::kinds;

fn health(run: &Run, kind: Kind) -> KindHealth {
    run.handle.health.report().into_iter().find(|k| k.kind == kind).unwrap()
}

async fn until(what: &str, mut good: impl FnMut() -> bool) {
    for _ in 0..2_000 {
        if good() {
            return;
        }
        sleep(Duration::from_millis(100)).await;
    }
    panic!("waited in vain for {what}");
}

#[tokio::test(start_paused = true)]
async fn each_kind_that_comes_late_is_waited_for() {
    const DELAY: Duration = Duration::from_secs(20);
    for late in kinds() {
        let api = api().await;
        api.delay(late, DELAY);
        let started = Instant::now();
        let mut run = Run::start(api.kubeconfig());
        let mesh = timeout(2 * DELAY, &mut run.handle.initial).await.expect("no mesh in time").unwrap();
        assert!(started.elapsed() >= DELAY, "{late:?} was not waited for");
        let services = ["a".into(), "b".into(), "c".into()];
        assert_eq!((names(&mesh), mesh.endpoints.len(), mesh.workloads.len()), (services.into(), 1, 1), "{late:?}");
        assert!(run.handle.health.report().iter().all(|k| k.listed), "{late:?}");
    }
}

#[tokio::test(start_paused = true)]
async fn an_event_that_a_watch_keeps_to_itself_is_found_and_counted() {
    let api = api().await;
    let mut run = Run::audited(api.kubeconfig(), Duration::from_secs(300));
    run.initial().await;
    // An endpoint moves and nobody is told; a service goes and nobody is told; what comes after is told.
    api.swallow(Kind::EndpointSlice);
    api.put(&mk_slice("a", &["p1=10.0.0.9"]));
    api.swallow(Kind::Service);
    api.delete(Kind::Service, "ns", "b");
    api.put(&mk_service("d", ""));
    let addresses = |mesh: &Mesh| mesh.endpoints.values().flat_map(|all| all.iter().map(|e| e.address.to_string())).collect::<Vec<_>>();
    let update = run.next().await;
    assert_eq!((names(&update.mesh), addresses(&update.mesh)), (["a", "b", "c", "d"].map(Into::into).into(), vec!["10.0.0.1".into()]));
    let started = Instant::now();
    let mut mesh = update.mesh;
    while names(&mesh) != ["a", "c", "d"] || addresses(&mesh) != ["10.0.0.9"] {
        mesh = timeout(Duration::from_secs(600), run.handle.updates.recv()).await.expect("it was not found").unwrap().mesh;
        assert_eq!(mesh.endpoints.len(), 1, "endpoints went in between");
    }
    assert!(started.elapsed() <= Duration::from_secs(340), "{:?}", started.elapsed());
    for (kind, healed) in [(Kind::EndpointSlice, 1), (Kind::Service, 1), (Kind::Pod, 0)] {
        let found = health(&run, kind);
        assert_eq!((found.healed, found.lists), (healed, 1 + healed), "{found:?}");
    }
    // Later audits find nothing.
    sleep(Duration::from_secs(1_000)).await;
    assert!(run.handle.health.report().iter().all(|k| k.audits >= 3), "{:#?}", run.handle.health.report());
    assert_eq!(run.handle.health.report().iter().map(|k| k.healed).sum::<u64>(), 2);
    assert_eq!(run.handle.health.report().iter().map(|k| k.lists).sum::<u64>(), 2 + kinds().count() as u64);
    assert!(run.handle.updates.try_recv().is_err());
}

#[tokio::test(start_paused = true)]
async fn who_may_not_read_a_kind_is_not_ready_and_says_why() {
    for (kind, plural) in
        [(Kind::Service, "services of the API group core"), (Kind::Sidecar, "sidecars of the API group networking.istio.io")]
    {
        for status in [401, 403] {
            let api = api().await;
            api.refuse(kind, Some(status));
            let mut run = Run::start(api.kubeconfig());
            assert!(timeout(Duration::from_secs(300), &mut run.handle.initial).await.is_err(), "{kind:?} {status}");
            let found = health(&run, kind);
            let trouble = found.trouble.unwrap_or_default();
            assert!(trouble.contains(plural) && trouble.contains(&status.to_string()), "{trouble}");
            assert!(!found.listed && found.staleness >= Duration::from_secs(290));
            api.refuse(kind, None);
            assert_eq!(names(&run.initial().await), ["a", "b", "c"]);
            assert_eq!(health(&run, kind).trouble, None);
        }
    }
}

#[tokio::test(start_paused = true)]
async fn new_credentials_are_found_by_themselves() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("token");
    for in_file in [true, false] {
        let api = api().await;
        let show = |token: &str| {
            std::fs::write(&file, token).unwrap();
            if in_file { json!({"tokenFile": file}) } else { json!({"token": token}) }
        };
        api.set_token("t1");
        api.write_user(&show("t1"));
        let mut run = Run::start(api.kubeconfig());
        run.initial().await;
        api.set_token("t2");
        api.disconnect();
        api.put(&mk_service("d", ""));
        until("a refusal", || health(&run, Kind::Service).trouble.is_some_and(|t| t.contains("credentials"))).await;
        sleep(Duration::from_secs(600)).await;
        assert!(run.handle.updates.try_recv().is_err(), "what is known stays as it was");
        assert!(health(&run, Kind::Service).staleness >= Duration::from_secs(590));
        api.write_user(&show("t2"));
        let started = Instant::now();
        run.services(&["a", "b", "c", "d"]).await;
        assert!(started.elapsed() < LONG);
        // It went on where it had been.
        assert_eq!(health(&run, Kind::Service).lists, 1);
    }
}

#[tokio::test(start_paused = true)]
async fn kinds_that_every_server_has_are_never_taken_for_absent() {
    let api = api().await;
    let mut run = Run::start(api.kubeconfig());
    run.initial().await;
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Pod] {
        api.refuse(kind, Some(404));
    }
    api.disconnect();
    sleep(Duration::from_secs(300)).await;
    assert!(run.handle.updates.try_recv().is_err(), "the mesh was emptied");
    for kind in [Kind::Service, Kind::EndpointSlice, Kind::Pod] {
        api.refuse(kind, None);
    }
    api.put(&[mk_pod("p2", "a", "10.0.0.2"), mk_service("d", "")].concat());
    run.services(&["a", "b", "c", "d"]).await;
}

#[tokio::test(start_paused = true)]
async fn kinds_that_are_not_installed_are_never_old() {
    let api = api().await;
    api.set_absent(Kind::Telemetry, true);
    let mut run = Run::start(api.kubeconfig());
    run.initial().await;
    for _ in 0..100 {
        sleep(Duration::from_secs(10)).await;
        assert!(health(&run, Kind::Telemetry).staleness <= Duration::from_secs(30));
    }
}
