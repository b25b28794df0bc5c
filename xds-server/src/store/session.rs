//! One connected stream as others see it: [`Session`]; and its hold on the store: [`Connected`].

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use pilotfish_envoy::Snapshot;
use pilotfish_envoy::TypeUrl;
use pilotfish_model::{Caller, Proxy};

use super::{Mailbox, Store};
use crate::Translate;
use crate::access::{Asset, Way, Who, allows};
use crate::client::Client;
use crate::stream::Opened;

/// A connected stream.
pub(crate) struct Session {
    pub(crate) id: u64,
    /// The proxy's name and a counter.
    pub(crate) connection_id: String,
    pub(crate) proxy: Arc<Proxy>,
    /// The node's metadata as they came, encoded: only the debug interface reads them.
    pub(crate) metadata: Vec<u8>,
    pub(crate) peer: SocketAddr,
    /// How it came, and who it is as seen from the proxy that it speaks for.
    pub(crate) way: Way,
    pub(crate) who: Who,
    pub(crate) caller: Caller,
    pub(crate) connected_at: SystemTime,
    client: Mutex<Client>,
}

impl Session {
    pub(crate) fn new(id: u64, proxy: Proxy, metadata: Vec<u8>, opened: &Opened, who: Who, client: Client) -> Self {
        Session {
            id,
            connection_id: format!("{}-{id}", proxy.name),
            proxy: Arc::new(proxy),
            metadata,
            peer: opened.peer.address,
            way: opened.peer.way,
            who,
            caller: opened.caller.clone(),
            connected_at: SystemTime::now(),
            client: Mutex::new(client),
        }
    }

    /// Whether it may have resources of a type.
    pub(crate) fn may_have(&self, type_url: TypeUrl) -> bool {
        allows(Asset::Type(type_url), self.way, self.who)
    }

    /// The stream's state. Locked for one step at a time; a panic in a step ends the stream, not the reader.
    pub(crate) fn client(&self) -> MutexGuard<'_, Client> {
        self.client.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What the proxy is meant to hold, its key material included: to be redacted before it is shown. Credentials in settings of
    /// extensions are left out.
    pub(crate) fn snapshot(&self) -> Arc<Snapshot> {
        self.client().without_credentials()
    }
}

/// A stream's place in the store, given up when dropped.
pub(crate) struct Connected<T: Translate> {
    pub(super) store: Arc<Store<T>>,
    pub(crate) session: Arc<Session>,
    pub(crate) mailbox: Arc<Mailbox>,
}

impl<T: Translate> Drop for Connected<T> {
    fn drop(&mut self) {
        self.store.disconnect(&self.session);
        tracing::info!(proxy = %self.session.connection_id, "disconnected");
    }
}
