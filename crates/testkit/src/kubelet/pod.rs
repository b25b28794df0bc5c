//! [`Running`]: a Pod with its network and its process.

use std::net::{IpAddr, SocketAddr};

use anyhow::{Context, ensure};
use serde_json::{Value, json};
use tokio::time::{Duration, Instant};

use super::sandbox::{self, Container};
use super::volumes::{self, only};
use super::{Settings, cable, text};
use crate::netns::Namespace;
use crate::process::Process;

/// Of what a Pod says: what is done here, and what others read.
const FIELDS: [&str; 20] = [
    "containers",
    "volumes",
    "serviceAccountName",
    "serviceAccount",
    "securityContext",
    "terminationGracePeriodSeconds",
    "nodeName",
    "restartPolicy",
    "dnsPolicy",
    "schedulerName",
    "enableServiceLinks",
    "tolerations",
    "nodeSelector",
    "affinity",
    "topologySpreadConstraints",
    "priority",
    "preemptionPolicy",
    "priorityClassName",
    "imagePullSecrets",
    "automountServiceAccountToken",
];

/// A Pod that runs. The process ends before the network that it is in.
pub(crate) struct Running {
    name: String,
    process: Process,
    _network: Namespace,
    ip: IpAddr,
    probe: Option<Probe>,
    ready: Option<bool>,
    /// Since when it should be ending, and when it is killed.
    ending: Option<Instant>,
    crashed: bool,
}

struct Probe {
    path: String,
    addr: SocketAddr,
    period: Duration,
    next: Instant,
}

impl Running {
    pub(crate) async fn start(settings: &Settings, pod: &Value) -> anyhow::Result<Running> {
        only(&pod["spec"], &FIELDS)?;
        let name = text(&pod["metadata"]["name"]);
        let containers = pod["spec"]["containers"].as_array().context("containers")?;
        let [container] = &containers[..] else { anyhow::bail!("more than one container is not understood") };
        let image = settings.images.get(&text(&container["image"])).context("no such image")?;
        let network = Namespace::new("pod");
        let (node_ip, ip) = cable();
        network.connect_to(ip, &settings.node, node_ip);
        network.default_route(node_ip);

        // Before anything starts, the address is known.
        let mut pod = pod.clone();
        pod["status"]["podIP"] = json!(ip.to_string());
        pod["status"]["hostIP"] = json!(node_ip.to_string());
        let dir = tempfile::tempdir()?;
        let mut all = Vec::new();
        for volume in pod["spec"]["volumes"].as_array().into_iter().flatten() {
            let made = volumes::make(settings, &pod, volume, &dir.path().join("volumes")).await;
            all.push((text(&volume["name"]), made.with_context(|| text(&volume["name"]))?));
        }
        let container_of = Container {
            image,
            spec: container,
            env: sandbox::env(settings, &pod, container).await?,
            volumes: all,
            pod_security: &pod["spec"]["securityContext"],
            ip: ip.to_string(),
            host: name.clone(),
        };
        let command = container_of.command(dir.path())?;
        let label = name.clone();
        let process = network.run(async move || Process::start(&label, dir, command)).await;
        let probe = probe(container, ip.into())?;
        Ok(Running { name, process, _network: network, ip: ip.into(), probe, ready: None, ending: None, crashed: false })
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn log(&self) -> String {
        self.process.log()
    }

    /// Whether it ended by itself, once.
    pub(crate) fn crashed(&mut self) -> bool {
        let crashed = self.ending.is_none() && self.process.ended().is_some();
        crashed && !std::mem::replace(&mut self.crashed, true)
    }

    pub(crate) fn ended_as_asked(&mut self) -> bool {
        self.ending.is_some() && self.process.ended().is_some()
    }

    /// Probes it, tells the API server, and ends it if it was deleted.
    pub(crate) async fn look(&mut self, settings: &Settings, pod: &Value, deleted: bool) -> anyhow::Result<()> {
        match self.ending {
            None if deleted => {
                let grace = pod["metadata"]["deletionGracePeriodSeconds"].as_u64().unwrap_or(30);
                self.ending = Some(Instant::now() + Duration::from_secs(grace));
                self.process.signal("TERM").await;
            }
            Some(end) if Instant::now() > end => self.process.kill().await,
            _ => {}
        }
        let alive = self.process.ended().is_none();
        let ready = match &mut self.probe {
            _ if !alive => false,
            None => true,
            Some(probe) if Instant::now() < probe.next => return Ok(()),
            Some(probe) => {
                probe.next = Instant::now() + probe.period;
                crate::http::get(probe.addr, "localhost", &probe.path, &[]).await.is_ok_and(|r| (200..400).contains(&r.status))
            }
        };
        if self.ready == Some(ready) {
            return Ok(());
        }
        let condition = |kind: &str, is: bool| json!({"type": kind, "status": if is { "True" } else { "False" }});
        let conditions = [("Initialized", true), ("PodScheduled", true), ("ContainersReady", ready), ("Ready", ready)];
        let status = json!({
            "phase": "Running", "podIP": self.ip, "podIPs": [{"ip": self.ip}],
            "conditions": conditions.map(|(kind, is)| condition(kind, is)),
        });
        let path = format!("/api/v1/namespaces/{}/pods/{}/status", settings.namespace, self.name);
        settings.patch(&path, &json!({"metadata": {"uid": pod["metadata"]["uid"]}, "status": status})).await?;
        self.ready = Some(ready);
        Ok(())
    }
}

/// Only questions over HTTP are understood.
fn probe(container: &Value, ip: IpAddr) -> anyhow::Result<Option<Probe>> {
    let Some(probe) = container.get("readinessProbe") else { return Ok(None) };
    only(probe, &["httpGet", "initialDelaySeconds", "periodSeconds", "timeoutSeconds", "successThreshold", "failureThreshold"])?;
    let get = &probe["httpGet"];
    only(get, &["path", "port", "scheme"])?;
    ensure!(get["scheme"].is_null() || get["scheme"] == "HTTP", "probes over TLS are not understood");
    let named = |name: &str| container["ports"].as_array()?.iter().find(|p| p["name"] == name)?["containerPort"].as_u64();
    let port = get["port"].as_u64().or_else(|| named(get["port"].as_str()?)).and_then(|p| u16::try_from(p).ok());
    let port = port.context("the probe's port")?;
    let seconds = |key: &str| probe[key].as_u64().map_or(Duration::ZERO, Duration::from_secs);
    let next = Instant::now() + seconds("initialDelaySeconds");
    Ok(Some(Probe { path: text(&get["path"]), addr: (ip, port).into(), period: seconds("periodSeconds"), next }))
}
