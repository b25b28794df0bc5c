//! The same configurations after a few services came, went or changed: their virtual hosts are put in and taken out, and
//! rules that speak of them are resolved again. What everybody else is called stays, as long as nobody wants a name twice.

use std::sync::Arc;

use pilotfish_model::Service;
use pilotfish_model::name::Host;
use pilotfish_model::service::{Protocol, Resolution};
use prost::encoding::{WireType, decode_key, decode_varint};

use super::{Assembler, Assembly, HostPart, Part, fragment};
use crate::context::Context;
use crate::leaf::payload;
use crate::naming;
use crate::route::action::RouteDefaults;
use crate::route::{attempt_count, defaults, domains, sidecar};
use crate::scope::{EgressScope, Scope};
use crate::world::Rules;
use crate::world::by_age::service_order;

/// More than so many at once are not worked in.
const FEW: usize = 8;
/// Beyond so many, what may differ between two lists is not compared.
const SPAN: usize = 64;

/// One service, before and now.
struct Change<'a> {
    old: Option<&'a Arc<Service>>,
    new: Option<&'a Arc<Service>>,
}

impl Change<'_> {
    fn host(&self) -> Option<&Host> {
        self.new.or(self.old).map(|s| &s.host)
    }

    /// What its virtual hosts are called, and which there are, is the same.
    fn keeps_names(&self) -> bool {
        let (Some(old), Some(new)) = (self.old, self.new) else { return false };
        let names = |s: &Service| (s.namespace.clone(), s.registry, s.resolution, s.source.clone(), s.created, s.name.clone());
        names(old) == names(new)
            && old.addresses == new.addresses
            && old.auto_addresses == new.auto_addresses
            && old.ports == new.ports
            && !is_guessed(new)
    }

    fn sides(&self) -> impl Iterator<Item = &Service> {
        self.old.into_iter().chain(self.new).map(|s| &**s)
    }
}

/// Ports of unknown protocol have configurations of their own.
fn is_guessed(service: &Service) -> bool {
    service.ports.iter().any(|p| p.protocol == Protocol::Auto)
}

impl Assembler<'_> {
    /// See the module. `old`: the scope of `before`, from which this one differs in services only. `None` if the change goes
    /// deeper.
    pub(crate) fn with_services(&mut self, before: &Assembly, old: &Scope) -> Option<Assembly> {
        let new = self.context.scope;
        let anywhere = changes(&old.services, &new.services)?;
        let mut inside: Vec<Vec<Change<'_>>> = Vec::with_capacity(new.egress.len());
        let mut concerned: Vec<Vec<usize>> = Vec::with_capacity(new.egress.len());
        for (old_egress, egress) in old.egress.iter().zip(&new.egress) {
            let here = changes(&old_egress.services, &egress.services)?;
            let claimed: Vec<bool> = here.iter().map(|c| c.host().is_some_and(|h| is_claimed(egress, h))).collect();
            let is_open = new.egress.len() == 1 && egress.listener.as_ref().is_none_or(|l| l.port.is_none());
            // Of several objects that speak of one service, which is meant depends on all.
            let twinned = |change: &Change<'_>| change.sides().any(|s| self.context.world.is_twinned(s));
            let fits = |(change, claimed): (&Change<'_>, &bool)| {
                !twinned(change) && (change.keeps_names() || (!claimed && is_open && is_plain(change)))
            };
            if !here.iter().zip(&claimed).all(fits) {
                return None;
            }
            let hosts: Vec<&Host> = anywhere.iter().chain(&here).filter_map(Change::host).collect();
            let speaks = |rules: &Rules| hosts.iter().any(|h| speaks_for(rules, h) || leads_to(rules, h));
            concerned.push((0..egress.virtual_services.len()).filter(|i| speaks(&egress.virtual_services[*i])).collect());
            inside.push(here);
        }
        if !self.has_configurations(before, inside.iter().flatten()) {
            return None;
        }
        let defaults = defaults(&self.context);
        let mut parts = Vec::with_capacity(before.parts.len());
        for part in before.parts.iter() {
            let by_rules = part.by_rules.as_ref()?;
            let concerned = by_rules.concerned(&concerned[by_rules.egress]);
            let mut next = if concerned.is_empty() { None } else { Some(self.exchange(part, by_rules, &concerned, &defaults)?) };
            for change in &inside[by_rules.egress] {
                self.work_in(part, &mut next, by_rules.port, change, &defaults)?;
            }
            parts.push(next.map_or_else(
                || part.clone(),
                |mut next| {
                    next.bind();
                    Arc::new(next)
                },
            ));
        }
        Some(Assembly { parts: parts.into() })
    }

    /// Whether a configuration stays for each port, and none is missing.
    fn has_configurations<'c>(&self, before: &Assembly, mut changes: impl Iterator<Item = &'c Change<'c>>) -> bool {
        let has_part = |port: u16| before.parts.iter().any(|p| p.by_rules.as_ref().is_some_and(|b| b.port == port && !b.first_only));
        let is_used = |port: u16| {
            let mut services = self.context.scope.egress.iter().flat_map(|e| e.services.iter());
            services.any(|s| s.resolution != Resolution::Alias && s.port(port).is_some_and(|p| p.protocol.is_http()))
        };
        changes.all(|change| {
            let ports = change.sides().flat_map(|s| &s.ports).filter(|p| p.protocol.is_http());
            change.keeps_names() || ports.into_iter().all(|p| has_part(p.port) && is_used(p.port))
        })
    }

    /// One service into one configuration. `next`: what there is of the new one already.
    fn work_in(
        &mut self,
        part: &Part,
        next: &mut Option<Part>,
        port: u16,
        change: &Change<'_>,
        defaults: &Arc<RouteDefaults>,
    ) -> Option<()> {
        let is_of = |s: &&Service| port == 0 || s.port(port).is_some_and(sidecar::is_http);
        if !change.sides().any(|s| is_of(&s)) {
            return Some(());
        }
        let by_rules = part.by_rules.as_ref()?;
        // Those of ports of unknown protocol are of services that do not change.
        if by_rules.first_only {
            return Some(());
        }
        if !change.keeps_names() && (port == 0 || by_rules.contested) {
            return None;
        }
        let next = next.get_or_insert_with(|| part.clone());
        let hosts = next.hosts.len();
        let is_old = |h: &HostPart| change.old.zip(h.service.as_ref()).is_some_and(|(old, s)| Arc::ptr_eq(old, s));
        if let Some(new) = change.new.filter(|_| change.keeps_names()) {
            let mut found = false;
            for host in next.hosts.iter_mut().filter(|h| is_old(h)) {
                found = true;
                host.service = Some(new.clone());
                if host.rules.is_none() {
                    let super::Named { name, domains } = super::named(&host.fragment);
                    // The port of a virtual host that stands for several is in its name.
                    let of = name.rsplit_once(':').and_then(|(_, port)| port.parse().ok())?;
                    host.fragment = self.own_fragment(part, name, domains, new, of, defaults)?;
                }
            }
            return found.then_some(());
        }
        next.hosts.retain(|h| !is_old(h));
        if next.hosts.len() == hosts && change.old.is_some_and(|s| is_of(&&**s)) {
            return None;
        }
        let Some(new) = change.new.filter(|s| is_of(&&***s)) else { return Some(()) };
        let name = naming::host_port(new.host.as_str(), port);
        let domains::Domains { full, short } = self.domains_of(new);
        let domains: Vec<String> = full.into_iter().chain(short).collect();
        let wanted: Vec<&str> = domains.iter().map(String::as_str).chain([name.as_str(), new.host.as_str()]).collect();
        if has_twins(&domains) || next.hosts.iter().any(|h| names(&h.fragment).any(|n| wanted.iter().any(|w| w.as_bytes() == n))) {
            return None;
        }
        let fragment = self.own_fragment(part, name.clone(), domains.clone(), new, port, defaults)?;
        // Behind those of rules, in the order of services, before the one for everything else.
        let after = |h: &HostPart| h.rules.is_none() && h.service.as_ref().is_none_or(|s| service_order(s, new).is_gt());
        let at = next.hosts.iter().position(after).unwrap_or(next.hosts.len());
        next.hosts.insert(at, HostPart { fragment, rules: None, service: Some(new.clone()) });
        Some(())
    }

    fn domains_of(&self, service: &Service) -> domains::Domains {
        let Context { class, world, .. } = self.context;
        domains::of_service(class, service, world.aliases.of(&service.host), None, self.context.config().features.absolute_domains)
    }

    /// The virtual host of a service that no rule speaks of.
    fn own_fragment(
        &mut self,
        part: &Part,
        name: String,
        domains: Vec<String>,
        service: &Arc<Service>,
        port: u16,
        defaults: &Arc<RouteDefaults>,
    ) -> Option<pilotfish_envoy::Fragment> {
        let source = sidecar::default_route(&self.context, defaults, service, port);
        let host = sidecar::virtual_host(&self.context, attempt_count(&self.context), name, domains, source, Some(service));
        fragment(self.leaves, &part.name, &host, Some(part), self.refused)
    }
}

/// What differs between two lists in the same order; `None` if that is much.
fn changes<'a>(old: &'a [Arc<Service>], new: &'a [Arc<Service>]) -> Option<Vec<Change<'a>>> {
    let same = |(a, b): &(&Arc<Service>, &Arc<Service>)| Arc::ptr_eq(a, b);
    let start = old.iter().zip(new).take_while(same).count();
    let (old, new) = (&old[start..], &new[start..]);
    let end = old.iter().rev().zip(new.iter().rev()).take_while(same).count();
    let (old, new) = (&old[..old.len() - end], &new[..new.len() - end]);
    if old.len().max(new.len()) > SPAN {
        return None;
    }
    let gone = old.iter().filter(|o| !new.iter().any(|n| Arc::ptr_eq(o, n)));
    let mut changes: Vec<Change<'a>> = gone.map(|o| Change { old: Some(o), new: None }).collect();
    for came in new.iter().filter(|n| !old.iter().any(|o| Arc::ptr_eq(o, n))) {
        match changes.iter_mut().find(|c| c.new.is_none() && c.host() == Some(&came.host)) {
            Some(change) => change.new = Some(came),
            None => changes.push(Change { old: None, new: Some(came) }),
        }
    }
    (changes.len() <= FEW).then_some(changes)
}

/// Its names are its own and what they stand for is told by its ports.
fn is_plain(change: &Change<'_>) -> bool {
    change.sides().all(|s| !s.host.is_wildcard() && !is_guessed(s) && s.resolution != Resolution::Alias)
}

/// Whether a VirtualService has rules for a host.
fn is_claimed(egress: &EgressScope, host: &Host) -> bool {
    egress.virtual_services.iter().any(|rules| speaks_for(rules, host))
}

fn speaks_for(rules: &Rules, host: &Host) -> bool {
    !rules.http.is_empty() && rules.hosts.iter().any(|h| h == host || (h.is_wildcard() && h.covers(host)))
}

fn leads_to(rules: &Rules, host: &Host) -> bool {
    let to = |rule: &pilotfish_model::virtual_service::HttpRoute| {
        rule.route.iter().any(|d| d.destination.host == *host) || rule.mirrors.iter().any(|m| m.destination.host == *host)
    };
    rules.http.iter().any(to)
}

fn has_twins(names: &[String]) -> bool {
    names.iter().enumerate().any(|(i, name)| names[..i].contains(name))
}

/// The name and the domains of an encoded virtual host, which are its first fields.
fn names(fragment: &pilotfish_envoy::Fragment) -> impl Iterator<Item = &[u8]> {
    let mut rest = payload(fragment.bytes());
    std::iter::from_fn(move || {
        let (1 | 2, WireType::LengthDelimited) = decode_key(&mut rest).ok()? else { return None };
        let len = usize::try_from(decode_varint(&mut rest).ok()?).ok()?;
        let (name, behind) = rest.split_at_checked(len)?;
        rest = behind;
        Some(name)
    })
}
