//! The virtual addresses by which a class's workloads reach a service.

use pilotfish_model::service::{Address, Registry, Service};

use crate::facts::UnitFacts;

/// Addresses that clients may name: of their own families. A client of both keeps to the family of the first one, unless both
/// are in use.
pub fn of<'a>(class: &UnitFacts, service: &'a Service) -> impl Iterator<Item = Address> + 'a {
    let declared = service.addresses.as_slice();
    let allocated = if declared.is_empty() && class.settings.allocated { service.auto_addresses.as_slice() } else { &[] };
    let of_family = move |ipv4: bool| allocated.iter().copied().filter(move |ip| ip.is_ipv4() == ipv4).map(Address::Ip);
    let all = declared.iter().copied().chain(of_family(true)).chain(of_family(false));
    let both = class.dual_stack;
    let ipv4 = match (class.ipv4, class.ipv6) {
        (true, true) => all.clone().next().is_none_or(|a| a.is_ipv4()),
        (ipv4, _) => ipv4,
    };
    all.filter(move |a| both || a.is_ipv4() == ipv4)
}

/// One place where connections to a service arrive.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Place {
    /// What is listened on; `None`: any address, the service is told by other means.
    pub address: Option<Address>,
    /// Further addresses of the same place.
    pub more: Vec<Address>,
}

impl Place {
    /// The listener has the address for itself.
    pub fn is_own(&self) -> bool {
        matches!(self.address, Some(Address::Ip(_)))
    }
}

/// Where connections to a service arrive. Never empty.
///
/// A Kubernetes Service has one address per family, of which the proxy's own family counts (a service of the other family keeps
/// its only one). A ServiceEntry may list several, each good in itself. One without any has those that were allocated, if
/// the proxy answers DNS with them.
pub fn places(class: &UnitFacts, service: &Service) -> Vec<Place> {
    if service.registry == Registry::External && !service.addresses.is_empty() {
        return service.addresses.iter().map(|a| Place { address: Some(*a), more: Vec::new() }).collect();
    }
    let mut all = of(class, service);
    let address = all.next().or_else(|| service.addresses.first().copied());
    vec![Place { address, more: if class.dual_stack { all.collect() } else { Vec::new() } }]
}

/// Whether a service has no address of its own.
pub fn is_bare(class: &UnitFacts, service: &Service) -> bool {
    service.addresses.is_empty() && of(class, service).next().is_none()
}
