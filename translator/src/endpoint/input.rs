//! [`AssignmentInput`]: everything that one assignment depends on.

use std::sync::Arc;

use pilotfish_model::destination_rule::{LbAlgorithm, Subset, TrafficPolicy};
use pilotfish_model::endpoint::{Endpoint, Health};
use pilotfish_model::mesh::ServiceKey;
use pilotfish_model::name::{Labels, Str, selects};
use pilotfish_model::peer_authentication::MtlsMode;
use pilotfish_model::proxy::Flavour;
use pilotfish_model::service::{Resolution, Service, ServicePort};
use pilotfish_model::tls::ClientTlsMode;

use super::spread::{Locality, Spread};
use crate::context::Context;

/// Everything that an assignment depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssignmentInput {
    /// Name of the cluster.
    pub cluster: Str,
    /// All endpoints of the service.
    pub endpoints: Arc<Vec<Endpoint>>,
    /// Name of the port.
    pub port: Str,
    /// Labels that endpoints must have.
    pub subset: Labels,
    /// Only endpoints on this node.
    pub node: Option<Str>,
    /// Endpoints that are not ready do not count, where the client must know how many are well.
    pub healthy: bool,
    /// Do not say which endpoints speak mesh mTLS: the client does not want to know.
    pub no_mtls: bool,
    /// Endpoints (by index) that say that they speak mesh mTLS, and must not be believed.
    pub plaintext: Vec<usize>,
    /// Preference among localities.
    pub spread: Spread,
}

impl AssignmentInput {
    /// The endpoints that count, with their index.
    pub fn chosen(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        self.endpoints.iter().enumerate().filter(|(_, e)| {
            e.service_port == self.port
                && (self.subset.is_empty() || selects(&self.subset, &e.workload.labels))
                && !(self.healthy && e.health == Health::Unhealthy)
                && self.node.as_ref().is_none_or(|n| *n == e.workload.node)
        })
    }

    /// True if no endpoint counts.
    pub fn is_empty(&self) -> bool {
        self.chosen().next().is_none()
    }
}

/// Services whose endpoints the client gets from this server.
pub(super) fn has_assignments(context: &Context<'_>, service: &Service) -> bool {
    match service.resolution {
        Resolution::Static => true,
        Resolution::Passthrough => context.class.is_router() || context.class.flavour == Flavour::Grpc,
        _ => false,
    }
}

/// A rule that sends to whatever address the client asked for.
pub(super) fn is_passthrough(policy: &TrafficPolicy) -> bool {
    policy.load_balancer.as_ref().and_then(|b| b.algorithm.as_ref()) == Some(&LbAlgorithm::Passthrough)
}

/// What the assignment of one port and subset depends on.
pub fn input(
    context: &Context<'_>,
    service: &Service,
    port: &ServicePort,
    subset: Option<&Subset>,
    cluster: Str,
    policy: &TrafficPolicy,
    locality: &Locality,
) -> AssignmentInput {
    let key = ServiceKey { namespace: service.namespace.clone(), host: service.host.clone() };
    let endpoints = context.mesh.endpoints.get(&key).cloned().unwrap_or_default();
    let tls = policy.tls.as_ref().map(|t| t.mode);
    let disabled = |e: &Endpoint| {
        e.workload.mtls
            && crate::policy::mtls_mode(context.mesh, &e.workload.namespace, &e.workload.labels, Some(e.port)) == MtlsMode::Disable
    };
    let plaintext = match tls {
        Some(_) => Vec::new(),
        None if context.mesh.peer_authentications.is_empty() => Vec::new(),
        None => endpoints.iter().enumerate().filter(|(_, e)| e.service_port == port.name && disabled(e)).map(|(i, _)| i).collect(),
    };
    AssignmentInput {
        cluster,
        port: port.name.clone(),
        subset: subset.map(|s| s.labels.clone()).unwrap_or_default(),
        node: service.node_local.then(|| context.class.node.clone()),
        // Endpoints known to be down would count as ejected, and switch the protection off that the user asks for.
        healthy: policy.outlier_detection.as_ref().is_some_and(|o| o.min_health_percent > 0),
        no_mtls: tls.is_some_and(|m| m != ClientTlsMode::IstioMutual),
        plaintext,
        spread: locality.spread(context.class),
        endpoints,
    }
}
