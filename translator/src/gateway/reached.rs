//! [`Reached`]: services that a gateway leads to, where the mesh gives gateways the clusters of these alone.

use std::collections::BTreeSet;
use std::sync::Arc;

use pilotfish_model::Service;
use pilotfish_model::gateway::Gateway;
use pilotfish_model::name::{Host, Str, selects};
use pilotfish_model::virtual_service::GatewayRef;

use super::is_near;
use crate::context::Context;
use crate::naming;
use crate::scope;
use crate::security::Security;

/// See the module.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Reached {
    anywhere: BTreeSet<Host>,
    of_namespace: BTreeSet<(Str, Host)>,
}

impl Reached {
    /// `None`: all services. `security`: what asks servers of the mesh before a request is let in.
    pub(crate) fn of(context: &Context<'_>, security: Option<&Arc<Security>>) -> Option<Reached> {
        let features = &context.config().features;
        if !features.gateways_know_what_they_reach || !context.class.is_router() {
            return None;
        }
        let is_own = |g: &&Arc<Gateway>| selects(&g.selector, &context.class.labels) && is_near(context, g);
        let named = |g: &Arc<Gateway>| (g.meta.namespace.clone(), g.meta.name.clone());
        let own: BTreeSet<(Str, Str)> = context.mesh.gateways.values().filter(is_own).map(named).collect();
        let mut reached = Reached::default();
        for rules in context.scope.egress.iter().flat_map(|e| &*e.virtual_services) {
            let mut at = rules.gateways.iter().filter_map(|g| match g {
                GatewayRef::Gateway { namespace, name } => Some((namespace.clone(), name.clone())),
                GatewayRef::Mesh => None,
            });
            if let Some((namespace, _)) = at.find(|at| own.contains(at)) {
                // Where gateways are of one namespace, rules for clients of others lead nowhere.
                let client = features.gateways_of_namespace.then_some(&*namespace);
                reached.anywhere.extend(scope::destinations_from(rules, client).map(|(host, _)| host.clone()));
            }
        }
        for service in context.config().extension_providers.iter().filter_map(|p| p.kind.service()) {
            match naming::namespaced(service) {
                (Some(namespace), host) => drop(reached.of_namespace.insert((namespace.into(), Host::new(host)))),
                (None, host) => drop(reached.anywhere.insert(Host::new(host))),
            }
        }
        if let Some(security) = security {
            let asked = context.scope.services.iter().map(|s| &s.host).filter(|host| security.asks_for(host));
            reached.anywhere.extend(asked.cloned());
        }
        Some(reached)
    }

    /// Whether it leads to a service.
    pub(crate) fn has(&self, service: &Service) -> bool {
        self.anywhere.contains(&service.host) || self.of_namespace.contains(&(service.namespace.clone(), service.host.clone()))
    }
}
