//! Route configurations as ropes of virtual hosts that scopes share.
//!
//! What a configuration is put together of is kept. Where only the rules inside VirtualServices changed, the next one takes
//! over all virtual hosts but theirs: what they are called and which names they have depends on all others, and so is not
//! worked out again. A few services can come and go in the same way (`services`).

mod services;

use std::sync::Arc;

use pilotfish_envoy::{Fragment, Resource, TypeUrl};
use pilotfish_model::Service;
use pilotfish_model::name::Str;
use prost::Message;

use super::action::RouteDefaults;
use super::virtual_host::{self, RouteSource, VIRTUAL_HOSTS, VirtualHost};
use super::{ByRules, Configuration, attempt_count, configurations, defaults, sidecar};
use crate::context::Context;
use crate::leaf::{AT_ONCE, Key, Leaves, payload};
use crate::refused::Refused;
use crate::scope::{EgressScope, Scope};
use crate::unit::sources;
use crate::world::Rules;

/// How the route configurations of a view are put together.
#[derive(Clone, Default)]
pub(crate) struct Assembly {
    parts: Arc<[Arc<Part>]>,
}

/// One configuration.
#[derive(Clone)]
struct Part {
    name: Str,
    hosts: Vec<HostPart>,
    by_rules: Option<ByRules>,
    resource: Resource,
}

/// One virtual host, and what it stands for.
#[derive(Clone)]
struct HostPart {
    fragment: Fragment,
    rules: Option<u32>,
    service: Option<Arc<Service>>,
}

/// What is read of an encoded virtual host.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
    #[prost(string, repeated, tag = "2")]
    domains: Vec<String>,
}

/// Puts configurations together.
pub(crate) struct Assembler<'a> {
    pub(crate) context: Context<'a>,
    pub(crate) leaves: &'a Leaves,
    /// Whose virtual hosts stand in for broken ones.
    pub(crate) before: Option<&'a Assembly>,
    pub(crate) refused: &'a mut Vec<Refused>,
}

impl Assembly {
    /// The resources.
    pub(crate) fn resources(&self) -> impl Iterator<Item = Resource> {
        self.parts.iter().map(|p| p.resource.clone())
    }

    /// Those that `before` did not have.
    pub(crate) fn news<'a>(&'a self, before: &'a Assembly) -> impl Iterator<Item = &'a Resource> {
        let new = |part: &&Arc<Part>| before.parts.iter().all(|b| !Arc::ptr_eq(b, part));
        self.parts.iter().filter(new).map(|p| &p.resource)
    }
}

impl Assembler<'_> {
    /// All configurations of a scope.
    pub(crate) fn whole(&mut self) -> Assembly {
        let configurations = configurations(&self.context);
        Assembly { parts: configurations.into_iter().map(|c| Arc::new(self.part(c))).collect() }
    }

    /// The same after rules inside VirtualServices changed, and nothing else that routes depend on. `None` if the change
    /// goes deeper.
    pub(crate) fn advance(&mut self, before: &Assembly, scope: &Scope) -> Option<Assembly> {
        let changed: Vec<Vec<usize>> =
            scope.egress.iter().zip(&self.context.scope.egress).map(|(old, new)| changed_inside(old, new)).collect::<Option<_>>()?;
        let defaults = defaults(&self.context);
        let parts = before.parts.iter().map(|part| {
            let by_rules = part.by_rules.as_ref()?;
            let concerned = by_rules.concerned(&changed[by_rules.egress]);
            match concerned.is_empty() {
                true => Some(part.clone()),
                false => self.exchange(part, by_rules, &concerned, &defaults).map(Arc::new),
            }
        });
        Some(Assembly { parts: parts.collect::<Option<_>>()? })
    }

    fn part(&mut self, configuration: Configuration) -> Part {
        let Configuration { name, hosts, sources: objects, by_rules } = configuration;
        let last_good = self.before.and_then(|b| b.parts.iter().find(|p| p.name == name));
        let mut parts = Vec::with_capacity(hosts.len());
        for some in hosts.chunks(AT_ONCE) {
            let fragments = fragments(self.leaves, &name, some.iter().map(|of| &of.host), last_good.map(|p| &**p), self.refused);
            for (fragment, of) in fragments.into_iter().zip(some) {
                let rules = of.rules.and_then(|i| u32::try_from(i).ok());
                parts.extend(fragment.map(|fragment| HostPart { fragment, rules, service: of.service.clone() }));
            }
        }
        let resource = virtual_host::configuration(&name, parts.iter().map(|h| h.fragment.clone()));
        let resource = if objects.is_empty() { resource } else { resource.with_sources(sources(&objects)) };
        Part { name, hosts: parts, by_rules, resource }
    }

    /// A configuration with the virtual hosts of some VirtualServices made anew.
    fn exchange(&mut self, part: &Part, by_rules: &ByRules, concerned: &[usize], defaults: &Arc<RouteDefaults>) -> Option<Part> {
        let mut next = part.clone();
        let counts = attempt_count(&self.context);
        for index in concerned {
            let rules = &self.context.scope.egress[by_rules.egress].virtual_services[*index];
            let set = sidecar::applied(&self.context, defaults, rules, by_rules.port);
            let had = by_rules.asked.iter().any(|(asked, had)| asked == index && *had);
            // Rules that come or go move virtual hosts; so may any change where the first that has some is taken.
            if by_rules.first_only || set.is_some() != had {
                return None;
            }
            let Some(set) = set else { continue };
            for host in next.hosts.iter_mut().filter(|h| h.rules.is_some_and(|i| i as usize == *index)) {
                let Named { name, domains } = named(&host.fragment);
                let source = RouteSource::Rules(set.clone());
                let new = sidecar::virtual_host(&self.context, counts, name, domains, source, host.service.as_ref());
                host.fragment = fragment(self.leaves, &part.name, &new, Some(part), self.refused)?;
            }
        }
        next.bind();
        Some(next)
    }
}

impl Part {
    /// Makes the resource of the virtual hosts.
    fn bind(&mut self) {
        self.resource = virtual_host::configuration(&self.name, self.hosts.iter().map(|h| h.fragment.clone()));
    }
}

/// One of [`fragments`].
fn fragment(
    leaves: &Leaves,
    configuration: &str,
    host: &VirtualHost,
    last_good: Option<&Part>,
    refused: &mut Vec<Refused>,
) -> Option<Fragment> {
    fragments(leaves, configuration, [host], last_good, refused).pop().flatten()
}

/// Virtual hosts: the new ones, or of those that are broken the last good form, if there was one.
fn fragments<'h>(
    leaves: &Leaves,
    configuration: &str,
    hosts: impl IntoIterator<Item = &'h VirtualHost>,
    last_good: Option<&Part>,
    refused: &mut Vec<Refused>,
) -> Vec<Option<Fragment>> {
    let wanted: Vec<(Key, &VirtualHost)> = hosts.into_iter().map(|host| (Key::of("virtual host", host), host)).collect();
    let make = |host: &&VirtualHost, out: &mut Vec<u8>| {
        virtual_host::encode(host, out);
        host.sources()
    };
    let made = leaves.fragments(VIRTUAL_HOSTS, virtual_host::TYPE_NAME, &wanted, make);
    let good = |(made, (_, host)): (Result<Fragment, _>, &(Key, &VirtualHost))| {
        made.map_or_else(
            |violations| {
                let known = last_good.and_then(|p| p.hosts.iter().find(|h| named(&h.fragment).name == host.name));
                let name = format!("{configuration}/{}", host.name).into();
                refused.push(Refused { type_url: TypeUrl::Route, name, violations, replaced: known.is_some() });
                known.map(|h| h.fragment.clone())
            },
            Some,
        )
    };
    made.into_iter().zip(&wanted).map(good).collect()
}

/// Which VirtualServices differ, if they differ in what they do with requests alone; `None` if the lists are others.
fn changed_inside(old: &EgressScope, new: &EgressScope) -> Option<Vec<usize>> {
    let (old, new) = (&old.virtual_services, &new.virtual_services);
    if Arc::ptr_eq(old, new) {
        return Some(Vec::new());
    }
    if old.len() != new.len() {
        return None;
    }
    let outside = |a: &Rules, b: &Rules| {
        a.hosts == b.hosts
            && a.gateways == b.gateways
            && a.http.is_empty() == b.http.is_empty()
            && (&a.meta.name, &a.meta.namespace) == (&b.meta.name, &b.meta.namespace)
    };
    let mut changed = Vec::new();
    for (i, (a, b)) in old.iter().zip(new.iter()).enumerate() {
        if !Arc::ptr_eq(a, b) {
            changed.push(i);
            if !outside(a, b) {
                return None;
            }
        }
    }
    Some(changed)
}

fn named(fragment: &Fragment) -> Named {
    Named::decode(payload(fragment.bytes())).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use pilotfish_model::Kind;
    use pilotfish_model::name::ObjectId;

    use super::*;

    fn host(name: &str, domains: &[&str]) -> VirtualHost {
        let source = RouteSource::Refuse { name: "no".into() };
        let domains = domains.iter().map(|d| (*d).to_owned()).collect();
        let service = Some(ObjectId::new(Kind::Service, "shop", name));
        VirtualHost {
            name: name.to_owned(),
            domains,
            routes: vec![source],
            require_tls: false,
            attempt_count: true,
            service,
            session: None,
            catch_all_last: false,
        }
    }

    #[test]
    fn a_broken_virtual_host_keeps_its_last_good_form_and_harms_no_other() {
        let leaves = Leaves::default();
        let mut refused = Vec::new();
        let mut of = |host: &VirtualHost, last_good: Option<&Part>| fragment(&leaves, "80", host, last_good, &mut refused);
        let good = of(&host("a", &["a.example"]), None).unwrap();
        assert_eq!(good.sources().iter().map(|s| &**s).collect::<Vec<_>>(), ["Service/shop/a"]);
        let hosts = vec![HostPart { fragment: good.clone(), rules: None, service: None }];
        let resource = virtual_host::configuration("80", [good.clone()]);
        let before = Part { name: "80".into(), hosts, by_rules: None, resource };
        // A virtual host without a name to answer to is refused by Envoy.
        assert_eq!(of(&host("a", &[]), Some(&before)).unwrap().bytes(), good.bytes());
        assert!(of(&host("b", &[]), Some(&before)).is_none());
        assert_ne!(of(&host("a", &["b.example"]), Some(&before)).unwrap().bytes(), good.bytes());
        let told: Vec<_> = refused.iter().map(|r| (&*r.name, r.replaced, r.violations.len())).collect();
        assert_eq!(told, [("80/a", true, 1), ("80/b", false, 1)]);
    }
}
