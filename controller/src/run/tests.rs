//! The task with real files. Waits end with the event or panic after a while; nothing sleeps.

use std::fs;

use pretty_assertions::assert_eq;
use tempfile::TempDir;
use tokio::time::timeout;

use super::*;

const LONG: Duration = Duration::from_secs(20);

fn service(name: &str) -> String {
    format!("apiVersion: v1\nkind: Service\nmetadata: {{name: {name}}}\nspec: {{ports: [{{port: 80}}]}}\n")
}

fn names(mesh: &Mesh) -> Vec<String> {
    mesh.services.values().map(|s| s.name.to_string()).collect()
}

async fn next(handle: &mut Handle) -> Update {
    timeout(LONG, handle.updates.recv()).await.expect("no update in time").expect("the controller ended")
}

async fn initial(handle: &mut Handle) -> Arc<Mesh> {
    timeout(LONG, &mut handle.initial).await.expect("no mesh in time").expect("the controller ended")
}

/// A folder with one service, and a controller that watches (or polls) it.
fn start(poll: Duration) -> (TempDir, Handle, tokio::task::JoinHandle<Result<(), RunError>>) {
    let dir = TempDir::new().unwrap();
    fs::write(dir.path().join("a.yaml"), service("a")).unwrap();
    let mut options = Options::new(vec![dir.path().to_owned()], Settings::default());
    options.poll = poll;
    let (controller, handle) = Controller::new(options).unwrap();
    let task = tokio::spawn(controller.run());
    (dir, handle, task)
}

#[tokio::test]
async fn edits_reach_the_mesh_and_mistakes_the_state() {
    let (dir, mut handle, task) = start(Duration::from_secs(3600));
    assert_eq!(names(&*initial(&mut handle).await), ["a"]);
    fs::write(dir.path().join("b.yaml"), service("b")).unwrap();
    assert_eq!(names(&next(&mut handle).await.mesh), ["a", "b"]);
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/c.yaml"), service("c")).unwrap();
    assert_eq!(names(&next(&mut handle).await.mesh), ["a", "b", "c"]);

    handle.state.mark_unchanged();
    fs::write(dir.path().join("b.yaml"), "kind: [").unwrap();
    let state = timeout(LONG, handle.state.wait_for(|s| s.has_errors())).await.unwrap().unwrap().clone();
    assert_eq!((state.problems.len(), names(&state.snapshot.mesh)), (1, vec!["a".into(), "b".into(), "c".into()]));

    fs::remove_file(dir.path().join("b.yaml")).unwrap();
    assert_eq!(names(&next(&mut handle).await.mesh), ["a", "c"]);
    assert!(!handle.state.borrow().has_errors());
    drop(handle);
    timeout(LONG, task).await.unwrap().unwrap().unwrap();
}

#[tokio::test]
async fn the_mesh_configuration_may_change() {
    let (_dir, mut handle, _task) = start(Duration::from_secs(3600));
    handle.mesh_config.send(crate::mesh_config::Layer::parse("trustDomain: td").unwrap()).await.unwrap();
    let Update { mesh, changes, .. } = next(&mut handle).await;
    assert_eq!((&*mesh.config.trust_domain, changes.everything), ("td", true));
}

#[tokio::test]
async fn polling_finds_what_nobody_told() {
    let (dir, mut handle, _task) = start(Duration::from_millis(20));
    assert_eq!(names(&*initial(&mut handle).await), ["a"]);
    // Written beside and moved in: one event at most, and polling would find it without any.
    fs::write(dir.path().join("b.tmp"), service("b")).unwrap();
    fs::rename(dir.path().join("b.tmp"), dir.path().join("b.yaml")).unwrap();
    assert_eq!(names(&next(&mut handle).await.mesh), ["a", "b"]);
}

#[tokio::test]
async fn a_missing_folder_ends_the_start() {
    let options = Options::new(vec!["/nowhere/at/all".into()], Settings::default());
    let error = Controller::new(options).map(drop).unwrap_err().to_string();
    assert!(error.starts_with("--config-dir /nowhere/at/all: "), "{error}");
}
