//! From an object that wants keys to the mesh that has them, through the controller and real HTTP.

use std::sync::Mutex;

use pilotfish_model::{Kind, ObjectId};
use tokio::time::timeout;

use super::client::tests::{ok, server};
use super::*;
use crate::index::Settings;
use crate::run::{Controller, Options};

const ONE: &str = r#"{"keys":[{"kty":"oct","k":"b25l"}]}"#;
const TWO: &str = r#"{"keys":[{"kty":"oct","k":"dHdv"}]}"#;
/// Everything here takes milliseconds.
const SOON: Duration = Duration::from_secs(20);

fn authentication(name: &str, url: &str) -> String {
    format!(
        "apiVersion: security.istio.io/v1\nkind: RequestAuthentication\nmetadata: {{name: {name}, namespace: a}}\n\
         spec: {{jwtRules: [{{issuer: i, jwksUri: {url:?}}}]}}\n---\n"
    )
}

#[tokio::test]
async fn the_first_mesh_has_the_keys_and_later_ones_are_changes() {
    let asked = Arc::new(Mutex::new(Vec::new()));
    let log = asked.clone();
    let address = server(move |path| {
        log.lock().unwrap().push(path.to_owned());
        ok(if path == "/one" { ONE } else { TWO })
    })
    .await;
    let (one, two) = (format!("http://{address}/one"), format!("http://{address}/two"));
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mesh.yaml");
    std::fs::write(&file, authentication("one", &one)).unwrap();
    let (controller, mut handle) = Controller::new(Options::new(vec![file.clone()], Settings::default())).unwrap();
    let client = Client::new(Guard { allow: vec!["127.0.0.0/8".parse().unwrap()], deny: Vec::new() }, None);
    let fetcher = Fetcher::new(client, handle.state.clone(), handle.keys.clone());
    let counts = fetcher.counts();
    let tasks = [tokio::spawn(async { controller.run().await.unwrap() }), tokio::spawn(fetcher.run())];

    let mesh = timeout(SOON, &mut handle.initial).await.unwrap().unwrap();
    let keys = |mesh: &Mesh, url: &str| mesh.jwks.get(&JwksSource::Uri(url.into())).map(|k| k.to_string());
    assert_eq!(keys(&mesh, &one).as_deref(), Some(ONE));

    std::fs::write(&file, authentication("one", &one) + &authentication("two", &two)).unwrap();
    let mut changed = Vec::new();
    loop {
        let update = timeout(SOON, handle.updates.recv()).await.unwrap().unwrap();
        changed.push(update.changes.objects);
        if keys(&update.mesh, &two).as_deref() == Some(TWO) {
            assert_eq!(keys(&update.mesh, &one).as_deref(), Some(ONE));
            break;
        }
    }
    let second = ObjectId::new(Kind::RequestAuthentication, "a", "two");
    assert_eq!(changed, vec![std::collections::BTreeSet::from([second]); 2], "the object came, then its keys did");
    assert_eq!(*asked.lock().unwrap(), ["/one", "/two"]);
    assert_eq!((counts.fetched.load(Ordering::Relaxed), counts.missing.load(Ordering::Relaxed)), (2, 0));
    drop(handle);
    for task in tasks {
        timeout(SOON, task).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_mesh_without_keys_is_served_in_the_end() {
    let address = server(|_| "HTTP/1.1 500 Oh\r\ncontent-length: 0\r\n\r\n".to_owned()).await;
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("mesh.yaml");
    std::fs::write(&file, authentication("one", &format!("http://{address}/"))).unwrap();
    let (controller, mut handle) = Controller::new(Options::new(vec![file], Settings::default())).unwrap();
    let client = Client::new(Guard { allow: vec!["127.0.0.0/8".parse().unwrap()], deny: Vec::new() }, None);
    let fetcher = Fetcher::new(client, handle.state.clone(), handle.keys.clone());
    let counts = fetcher.counts();
    let tasks = [tokio::spawn(async { controller.run().await.unwrap() }), tokio::spawn(fetcher.run())];
    let mesh = timeout(SOON, &mut handle.initial).await.unwrap().unwrap();
    assert!(mesh.jwks.is_empty());
    assert!(counts.failed.load(Ordering::Relaxed) >= 1);
    drop(handle);
    for task in tasks {
        timeout(SOON, task).await.unwrap().unwrap();
    }
}
