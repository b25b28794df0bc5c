//! [`Context`]: the mesh as one class sees it. Built once per translation; the generators read it and make their inputs.

use std::sync::Arc;

use pilotfish_model::peer_authentication::MtlsMode;
use pilotfish_model::{Mesh, MeshConfig, Service};

use crate::class::{ClassFacts, ProxyClass};
use crate::policy::MergedRule;
use crate::scope::Scope;

/// What generators work from.
pub struct Context<'a> {
    /// The mesh.
    pub mesh: &'a Mesh,
    /// The class.
    pub class: &'a ClassFacts,
    /// What the class sees.
    pub scope: Scope,
}

impl<'a> Context<'a> {
    /// Computes the scope.
    pub fn new(mesh: &'a Mesh, class: &'a ProxyClass) -> Self {
        let class = class.facts();
        Context { mesh, class, scope: Scope::of(mesh, class) }
    }

    /// Mesh settings.
    pub fn config(&self) -> &'a MeshConfig {
        &self.mesh.config
    }

    /// The DestinationRules that apply to a service, merged; `None` if there is none.
    pub fn rule(&self, service: &Service) -> Option<Arc<MergedRule>> {
        self.scope.rule(self.mesh, self.class, service)
    }

    /// What the servers of a service accept on its target ports, as far as PeerAuthentication says (for automatic mTLS the
    /// client must not offer TLS where it is switched off).
    pub fn service_mtls(&self, service: &Service, port: u16) -> MtlsMode {
        crate::policy::service_mtls_mode(self.mesh, service, port)
    }
}
