//! A small kubelet: it runs the Pods of a namespace as the API server has them, as processes of this machine.
//!
//! What a Pod says is what is done: image, arguments, environment, volumes, tokens, probes, users. What it says and this does not
//! understand is a panic, so that nothing is left out silently. Every Pod has a network of its own that leads to the node's.
//! Enter at [`Kubelet::start`]; `sandbox` runs one container, `volumes` lays out its files.

mod image;
mod pod;
mod sandbox;
mod volumes;

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use http::{Method, Request, header};
use serde_json::{Value, json};
use tokio::time::sleep;

pub use image::{Image, is_static};
use pod::Running;

/// Name of the only node.
pub const NODE: &str = "node-1";
/// How often it looks at its Pods.
const PERIOD: Duration = Duration::from_millis(100);

/// See the module's documentation. Dropping it ends its Pods.
pub struct Kubelet {
    seen: Arc<Mutex<Seen>>,
    task: tokio::task::JoinHandle<()>,
}

/// What it did, for tests.
#[derive(Clone, Debug, Default)]
pub struct Seen {
    /// Logs of containers that ended, by the name of their Pod.
    pub logs: BTreeMap<String, String>,
    /// Containers that ended without being asked to.
    pub crashes: Vec<String>,
    /// How many Pods were ended because they were deleted.
    pub ended: usize,
    /// What it does not understand.
    pub failure: Option<String>,
}

/// What the kubelet knows of the world around it.
pub(crate) struct Settings {
    client: kube::Client,
    /// Namespace of the Pods that it runs.
    namespace: String,
    /// What a container's image may be.
    images: BTreeMap<String, Image>,
    /// The network namespace of the node.
    node: String,
    /// Where Pods reach the API server.
    api: SocketAddr,
}

impl Drop for Kubelet {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Kubelet {
    /// Runs the Pods of a namespace whose images it has. To be called in the network namespace `node`, where the API server is at `api`.
    pub async fn start(client: kube::Client, node: &str, api: SocketAddr, namespace: &str, images: BTreeMap<String, Image>) -> Kubelet {
        let settings = Settings { client, namespace: namespace.to_owned(), images, node: node.to_owned(), api };
        let object = json!({"apiVersion": "v1", "kind": "Node", "metadata": {"name": NODE}});
        settings.post("/api/v1/nodes", &object).await.unwrap();
        let ready = json!({"status": {"nodeInfo": {"kubeletVersion": "v1.35.0"}, "conditions": [{"type": "Ready", "status": "True"}]}});
        settings.patch(&format!("/api/v1/nodes/{NODE}/status"), &ready).await.unwrap();
        let seen = Arc::<Mutex<Seen>>::default();
        let shared = seen.clone();
        let task = tokio::spawn(async move {
            let mut pods = BTreeMap::new();
            loop {
                if let Err(error) = round(&settings, &mut pods, &shared).await {
                    // Such as an API server that is away: the next round does what is left.
                    eprintln!("kubelet: {error:#}");
                }
                sleep(PERIOD).await;
            }
        });
        Kubelet { seen, task }
    }

    /// What it did so far. Panics if there was something that it does not understand.
    pub fn seen(&self) -> Seen {
        let seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone();
        assert!(seen.failure.is_none(), "{}", seen.failure.unwrap());
        assert!(!self.task.is_finished(), "the kubelet ended");
        seen
    }
}

/// Brings what runs in line with what the API server has.
async fn round(settings: &Settings, pods: &mut BTreeMap<String, Running>, seen: &Mutex<Seen>) -> anyhow::Result<()> {
    let list = settings.get(&format!("/api/v1/namespaces/{}/pods", settings.namespace)).await?;
    let there: Vec<Value> = list["items"].as_array().cloned().unwrap_or_default();
    for pod in &there {
        let (name, uid) = (text(&pod["metadata"]["name"]), text(&pod["metadata"]["uid"]));
        let deleted = !pod["metadata"]["deletionTimestamp"].is_null();
        if text(&pod["spec"]["nodeName"]).is_empty() {
            if !deleted && settings.has_images(pod) {
                let target = json!({"apiVersion": "v1", "kind": "Node", "name": NODE});
                let binding = json!({"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target});
                settings.post(&format!("/api/v1/namespaces/{}/pods/{name}/binding", settings.namespace), &binding).await?;
            }
            continue;
        }
        match pods.get_mut(&uid) {
            None if deleted => settings.gone(&name, &uid).await?,
            None => {
                let running = Running::start(settings, pod).await;
                if let Err(error) = &running {
                    seen.lock().unwrap_or_else(PoisonError::into_inner).failure = Some(format!("Pod {name}: {error:#}"));
                }
                pods.insert(uid, running?);
            }
            Some(running) => {
                running.look(settings, pod, deleted).await?;
                let mut seen = seen.lock().unwrap_or_else(PoisonError::into_inner);
                seen.logs.insert(name.clone(), running.log());
                if running.crashed() {
                    seen.crashes.push(name.clone());
                }
            }
        }
    }
    let mut ended = Vec::new();
    for (uid, running) in pods.iter_mut() {
        if running.ended_as_asked() {
            settings.gone(running.name(), uid).await?;
            ended.push(uid.clone());
        }
    }
    for uid in ended {
        pods.remove(&uid);
        seen.lock().unwrap_or_else(PoisonError::into_inner).ended += 1;
    }
    Ok(())
}

impl Settings {
    fn has_images(&self, pod: &Value) -> bool {
        let containers = pod["spec"]["containers"].as_array().into_iter().flatten();
        containers.into_iter().all(|c| self.images.contains_key(&text(&c["image"])))
    }

    pub(crate) async fn get(&self, path: &str) -> anyhow::Result<Value> {
        self.call(Method::GET, path, "application/json", &Value::Null).await
    }

    pub(crate) async fn post(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::POST, path, "application/json", body).await
    }

    pub(crate) async fn patch(&self, path: &str, body: &Value) -> anyhow::Result<Value> {
        self.call(Method::PATCH, path, "application/merge-patch+json", body).await
    }

    /// Says that a Pod's processes are gone.
    async fn gone(&self, name: &str, uid: &str) -> anyhow::Result<()> {
        let options = json!({"apiVersion": "v1", "kind": "DeleteOptions", "gracePeriodSeconds": 0, "preconditions": {"uid": uid}});
        let path = format!("/api/v1/namespaces/{}/pods/{name}", self.namespace);
        self.call(Method::DELETE, &path, "application/json", &options).await.map(drop)
    }

    async fn call(&self, method: Method, path: &str, content_type: &str, body: &Value) -> anyhow::Result<Value> {
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, content_type).body(body)?;
        Ok(self.client.request(request).await?)
    }
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}

/// An address of the node and one of a Pod, on a cable of their own.
fn cable() -> (Ipv4Addr, Ipv4Addr) {
    static NEXT: std::sync::atomic::AtomicU8 = std::sync::atomic::AtomicU8::new(1);
    let n = NEXT.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
    (Ipv4Addr::new(10, 88, n, 1), Ipv4Addr::new(10, 88, n, 2))
}
