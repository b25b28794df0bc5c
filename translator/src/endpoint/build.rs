//! An assignment out of its input.

use std::sync::LazyLock;

use pilotfish_envoy::pb::envoy::config::core::v3::HealthStatus;
use pilotfish_envoy::{Assignment, EndpointFields, HostAddress, LocalityEndpoints, Metadata};
use pilotfish_model::endpoint::{Endpoint, EndpointAddress, Health, Locality, Workload};
use pilotfish_model::name::{CANONICAL_NAME, CANONICAL_REVISION, first_label, ip_text};
use prost::Message;

use super::input::AssignmentInput;
use crate::metadata;

const SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// Room in bytes for what is said of an endpoint, as most need it.
const ROOM: usize = 256;

/// Endpoints of one locality and priority.
pub(super) struct Group<'a> {
    pub locality: &'a Locality,
    pub priority: u32,
    pub weight: u32,
    pub endpoints: Vec<(usize, &'a Endpoint)>,
}

/// Makes the assignment: groups by locality, ordered, with priorities and weights as the spread says.
pub fn assignment(input: &AssignmentInput) -> Assignment {
    let mut endpoints: Vec<(usize, &Endpoint)> = Vec::with_capacity(input.endpoints.len());
    endpoints.extend(input.plan.chosen(&input.endpoints));
    // Stable: within a locality they keep their order.
    endpoints.sort_by(|(_, a), (_, b)| a.workload.locality.cmp(&b.workload.locality));
    let groups = endpoints.chunk_by(|(_, a), (_, b)| a.workload.locality == b.workload.locality).map(|of| {
        // A locality of which nobody is reached stands there all the same.
        let mut reached = Vec::with_capacity(of.len());
        reached.extend(of.iter().filter(|(i, e)| input.is_reached(*i, e)).copied());
        Group { locality: &of[0].1.workload.locality, priority: 0, weight: weight(&reached), endpoints: reached }
    });
    let groups = input.plan.spread.apply(groups.collect());
    let mut writer = Writer { input, metadata: Metadata::with_capacity(ROOM), description: String::with_capacity(ROOM) };
    let mut assignment = Assignment::new(&input.plan.cluster);
    groups.iter().for_each(|g| assignment.push(writer.group(g), (g.weight > 0).then_some(g.weight), g.priority));
    assignment
}

pub(super) fn weight(endpoints: &[(usize, &Endpoint)]) -> u32 {
    endpoints.iter().fold(0u32, |sum, (_, e)| sum.saturating_add(e.weight.max(1)))
}

/// Writes one endpoint after the other, in memory that they share.
struct Writer<'a> {
    input: &'a AssignmentInput,
    metadata: Metadata,
    description: String,
}

impl Writer<'_> {
    fn group(&mut self, group: &Group<'_>) -> LocalityEndpoints {
        let Locality { region, zone, sub_zone } = group.locality;
        let mut endpoints = LocalityEndpoints::new([region, zone, sub_zone], group.endpoints.len());
        group.endpoints.iter().for_each(|(i, e)| self.endpoint(*i, e, &mut endpoints));
        endpoints
    }

    fn endpoint(&mut self, index: usize, endpoint: &Endpoint, out: &mut LocalityEndpoints) {
        let health = match endpoint.health {
            Health::Healthy => HealthStatus::Healthy,
            Health::Unhealthy => HealthStatus::Unhealthy,
            Health::Draining => HealthStatus::Draining,
            Health::Unknown => HealthStatus::Unknown,
        };
        let ip;
        let address = match &endpoint.address {
            EndpointAddress::Ip(address) => {
                ip = ip_text(*address);
                HostAddress::Socket(&ip, endpoint.port)
            }
            EndpointAddress::Dns(name) => HostAddress::Socket(name, endpoint.port),
            EndpointAddress::Unix(path) => HostAddress::Pipe(path),
        };
        // Nearly always there is none, and nothing to allocate.
        let more: Vec<String> = endpoint.additional_addresses.iter().map(|ip| ip_text(*ip)).collect();
        let more: Vec<HostAddress<'_>> = more.iter().map(|ip| HostAddress::Socket(ip, endpoint.port)).collect();
        let metadata = self.say(index, &endpoint.workload).then_some(&self.metadata);
        out.push(&EndpointFields { address, more: &more, health, metadata, weight: Some(endpoint.weight.max(1)) });
    }

    /// Fills the metadata of an endpoint. False if it has none.
    fn say(&mut self, index: usize, workload: &Workload) -> bool {
        let mtls = workload.mtls && self.input.tells_mtls(index);
        self.metadata.clear();
        // Filters stand in order.
        if mtls {
            self.metadata.append(&SPEAKS_MTLS);
        }
        if self.input.plan.described {
            describe(workload, &mut self.description);
            self.metadata.append_texts(&[(metadata::ISTIO, &[("workload", &self.description)])]);
        }
        mtls || self.input.plan.described
    }
}

/// What chooses mesh mTLS among the transport sockets of a cluster.
static SPEAKS_MTLS: LazyLock<Metadata> = LazyLock::new(|| Metadata::texts(&[(SOCKET_MATCH, &[("tlsMode", "istio")])]));

/// `workload;namespace;service;revision;cluster`: what telemetry calls the server.
fn describe(workload: &Workload, out: &mut String) {
    let label = |keys: &[&str]| first_label(&workload.labels, keys).map_or("", |v| &**v);
    let service = label(&CANONICAL_NAME);
    let service = if service.is_empty() { &*workload.workload_name } else { service };
    let revision = label(&CANONICAL_REVISION);
    let revision = if revision == "latest" { "" } else { revision };
    out.clear();
    for (at, part) in [&*workload.workload_name, &workload.namespace, service, revision, &workload.cluster_id].into_iter().enumerate() {
        if at > 0 {
            out.push(';');
        }
        out.push_str(part);
    }
}
