//! Roots of the mesh, for agents that ask for them (PCDS), and who of these has not taken the newest: [`Roots`].
//!
//! They are of no scope and no class: every stream that asks gets the same resource, made once.

use std::sync::Arc;

use pilotfish_envoy::pb::istio::mesh::v1alpha1::ProxyConfig;
use pilotfish_envoy::{Resource, ResourceSet};
use tokio::sync::watch;

use crate::Translate;
use crate::store::Store;

/// What is handed out; `None` before there are any roots.
#[derive(Clone, Debug)]
pub(crate) struct Roots(watch::Sender<Option<Arc<ResourceSet>>>);

impl Default for Roots {
    fn default() -> Self {
        Roots(watch::Sender::new(None))
    }
}

impl Roots {
    /// Hands these out from now on, PEM.
    pub(crate) fn set(&self, certificates: Vec<String>) {
        let message = ProxyConfig { ca_certificates_pem: certificates };
        let set = ResourceSet::new([Resource::new("", &message)]);
        self.0.send_if_modified(|known| {
            let new = known.as_ref().is_none_or(|k| k.version() != set.version());
            if new {
                *known = Some(Arc::new(set));
            }
            new
        });
    }

    pub(crate) fn watch(&self) -> watch::Receiver<Option<Arc<ResourceSet>>> {
        self.0.subscribe()
    }

    /// Names of connections that ask for roots and have not taken the newest.
    pub(crate) fn lacking<T: Translate>(&self, store: &Store<T>) -> Vec<String> {
        let Some(roots) = self.0.borrow().clone() else { return Vec::new() };
        let sessions = store.sessions().into_iter();
        sessions.filter(|s| s.client().lacks_roots(&roots)).map(|s| s.connection_id.clone()).collect()
    }
}
