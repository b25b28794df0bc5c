//! An API server for tests: lists and watches in JSON, over HTTP on loopback, with every misfortune on demand.
//!
//! Connections are closed after each answer: what is open is a request.

use std::collections::{BTreeMap, BTreeSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::Duration;

use pilotfish_model::{Kind, ObjectId};
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;

use super::{Target, kinds, path};
use crate::source::yaml;

/// See the module's documentation. Dropping it ends it.
pub(crate) struct FakeApi {
    shared: Arc<Shared>,
    dir: TempDir,
    port: u16,
    task: tokio::task::JoinHandle<()>,
}

struct Shared {
    state: Mutex<State>,
    /// Goes up with everything that an open request may wait for.
    changed: watch::Sender<u64>,
}

#[derive(Default)]
struct State {
    /// What happened: which kind, which object, and what it is now.
    log: Vec<Event>,
    /// Versions before this one are forgotten.
    oldest: usize,
    /// Goes up when open watches are to end.
    epoch: u64,
    no_streams: bool,
    /// Kinds that are not installed.
    absent: BTreeSet<Kind>,
    /// Kinds that are not answered yet.
    held: BTreeSet<Kind>,
    /// Kinds that are answered after a while.
    delayed: BTreeMap<Kind, Duration>,
    /// Kinds whose next event is told to nobody, and how many were not.
    swallow: BTreeSet<Kind>,
    swallowed: BTreeSet<usize>,
    /// Kinds that are refused, with which status.
    refused: BTreeMap<Kind, u16>,
    /// Who does not know it is not known.
    token: Option<String>,
    requests: Vec<String>,
}

#[derive(Clone)]
struct Event {
    kind: Kind,
    key: (String, String),
    object: Value,
    gone: bool,
}

impl Event {
    fn is_at(&self, target: &Target) -> bool {
        target.covers(&ObjectId::new(self.kind, self.key.0.as_str(), self.key.1.as_str()))
    }
}

impl Drop for FakeApi {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl FakeApi {
    /// Listens on a free port.
    pub(crate) async fn start() -> FakeApi {
        Self::on(TcpListener::bind("127.0.0.1:0").await.unwrap())
    }

    /// Serves what it gets there.
    pub(crate) fn on(listener: TcpListener) -> FakeApi {
        let shared = Arc::new(Shared { state: Mutex::default(), changed: watch::channel(0).0 });
        let dir = TempDir::new().unwrap();
        let port = listener.local_addr().unwrap().port();
        write_kubeconfig(&dir.path().join("kubeconfig"), port);
        let serving = shared.clone();
        let task = tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                tokio::spawn(serve(stream, serving.clone()));
            }
        });
        FakeApi { shared, dir, port, task }
    }

    /// Its kubeconfig is now one of a user who has this to show.
    pub(crate) fn write_user(&self, user: &Value) {
        write_kubeconfig_of(&self.kubeconfig(), self.port, user);
    }

    pub(crate) fn kubeconfig(&self) -> PathBuf {
        self.dir.path().join("kubeconfig")
    }

    /// Writes objects, in YAML.
    pub(crate) fn put(&self, text: &str) {
        for document in yaml::split(text) {
            let mut object = yaml::parse(document.text).unwrap();
            let name = |o: &Value, field: &str| o["metadata"][field].as_str().unwrap_or_default().to_owned();
            let kind = crate::object::known_kind(object["apiVersion"].as_str().unwrap(), object["kind"].as_str().unwrap()).unwrap();
            let key = (name(&object, "namespace"), name(&object, "name"));
            self.change(|state| {
                object["metadata"]["resourceVersion"] = (state.log.len() + 1).to_string().into();
                state.log.push(Event { kind, key, object, gone: false });
            });
        }
    }

    pub(crate) fn delete(&self, kind: Kind, namespace: &str, name: &str) {
        self.change(|state| {
            let key = (namespace.to_owned(), name.to_owned());
            let mut object = state.log.iter().rfind(|e| (e.kind, &e.key) == (kind, &key)).unwrap().object.clone();
            object["metadata"]["resourceVersion"] = (state.log.len() + 1).to_string().into();
            state.log.push(Event { kind, key, object, gone: true });
        });
    }

    /// Ends all open watches, in the middle of whatever they say.
    pub(crate) fn disconnect(&self) {
        self.change(|state| state.epoch += 1);
    }

    /// Forgets all versions but the newest.
    pub(crate) fn compact(&self) {
        self.change(|state| state.oldest = state.log.len());
    }

    /// Serves lists in pages only.
    pub(crate) fn without_streams(&self) {
        self.change(|state| state.no_streams = true);
    }

    pub(crate) fn set_absent(&self, kind: Kind, absent: bool) {
        self.change(|state| {
            if absent {
                state.absent.insert(kind)
            } else {
                state.absent.remove(&kind)
            };
        });
    }

    /// Lets requests for a kind wait.
    pub(crate) fn hold(&self, kind: Kind, hold: bool) {
        self.change(|state| {
            if hold {
                state.held.insert(kind)
            } else {
                state.held.remove(&kind)
            };
        });
    }

    /// Lets requests for a kind wait for a time.
    pub(crate) fn delay(&self, kind: Kind, delay: Duration) {
        self.change(|state| {
            state.delayed.insert(kind, delay);
        });
    }

    /// Tells nobody of the next change of a kind. Lists have it.
    pub(crate) fn swallow(&self, kind: Kind) {
        self.change(|state| {
            state.swallow.insert(kind);
        });
    }

    /// Refuses requests for a kind with a status, or does not any more.
    pub(crate) fn refuse(&self, kind: Kind, status: Option<u16>) {
        self.change(|state| {
            state.refused.remove(&kind);
            state.refused.extend(status.map(|status| (kind, status)));
        });
    }

    /// Knows only those that have this token.
    pub(crate) fn set_token(&self, token: &str) {
        self.change(|state| state.token = Some(token.to_owned()));
    }

    /// All requests so far, as path and query.
    pub(crate) fn requests(&self) -> Vec<String> {
        self.shared.lock().requests.clone()
    }

    /// Returns when the requests so far are as wanted.
    pub(crate) async fn requested(&self, wanted: impl Fn(&[String]) -> bool) {
        let mut changed = self.shared.changed.subscribe();
        let wait = async {
            while !wanted(&self.shared.lock().requests) {
                changed.changed().await.unwrap();
            }
        };
        tokio::time::timeout(std::time::Duration::from_secs(20), wait).await.expect("no such request in time");
    }

    fn change(&self, f: impl FnOnce(&mut State)) {
        {
            let state = &mut *self.shared.lock();
            let before = state.log.len();
            f(state);
            for (i, event) in state.log.iter().enumerate().skip(before) {
                if state.swallow.remove(&event.kind) {
                    state.swallowed.insert(i);
                }
            }
        }
        self.shared.changed.send_modify(|n| *n += 1);
    }
}

/// A kubeconfig for a port of this machine.
pub(crate) fn write_kubeconfig(path: &std::path::Path, port: u16) {
    write_kubeconfig_of(path, port, &json!({}));
}

/// The same for a user who has this to show.
pub(crate) fn write_kubeconfig_of(path: &std::path::Path, port: u16, user: &Value) {
    let config = json!({
        "apiVersion": "v1", "kind": "Config", "current-context": "fake",
        "clusters": [{"name": "fake", "cluster": {"server": format!("http://127.0.0.1:{port}")}}],
        "users": [{"name": "fake", "user": user}],
        "contexts": [{"name": "fake", "context": {"cluster": "fake", "user": "fake"}}],
    });
    std::fs::write(path, config.to_string()).unwrap();
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap()
    }
}

impl State {
    fn at(&self, target: &Target, version: usize) -> BTreeMap<(String, String), Value> {
        let mut world = BTreeMap::new();
        for e in self.log[..version].iter().filter(|e| e.is_at(target)) {
            if e.gone {
                world.remove(&e.key)
            } else {
                world.insert(e.key.clone(), e.object.clone())
            };
        }
        world
    }
}

/// A client that hangs up ends the request, which is what errors of writing mean.
async fn serve(mut stream: TcpStream, shared: Arc<Shared>) -> std::io::Result<()> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await?);
    }
    let head = String::from_utf8(head).unwrap();
    let target = head.split(' ').nth(1).unwrap().to_owned();
    let (place, query) = target.split_once('?').unwrap();
    let query: BTreeMap<&str, &str> = query.split('&').filter_map(|pair| pair.split_once('=')).collect();
    let namespace = place.split_once("/namespaces/").and_then(|(_, rest)| rest.split_once('/')).map(|(ns, _)| ns.into());
    let name = query.get("fieldSelector").map(|f| f.strip_prefix("metadata.name%3D").unwrap().into());
    let at = |kind| Target { kind, namespace: namespace.clone(), name: name.clone() };
    let is_at = |kind: Kind, version: &str| path::page(&at(kind), version, None).split('?').next() == Some(place);
    let mut served = kinds().chain([Kind::Secret, Kind::ConfigMap]);
    let kind = served.find(|k| path::versions(*k).into_iter().any(|v| is_at(*k, v))).unwrap();
    let asked = at(kind);
    let mut changed = shared.changed.subscribe();
    shared.lock().requests.push(target.clone());
    shared.changed.send_modify(|n| *n += 1);
    let delay = shared.lock().delayed.get(&kind).copied();
    if let Some(delay) = delay {
        tokio::time::sleep(delay).await;
    }
    while shared.lock().held.contains(&kind) {
        changed.changed().await.map_err(std::io::Error::other)?;
    }
    let refusal = {
        let state = shared.lock();
        let known = |token: &String| head.lines().any(|l| l.to_ascii_lowercase() == format!("authorization: bearer {token}"));
        let unknown = state.token.as_ref().is_some_and(|token| !known(token));
        if unknown { Some(401) } else { state.refused.get(&kind).copied() }
    };
    if let Some(status) = refusal {
        return answer(&mut stream, status, &json!({"kind": "Status", "code": status, "message": "no"})).await;
    }
    if shared.lock().absent.contains(&kind) || !is_at(kind, path::versions(kind)[0]) {
        return answer(&mut stream, 404, &json!({"kind": "Status", "code": 404, "message": "not found"})).await;
    }
    if query.contains_key("watch") {
        follow(stream, &asked, &query, &shared, changed).await
    } else {
        list(stream, &asked, &query, &shared).await
    }
}

async fn answer(stream: &mut TcpStream, status: u16, body: &Value) -> std::io::Result<()> {
    let text = format!("HTTP/1.1 {status} X\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n{body}\n");
    stream.write_all(text.as_bytes()).await
}

/// Pages of two, whose tokens say of which version they are and where to go on.
async fn list(mut stream: TcpStream, target: &Target, query: &BTreeMap<&str, &str>, shared: &Shared) -> std::io::Result<()> {
    let body = {
        let state = shared.lock();
        let from = query.get("continue").and_then(|t| t.split_once('-'));
        let (version, skip) = from.map_or((state.log.len(), 0), |(v, s)| (v.parse().unwrap(), s.parse().unwrap()));
        let all: Vec<Value> = state.at(target, version).into_values().collect();
        let items: Vec<Value> = all.iter().skip(skip).take(2).cloned().collect();
        let mut metadata = json!({"resourceVersion": version.to_string()});
        if skip + items.len() < all.len() {
            metadata["continue"] = format!("{version}-{}", skip + items.len()).into();
        }
        (version >= state.oldest).then(|| json!({"metadata": metadata, "items": items}))
    };
    match body {
        Some(body) => answer(&mut stream, 200, &body).await,
        None => answer(&mut stream, 410, &json!({"kind": "Status", "code": 410, "message": "too old"})).await,
    }
}

async fn follow(
    mut stream: TcpStream,
    target: &Target,
    query: &BTreeMap<&str, &str>,
    shared: &Shared,
    mut changed: watch::Receiver<u64>,
) -> std::io::Result<()> {
    let (epoch, mut version, oldest, no_streams) = {
        let state = shared.lock();
        (state.epoch, state.log.len(), state.oldest, state.no_streams)
    };
    let streamed = query.contains_key("sendInitialEvents");
    if streamed && no_streams {
        return answer(&mut stream, 422, &json!({"kind": "Status", "code": 422, "message": "sendInitialEvents is forbidden"})).await;
    }
    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nConnection: close\r\n\r\n").await?;
    let line = |event: &str, object: &Value| format!("{}\n", json!({"type": event, "object": object}));
    let bookmark = |version: usize| json!({"metadata": {"resourceVersion": version.to_string()}});
    if streamed {
        let all = shared.lock().at(target, version);
        for object in all.values() {
            stream.write_all(line("ADDED", object).as_bytes()).await?;
        }
        let mut end = bookmark(version);
        end["metadata"]["annotations"] = json!({"k8s.io/initial-events-end": "true"});
        stream.write_all(line("BOOKMARK", &end).as_bytes()).await?;
    } else {
        version = query["resourceVersion"].parse().unwrap();
        if version < oldest {
            let status = json!({"kind": "Status", "code": 410, "message": "too old resource version"});
            return stream.write_all(line("ERROR", &status).as_bytes()).await;
        }
    }
    loop {
        changed.borrow_and_update();
        let (new, ended) = {
            let state = shared.lock();
            let ended = state.epoch != epoch;
            let known = version.min(state.log.len());
            (if ended { Vec::new() } else { state.log[known..].to_vec() }, ended)
        };
        if ended {
            // Cut off in the middle of an event.
            return stream.write_all(b"{\"type\": \"ADDED\", \"obj").await;
        }
        let about: Vec<&Event> = {
            let state = shared.lock();
            let heard = new.iter().enumerate().filter(|(i, e)| e.is_at(target) && !state.swallowed.contains(&(version + i)));
            heard.map(|(_, e)| e).collect()
        };
        version += new.len();
        let told = !about.is_empty();
        for e in about {
            stream.write_all(line(if e.gone { "DELETED" } else { "MODIFIED" }, &e.object).as_bytes()).await?;
        }
        if !new.is_empty() && !told {
            stream.write_all(line("BOOKMARK", &bookmark(version)).as_bytes()).await?;
        }
        changed.changed().await.map_err(std::io::Error::other)?;
    }
}
