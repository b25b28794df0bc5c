//! [`AssignmentInput`]: everything that one assignment depends on, of which the [`Plan`] is what stays while endpoints come
//! and go.

use std::sync::Arc;

use pilotfish_model::Mesh;
use pilotfish_model::destination_rule::{Subset, TrafficPolicy};
use pilotfish_model::endpoint::{Endpoint, EndpointAddress, Health};
use pilotfish_model::features::UnreadyEndpoints;
use pilotfish_model::name::{Labels, Str, selects};
use pilotfish_model::peer_authentication::MtlsMode;
use pilotfish_model::proxy::Flavour;
use pilotfish_model::service::{Protocol, Registry, Resolution, Service, ServicePort, TrafficDistribution};
use pilotfish_model::tls::ClientTlsMode;

use super::spread::{Locality, Spread};
use crate::context::Common;
use crate::naming::{self, Direction};
use crate::policy::passes_through;
use crate::unit::UnitInput;

/// Which endpoints of a service make an assignment, and how.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Plan {
    /// Name of the cluster.
    pub cluster: Str,
    /// Name of the port.
    pub port: Str,
    /// Number of the port, where the client is told endpoints with the cluster and resolves names itself.
    pub resolved: Option<u16>,
    /// Labels that endpoints must have.
    pub subset: Labels,
    /// Endpoints are names that the client cannot resolve: none counts.
    pub unresolved: bool,
    /// Only endpoints on this node.
    pub node: Option<Str>,
    /// Endpoints that are not ready do not count, where the client must know how many are well.
    pub healthy: bool,
    /// Mesh mTLS is passed on, to those alone that speak it: the client cannot tell whether it is there.
    pub passed_on: bool,
    /// Endpoints say which workload they are of.
    pub described: bool,
    /// What a rule says about mesh mTLS, and so not the endpoints.
    pub mtls: RuledMtls,
    /// Preference among localities.
    pub spread: Spread,
}

/// What a rule says about mesh mTLS.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RuledMtls {
    /// Nothing: each endpoint says whether it speaks it, and is not believed where a PeerAuthentication says otherwise.
    Unsaid,
    /// Always: endpoints say so.
    On,
    /// Never: the client does not want to know.
    Off,
}

impl RuledMtls {
    /// Of a port. Endpoints of a subset are told by the subset's own policy, and settings of a port that say nothing of TLS leave what
    /// is said beside them: unlike clusters, to which both are the whole of it.
    pub(crate) fn of(unit: &UnitInput<'_>, subset: Option<&Subset>, port: u16) -> Self {
        let Some(level) = subset.map(|s| &s.policy).or(unit.rule.map(|r| &r.policy)) else { return RuledMtls::Unsaid };
        let own = level.ports.get(&port).and_then(|p| p.tls.as_ref());
        match own.or(level.tls.as_ref()).map(|t| t.mode) {
            None => RuledMtls::Unsaid,
            Some(ClientTlsMode::IstioMutual) => RuledMtls::On,
            Some(_) => RuledMtls::Off,
        }
    }
}

/// Everything that an assignment depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AssignmentInput {
    /// What stays.
    pub plan: Plan,
    /// All endpoints of the service.
    pub endpoints: Arc<Vec<Endpoint>>,
    /// Endpoints (by index) that say that they speak mesh mTLS, and must not be believed.
    pub plaintext: Arc<[usize]>,
}

impl Plan {
    /// The same without looking at labels of endpoints, which clients that resolve names do not see.
    pub fn without_labels(self) -> Plan {
        let spread = match self.spread {
            Spread::Labels { then, .. } => then.map_or(Spread::Even, Spread::Nearest),
            other => other,
        };
        Plan { spread, ..self }
    }

    fn is_of(&self, e: &Endpoint) -> bool {
        match self.resolved {
            Some(number) if e.service_port_number != 0 => e.service_port_number == number,
            Some(_) => e.service_port == self.port,
            None => e.service_port == self.port && !matches!(e.address, EndpointAddress::Dns(_)),
        }
    }

    /// The endpoints that count, with their index.
    pub fn chosen<'a>(&'a self, endpoints: &'a [Endpoint]) -> impl Iterator<Item = (usize, &'a Endpoint)> {
        endpoints.iter().enumerate().filter(|(_, e)| {
            !self.unresolved
                && self.is_of(e)
                && (self.subset.is_empty() || selects(&self.subset, &e.workload.labels))
                && !(self.healthy && e.health == Health::Unhealthy)
                && self.node.as_ref().is_none_or(|n| *n == e.workload.node)
        })
    }
}

impl AssignmentInput {
    /// The endpoints that count, with their index.
    pub fn chosen(&self) -> impl Iterator<Item = (usize, &Endpoint)> {
        self.plan.chosen(&self.endpoints).filter(|(i, e)| self.is_reached(*i, e))
    }

    /// Mesh mTLS that is passed on reaches those alone that speak it.
    pub(super) fn is_reached(&self, index: usize, endpoint: &Endpoint) -> bool {
        !self.plan.passed_on || (endpoint.workload.mtls && self.tells_mtls(index))
    }

    /// True if there is no endpoint, reached or not.
    pub fn is_empty(&self) -> bool {
        self.plan.chosen(&self.endpoints).next().is_none()
    }

    /// Whether the client is told that an endpoint speaks mesh mTLS.
    pub(super) fn tells_mtls(&self, index: usize) -> bool {
        match self.plan.mtls {
            RuledMtls::On => true,
            RuledMtls::Off => false,
            RuledMtls::Unsaid => self.plaintext.binary_search(&index).is_err(),
        }
    }
}

/// Services whose endpoints the client gets from this server.
fn has_assignments(common: Common<'_>, service: &Service) -> bool {
    match service.resolution {
        Resolution::Static => true,
        Resolution::Passthrough => common.class.is_router() || common.class.flavour == Flavour::Grpc || is_balanced(common, service),
        // gRPC resolves no names for a cluster: it is told at once that there is nobody, instead of waiting for an answer.
        Resolution::Dns | Resolution::DnsRoundRobin => common.class.flavour == Flavour::Grpc,
        _ => false,
    }
}

/// Clients of a headless service choose by policy, where the mesh wants that.
pub(crate) fn is_balanced(common: Common<'_>, service: &Service) -> bool {
    common.config.features.headless_balancing && service.registry == Registry::Kubernetes
}

/// A rule that sends to whatever address the client asked for. What it says of a port of the host holds for subsets as well, whatever
/// they say themselves.
pub(crate) fn is_passed_through(unit: &UnitInput<'_>, subset: Option<&Subset>, port: u16, policy: &TrafficPolicy) -> bool {
    let own = subset.is_some_and(|s| s.policy.load_balancer.is_some() || !s.policy.ports.is_empty());
    passes_through(policy) || (own && passes_through(&unit.policy(None, port)))
}

/// What the assignments of a service are made by. `by_sni`: also for the clusters behind an AUTO_PASSTHROUGH gateway.
pub fn plans(unit: &UnitInput<'_>, by_sni: bool) -> Vec<Plan> {
    let service = unit.service;
    let mut plans = Vec::new();
    if !has_assignments(unit.common, service) {
        return plans;
    }
    for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
        let subsets = unit.rule.iter().flat_map(|r| r.subsets.iter().map(Some));
        for subset in std::iter::once(None).chain(subsets) {
            let policy = unit.policy(subset, port.port);
            if is_passed_through(unit, subset, port.port, &policy) && unit.common.class.flavour != Flavour::Grpc {
                continue;
            }
            let name = subset.map_or("", |s| &s.name);
            let locality = Locality::of(unit.common, service, &policy);
            let cluster = naming::cluster(Direction::Outbound, port.port, name, service.host.as_str());
            let unresolved = matches!(service.resolution, Resolution::Dns | Resolution::DnsRoundRobin);
            let mtls = RuledMtls::of(unit, subset, port.port);
            let first = Plan { unresolved, mtls, ..plan(unit.common, service, port, subset, cluster.into(), &policy, &locality) };
            if by_sni && !service.mesh_external {
                let cluster = naming::sni(Direction::Outbound, port.port, name, service.host.as_str());
                plans.push(Plan { cluster: cluster.into(), passed_on: true, ..first.clone() });
            }
            plans.push(first);
        }
    }
    plans
}

/// Whether clients are told of endpoints that are not ready. Where places are preferred, they must know how many there are.
pub(crate) fn sends_unready(common: Common<'_>, service: &Service, policy: &TrafficPolicy) -> bool {
    match common.config.features.unready_endpoints {
        _ if service.traffic_distribution != TrafficDistribution::Any => true,
        UnreadyEndpoints::Always => true,
        UnreadyEndpoints::Never => false,
        // Endpoints known to be down would count as ejected, and switch the protection off that the user asks for.
        UnreadyEndpoints::UnlessCounted => policy.outlier_detection.as_ref().is_none_or(|o| o.min_health_percent == 0),
    }
}

/// What the assignment of one port and subset is made by.
pub fn plan(
    common: Common<'_>,
    service: &Service,
    port: &ServicePort,
    subset: Option<&Subset>,
    cluster: Str,
    policy: &TrafficPolicy,
    locality: &Locality,
) -> Plan {
    Plan {
        cluster,
        port: port.name.clone(),
        resolved: None,
        subset: subset.map(|s| s.labels.clone()).unwrap_or_default(),
        unresolved: false,
        passed_on: false,
        node: service.node_local.then(|| common.class.node.clone()),
        healthy: !sends_unready(common, service, policy),
        described: common.config.features.telemetry_label && common.config.features.endpoint_telemetry_label,
        mtls: RuledMtls::Unsaid,
        spread: locality.spread(common.class),
    }
}

/// Endpoints (by index) that say that they speak mesh mTLS, and must not be believed.
pub fn plaintext(mesh: &Mesh, endpoints: &[Endpoint]) -> Arc<[usize]> {
    if mesh.peer_authentications.is_empty() {
        return Arc::default();
    }
    let disabled = |e: &Endpoint| {
        e.workload.mtls && crate::policy::mtls_mode(mesh, &e.workload.namespace, &e.workload.labels, Some(e.port)) == MtlsMode::Disable
    };
    endpoints.iter().enumerate().filter(|(_, e)| disabled(e)).map(|(i, _)| i).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn mesh_mtls_is_passed_on_to_who_speaks_it() {
        let endpoint = |mtls| Endpoint {
            address: pilotfish_model::endpoint::EndpointAddress::Dns("a".into()),
            additional_addresses: Box::default(),
            port: 1,
            service_port: "http".into(),
            service_port_number: 0,
            weight: 1,
            health: Health::Healthy,
            workload: Arc::new(pilotfish_model::endpoint::Workload { mtls, ..Default::default() }),
        };
        let chosen = |passed_on| {
            let (cluster, port, subset) = ("c".into(), "http".into(), Labels::default());
            let (mtls, spread) = (RuledMtls::Unsaid, Spread::Even);
            let plan = Plan {
                cluster,
                port,
                resolved: Some(80),
                subset,
                unresolved: false,
                passed_on,
                node: None,
                healthy: false,
                described: true,
                mtls,
                spread,
            };
            let endpoints = Arc::new([true, false, true].map(endpoint).to_vec());
            AssignmentInput { plan, endpoints, plaintext: [2].into() }.chosen().map(|(i, _)| i).collect::<Vec<_>>()
        };
        assert_eq!(chosen(false), [0, 1, 2]);
        assert_eq!(chosen(true), [0]);
    }
}
