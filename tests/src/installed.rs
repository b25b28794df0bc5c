//! A cluster in a network of its own into which Helm installs the charts, with a node that runs what the charts say.

use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::Path;
use std::time::Duration;

use pilotfish_testkit::helm::{Helm, helm};
use pilotfish_testkit::kube::{self, Assets};
use pilotfish_testkit::kubelet::{Image, Kubelet};
use pilotfish_testkit::poll::until_within;
use pilotfish_testkit::{KubeCluster, Namespace, netns, pilotfish};
use serde_json::{Value, json};

/// Where Pods know the API server: the first address of Services.
const API: (Ipv4Addr, u16) = (Ipv4Addr::new(10, 96, 0, 1), 443);
/// Namespace of the control plane.
pub const SYSTEM: &str = "istio-system";
/// What the charts call the image. Other tags are other builds of it.
pub const IMAGE: &str = "image=registry.test/pilotfish";

/// What the machine must have.
#[derive(Clone)]
pub struct Programs {
    assets: Assets,
    helm: Helm,
    /// What Pods of the control plane are made of.
    pub image: Image,
}

/// All of it, or a line that says that `suite` is skipped.
pub fn programs(suite: &str) -> Option<Programs> {
    let (assets, helm, binary) = (kube::assets(suite)?, helm(suite)?, pilotfish::binary(suite)?);
    netns::possible(suite)?;
    let dockerfile = Path::new(env!("CARGO_MANIFEST_DIR")).join("../Dockerfile");
    let image = Image::from_dockerfile(&dockerfile, "/pilotfish", &binary).unwrap();
    Some(Programs { assets, helm, image })
}

/// A cluster with its node.
pub struct Installed {
    /// What Pods of the control plane do.
    pub kubelet: Kubelet,
    /// The API.
    pub cluster: KubeCluster,
    /// The real Helm.
    pub helm: Helm,
}

impl Installed {
    /// Runs a test in the network of a node whose API server it gives to it.
    pub async fn run(programs: Programs, test: impl AsyncFnOnce(Installed) + Send + 'static) {
        let node = Namespace::new("node");
        node.address(API.0);
        let name = node.name().to_owned();
        node.run(async move || test(Installed::start(programs, &name).await).await).await;
    }

    async fn start(programs: Programs, node: &str) -> Installed {
        let api = SocketAddr::from(API);
        let cluster = KubeCluster::start(&programs.assets, kube::Options { controllers: true, addr: Some(api) }).await;
        let image = programs.image;
        let images = ["", ":old", ":new"].map(|tag| (format!("{}{tag}", IMAGE.trim_start_matches("image=")), image.clone()));
        let kubelet = Kubelet::start(cluster.client().await, node, api, SYSTEM, BTreeMap::from(images)).await;
        Installed { kubelet, cluster, helm: programs.helm }
    }

    /// `helm upgrade --install`, until everything of the release is ready.
    pub async fn upgrade(&self, release: &str, chart: &str, values: &[&str]) {
        let kubeconfig = self.cluster.kubeconfig();
        let mut args = vec!["upgrade", "--install", release, chart, "--namespace", SYSTEM, "--wait", "--timeout", "2m"];
        args.extend(["--kubeconfig", kubeconfig.to_str().unwrap()]);
        args.extend(values.iter().flat_map(|value| ["--set", value]));
        let output = tokio::select! {
            output = self.helm.run(&args) => output,
            // Helm would wait for what cannot become ready.
            () = self.crash() => panic!("a container ended by itself\n{}", self.logs()),
        };
        assert!(output.status.success(), "helm {args:?}: {}\n{}", String::from_utf8_lossy(&output.stderr), self.logs());
    }

    async fn crash(&self) {
        let none = async || if self.kubelet.seen().crashes.is_empty() { Err("none") } else { Ok(()) };
        until_within(Duration::from_secs(300), "the first container that ends by itself", none).await;
    }

    /// What all Pods of the control plane wrote.
    pub fn logs(&self) -> String {
        self.kubelet.seen().logs.into_iter().map(|(name, log)| format!("--- {name}\n{log}")).collect()
    }

    /// Creates a Pod as a person would; what the API server made of it.
    pub async fn create(&self, pod: &Value) -> anyhow::Result<Value> {
        let text = self.cluster.try_kubectl(&["create", "--output=json", "-f", "-"], &pod.to_string()).await?;
        Ok(serde_json::from_str(&text)?)
    }
}

/// A namespace with labels.
pub fn namespace(name: &str, labels: &Value) -> Value {
    json!({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": name, "labels": labels}})
}

/// A Pod of an application.
pub fn pod(namespace: &str, name: &str) -> Value {
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": name, "namespace": namespace},
        "spec": {"containers": [{"name": "app", "image": "example.com/app", "ports": [{"containerPort": 8080}]}]}})
}

/// How many proxies a Pod has.
pub fn sidecars(pod: &Value) -> usize {
    let of = |list: &str| pod["spec"][list].as_array().into_iter().flatten().filter(|c| c["name"] == "istio-proxy").count();
    of("containers") + of("initContainers")
}
