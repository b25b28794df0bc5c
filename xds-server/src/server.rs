//! [`Server`]: what the binary holds.

use std::io;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use pilotfish_push::{Gate, Limits, Rate};
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::CancellationToken;

use crate::debug::Debug;
use crate::guard::{NoGuard, Port};
use crate::metrics::Metrics;
use crate::roots::Roots;
use crate::store::{PushReport, Store, Work};
use crate::{Translate, serve};

/// Settings. The defaults are those of the reference where it has the setting.
#[derive(Clone, Debug)]
pub struct Config {
    /// How long a connection is quiet before the kernel asks whether the peer is still there, and how long it waits for each
    /// answer. That costs no wake-up of ours, thousands of times a minute.
    pub tcp_keepalive: Duration,
    /// HTTP/2 ping on idle connections: finds peers whose kernel answers but which do not.
    pub keepalive_interval: Duration,
    /// How long its answer may take.
    pub keepalive_timeout: Duration,
    /// Concurrent streams per connection.
    pub max_streams: u32,
    /// Largest request, in bytes.
    pub max_request_bytes: usize,
    /// How long connections may take to end after the drain began.
    pub drain_timeout: Duration,
    /// How long a type waits for others (make before break) at a client that does not answer.
    pub patience: Duration,
    /// How long at least the resources of proxies that left are kept for their return, if nothing touches them.
    pub keep: Duration,
    /// Scopes that are made at a time.
    pub parallel_jobs: NonZeroUsize,
    /// Connecting streams that are let in per second (`PILOT_MAX_REQUESTS_PER_SECOND`); `None` for no limit. Others wait,
    /// nobody is refused.
    pub streams_per_second: Option<NonZeroU32>,
    /// Streams that may be in their first exchange at a time. Others wait, those that have nothing at all first.
    pub parallel_connects: NonZeroUsize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            tcp_keepalive: Duration::from_secs(30),
            keepalive_interval: Duration::from_secs(300),
            keepalive_timeout: Duration::from_secs(10),
            max_streams: 100_000,
            max_request_bytes: 4 << 20,
            drain_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            keep: Duration::from_secs(120),
            parallel_jobs: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            streams_per_second: None,
            parallel_connects: NonZeroUsize::MIN.saturating_add(255),
        }
    }
}

pub(crate) struct Shared<T: Translate> {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store<T>>,
    pub(crate) metrics: Metrics,
    /// Streams go through it before their first exchange.
    pub(crate) gate: Gate,
    pub(crate) roots: Roots,
    streams: AtomicU64,
}

impl<T: Translate> Shared<T> {
    pub(crate) fn next_stream(&self) -> u64 {
        self.streams.fetch_add(1, Ordering::Relaxed) + 1
    }
}

/// The ADS server. Clones are the same server.
pub struct Server<T: Translate> {
    shared: Arc<Shared<T>>,
}

impl<T: Translate> Clone for Server<T> {
    fn clone(&self) -> Self {
        Server { shared: self.shared.clone() }
    }
}

impl<T: Translate> Server<T> {
    /// A server without a world: streams wait for the first one.
    pub fn new(translate: T, config: Config) -> Self {
        let metrics = Metrics::default();
        let store = Arc::new(Store::new(translate, config.parallel_jobs, metrics.clone()));
        let rate = config.streams_per_second.map(|per_second| Rate { per_second, burst: per_second });
        let gate = Gate::new(Limits { rate, concurrent: Some(config.parallel_connects) });
        Server { shared: Arc::new(Shared { config, store, metrics, gate, roots: Roots::default(), streams: AtomicU64::new(0) }) }
    }

    /// Makes `world` what everything is made of from now on. Streams that wait for the first one go ahead; others learn of it
    /// by [`Server::push`].
    pub fn publish(&self, world: Arc<T::World>) {
        self.shared.store.publish(world);
    }

    /// Says what changed up to the published world, `since` when. Returns at once; the future ends when every scope that the
    /// change touches was made ([`Server::run`] does that) and its streams were told. They send on their own.
    pub fn push(&self, change: T::Change, since: Instant) -> impl Future<Output = PushReport> + Send + use<T> {
        self.shared.store.push(change, since)
    }

    /// Says which endpoints changed. They reach the streams at once, whatever else is being made.
    pub async fn push_endpoints(&self, change: T::Change, since: Instant) -> PushReport {
        self.shared.store.push_endpoints(change, since).await
    }

    /// Makes scopes until `drain` is cancelled.
    pub async fn run(&self, drain: CancellationToken) {
        self.shared.store.run(self.shared.config.keep, drain).await;
    }

    /// Serves ADS in clear text to whoever may have it that way, and nothing else; see [`Server::serve_port`].
    pub async fn serve(&self, listener: TcpListener, drain: CancellationToken) -> io::Result<()> {
        self.serve_port(listener, Port::clear(Arc::new(NoGuard)), drain).await
    }

    /// Serves a port until `drain` is cancelled; then takes no connection any more, tells clients to go (GOAWAY, streams end)
    /// and returns when they have gone, or after the drain timeout.
    pub async fn serve_port(&self, listener: TcpListener, port: Port, drain: CancellationToken) -> io::Result<()> {
        serve::serve(self.shared.clone(), listener, port, drain).await
    }

    /// The generation that is served; 0 before the first world.
    pub fn generation(&self) -> u64 {
        self.shared.store.generation()
    }

    /// Hands these roots of the mesh (PEM, one each) to whoever asks for them, from now on.
    pub fn set_roots(&self, certificates: Vec<String>) {
        self.shared.roots.set(certificates);
    }

    /// Connections that ask for roots and have not confirmed those of the last [`Server::set_roots`].
    pub fn lacking_roots(&self) -> Vec<String> {
        self.shared.roots.lacking(&self.shared.store)
    }

    /// Data for the debug interface.
    pub fn debug(&self) -> Debug<T> {
        Debug::new(self.shared.store.clone())
    }

    /// Metrics, to be registered once.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// Scopes that wait to be made, and how long the first of them has waited.
    pub fn queue(&self) -> (usize, Duration) {
        self.shared.store.queue()
    }

    /// What was done so far.
    pub fn work(&self) -> Work {
        self.shared.store.work()
    }
}
