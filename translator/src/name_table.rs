//! The DNS name table for agents that capture DNS (NDS): which addresses a name of the mesh has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pilotfish_envoy::Resource;
use pilotfish_envoy::pb::istio::networking::nds::v1::{NameTable, name_table::NameInfo};
use pilotfish_model::endpoint::{Endpoint, EndpointAddress, Health};
use pilotfish_model::name::Str;
use pilotfish_model::service::{Address, Registry, Resolution, Service};

use crate::context::Context;
use crate::facts::UnitFacts;

/// What the table calls names that Kubernetes knows.
const KUBERNETES: &str = "Kubernetes";

/// One name and its addresses. What the table is made of.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct NameEntry {
    /// Full name.
    pub host: Str,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Short name and namespace; only names of Kubernetes have them.
    pub short: Option<(Str, Str)>,
}

/// One table, without a name, for classes that capture DNS: of what their egress listeners import. Where only routes lead is
/// resolved as if there were no mesh.
pub fn name_table(context: &Context<'_>) -> Vec<Resource> {
    if !context.class.settings.dns_capture {
        return Vec::new();
    }
    let mut entries = Vec::new();
    for service in context.scope.egress.iter().flat_map(|e| e.services.iter()) {
        let kubernetes = service.registry == Registry::Kubernetes;
        let short = |name: &str| kubernetes.then(|| (name.into(), service.namespace.clone()));
        let mut ips = addresses(&context.class.unit, service);
        if ips.is_empty() && service.addresses.is_empty() && service.resolution == Resolution::Passthrough {
            let ready: Vec<(IpAddr, &Endpoint)> = ready(context, service).collect();
            ips = ready.iter().map(|(ip, _)| *ip).collect();
            ips.sort_unstable();
            ips.dedup();
            if kubernetes {
                entries.extend(pods(service, &ready));
            }
        }
        if !ips.is_empty() {
            entries.push(NameEntry { host: service.host.as_str().into(), ips, short: short(&service.name) });
        }
    }
    vec![Resource::new("", &table(&entries))]
}

/// The table. A name of Kubernetes is what Kubernetes says; several ServiceEntries for one name add up.
pub fn table(entries: &[NameEntry]) -> NameTable {
    let mut table = BTreeMap::new();
    for entry in entries {
        let registry = if entry.short.is_some() { KUBERNETES } else { "External" };
        let (shortname, namespace) = entry.short.as_ref().map(|(s, n)| (s.to_string(), n.to_string())).unwrap_or_default();
        let ips = entry.ips.iter().map(IpAddr::to_string);
        let known: &mut NameInfo = table.entry(entry.host.to_string()).or_default();
        if known.registry.is_empty() || (known.registry != KUBERNETES && entry.short.is_some()) {
            *known = NameInfo { ips: ips.collect(), registry: registry.to_owned(), shortname, namespace, ..Default::default() };
        } else if known.registry != KUBERNETES {
            let more: Vec<String> = ips.filter(|ip| !known.ips.contains(ip)).collect();
            known.ips.extend(more);
        }
    }
    NameTable { table }
}

/// Virtual addresses that are addresses and not ranges.
fn addresses(class: &UnitFacts, service: &Service) -> Vec<IpAddr> {
    let one = |address| match address {
        Address::Ip(ip) if !ip.is_unspecified() => Some(ip),
        _ => None,
    };
    crate::addresses::of(class, service).filter_map(one).collect()
}

/// Endpoints of a headless service that answer on its first port, on the proxy's own network.
fn ready<'a>(context: &'a Context<'_>, service: &'a Service) -> impl Iterator<Item = (IpAddr, &'a Endpoint)> {
    let class = context.class;
    let first = |e: &&Endpoint| service.ports.first().is_some_and(|p| e.answers_for(p));
    let answers = |e: &&Endpoint| service.publish_not_ready || e.health == Health::Healthy;
    let near = move |e: &&Endpoint| e.workload.network == class.network || e.workload.network.is_empty() || class.network.is_empty();
    let endpoints = context.mesh.endpoints_of(service).iter().filter(first).filter(answers).filter(near);
    endpoints.filter_map(|e| match e.address {
        EndpointAddress::Ip(ip) => Some((ip, e)),
        _ => None,
    })
}

/// Names of Pods below the domain that they say they are in; who does not say what it is called there has its own name.
fn pods(service: &Service, ready: &[(IpAddr, &Endpoint)]) -> Vec<NameEntry> {
    let Some((_, domain)) = service.host.as_str().split_once('.') else { return Vec::new() };
    let mut by_name: BTreeMap<String, Vec<IpAddr>> = BTreeMap::new();
    for (ip, endpoint) in ready {
        let workload = &endpoint.workload;
        if !workload.subdomain.is_empty() {
            let own = if workload.hostname.is_empty() { &workload.name } else { &workload.hostname };
            let ips = by_name.entry(format!("{own}.{}", workload.subdomain)).or_default();
            if !ips.contains(ip) {
                ips.push(*ip);
            }
        }
    }
    let entry = |(name, ips): (String, Vec<IpAddr>)| NameEntry {
        host: format!("{name}.{domain}").into(),
        ips,
        short: Some((name.into(), service.namespace.clone())),
    };
    by_name.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kubernetes_decides_and_others_add_up() {
        let entry = |ip: &str, short: bool| NameEntry {
            host: "web.a.svc.cluster.local".into(),
            ips: vec![ip.parse().unwrap()],
            short: short.then(|| ("web".into(), "a".into())),
        };
        let made = |entries: &[NameEntry]| table(entries).table.into_values().map(|i| (i.ips, i.registry, i.shortname)).collect::<Vec<_>>();
        let of = |ips: &[&str], registry: &str, short: &str| {
            vec![(ips.iter().map(|ip| (*ip).to_owned()).collect::<Vec<_>>(), registry.to_owned(), short.to_owned())]
        };
        let (kubernetes, one, two) = (entry("10.0.0.1", true), entry("10.0.0.2", false), entry("10.0.0.3", false));
        let by_kubernetes = || of(&["10.0.0.1"], "Kubernetes", "web");
        assert_eq!(made(&[kubernetes.clone(), one.clone()]), by_kubernetes());
        assert_eq!(made(&[one.clone(), two.clone(), kubernetes]), by_kubernetes());
        assert_eq!(made(&[one.clone(), two, one]), of(&["10.0.0.2", "10.0.0.3"], "External", ""));
    }
}
