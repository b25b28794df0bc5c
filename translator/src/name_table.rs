//! The DNS name table for agents that capture DNS (NDS): which addresses a name of the mesh has.

use std::collections::BTreeMap;
use std::net::IpAddr;

use pilotfish_envoy::Resource;
use pilotfish_envoy::pb::istio::networking::nds::v1::{NameTable, name_table::NameInfo};
use pilotfish_model::endpoint::{Endpoint, EndpointAddress, Health};
use pilotfish_model::name::Str;
use pilotfish_model::service::{Registry, Resolution, Service};

use crate::context::Context;
use crate::facts::UnitFacts;

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

/// One table, without a name, for classes that capture DNS.
pub fn name_table(context: &Context<'_>) -> Vec<Resource> {
    if !context.class.settings.dns_capture {
        return Vec::new();
    }
    let mut entries = Vec::new();
    for service in context.scope.services.iter() {
        let kubernetes = service.registry == Registry::Kubernetes;
        let short = |name: &str| kubernetes.then(|| (name.into(), service.namespace.clone()));
        let mut ips = addresses(&context.class.unit, service);
        if ips.is_empty() && service.resolution == Resolution::Passthrough && kubernetes {
            let ready: Vec<(IpAddr, &Endpoint)> = ready(context, service).collect();
            ips = ready.iter().map(|(ip, _)| *ip).collect();
            ips.sort_unstable();
            ips.dedup();
            entries.extend(pods(service, &ready));
        }
        if !ips.is_empty() {
            entries.push(NameEntry { host: service.host.as_str().into(), ips, short: short(&service.name) });
        }
    }
    vec![Resource::new("", &table(&entries))]
}

/// The table. Of several entries for one name the first stays.
pub fn table(entries: &[NameEntry]) -> NameTable {
    let mut table = BTreeMap::new();
    for entry in entries {
        let registry = if entry.short.is_some() { "Kubernetes" } else { "External" };
        let (shortname, namespace) = entry.short.as_ref().map(|(s, n)| (s.to_string(), n.to_string())).unwrap_or_default();
        table.entry(entry.host.to_string()).or_insert_with(|| NameInfo {
            ips: entry.ips.iter().map(IpAddr::to_string).collect(),
            registry: registry.to_owned(),
            shortname,
            namespace,
            ..Default::default()
        });
    }
    NameTable { table }
}

/// Virtual addresses of the families that the proxy has; those of the other family if there is nothing else.
fn addresses(class: &UnitFacts, service: &Service) -> Vec<IpAddr> {
    let usable = |ip: &IpAddr| !ip.is_unspecified();
    let own = |ip: &IpAddr| if ip.is_ipv4() { class.ipv4 } else { class.ipv6 };
    let declared: Vec<IpAddr> = service.vips().filter(usable).collect();
    if declared.is_empty() {
        let allocated = service.auto_addresses.iter().copied().filter(|_| class.settings.dns_auto_allocate);
        return allocated.filter(own).collect();
    }
    let fitting: Vec<IpAddr> = declared.iter().copied().filter(own).collect();
    if fitting.is_empty() { declared } else { fitting }
}

/// Endpoints of a headless service that answer, on the proxy's own network.
fn ready<'a>(context: &'a Context<'_>, service: &Service) -> impl Iterator<Item = (IpAddr, &'a Endpoint)> {
    let class = context.class;
    let answers = |e: &&Endpoint| matches!(e.health, Health::Healthy | Health::Unknown);
    let near = move |e: &&Endpoint| e.workload.network == class.network || e.workload.network.is_empty() || class.network.is_empty();
    context.mesh.endpoints_of(service).iter().filter(answers).filter(near).filter_map(|e| match e.address {
        EndpointAddress::Ip(ip) => Some((ip, e)),
        _ => None,
    })
}

/// Names of Pods below their headless Service.
fn pods(service: &Service, ready: &[(IpAddr, &Endpoint)]) -> Vec<NameEntry> {
    let mut by_host: BTreeMap<&Str, Vec<IpAddr>> = BTreeMap::new();
    for (ip, endpoint) in ready {
        let workload = &endpoint.workload;
        if !workload.hostname.is_empty() && workload.subdomain == service.name {
            let ips = by_host.entry(&workload.hostname).or_default();
            if !ips.contains(ip) {
                ips.push(*ip);
            }
        }
    }
    let entry = |(name, ips): (&Str, Vec<IpAddr>)| NameEntry {
        host: format!("{name}.{}", service.host).into(),
        ips,
        short: Some((format!("{name}.{}", service.name).into(), service.namespace.clone())),
    };
    by_host.into_iter().map(entry).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_entry_of_a_name_stays() {
        let entry = |ip: &str, short: bool| NameEntry {
            host: "web.a.svc.cluster.local".into(),
            ips: vec![ip.parse().unwrap()],
            short: short.then(|| ("web".into(), "a".into())),
        };
        let made = table(&[entry("10.0.0.1", true), entry("10.0.0.2", false)]);
        let expected = NameInfo {
            ips: vec!["10.0.0.1".into()],
            registry: "Kubernetes".into(),
            shortname: "web".into(),
            namespace: "a".into(),
            ..Default::default()
        };
        assert_eq!(made.table, BTreeMap::from([("web.a.svc.cluster.local".to_owned(), expected)]));
    }
}
