//! An assignment out of its input.

use std::collections::BTreeMap;

use bytes::Bytes;
use pilotfish_envoy::pb::envoy::config::core::v3::HealthStatus;
use pilotfish_envoy::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use pilotfish_envoy::{EndpointFields, HostAddress, LocalityEndpoints};
use pilotfish_model::endpoint::{Endpoint, EndpointAddress, Health, Locality, Workload};
use pilotfish_model::name::{CANONICAL_NAME, CANONICAL_REVISION, first_label, ip_text};

use super::input::AssignmentInput;
use crate::metadata;

const SOCKET_MATCH: &str = "envoy.transport_socket_match";

/// Endpoints of one locality and priority.
pub(super) struct Group<'a> {
    pub locality: &'a Locality,
    pub priority: u32,
    pub weight: u32,
    pub endpoints: Vec<(usize, &'a Endpoint)>,
}

/// Makes the assignment: groups by locality, ordered, with priorities and weights as the spread says.
pub fn assignment(input: &AssignmentInput) -> ClusterLoadAssignment {
    let mut by_locality: BTreeMap<&Locality, Vec<(usize, &Endpoint)>> = BTreeMap::new();
    for (index, endpoint) in input.chosen() {
        by_locality.entry(&endpoint.workload.locality).or_default().push((index, endpoint));
    }
    let groups =
        by_locality.into_iter().map(|(locality, endpoints)| Group { locality, priority: 0, weight: weight(&endpoints), endpoints });
    let groups = input.plan.spread.apply(groups.collect());
    ClusterLoadAssignment {
        cluster_name: str::to_owned(&input.plan.cluster),
        endpoints: groups.iter().map(|g| group(input, g)).collect(),
        ..Default::default()
    }
}

pub(super) fn weight(endpoints: &[(usize, &Endpoint)]) -> u32 {
    endpoints.iter().fold(0u32, |sum, (_, e)| sum.saturating_add(e.weight.max(1)))
}

fn group(input: &AssignmentInput, group: &Group<'_>) -> Bytes {
    let Locality { region, zone, sub_zone } = group.locality;
    let mut endpoints = LocalityEndpoints::new([region, zone, sub_zone], group.endpoints.len());
    group.endpoints.iter().for_each(|(i, e)| endpoint(input, *i, e, &mut endpoints));
    endpoints.finish(Some(group.weight), group.priority)
}

fn endpoint(input: &AssignmentInput, index: usize, endpoint: &Endpoint, out: &mut LocalityEndpoints) {
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
    let mtls = endpoint.workload.mtls && input.tells_mtls(index);
    let described = if input.plan.described { describe(&endpoint.workload) } else { String::new() };
    let filters: [(&str, &[(&str, &str)]); 2] = [(SOCKET_MATCH, &[("tlsMode", "istio")]), (metadata::ISTIO, &[("workload", &described)])];
    // Each of them may be missing.
    let said = &filters[usize::from(!mtls)..1 + usize::from(input.plan.described)];
    let metadata = (!said.is_empty()).then_some(said);
    // Nearly always there is none, and nothing to allocate.
    let more: Vec<String> = endpoint.additional_addresses.iter().map(|ip| ip_text(*ip)).collect();
    let more: Vec<HostAddress<'_>> = more.iter().map(|ip| HostAddress::Socket(ip, endpoint.port)).collect();
    out.push(&EndpointFields { address, more: &more, health, metadata, weight: Some(endpoint.weight.max(1)) });
}

/// `workload;namespace;service;revision;cluster`: what telemetry calls the server.
fn describe(workload: &Workload) -> String {
    let label = |keys: &[&str]| first_label(&workload.labels, keys).map_or("", |v| &**v);
    let service = label(&CANONICAL_NAME);
    let service = if service.is_empty() { &*workload.workload_name } else { service };
    let revision = label(&CANONICAL_REVISION);
    let revision = if revision == "latest" { "" } else { revision };
    [&*workload.workload_name, &workload.namespace, service, revision, &workload.cluster_id].join(";")
}
