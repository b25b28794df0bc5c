//! The names under which clients reach a service: [`of_service`], and which of several virtual hosts gets a name:
//! [`Claims`].

use std::collections::HashSet;
use std::hash::BuildHasherDefault;
use std::net::IpAddr;

use pilotfish_envoy::Hashed;
use pilotfish_model::ContentHash;
use pilotfish_model::name::{Host, ip_text};
use pilotfish_model::service::{Address, Registry, Resolution, Service};

use crate::addresses;
use crate::facts::ScopeFacts;

/// Names of one virtual host.
pub struct Domains {
    /// Names as the registry knows them, and addresses.
    pub full: Vec<String>,
    /// Short forms. They give way to services that really have that name.
    pub short: Vec<String>,
}

/// All names of a service and of its aliases. Where the port is not told by the listener (`with_port`), each comes with
/// the port as well. `absolute`: names may be written with the dot at their end.
pub fn of_service(class: &ScopeFacts, service: &Service, aliases: &[Host], with_port: Option<u16>, absolute: bool) -> Domains {
    let mut domains = Domains { full: Vec::new(), short: Vec::new() };
    for host in std::iter::once(&service.host).chain(aliases) {
        domains.full.push(host.as_str().to_owned());
        if absolute {
            domains.full.push([host.as_str(), "."].concat());
        }
        domains.short.extend(short_forms(host.as_str(), &class.dns_domain));
    }
    if service.resolution == Resolution::Passthrough && service.registry == Registry::Kubernetes {
        // Each Pod of a headless service has a name below it.
        for names in [&mut domains.full, &mut domains.short] {
            let below: Vec<String> = names.iter().map(|n| ["*.", n].concat()).collect();
            names.extend(below);
        }
    }
    match (service.registry, service.addresses.last()) {
        // Each address that a ServiceEntry declares is a service to the reference, of which the last one has the name.
        (Registry::External, Some(last)) => domains.full.push(host_of(*last)),
        _ => domains.full.extend(addresses::of(class, service).map(host_of)),
    }
    if let Some(port) = with_port {
        let port = port.to_string();
        for names in [&mut domains.full, &mut domains.short] {
            let with_port: Vec<String> = names.iter().map(|n| [n, ":", &port].concat()).collect();
            names.extend(with_port);
        }
    }
    domains
}

/// A host that only a rule speaks of.
pub fn of_host(host: &Host) -> Domains {
    Domains { full: vec![host.to_string()], short: Vec::new() }
}

/// An address as it stands in a host header.
fn host_of(address: Address) -> String {
    match address {
        Address::Ip(IpAddr::V6(ip)) => format!("[{ip}]"),
        Address::Ip(ip) => ip_text(ip),
        other => other.to_string(),
    }
}

/// All other forms of a name for clients with this DNS search domain.
pub fn alternatives(host: &Host, dns_domain: &str, absolute: bool) -> Vec<String> {
    let own = absolute.then(|| [host.as_str(), "."].concat());
    own.into_iter().chain(short_forms(host.as_str(), dns_domain)).collect()
}

/// Forms that clients with this DNS search domain may use.
fn short_forms(host: &str, dns_domain: &str) -> Vec<String> {
    let Some((own_namespace, _)) = dns_domain.split_once(".svc.") else { return relative_forms(host, dns_domain) };
    let Some((service, _)) = host.split_once(".svc.") else { return Vec::new() };
    let Some((name, namespace)) = service.split_once('.') else { return Vec::new() };
    let mut forms = vec![service.to_owned(), [service, ".svc"].concat()];
    if namespace == own_namespace {
        forms.push(name.to_owned());
    }
    forms
}

/// The same outside Kubernetes: what is left without the suffix that host and domain share.
fn relative_forms(host: &str, dns_domain: &str) -> Vec<String> {
    let shared = host.rsplit('.').zip(dns_domain.rsplit('.')).take_while(|(a, b)| a == b).count();
    let labels: Vec<&str> = host.split('.').collect();
    if shared == 0 || shared >= labels.len() {
        return Vec::new();
    }
    let own = labels.len() - shared;
    let mut forms = vec![labels[..own].join(".")];
    if shared > 1 {
        forms.push(labels[..=own].join("."));
    }
    forms
}

/// Names and domains that are taken within one route configuration: Envoy refuses a domain that occurs twice. Names of
/// services are in lower case, so they are compared as they are; what is kept is a hash of each.
#[derive(Default)]
pub struct Claims {
    names: Hashes,
    domains: Hashes,
    known: Hashes,
    contested: bool,
}

/// What is hashed already needs no second hash.
type Hashes = HashSet<ContentHash, BuildHasherDefault<Hashed>>;

impl Claims {
    /// Room for so many virtual hosts.
    pub fn with_capacity(hosts: usize) -> Self {
        let room = |n| HashSet::with_capacity_and_hasher(n, BuildHasherDefault::default());
        // A service mostly has three names, their short forms, and an address.
        Claims { names: room(hosts), domains: room(hosts * 7), known: room(hosts), contested: false }
    }

    /// Announces a name that belongs to a service, whatever comes first.
    pub fn reserve(&mut self, name: &str) {
        self.known.insert(ContentHash::of_bytes(name.as_bytes()));
    }

    /// False if a virtual host of that name exists.
    pub fn name(&mut self, name: &str) -> bool {
        let is_new = self.names.insert(ContentHash::of_bytes(name.as_bytes()));
        self.contested |= !is_new;
        is_new
    }

    /// Whether somebody wanted what somebody else had.
    pub fn contested(&self) -> bool {
        self.contested
    }

    /// Those of a virtual host's domains that nobody had before.
    pub fn domains(&mut self, domains: Domains) -> Vec<String> {
        let Domains { mut full, short } = domains;
        let wanted = full.len() + short.len();
        full.retain(|d| self.domains.insert(ContentHash::of_bytes(d.as_bytes())));
        for domain in short {
            let hash = ContentHash::of_bytes(domain.as_bytes());
            if !self.known.contains(&hash) && self.domains.insert(hash) {
                full.push(domain);
            }
        }
        self.contested |= full.len() < wanted;
        full
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn short_forms_follow_the_search_domain() {
        let forms = |host, domain| {
            let mut forms = short_forms(host, domain);
            forms.sort();
            forms
        };
        assert_eq!(forms("a.ns.svc.cluster.local", "ns.svc.cluster.local"), ["a", "a.ns", "a.ns.svc"]);
        assert_eq!(forms("a.other.svc.cluster.local", "ns.svc.cluster.local"), ["a.other", "a.other.svc"]);
        assert_eq!(forms("a.example", "ns.svc.cluster.local"), Vec::<String>::new());
        assert_eq!(forms("a.campus.net", "lab.campus.net"), ["a", "a.campus"]);
        assert_eq!(forms("a.example", "lab.campus.net"), Vec::<String>::new());
    }

    #[test]
    fn a_short_form_gives_way_to_a_real_name() {
        let mut claims = Claims::default();
        claims.reserve("foo.com");
        let both = || Domains { full: vec!["foo.com.svc.x".to_owned()], short: vec!["foo.com".to_owned()] };
        assert_eq!(claims.domains(both()), ["foo.com.svc.x"]);
        assert_eq!(claims.domains(Domains { full: vec!["foo.com".to_owned()], short: vec![] }), ["foo.com"]);
        assert_eq!(claims.domains(both()), Vec::<String>::new());
    }
}
