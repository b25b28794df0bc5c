//! Upgrades while people work: Pods are created and objects applied all the time, nobody meets a closed port, and no Pod comes
//! without its sidecar. The control plane runs as its Deployment says, and a real controller-manager rolls it out.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use anyhow::ensure;
use http::{Method, Request, header};
use pilotfish_testkit::{KubeCluster, until};
use pilotfish_tests::installed::{IMAGE, Installed, SYSTEM, namespace, pod, programs, sidecars};
use serde_json::{Value, json};
use tokio::task::JoinHandle;
use tokio::time::interval;

/// What people met.
#[derive(Clone, Debug, Default)]
struct Tally {
    /// Pods by the revision that injected them.
    pods: BTreeMap<String, usize>,
    /// Valid objects that were stored, by client and by kubectl.
    applied: [usize; 2],
    /// Invalid ones that were refused with a reason.
    refused: usize,
    /// Everything else.
    wrong: Vec<String>,
}

/// People at work; they stop when this is dropped.
struct People {
    tally: Arc<Mutex<Tally>>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for People {
    fn drop(&mut self) {
        self.tasks.iter().for_each(JoinHandle::abort);
    }
}

/// Sends one request; the object, or what was said instead.
async fn send(client: &kube::Client, method: Method, path: &str, content_type: &str, body: &Value) -> Result<Value, kube::Error> {
    let request = Request::builder().method(method).uri(path).header(header::CONTENT_TYPE, content_type);
    client.request(request.body(body.to_string().into_bytes()).unwrap()).await
}

fn routes(name: &str, http: &Value) -> Value {
    json!({"apiVersion": "networking.istio.io/v1", "kind": "VirtualService", "metadata": {"name": name, "namespace": "shop"},
        "spec": {"hosts": ["a.example.com"], "http": [http]}})
}

impl People {
    async fn start(cluster: &KubeCluster) -> People {
        let tally = Arc::<Mutex<Tally>>::default();
        let mut tasks = Vec::new();
        let (client, told) = (cluster.client().await, tally.clone());
        tasks.push(tokio::spawn(async move {
            let mut turns = interval(Duration::from_millis(50));
            let mut wanted = pod("shop", "");
            wanted["metadata"] = json!({"generateName": "app-"});
            loop {
                turns.tick().await;
                let made = send(&client, Method::POST, "/api/v1/namespaces/shop/pods", "application/json", &wanted).await;
                let mut tally = told.lock().unwrap();
                match made {
                    Ok(pod) if sidecars(&pod) == 1 => {
                        let by = pod["metadata"]["annotations"]["istio.io/rev"].as_str().unwrap_or_default();
                        *tally.pods.entry(by.to_owned()).or_default() += 1;
                    }
                    Ok(pod) => tally.wrong.push(format!("not injected: {}", pod["metadata"]["name"])),
                    Err(e) => tally.wrong.push(format!("a Pod: {e}")),
                }
            }
        }));
        let (client, told) = (cluster.client().await, tally.clone());
        tasks.push(tokio::spawn(async move {
            let mut turns = interval(Duration::from_millis(100));
            let root = "/apis/networking.istio.io/v1/namespaces/shop/virtualservices";
            for n in 1.. {
                turns.tick().await;
                let valid = routes("valid", &json!({"timeout": format!("{n}s"), "route": [{"destination": {"host": "b.example.com"}}]}));
                let path = format!("{root}/valid?fieldManager=people");
                match send(&client, Method::PATCH, &path, "application/apply-patch+yaml", &valid).await {
                    Ok(_) => told.lock().unwrap().applied[0] += 1,
                    Err(e) => told.lock().unwrap().wrong.push(format!("a valid object: {e}")),
                }
                match send(&client, Method::POST, root, "application/json", &routes("invalid", &json!({"timeout": "1ns"}))).await {
                    Err(kube::Error::Api(status)) if status.message.contains("denied the request") => told.lock().unwrap().refused += 1,
                    other => told.lock().unwrap().wrong.push(format!("an invalid object: {other:?}")),
                }
            }
        }));
        let (kubectl, told) = (cluster.commands(), tally.clone());
        tasks.push(tokio::spawn(async move {
            let mut turns = interval(Duration::from_millis(500));
            for n in 1.. {
                turns.tick().await;
                let object = routes("by-hand", &json!({"timeout": format!("{n}s"), "route": [{"destination": {"host": "b.example.com"}}]}));
                match kubectl.run(&["apply", "-f", "-"], &object.to_string()).await {
                    Ok(_) => told.lock().unwrap().applied[1] += 1,
                    Err(e) => told.lock().unwrap().wrong.push(format!("kubectl: {e:#}")),
                }
            }
        }));
        People { tally, tasks }
    }

    fn tally(&self) -> Tally {
        let tally = self.tally.lock().unwrap().clone();
        assert!(self.tasks.iter().all(|t| !t.is_finished()), "somebody stopped working: {tally:?}");
        tally
    }

    /// Waits until so many more Pods came from a revision.
    async fn more_pods(&self, revision: &str, more: usize) {
        let so_far = self.tally().pods.get(revision).copied().unwrap_or_default();
        until(&format!("{more} more Pods by {revision}"), async || {
            let tally = self.tally();
            ensure!(tally.pods.get(revision).copied().unwrap_or_default() >= so_far + more, "{tally:?}");
            Ok(())
        })
        .await;
    }
}

/// Waits until both webhooks answer and nothing gets past them.
async fn closed(all: &Installed, validator: &str) {
    until("a Pod that is injected", async || {
        let injected = all.create(&pod("shop", "first")).await?;
        ensure!(sidecars(&injected) == 1, "{injected:#}");
        Ok(())
    })
    .await;
    until("a validator that fails closed", async || {
        let object = all.cluster.get("default", "validatingwebhookconfiguration", validator).await;
        ensure!(object["webhooks"][0]["failurePolicy"] == "Fail", "{object:#}");
        Ok(())
    })
    .await;
    // The API server has seen it when it refuses.
    let invalid = routes("invalid", &json!({"timeout": "1ns"})).to_string();
    until("a refusal", async || match all.cluster.try_kubectl(&["create", "--dry-run=server", "-f", "-"], &invalid).await {
        Err(e) if e.to_string().contains("denied the request") => Ok(()),
        other => anyhow::bail!("{other:?}"),
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_an_upgrade() {
    let Some(programs) = programs("kube_upgrade") else { return };
    Installed::run(programs, upgraded).await;
}

async fn upgraded(all: Installed) {
    all.cluster.apply(&[namespace("shop", &json!({"istio-injection": "enabled"}))]).await;
    all.upgrade("base", "base", &[]).await;
    all.upgrade("istiod", "pilotfish", &[IMAGE]).await;
    closed(&all, "istiod-default-validator").await;

    let people = People::start(&all.cluster).await;
    people.more_pods("default", 20).await;
    let new = format!("{IMAGE}:new");
    all.upgrade("base", "base", &[]).await;
    all.upgrade("istiod", "pilotfish", &[&new, "meshConfig.accessLogFile=/dev/stdout"]).await;
    nobody_noticed(&all, &people, "default").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn nobody_notices_that_a_tag_moves() {
    let Some(programs) = programs("kube_upgrade") else { return };
    Installed::run(programs, moved).await;
}

async fn moved(all: Installed) {
    all.cluster.apply(&[namespace("shop", &json!({"istio.io/rev": "prod"}))]).await;
    all.upgrade("base", "base", &["defaultRevision=one"]).await;
    for revision in ["one", "two"] {
        all.upgrade(&format!("istiod-{revision}"), "pilotfish", &[IMAGE, &format!("revision={revision}")]).await;
    }
    // As the NOTES say: a tag belongs to no release, so that none takes it along.
    let tag = async |revision: &str| {
        let (release, set) = (format!("istiod-{revision}"), format!("revision={revision},revisionTags={{prod}}"));
        let mut args = vec!["--set", &set];
        args.extend(["--show-only=templates/revision-tags-mwc.yaml", "--show-only=templates/revision-tags-svc.yaml"]);
        let objects = all.helm.render(&release, "pilotfish", &args).await;
        let list = json!({"apiVersion": "v1", "kind": "List", "items": objects}).to_string();
        all.cluster.try_kubectl(&["apply", "-f", "-"], &list).await.unwrap();
    };
    tag("one").await;
    closed(&all, "istiod-default-validator").await;

    let people = People::start(&all.cluster).await;
    people.more_pods("one", 20).await;
    tag("two").await;
    people.more_pods("two", 20).await;
    all.upgrade("base", "base", &["defaultRevision=two"]).await;
    // The old revision goes.
    let kubeconfig = all.cluster.kubeconfig();
    let args = ["uninstall", "istiod-one", "--namespace", SYSTEM, "--wait", "--kubeconfig", kubeconfig.to_str().unwrap()];
    let output = all.helm.run(&args).await;
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    nobody_noticed(&all, &people, "two").await;
}

/// Once the old Pod has ended and more Pods have come, which this revision injects: nothing went wrong, and much happened.
async fn nobody_noticed(all: &Installed, people: &People, revision: &str) {
    until("the end of the old Pod", async || {
        ensure!(all.kubelet.seen().ended == 1, "it is still there");
        Ok(())
    })
    .await;
    people.more_pods(revision, 40).await;
    let tally = people.tally();
    eprintln!("{tally:?}");
    assert_eq!(tally.wrong, Vec::<String>::new(), "{}", all.logs());
    assert!(tally.applied[0] > 20 && tally.applied[1] > 5 && tally.refused > 20, "{tally:?}");
    assert_eq!(all.kubelet.seen().crashes, Vec::<String>::new());
}
