//! [`Authority`]: what signs and what is trusted now, for everybody who asks. Readers never wait for each other.

use std::sync::{Arc, PoisonError, RwLock};

use rustls::pki_types::CertificateDer;
use tokio::sync::watch;

use crate::material::Material;
use crate::pem;

/// What is used at one moment.
#[derive(Clone, Debug, Default)]
pub struct Current {
    /// What signs; nothing before there is a key whose root everybody has.
    pub signing: Option<Arc<Material>>,
    /// Roots that are trusted.
    pub trusted: Arc<[CertificateDer<'static>]>,
    /// The same as PEM.
    pub bundle: Arc<str>,
}

/// See the module's documentation.
#[derive(Debug)]
pub struct Authority {
    current: RwLock<Arc<Current>>,
    changes: watch::Sender<u64>,
}

impl Default for Authority {
    fn default() -> Self {
        Authority { current: RwLock::default(), changes: watch::channel(0).0 }
    }
}

impl Authority {
    /// What is used now.
    pub fn current(&self) -> Arc<Current> {
        self.current.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Uses this from now on.
    pub fn set(&self, signing: impl Into<Option<Arc<Material>>>, trusted: Vec<CertificateDer<'static>>) {
        let bundle = pem::bundle(&trusted).into();
        let current = Current { signing: signing.into(), trusted: trusted.into(), bundle };
        *self.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(current);
        self.changes.send_modify(|n| *n += 1);
    }

    /// Tells of every change.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.changes.subscribe()
    }
}
