//! Both webhooks: what they know of the mesh, what they are configured by, and a runtime of their own, so that busy
//! translators do not slow admission.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use pilotfish_ca::tls::{self, Serving};
use pilotfish_controller::api::{Api, ApiError, Call, KubeApi};
use pilotfish_controller::convert::{self, convert};
use pilotfish_controller::mesh_config::combined;
use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::roots::Handed;
use pilotfish_controller::strings::Strings;
use pilotfish_controller::{Cluster, Layer, State, webhooks};
use pilotfish_model::{Diagnostic, Kind, ObjectId};
use pilotfish_webhook::inject::{Config, NativeSidecars, ProxyConfigObject};
use pilotfish_webhook::server::{self, Surroundings, Webhooks};
use serde_json::Value;
use tokio::net::TcpListener;
use tokio::sync::{oneshot, watch};
use tokio_util::sync::CancellationToken;

use crate::cli::{MeshArgs, WebhookArgs};
use crate::http::Gate;
use crate::identity::Shared;
use crate::offline;
use crate::supervise::Supervisor;

/// How often configuration is looked at.
const PERIOD: Duration = Duration::from_secs(5);
/// How often versions of nodes are: they change with upgrades only.
const NODES: Duration = Duration::from_secs(300);
/// Nodes per page.
const PAGE: usize = 250;
const PATIENCE: Duration = Duration::from_secs(10);

/// What the mesh says of objects.
struct Known {
    state: watch::Receiver<State>,
    context: convert::Context,
}

impl Known {
    fn new(state: watch::Receiver<State>, args: &MeshArgs) -> Known {
        let context = convert::Context {
            domain: args.domain.as_str().into(),
            strings: Strings::default(),
            revision: args.revision.as_str().into(),
            config_maps: Arc::new([]),
        };
        Known { state, context }
    }
}

impl Surroundings for Known {
    /// Only OpenShift's matter, whose namespaces say which users there are; the mesh keeps none yet.
    fn namespace_annotations(&self, _: &str) -> BTreeMap<String, String> {
        BTreeMap::new()
    }

    fn proxy_configs(&self, namespaces: &[&str]) -> Vec<ProxyConfigObject> {
        let objects = self.state.borrow().snapshot.objects.clone();
        let of = |namespace: &&str| {
            let first = ObjectId::new(Kind::ProxyConfig, *namespace, "");
            let within = |id: &ObjectId| id.kind == Kind::ProxyConfig && *id.namespace == **namespace;
            let found: Vec<_> =
                objects.range(first..).take_while(|(id, _)| within(id)).map(|(id, raw)| (id.clone(), raw.clone())).collect();
            found
        };
        let mut namespaces = namespaces.to_vec();
        namespaces.dedup();
        let all = namespaces.iter().flat_map(of);
        all.filter_map(|(id, raw)| {
            let spec = serde_json::from_str::<Value>(&raw).ok()?.get("spec")?.clone();
            Some(ProxyConfigObject { namespace: id.namespace.to_string(), name: id.name.to_string(), spec })
        })
        .collect()
    }

    fn diagnose(&self, object: &Value) -> Vec<Diagnostic> {
        match decode(object.clone()) {
            Ok(Decoded::Object(object)) => convert(&object, &self.context).diagnostics,
            Ok(_) => Vec::new(),
            // The schema's business: what it lets through is read as far as it can be.
            Err(_) => Vec::new(),
        }
    }
}

/// The webhooks, before anything asks them.
pub fn new(state: watch::Receiver<State>, mesh: &MeshArgs) -> Webhooks {
    Webhooks::new(Arc::new(Known::new(state, mesh)))
}

/// Where the webhooks are served and what they find there.
pub struct Place<'a> {
    /// With one they are served over TLS.
    pub listener: Option<TcpListener>,
    /// The cluster whose API server asks.
    pub cluster: Option<&'a Cluster>,
    /// What other servers prove themselves by.
    pub shared: Option<Shared>,
    /// How long they are answered after the drain began.
    pub linger: Duration,
    /// Opens once it is known by what injection is configured: before, the API server would get no answer.
    pub configured: Gate,
}

/// Starts what serves and configures them.
pub async fn start(
    supervisor: &mut Supervisor,
    webhooks: &Webhooks,
    place: Place<'_>,
    args: &WebhookArgs,
    mesh: &MeshArgs,
) -> anyhow::Result<()> {
    let Place { listener, cluster, shared, linger, configured } = place;
    let drain = supervisor.drain_token();
    let api = match cluster {
        Some(cluster) => Some(KubeApi::new(cluster, PATIENCE).await?),
        None => None,
    };
    if let Some(listener) = listener {
        // Replicas have one root between them where there is a certificate authority: the API server is told of one.
        let shared = shared.filter(|_| args.tls_cert_file.is_none());
        let options = shared.as_ref().map(|s| s.tls.clone()).unwrap_or_default();
        let identity = Identity::new(args, mesh, shared.as_ref().map(|s| s.serving.clone()))?;
        let tls = identity.serving.for_anyone(&options)?;
        let (listener, serving, stop) = (listener.into_std()?, webhooks.clone(), drain.clone());
        let (ended, end) = oneshot::channel();
        std::thread::Builder::new().name("webhooks".into()).spawn(move || {
            let run = || -> anyhow::Result<()> {
                let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
                runtime.block_on(async {
                    let listener = TcpListener::from_std(listener)?;
                    server::serve(listener, tls, serving, stop, linger).await.context("the webhooks failed")
                })
            };
            // Nobody listens any more if the process is ending already.
            let _ = ended.send(run());
        })?;
        supervisor.spawn("webhooks", async move { end.await.context("the webhooks' thread panicked")? });
        if let Some(api) = &api {
            let revision = if mesh.revision.is_empty() { "default".to_owned() } else { mesh.revision.clone() };
            let options = webhooks::Options {
                revision,
                namespace: mesh.namespace.clone(),
                injection: !args.injection_webhook.is_empty(),
                validation: !args.validation_webhook.is_empty(),
            };
            let (metrics, api, stop) = (webhooks.metrics(), api.clone(), drain.clone());
            let told = move |outcome: Result<(), &ApiError>| match outcome {
                Ok(()) => drop(metrics.config_updates.inc()),
                Err(e) => metrics.config_error(e.code().map_or("unknown", |c| c.canonical_reason().unwrap_or("unknown"))),
            };
            let bundle = identity.bundle.subscribe();
            supervisor.spawn("webhook configurations", async move {
                webhooks::run(api, options, bundle, told, stop.cancelled_owned()).await;
                Ok(())
            });
        }
        match shared {
            Some(shared) => supervisor.spawn("webhook certificate", follow(shared.handed, identity.bundle, drain.clone())),
            None => supervisor.spawn("webhook certificate", identity.renew(drain.clone())),
        }
    }
    if args.inject_enabled {
        supervisor.spawn("injection", Injection::new(args, mesh, api).run(webhooks.clone(), configured, drain));
    } else {
        configured.open();
    }
    Ok(())
}

/// Names that the API server knows the webhooks by.
pub fn names(args: &WebhookArgs, mesh: &MeshArgs) -> Vec<String> {
    let suffix = if matches!(mesh.revision.as_str(), "" | "default") { String::new() } else { format!("-{}", mesh.revision) };
    let service = format!("istiod{suffix}.{}.svc", mesh.namespace);
    let mut names = vec![service.clone(), format!("{service}.{}", mesh.domain)];
    names.extend(args.webhook_host.iter().cloned());
    names
}

/// Passes on which roots vouch for the certificate that all servers of this process share.
async fn follow(mut from: watch::Receiver<Handed>, to: watch::Sender<String>, drain: CancellationToken) -> anyhow::Result<()> {
    loop {
        let bundle = from.borrow_and_update().bundle.to_string();
        to.send_if_modified(|known| std::mem::replace(known, bundle.clone()) != bundle);
        tokio::select! {
            () = drain.cancelled() => return Ok(()),
            Ok(()) = from.changed() => {}
            else => {
                drain.cancelled().await;
                return Ok(());
            }
        }
    }
}

/// By what the webhooks prove themselves: what all servers share, files, or a root of this process' own.
struct Identity {
    serving: Serving,
    bundle: watch::Sender<String>,
    files: Option<[PathBuf; 3]>,
    names: Vec<String>,
}

/// How long a certificate of our own root lasts, and after how much of it the next is made.
const TTL: Duration = Duration::from_secs(90 * 86400);
const RENEW: Duration = Duration::from_secs(60 * 86400);

impl Identity {
    fn new(args: &WebhookArgs, mesh: &MeshArgs, shared: Option<Serving>) -> anyhow::Result<Identity> {
        let names = names(args, mesh);
        let files = match (&args.tls_cert_file, &args.tls_key_file) {
            (Some(cert), Some(key)) => Some([cert.clone(), key.clone(), args.ca_cert_file.clone().unwrap_or_else(|| cert.clone())]),
            _ => None,
        };
        let (bundle, _) = watch::channel(String::new());
        let is_shared = shared.is_some();
        let identity = Identity { serving: shared.unwrap_or_default(), bundle, files, names };
        if !is_shared {
            identity.load()?;
        }
        Ok(identity)
    }

    fn load(&self) -> anyhow::Result<()> {
        let now = SystemTime::now();
        let Some([cert, key, roots]) = &self.files else {
            let files = pilotfish_ca::root::generate("cluster.local", &pilotfish_ca::root::Options::default(), now)?;
            let material = pilotfish_ca::material::Material::load(&files, now)?;
            let (chain, key) = tls::serving_certificate(&material, &self.names, TTL, now)?;
            self.serving.set_certificate(chain, key)?;
            self.bundle.send_replace(pilotfish_ca::pem::bundle(material.roots()));
            return Ok(());
        };
        let read = |path: &PathBuf| std::fs::read(path).with_context(|| format!("cannot read {}", path.display()));
        let chain = pilotfish_ca::pem::certificates(&read(cert)?).with_context(|| format!("{}", cert.display()))?;
        let pair = pilotfish_ca::material::key_pair(&read(key)?).with_context(|| format!("{} has no private key", key.display()))?;
        let der = tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer::from(pair.serialize_der());
        self.serving.set_certificate(chain, der.into())?;
        self.bundle.send_replace(String::from_utf8(read(roots)?)?);
        Ok(())
    }

    /// Takes over what changes. A broken file leaves the last certificate in place.
    async fn renew(self, drain: CancellationToken) -> anyhow::Result<()> {
        let stamp = |files: &Option<[PathBuf; 3]>| -> Vec<Option<SystemTime>> {
            files.iter().flatten().map(|f| f.metadata().and_then(|m| m.modified()).ok()).collect()
        };
        let (mut seen, mut made) = (stamp(&self.files), SystemTime::now());
        loop {
            tokio::select! {
                () = drain.cancelled() => return Ok(()),
                () = tokio::time::sleep(PERIOD) => {}
            }
            let now = stamp(&self.files);
            let old = self.files.is_none() && made.elapsed().is_ok_and(|age| age > RENEW);
            if now == seen && !old {
                continue;
            }
            match self.load() {
                Ok(()) => {
                    tracing::info!("the webhooks have a new certificate");
                    (seen, made) = (now, SystemTime::now());
                }
                Err(e) => tracing::warn!(error = format!("{e:#}"), "the webhooks keep their certificate"),
            }
        }
    }
}

/// The texts that injection is configured by.
#[derive(Clone, Debug, Default, PartialEq)]
struct Texts {
    config: String,
    values: String,
    mesh: Vec<String>,
}

/// Why there are none.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Missing {
    /// There is nothing to read.
    Absent,
    /// Nobody says whether there is.
    Unknown,
}

struct Injection {
    args: WebhookArgs,
    mesh: MeshArgs,
    api: Option<KubeApi>,
    suffix: String,
}

impl Injection {
    fn new(args: &WebhookArgs, mesh: &MeshArgs, api: Option<KubeApi>) -> Injection {
        let suffix = if matches!(mesh.revision.as_str(), "" | "default") { String::new() } else { format!("-{}", mesh.revision) };
        Injection { args: args.clone(), mesh: mesh.clone(), api, suffix }
    }

    async fn run(self, webhooks: Webhooks, configured: Gate, drain: CancellationToken) -> anyhow::Result<()> {
        let mut configured = Some(configured);
        let mut last: Option<(Texts, NativeSidecars)> = None;
        let mut nodes = (None, NativeSidecars::default());
        let mut missing = false;
        loop {
            if nodes.0.is_none_or(|at: tokio::time::Instant| at.elapsed() > NODES) {
                nodes = (Some(tokio::time::Instant::now()), self.native(nodes.1).await);
            }
            let texts = self.texts().await;
            // Something that cannot be used is said, and holds nobody else up.
            let is_known = !matches!(texts, Err(Missing::Unknown));
            match texts {
                Ok(texts) if last.as_ref().is_none_or(|l| l.0 != texts || l.1 != nodes.1) => {
                    match self.config(&texts, nodes.1.clone()) {
                        Ok(config) => {
                            tracing::info!("injection is configured");
                            webhooks.set_injector(Arc::new(config));
                        }
                        Err(e) => tracing::error!(error = format!("{e:#}"), "injection keeps its configuration"),
                    }
                    last = Some((texts, nodes.1.clone()));
                }
                Ok(_) => {}
                Err(_) if !missing => {
                    missing = true;
                    tracing::info!(name = format!("istio-sidecar-injector{}", self.suffix), "no configuration of injection yet");
                }
                Err(_) => {}
            }
            if let Some(configured) = configured.take_if(|_| is_known) {
                configured.open();
            }
            tokio::select! {
                () = drain.cancelled() => return Ok(()),
                () = tokio::time::sleep(PERIOD) => {}
            }
        }
    }

    fn config(&self, texts: &Texts, native: NativeSidecars) -> anyhow::Result<Config> {
        let mut layers = texts.mesh.iter().map(|text| Layer::parse(text)).collect::<Result<Vec<_>, _>>()?;
        layers.insert(0, offline::mesh_config(self.mesh.mesh_config.as_deref())?);
        let mut config = Config::parse(&texts.config, &texts.values, combined(&layers))?;
        config.check()?;
        config.revision.clone_from(&self.mesh.revision);
        config.native = native;
        config.openshift = self.args.platform == "openshift";
        config.compliance_policy = Some(self.mesh.features.compliance_policy.clone()).filter(|p| !p.is_empty());
        Ok(config)
    }

    /// Files if there are any, else the ConfigMap.
    async fn texts(&self) -> Result<Texts, Missing> {
        let mut texts = Texts::default();
        if let Ok(config) = std::fs::read_to_string(self.args.injection_dir.join("config")) {
            texts.config = config;
            texts.values = std::fs::read_to_string(self.args.injection_dir.join("values")).map_err(|_| Missing::Absent)?;
        } else {
            let mut data = self.config_map(&format!("istio-sidecar-injector{}", self.suffix)).await?;
            texts.config = data.remove("config").ok_or(Missing::Absent)?;
            texts.values = data.remove("values").ok_or(Missing::Absent)?;
        }
        for name in [self.mesh.shared_mesh_config.clone(), format!("istio{}", self.suffix)].iter().filter(|n| !n.is_empty()) {
            match self.config_map(name).await {
                Ok(mut data) => texts.mesh.extend(data.remove("mesh")),
                Err(Missing::Absent) => {}
                // Settings that come and go would change what Pods get.
                Err(Missing::Unknown) => return Err(Missing::Unknown),
            }
        }
        Ok(texts)
    }

    async fn config_map(&self, name: &str) -> Result<BTreeMap<String, String>, Missing> {
        let path = format!("/api/v1/namespaces/{}/configmaps/{name}", self.mesh.namespace);
        let object = self.api.as_ref().ok_or(Missing::Absent)?.call(Call::get(path)).await.map_err(|e| match e.code() {
            // A right that is missing is not waited for: whoever gives none wants none.
            Some(code) if matches!(code.as_u16(), 403 | 404) => Missing::Absent,
            _ => Missing::Unknown,
        })?;
        object.get("data").and_then(|data| serde_json::from_value(data.clone()).ok()).ok_or(Missing::Absent)
    }

    /// Versions of all nodes. While they cannot be read, those that were known stay.
    async fn native(&self, last: NativeSidecars) -> NativeSidecars {
        match (self.args.native_sidecars.as_str(), &self.api) {
            ("true", _) => NativeSidecars::Forced(true),
            ("false", _) => NativeSidecars::Forced(false),
            (_, None) => last,
            (_, Some(api)) => match kubelets(api).await {
                Ok(kubelets) => NativeSidecars::Nodes { kubelets },
                Err(e) => {
                    tracing::warn!(error = %e, "versions of nodes cannot be read");
                    last
                }
            },
        }
    }
}

async fn kubelets(api: &KubeApi) -> Result<BTreeMap<String, String>, ApiError> {
    let mut all = BTreeMap::new();
    let mut token = String::new();
    loop {
        let page = api.call(Call::get(format!("/api/v1/nodes?limit={PAGE}&continue={token}"))).await?;
        for node in page.get("items").and_then(Value::as_array).into_iter().flatten() {
            let text = |path: &str| node.pointer(path).and_then(Value::as_str).unwrap_or_default().to_owned();
            all.insert(text("/metadata/name"), text("/status/nodeInfo/kubeletVersion"));
        }
        match page.pointer("/metadata/continue").and_then(Value::as_str) {
            Some(next) if !next.is_empty() => next.clone_into(&mut token),
            _ => return Ok(all),
        }
    }
}
