//! `pilotfish serve`: starts everything under one supervisor and ends it in order.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use pilotfish_controller::Cluster;
use pilotfish_controller::jwks::{self, Fetcher, Guard};
use pilotfish_controller::run::{Controller, Handle};
use pilotfish_push::Timing;
use pilotfish_xds_server::guard::{self, NoGuard};
use pilotfish_xds_server::{Config, Port, Server};
use tokio::net::TcpListener;
use tracing::{info, warn};
use tracing_subscriber::EnvFilter;

use crate::cli::{Listen, ServeArgs};
use crate::debug::Debug;
use crate::findings::{self, Findings};
use crate::http::{self, Pages, Readiness};
use crate::identity::{Identities, OfProcess, Streams};
use crate::metrics::Registry;
use crate::patches::Patches;
use crate::pipeline::{self, MeshTranslator};
use crate::status::Status;
use crate::supervise::Supervisor;
use crate::{environment, mesh_config, offline, webhooks, work};

/// Where webhooks are served in a Pod, unless somebody says otherwise.
const WEBHOOKS: std::net::SocketAddr = std::net::SocketAddr::new(std::net::IpAddr::V4(std::net::Ipv4Addr::UNSPECIFIED), 15017);

/// How long webhooks are answered after SIGTERM in a Pod, unless somebody says otherwise.
const LINGER: Duration = Duration::from_secs(5);

/// Where agents of the mesh look for TLS.
const SECURE: SocketAddr = SocketAddr::new(IpAddr::V4(Ipv4Addr::UNSPECIFIED), 15012);

/// Runs until SIGTERM or SIGINT, or until something fails.
pub fn main(args: ServeArgs) -> anyhow::Result<()> {
    start_logging(&args)?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build().context("cannot start the runtime")?;
    let outcome = runtime.block_on(serve(args));
    // Whatever still runs on blocking threads is not waited for.
    runtime.shutdown_background();
    outcome
}

fn start_logging(args: &ServeArgs) -> anyhow::Result<()> {
    let filter = EnvFilter::try_new(&args.log).with_context(|| format!("--log {:?} is not a filter", args.log))?;
    let builder = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr).with_ansi(false);
    let installed = if args.log_as_json { builder.json().try_init() } else { builder.try_init() };
    installed.map_err(|e| anyhow::anyhow!("cannot start logging: {e}"))
}

async fn serve(args: ServeArgs) -> anyhow::Result<()> {
    // Ports first: a second process on this machine should fail before it reads anything.
    let http_listener = listen("--http-addr", args.http_addr).await?;
    let grpc_listener = listen("--grpc-addr", args.grpc_addr).await?;
    let monitoring_listener = listen("--monitoring-addr", args.monitoring_addr).await?;
    let in_pod = args.mesh.kubeconfig.is_none() && args.mesh.config_dir.is_empty() && Cluster::around().is_some();
    let https = args.https_addr.unwrap_or(Listen(in_pod.then_some(WEBHOOKS)));
    let https_listener = listen("--https-addr", https).await?;

    let variables = environment::of_process();
    let (_, bad) = environment::features(&args.mesh.features, &variables)?;
    bad.iter().chain(&environment::unheeded(&variables)).for_each(|said| warn!("environment: {said}"));
    let options = offline::controller_options(&args.mesh)?;
    if options.config_dirs.is_empty() && options.cluster.is_none() {
        warn!("neither --config-dir nor --kubeconfig is given: the mesh is empty");
    }
    let cluster = options.cluster.clone();
    let (controller, handle) = Controller::new(options)?;
    let Handle { initial, updates, state, mesh_config: settings, keys, health } = handle;
    let guard = Guard { allow: args.jwks.jwks_allow.clone(), deny: args.jwks.jwks_deny.clone() };
    let jwks = jwks::Client::new(guard, args.jwks.jwks_ca.clone());
    let fetcher = Fetcher::new(jwks.clone(), state.clone(), keys);

    let translator = MeshTranslator::default();
    let defaults = Config::default();
    let config = Config {
        drain_timeout: args.shutdown_duration,
        streams_per_second: args.max_requests_per_second.and_then(NonZeroU32::new),
        parallel_jobs: args.push_throttle.unwrap_or(defaults.parallel_jobs),
        ..defaults
    };
    let server = Server::new(translator.clone(), config);
    let mut supervisor = Supervisor::default();
    let drain = supervisor.drain_token();
    let (found, findings) = tokio::sync::watch::channel(Findings::default());
    supervisor.spawn("findings", findings::watch(server.debug(), state.clone(), found, drain.clone()));
    let status = match &cluster {
        Some(cluster) => Some(Status::new(cluster, &args.status, &args.mesh.namespace, state.clone(), findings.clone(), &drain).await?),
        None => None,
    };
    let leadership = status.as_ref().map(Status::leadership);
    let (telling, told) = (server.clone(), server.clone());
    let process = OfProcess {
        names: webhooks::names(&args.webhooks, &args.mesh),
        streams: Streams { hand_out: Box::new(move |roots| telling.set_roots(roots)), lacking: Box::new(move || told.lacking_roots()) },
        jwks,
    };
    let identities = Identities::new(&args.identity, &args.mesh, cluster.as_ref(), leadership, state.clone(), process).await?;
    let secure_addr = args.secure_grpc_addr.unwrap_or(Listen(Some(SECURE)));
    let secure = match &identities {
        Some(identities) => match listen("--secure-grpc-addr", secure_addr).await? {
            Some(listener) => Some((listener, identities.for_proxies()?)),
            None => None,
        },
        None if args.secure_grpc_addr.is_some_and(|l| l.0.is_some()) => {
            warn!("--secure-grpc-addr is not served: there is neither a cluster nor a folder with a certificate authority");
            None
        }
        None => None,
    };
    let callers = identities.as_ref().map(Identities::callers);
    let webhooks = webhooks::new(state.clone(), &args.mesh);
    let (counted, statuses, fetched) = (server.clone(), status.as_ref().map(Status::counts), fetcher.counts());
    let identified = identities.as_ref().map(Identities::counts);
    let registry = Registry::new(
        server.metrics(),
        &webhooks.metrics(),
        state.clone(),
        health.clone(),
        move || {
            let others = statuses.iter().flat_map(|counts| counts()).chain(identified.iter().flat_map(|counts| counts()));
            work::counts(&counted, &translator).into_iter().chain(others).chain(work::keys(&fetched)).collect()
        },
        args.envoy_filter_stats.then(|| Patches(server.debug())),
    );
    let ready = Readiness::default();
    let debug = Debug::new(server.debug(), state, findings, health, args.mesh.cluster_id.clone());
    let metrics = registry.clone();
    let pages = Pages { ready: ready.clone(), debug: Arc::new(debug), metrics: Arc::new(move || metrics.text()), callers: callers.clone() };

    let shared = identities.as_ref().map(Identities::shared);
    // In a Pod there is an API server that goes on asking for a moment after it was told of our end.
    let linger = args.webhooks.webhook_linger.unwrap_or(if in_pod { LINGER } else { Duration::ZERO }).min(args.shutdown_duration);
    let place = webhooks::Place { listener: https_listener, cluster: cluster.as_ref(), shared, linger, configured: ready.gate() };
    webhooks::start(&mut supervisor, &webhooks, place, &args.webhooks, &args.mesh).await?;
    let watching = drain.clone();
    supervisor.spawn("controller", async move {
        tokio::select! {
            outcome = controller.run() => outcome.context("the controller failed"),
            () = watching.cancelled() => Ok(()),
        }
    });
    let fetching = drain.clone();
    supervisor.spawn("keys of tokens", async move {
        tokio::select! {
            () = fetcher.run() => fetching.cancelled().await,
            () = fetching.cancelled() => {}
        }
        Ok(())
    });
    if let Some(path) = args.mesh.mesh_config.clone() {
        supervisor.spawn("mesh configuration", mesh_config::watch(path, settings, drain.clone()));
    }
    let (config, config_batches) = pilotfish_push::debounce::channel();
    let (endpoints, endpoint_batches) = pilotfish_push::debounce::channel();
    let timing = Timing { quiet: args.debounce_after, ceiling: args.debounce_max };
    let backlog = pipeline::Backlog::default();
    let windows = pipeline::Windows { config, timing, endpoints, backlog: backlog.clone() };
    if let Some(status) = status {
        status.start(&mut supervisor, server.debug(), backlog.clone());
    }
    if let Some(identities) = identities {
        identities.start(&mut supervisor, ready.gate());
    }
    let (publisher, push_metrics, taking) = (server.clone(), registry.push(), drain.clone());
    let prepared = tokio::task::spawn_blocking(pilotfish_envoy::validate::prepare);
    supervisor.spawn("intake", async move {
        let initial = tokio::select! {
            Ok(initial) = initial => initial,
            // A controller that ended before has said why, to the supervisor.
            () = taking.cancelled() => return Ok(()),
        };
        let world = pipeline::first(initial);
        publisher.publish(world.clone());
        prepared.await.context("the validation rules cannot be compiled")?;
        ready.set();
        pipeline::intake(publisher, world, updates, windows, push_metrics, taking).await
    });
    supervisor.spawn("endpoints", pipeline::endpoints(server.clone(), endpoint_batches, registry.push(), drain.clone()));
    supervisor.spawn("configuration", pipeline::config(server.clone(), config_batches, backlog, registry.push(), drain.clone()));
    let (workers, working) = (server.clone(), drain.clone());
    supervisor.spawn("workers", async move {
        workers.run(working).await;
        Ok(())
    });
    if let Some(listener) = grpc_listener {
        let (server, drain) = (server.clone(), drain.clone());
        let guard: Arc<dyn guard::Guard> = match &callers {
            Some(callers) => callers.clone(),
            None => Arc::new(NoGuard),
        };
        let port = Port::clear(guard);
        supervisor.spawn("ads", async move { server.serve_port(listener, port, drain).await.context("ADS failed") });
    }
    if let Some(((listener, tls), callers)) = secure.zip(callers) {
        let (server, drain) = (server.clone(), drain.clone());
        let port = Port::tls(tls, callers);
        supervisor.spawn("ads over tls", async move { server.serve_port(listener, port, drain).await.context("ADS over TLS failed") });
    }
    let with_metrics = monitoring_listener.is_none();
    if let Some(listener) = http_listener {
        let router = http::http_pages(pages.clone(), with_metrics);
        // Asked for by an empty address: something in front ends TLS.
        let plain = args.https_addr == Some(Listen(None));
        let router = if plain { router.merge(webhooks.pages()) } else { router };
        supervisor.spawn("http", http::serve(listener, router, drain.clone()));
    }
    if let Some(listener) = monitoring_listener {
        supervisor.spawn("monitoring", http::serve(listener, http::monitoring_pages(pages.clone()), drain.clone()));
    }
    let (not_ready, stopping) = (pages.ready.clone(), drain.clone());
    supervisor.spawn("signals", async move {
        let name = signal().await?;
        info!(signal = name, "draining");
        not_ready.clear();
        stopping.cancel();
        Ok(())
    });
    supervisor.run(args.shutdown_duration + Duration::from_secs(1)).await
}

async fn listen(flag: &str, addr: Listen) -> anyhow::Result<Option<TcpListener>> {
    let Some(addr) = addr.0 else { return Ok(None) };
    let listener = TcpListener::bind(addr).await.with_context(|| format!("cannot listen on {flag} {addr}"))?;
    info!(flag, %addr, "listening");
    Ok(Some(listener))
}

/// Waits for the first of the signals that end the process.
async fn signal() -> anyhow::Result<&'static str> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut term = signal(SignalKind::terminate()).context("cannot wait for SIGTERM")?;
    let mut int = signal(SignalKind::interrupt()).context("cannot wait for SIGINT")?;
    tokio::select! {
        _ = term.recv() => Ok("SIGTERM"),
        _ = int.recv() => Ok("SIGINT"),
    }
}
