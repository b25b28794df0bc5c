//! Identities: glue between the certificate authority, the API server, and the ports that ask who calls.

pub mod args;
pub mod cluster;
pub mod guard;
mod issuers;
mod keeper;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use pilotfish_ca::auth::tokens::{Reviewer, Tokens};
use pilotfish_ca::auth::{Authenticator, Options};
use pilotfish_ca::service::{NoPods, Pods};
use pilotfish_ca::tls::{self, Serving};
use pilotfish_ca::{Authority, Service};
use pilotfish_controller::api::KubeApi;
use pilotfish_controller::jwks;
use pilotfish_controller::lease::Leadership;
use pilotfish_controller::roots::{self, Handed, Placed};
use pilotfish_controller::{Cluster, State};
use tokio::sync::watch;
use tokio_rustls::rustls::ServerConfig;
use tokio_util::sync::CancellationToken;

use crate::cli::MeshArgs;
use crate::http::Gate;
use crate::metrics::Count;
use crate::supervise::Supervisor;
use args::IdentityArgs;
use cluster::ClusterFacts;
use guard::Callers;
use issuers::Remote;
pub use keeper::Streams;
use keeper::{Keeper, Origin, is_given};

/// How long a question to the API server may take.
const PATIENCE: Duration = Duration::from_secs(5);
/// How often the cluster's public keys are asked for.
const KEYS: Duration = Duration::from_secs(300);

/// What other servers of this process prove themselves by.
pub struct Shared {
    /// The certificate.
    pub serving: Serving,
    /// What connections may use.
    pub tls: tls::Options,
    /// Roots that are trusted; none before there are any.
    pub handed: watch::Receiver<Handed>,
}

/// What the rest of the process gives to identities.
pub struct OfProcess {
    /// Its names, beside those that agents know.
    pub names: Vec<String>,
    /// How agents are told of roots.
    pub streams: Streams,
    /// Fetches keys.
    pub jwks: jwks::Client,
}

/// What is there to be started.
pub struct Identities {
    remote: Option<(Remote, jwks::Client)>,
    callers: Arc<Callers>,
    serving: Serving,
    authority: Arc<Authority>,
    keeper: Keeper,
    api: Option<KubeApi>,
    handed: watch::Receiver<Handed>,
    placed: watch::Sender<Placed>,
    state: watch::Receiver<State>,
    leadership: Leadership,
}

impl Identities {
    /// `None` if there is neither a folder with a key nor a cluster to keep one in, or none is wanted.
    pub async fn new(
        args: &IdentityArgs,
        mesh: &MeshArgs,
        cluster: Option<&Cluster>,
        leadership: Option<Leadership>,
        state: watch::Receiver<State>,
        process: OfProcess,
    ) -> anyhow::Result<Option<Identities>> {
        let OfProcess { names, streams, jwks } = process;
        let leadership = leadership.unwrap_or_else(Leadership::always);
        let api = match cluster {
            Some(cluster) => Some(KubeApi::new(cluster, PATIENCE).await?),
            None => None,
        };
        let origin = match &api {
            _ if !args.ca_server => return Ok(None),
            _ if is_given(&args.ca_dir) => {
                let known = api.clone().filter(|_| args.root_config_maps).map(|api| (api, mesh.namespace.clone()));
                Origin::Folder { dir: args.ca_dir.clone(), known }
            }
            Some(api) => Origin::Secret { api: api.clone(), namespace: mesh.namespace.clone(), leadership: leadership.clone() },
            None => return Ok(None),
        };
        let facts = api.clone().map(ClusterFacts);
        let reviewer = facts.clone().map(|facts| Arc::new(facts) as Arc<dyn Reviewer>);
        let pods: Arc<dyn Pods> = match facts.clone() {
            Some(facts) => Arc::new(facts),
            None => Arc::new(NoPods),
        };
        let (rule, remote) = args.rule()?.unzip();
        let tokens = Tokens::new(args.token_audiences.clone(), rule.into_iter().collect(), reviewer);
        let authenticator = Authenticator::new(Options { gateways: args.trusted_gateways.clone(), ..Options::default() }, tokens);
        let authority = Arc::<Authority>::default();
        let service = Service::new(authority.clone(), args.policy(), &args.trusted_node_accounts, pods);
        let callers = Arc::new(Callers { authenticator, service, facts });
        let serving = Serving::default();
        let (handed, handing) = watch::channel(Handed::default());
        let (placed, placing) = watch::channel(Placed::default());
        let keeper = Keeper {
            args: args.clone(),
            origin,
            names: {
                let mut all = args.names(&mesh.namespace, &mesh.revision);
                all.extend(names);
                all
            },
            authority: authority.clone(),
            serving: serving.clone(),
            handed,
            served: None,
            placed: placing,
            streams,
            rotation: None,
            renew: None,
            said: None,
            waits: None,
        };
        let remote = remote.flatten().map(|remote| (remote, jwks));
        Ok(Some(Identities { remote, callers, serving, authority, keeper, api, handed: handing, placed, state, leadership }))
    }

    /// Who callers are.
    pub fn callers(&self) -> Arc<Callers> {
        self.callers.clone()
    }

    /// TLS for proxies.
    pub fn for_proxies(&self) -> anyhow::Result<Arc<ServerConfig>> {
        self.serving.for_proxies(&self.keeper.args.tls()).context("TLS for proxies")
    }

    /// For servers beside ADS, such as webhooks: the same certificate, and the roots that vouch for it.
    pub fn shared(&self) -> Shared {
        Shared { serving: self.serving.clone(), tls: self.keeper.args.tls(), handed: self.handed.clone() }
    }

    /// What it did, for metrics.
    pub fn counts(&self) -> impl Fn() -> Vec<Count> + Send + Sync + use<> {
        let (callers, authority) = (self.callers.clone(), self.authority.clone());
        move || {
            let metrics = callers.service.metrics();
            let mut counts: Vec<Count> = metrics.counters().map(|(name, help, n)| Count::counter(name, help, n)).into();
            counts.push(Count::labelled(
                "citadel_server_csr_sign_err_count",
                "Certificates that were not issued",
                "error",
                metrics.sign_errors(),
            ));
            if let Some(signing) = &authority.current().signing {
                let ends = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs_f64();
                let (end, now) = (ends(signing.not_after()), ends(SystemTime::now()));
                let chain = (!signing.chain().is_empty()).then_some([
                    ("citadel_server_cert_chain_expiry_timestamp", "When the intermediate that signs ends", end),
                    ("citadel_server_cert_chain_expiry_seconds", "Seconds until the intermediate that signs ends", end - now),
                ]);
                let root = signing.roots().iter().filter_map(|root| pilotfish_ca::chain::ends(root)).min().map(ends).unwrap_or(end);
                let of_root = [
                    ("citadel_server_root_cert_expiry_timestamp", "When the first root ends", root),
                    ("citadel_server_root_cert_expiry_seconds", "Seconds until the first root ends", root - now),
                ];
                let all = of_root.into_iter().chain(chain.into_iter().flatten());
                counts.extend(all.map(|(name, help, value)| Count::gauge(name, help, value)));
            }
            counts
        }
    }

    /// Starts its tasks. `certified` opens with our own certificate: before, nobody could connect over TLS.
    pub fn start(self, supervisor: &mut Supervisor, certified: Gate) {
        let drain = supervisor.drain_token();
        let Identities { remote, callers, mut keeper, api, handed, placed, state, leadership, .. } = self;
        let (period, hand_out) = (keeper.args.ca_check_interval, keeper.args.root_config_maps);
        let (draining, mut settings, known) = (drain.clone(), state.clone(), callers.clone());
        let mut placing = keeper.placed.clone();
        let (mut leading, mut certified) = (leadership.clone(), Some(certified));
        supervisor.spawn("certificate authority", async move {
            until(&draining, async {
                // The trust domain is known with the first mesh.
                if settings.changed().await.is_err() {
                    std::future::pending::<()>().await;
                }
                loop {
                    let mesh = settings.borrow().snapshot.mesh.clone();
                    known.authenticator.set_trust(&mesh.config.trust_domain, &mesh.config.trust_domain_aliases);
                    keeper.round(&mesh.config.trust_domain, SystemTime::now()).await;
                    if let Some(certified) = certified.take_if(|_| keeper.renew.is_some()) {
                        certified.open();
                    }
                    tokio::select! {
                        () = tokio::time::sleep(period) => {}
                        () = leading.changed() => {}
                        Ok(()) = placing.changed() => {}
                    }
                }
            })
            .await
        });
        if let Some((remote, client)) = remote {
            let (draining, callers) = (drain.clone(), callers.clone());
            supervisor.spawn("keys of JWT_RULE", async move { until(&draining, issuers::follow(callers, client, remote)).await });
        }
        let Some(api) = api else { return };
        let draining = drain.clone();
        supervisor.spawn("token keys", async move {
            until(&draining, async {
                loop {
                    let outcome = callers.authenticator.tokens().refresh(SystemTime::now()).await;
                    let pause = if outcome.is_ok() { KEYS } else { PATIENCE };
                    if let Err(error) = outcome {
                        tracing::debug!(error, "no keys of the cluster");
                    }
                    tokio::time::sleep(pause).await;
                }
            })
            .await
        });
        if hand_out {
            supervisor.spawn("roots", async move { until(&drain, roots::run(api, handed, state, leadership, placed)).await });
        }
    }
}

/// Runs until the drain; what ends before waits for it: whose end it follows has said why.
async fn until(drain: &CancellationToken, task: impl Future<Output = ()>) -> anyhow::Result<()> {
    tokio::select! {
        () = drain.cancelled() => {}
        () = task => drain.cancelled().await,
    }
    Ok(())
}
