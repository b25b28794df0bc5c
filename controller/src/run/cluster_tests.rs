//! The task with an API server that has every misfortune. Waits end with the event or panic after a while.

use pilotfish_model::{EndpointChange, Kind};
use pretty_assertions::assert_eq;
use tokio::net::TcpListener;
use tokio::time::timeout;

use super::*;
use crate::index::testing::{key, mk_istio, mk_pod, mk_service, mk_slice};
use crate::source::kube::fake::{FakeApi, write_kubeconfig};

pub(super) const LONG: Duration = Duration::from_secs(20);

pub(super) struct Run {
    pub(super) handle: Handle,
    _task: tokio::task::JoinHandle<Result<(), RunError>>,
}

impl Run {
    pub(super) fn start(kubeconfig: PathBuf) -> Run {
        Run::with(kubeconfig, Settings::default())
    }

    pub(super) fn with(kubeconfig: PathBuf, settings: Settings) -> Run {
        Run::of(kubeconfig, settings, Duration::ZERO)
    }

    pub(super) fn audited(kubeconfig: PathBuf, audit: Duration) -> Run {
        Run::of(kubeconfig, Settings::default(), audit)
    }

    fn of(kubeconfig: PathBuf, settings: Settings, audit: Duration) -> Run {
        let options = Options { cluster: Some(Cluster::Kubeconfig(kubeconfig)), audit, ..Options::new(Vec::new(), settings) };
        let (controller, handle) = Controller::new(options).unwrap();
        Run { handle, _task: tokio::spawn(controller.run()) }
    }

    pub(super) async fn initial(&mut self) -> Arc<Mesh> {
        timeout(LONG, &mut self.handle.initial).await.expect("no mesh in time").expect("the controller ended")
    }

    pub(super) async fn next(&mut self) -> Update {
        timeout(LONG, self.handle.updates.recv()).await.expect("no update in time").expect("the controller ended")
    }

    /// The first mesh of this kind.
    pub(super) async fn until(&mut self, wanted: impl Fn(&Mesh) -> bool) -> Arc<Mesh> {
        loop {
            let mesh = self.next().await.mesh;
            if wanted(&mesh) {
                return mesh;
            }
        }
    }

    /// The first mesh with these services; no mesh before it may have none.
    pub(super) async fn services(&mut self, expected: &[&str]) {
        loop {
            let mesh = self.next().await.mesh;
            let found = names(&mesh);
            assert!(!found.is_empty(), "the mesh was emptied");
            if found == expected {
                return;
            }
        }
    }
}

pub(super) fn names(mesh: &Arc<Mesh>) -> Vec<String> {
    mesh.services.values().map(|s| s.name.to_string()).collect()
}

/// A server with services `a`, `b` and `c`, of which `a` has an endpoint.
pub(super) async fn api() -> FakeApi {
    let api = FakeApi::start().await;
    api.put(&["a", "b", "c"].map(|name| mk_service(name, "")).concat());
    api.put(&[mk_pod("p1", "a", "10.0.0.1"), mk_slice("a", &["p1=10.0.0.1"])].concat());
    api
}

fn virtual_service(host: &str) -> String {
    mk_istio("VirtualService", "vs", &format!("{{hosts: ['{host}'], http: [{{route: [{{destination: {{host: a}}}}]}}]}}"))
}

#[tokio::test]
async fn the_first_mesh_waits_for_every_kind() {
    for held in [Kind::Service, Kind::Pod, Kind::EndpointSlice, Kind::Telemetry] {
        let api = api().await;
        api.hold(held, true);
        let mut run = Run::start(api.kubeconfig());
        // Everything else is there before the last kind is.
        api.requested(|r| r.len() >= crate::source::kube::kinds().count()).await;
        assert!(run.handle.initial.try_recv().is_err(), "{held:?}");
        api.hold(held, false);
        let mesh = run.initial().await;
        assert_eq!(
            (names(&mesh), mesh.endpoints.len(), mesh.workloads.len()),
            (vec!["a".into(), "b".into(), "c".into()], 1, 1),
            "{held:?}"
        );
        assert!(run.handle.updates.try_recv().is_err(), "nothing came in pieces");
    }
}

#[tokio::test]
async fn events_are_published_as_they_come() {
    let api = api().await;
    let mut run = Run::start(api.kubeconfig());
    run.initial().await;
    let before = Instant::now();
    api.put(&mk_slice("a", &["p1=172.16.0.1"]));
    let update = run.next().await;
    let endpoints = [(key("a.ns.svc.cluster.local"), EndpointChange::Removed)].into();
    assert_eq!(update.changes, ChangeSet { endpoints, ..ChangeSet::default() });
    assert!(update.since >= before && update.since <= Instant::now());
    api.delete(Kind::Service, "ns", "b");
    assert_eq!(names(&run.next().await.mesh), ["a", "c"]);
    // What means nothing is not published; the next thing is.
    api.put(&mk_service("a", "").replace("metadata: {", "metadata: {annotations: {note: x}, "));
    api.put(&virtual_service("a"));
    assert_eq!(run.next().await.mesh.virtual_services.len(), 1);
}

#[tokio::test]
async fn broken_watches_go_on_where_they_were() {
    let api = api().await;
    let mut run = Run::start(api.kubeconfig());
    run.initial().await;
    for (i, service) in ["d", "e", "f"].into_iter().enumerate() {
        let open = api.requests().len();
        api.disconnect();
        api.put(&mk_service(service, ""));
        assert_eq!(run.next().await.mesh.services.len(), 4 + i);
        api.requested(|r| r.len() >= open + crate::source::kube::kinds().count()).await;
    }
    // Every kind was listed once; all else resumed, idle kinds from where bookmarks had told them to.
    let listed = |r: &&String| r.contains("sendInitialEvents") || r.contains("limit");
    let requests = api.requests();
    assert_eq!(requests.iter().filter(listed).count(), crate::source::kube::kinds().count(), "{requests:#?}");
    let newest = requests.iter().rfind(|r| r.starts_with("/api/v1/nodes")).unwrap();
    assert!(!newest.contains("resourceVersion=5&") && !newest.ends_with("resourceVersion=5"), "bookmarks count: {newest}");
}

#[tokio::test]
async fn a_forgotten_version_is_listed_anew_without_ghosts() {
    for streams in [true, false] {
        let api = api().await;
        if !streams {
            api.without_streams();
        }
        let mut run = Run::start(api.kubeconfig());
        assert_eq!(names(&run.initial().await), ["a", "b", "c"]);
        // All this happens while nobody can see it.
        api.hold(Kind::Service, true);
        let open = api.requests().len();
        api.disconnect();
        api.requested(|r| r[open..].iter().any(|r| r.starts_with("/api/v1/services"))).await;
        api.delete(Kind::Service, "ns", "b");
        api.put(&mk_service("d", ""));
        api.compact();
        api.hold(Kind::Service, false);
        run.services(&["a", "c", "d"]).await;
    }
}

#[tokio::test]
async fn an_object_that_makes_no_sense_hurts_only_itself() {
    let api = api().await;
    api.put(&virtual_service("a"));
    let mut run = Run::start(api.kubeconfig());
    run.initial().await;
    api.put(&virtual_service("b").replace("hosts:", "hots:"));
    api.put(&mk_service("web", "").replace("port: 80", "port: eighty"));
    let all = |s: &State| s.snapshot.diagnostics.iter().map(ToString::to_string).collect::<Vec<_>>();
    let state = timeout(LONG, run.handle.state.wait_for(|s| all(s).len() == 2)).await.unwrap().unwrap().clone();
    assert!(all(&state)[0].starts_with("Service ns/web: spec.ports[0].port: "), "{:?}", all(&state));
    assert!(all(&state)[1].starts_with("VirtualService ns/vs: spec.hots: "), "{:?}", all(&state));
    let hosts = |mesh: &Mesh| mesh.virtual_services.values().flat_map(|v| &v.hosts).map(ToString::to_string).collect::<Vec<_>>();
    assert_eq!(hosts(&state.snapshot.mesh), ["a.ns.svc.cluster.local"], "the last good form stays");
    // The watch lives, and what is mended counts.
    api.put(&virtual_service("c"));
    assert_eq!(hosts(&run.next().await.mesh), ["c.ns.svc.cluster.local"]);
    assert_eq!(all(&run.handle.state.borrow()).len(), 1);
    // Listed anew, it is still the same.
    api.compact();
    api.disconnect();
    api.put(&mk_service("d", ""));
    run.services(&["a", "b", "c", "d"]).await;
    assert_eq!(all(&run.handle.state.borrow()).len(), 1);
}

#[tokio::test]
async fn kinds_that_are_not_installed_are_not_waited_for() {
    let api = api().await;
    crate::source::kube::kinds().filter(|k| k.group().ends_with(".istio.io")).for_each(|k| api.set_absent(k, true));
    let mut run = Run::start(api.kubeconfig());
    assert_eq!(names(&run.initial().await), ["a", "b", "c"]);
}

#[tokio::test]
async fn an_api_server_that_comes_late_is_waited_for() {
    // The port is free, and nobody listens on it.
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addr = listener.local_addr().unwrap();
    drop(listener);
    let dir = tempfile::TempDir::new().unwrap();
    write_kubeconfig(&dir.path().join("kubeconfig"), addr.port());
    let mut run = Run::start(dir.path().join("kubeconfig"));
    assert!(timeout(Duration::from_millis(300), &mut run.handle.initial).await.is_err());
    let api = FakeApi::on(TcpListener::bind(addr).await.unwrap());
    api.put(&mk_service("late", ""));
    // Kinds that were listed before are published with what came after.
    let mesh = run.initial().await;
    if mesh.services.is_empty() {
        run.services(&["late"]).await;
    }
}

#[tokio::test]
async fn a_broken_kubeconfig_ends_the_controller() {
    let options = Options { cluster: Some(Cluster::Kubeconfig("/nowhere".into())), ..Options::new(Vec::new(), Settings::default()) };
    let (controller, _handle) = Controller::new(options).unwrap();
    let error = controller.run().await.unwrap_err().to_string();
    assert!(error.starts_with("--kubeconfig /nowhere: "), "{error}");
}
