//! [`Server`]: what the binary holds.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::debug::Debug;
use crate::metrics::Metrics;
use crate::store::{PushReport, Store, Work};
use crate::{Translate, serve};

/// Settings. The defaults are those of the reference where it has the setting.
#[derive(Clone, Debug)]
pub struct Config {
    /// HTTP/2 ping on idle connections.
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
    /// Translations at a time.
    pub parallel_translations: usize,
}

impl Default for Config {
    fn default() -> Self {
        Config {
            keepalive_interval: Duration::from_secs(30),
            keepalive_timeout: Duration::from_secs(10),
            max_streams: 100_000,
            max_request_bytes: 4 << 20,
            drain_timeout: Duration::from_secs(10),
            patience: Duration::from_secs(5),
            parallel_translations: std::thread::available_parallelism().map_or(1, usize::from),
        }
    }
}

pub(crate) struct Shared<T: Translate> {
    pub(crate) config: Config,
    pub(crate) store: Arc<Store<T>>,
    pub(crate) metrics: Metrics,
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
        let store = Arc::new(Store::new(translate, config.parallel_translations, metrics.clone()));
        Server { shared: Arc::new(Shared { config, store, metrics, streams: AtomicU64::new(0) }) }
    }

    /// Makes `world` what is served. Returns once every class was translated and its streams were told; they send on their
    /// own. Calls are served one at a time. Metadata of the report say what it cost.
    pub async fn publish(&self, world: Arc<T::World>) -> PushReport {
        self.shared.store.publish(world).await
    }

    /// Serves ADS in clear text until `drain` is cancelled; then takes no connection any more, tells clients to go (GOAWAY,
    /// streams end) and returns when they have gone, or after the drain timeout.
    pub async fn serve(&self, listener: TcpListener, drain: CancellationToken) -> io::Result<()> {
        serve::serve(self.shared.clone(), listener, drain).await
    }

    /// The generation that is served; 0 before the first world.
    pub fn generation(&self) -> u64 {
        self.shared.store.generation()
    }

    /// Data for the debug interface.
    pub fn debug(&self) -> Debug<T> {
        Debug::new(self.shared.store.clone())
    }

    /// Metrics, to be registered once.
    pub fn metrics(&self) -> &Metrics {
        &self.shared.metrics
    }

    /// What was done so far.
    pub fn work(&self) -> Work {
        self.shared.store.work()
    }
}
