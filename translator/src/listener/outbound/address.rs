//! The addresses by which a class's workloads reach a service.

use std::net::IpAddr;

use pilotfish_model::service::{Address, Registry, Service};

use crate::facts::UnitFacts;

/// Addresses that connections to a service go to; empty: any, the service is told by other means.
///
/// A Kubernetes Service has one per family, of which the proxy's own family counts (a service of the other family keeps
/// its only one). A ServiceEntry may list several, each good in itself. One without any has those that were allocated, if
/// the proxy answers DNS with them.
pub fn addresses(class: &UnitFacts, service: &Service) -> Vec<Address> {
    match (service.registry, service.addresses.as_slice()) {
        (_, []) => allocated(class, service).map(Address::Ip).into_iter().collect(),
        (Registry::Kubernetes, all) => all.iter().find(|a| own_family(class, a.is_ipv4())).or(all.first()).copied().into_iter().collect(),
        (Registry::External, all) => all.to_vec(),
    }
}

fn allocated(class: &UnitFacts, service: &Service) -> Option<IpAddr> {
    let captured = class.settings.dns_capture && class.settings.dns_auto_allocate;
    let mut usable = service.auto_addresses.iter().filter(|_| captured);
    usable.find(|ip| own_family(class, ip.is_ipv4())).copied()
}

/// Of a proxy with both families IPv4 is preferred.
fn own_family(class: &UnitFacts, ipv4: bool) -> bool {
    if class.ipv4 { ipv4 } else { !ipv4 }
}
