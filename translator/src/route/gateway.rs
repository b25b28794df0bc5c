//! Route configurations of a gateway: VirtualServices of all servers that share a route name, merged by host.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use pilotfish_model::gateway::{GatewayHost, GatewayServer};
use pilotfish_model::name::Host;
use pilotfish_model::virtual_service::{GatewayRef, VirtualService};

use super::Configuration;
use super::action::RouteDefaults;
use super::rule::{self, Place, RuleSet};
use super::session::Session;
use super::virtual_host::{RouteSource, VirtualHost};
use crate::context::Context;
use crate::gateway::{self, MergedServer, RouteServers};
use crate::naming;
use crate::world::Rules as Objects;

/// All of a class.
pub(super) fn configurations(context: &Context<'_>, defaults: &Arc<RouteDefaults>) -> Vec<Configuration> {
    let rules = Rules::new(context, defaults);
    let merged = gateway::merged(context);
    let by_name = merged.by_route_name();
    by_name
        .into_iter()
        .map(|(name, RouteServers { http3, servers })| Configuration {
            name,
            hosts: virtual_hosts(&rules, &servers, http3).into_iter().map(Into::into).collect(),
            sources: servers.iter().map(|s| s.object()).collect(),
            by_rules: None,
        })
        .collect()
}

/// VirtualServices by the gateway that they are attached to.
struct Rules<'a> {
    context: &'a Context<'a>,
    defaults: &'a Arc<RouteDefaults>,
    attached: HashMap<&'a GatewayRef, Vec<&'a Arc<Objects>>>,
}

impl<'a> Rules<'a> {
    fn new(context: &'a Context<'a>, defaults: &'a Arc<RouteDefaults>) -> Self {
        let mut attached: HashMap<&GatewayRef, Vec<&Arc<Objects>>> = HashMap::new();
        for v in context.scope.egress.iter().flat_map(|e| &*e.virtual_services).filter(|v| !v.http.is_empty()) {
            for gateway in &v.gateways {
                attached.entry(gateway).or_default().push(v);
            }
        }
        Rules { context, defaults, attached }
    }

    fn applied(&self, v: &Arc<Objects>, gateway: &GatewayRef, server: &GatewayServer, http3: bool) -> Option<Arc<RuleSet>> {
        let single_port = |host: &Host| self.context.scope.service(host).map(|s| &**s);
        let place = Place { gateway, port: server.port, tls: server.tls.is_some(), http3, defaults: self.defaults, single_port };
        rule::applied(self.context, v, &place)
    }
}

/// A host with what was found for it so far.
struct Entry {
    port: u16,
    routes: Vec<RouteSource>,
    require_tls: bool,
}

fn virtual_hosts(rules: &Rules<'_>, servers: &[&MergedServer], http3: bool) -> Vec<VirtualHost> {
    let mut by_host: BTreeMap<Host, Entry> = BTreeMap::new();
    let mut sets: HashMap<(GatewayRef, *const Objects), Option<Arc<RuleSet>>> = HashMap::new();
    for merged in servers {
        let (server, gateway) = (merged.server(), merged.gateway_ref());
        let redirect = server.tls.as_ref().is_some_and(|t| t.https_redirect);
        let new = || Entry { port: server.port, routes: Vec::new(), require_tls: false };
        for v in rules.attached.get(&gateway).into_iter().flatten() {
            let hosts = intersection(server, v);
            if hosts.is_empty() {
                continue;
            }
            // Servers of one Gateway share what the first of them made, so that their hosts can share a virtual host.
            let made = sets.entry((gateway.clone(), Arc::as_ptr(v))).or_insert_with(|| rules.applied(v, &gateway, server, http3));
            let Some(set) = made else { continue };
            for host in hosts {
                let entry = by_host.entry(host).or_insert_with(new);
                entry.routes.push(RouteSource::Rules(set.clone()));
                entry.require_tls |= redirect;
            }
        }
        if redirect {
            for host in &server.hosts {
                let host = redirected(rules.context, host);
                by_host.entry(host).or_insert_with(new).require_tls = true;
            }
        }
    }
    if by_host.is_empty() {
        return servers.first().map(|s| blackhole(s.server().port)).into_iter().collect();
    }
    collapse(rules.context, by_host)
}

/// The host that a server redirects even if nothing is routed for it. The reference keeps the namespace of a host that has
/// one, so that no request ever matches it; those who compare its output expect it there.
fn redirected(context: &Context<'_>, host: &GatewayHost) -> Host {
    match &host.namespace {
        Some(namespace) if context.class.is_istio() => Host::new(&format!("{namespace}/{}", host.host)),
        _ => host.host.clone(),
    }
}

/// Hosts that both the server and the rules speak for: of a wildcard and what it covers the narrower one.
fn intersection(server: &GatewayServer, v: &VirtualService) -> Vec<Host> {
    let mut hosts: Vec<Host> = Vec::new();
    for open in server.hosts.iter().filter(|h| h.namespace.as_ref().is_none_or(|ns| *ns == v.meta.namespace)) {
        for host in &v.hosts {
            let narrower = if host.covers(&open.host) {
                &open.host
            } else if open.host.covers(host) {
                host
            } else {
                continue;
            };
            if !hosts.contains(narrower) {
                hosts.push(narrower.clone());
            }
        }
    }
    hosts
}

/// One virtual host for hosts with equal routes, named by the most specific.
fn collapse(context: &Context<'_>, by_host: BTreeMap<Host, Entry>) -> Vec<VirtualHost> {
    let (features, attempt_count) = (&context.config().features, super::attempt_count(context));
    let mut entries: Vec<(Host, Entry)> = by_host.into_iter().collect();
    entries.sort_by(|a, b| a.0.cmp_specific(&b.0));
    let mut hosts: Vec<VirtualHost> = Vec::new();
    let mut known: HashMap<(Vec<RuleKey>, bool, Option<Session>), usize> = HashMap::new();
    for (host, entry) in entries {
        let session = context.scope.service(&host).and_then(|s| Session::of(features, context.class, s));
        let key = (entry.routes.iter().map(rule_key).collect::<Vec<_>>(), entry.require_tls, session.clone());
        match known.get(&key).filter(|_| features.collapsed_hosts) {
            Some(at) => hosts[*at].domains.push(host.as_str().to_owned()),
            None => {
                known.insert(key, hosts.len());
                hosts.push(VirtualHost {
                    name: naming::host_port(host.as_str(), entry.port),
                    domains: vec![host.as_str().to_owned()],
                    routes: entry.routes,
                    require_tls: entry.require_tls,
                    attempt_count,
                    service: None,
                    session,
                    catch_all_last: true,
                });
            }
        }
    }
    hosts
}

/// Tells sets of rules apart without comparing them deeply: within one configuration a set is made once and shared.
type RuleKey = usize;

fn rule_key(source: &RouteSource) -> RuleKey {
    match source {
        RouteSource::Rules(set) => Arc::as_ptr(set).addr(),
        _ => 0,
    }
}

/// A server that nothing is routed for answers 404.
fn blackhole(port: u16) -> VirtualHost {
    VirtualHost {
        name: naming::host_port("blackhole", port),
        domains: vec!["*".to_owned()],
        routes: Vec::new(),
        require_tls: false,
        attempt_count: false,
        service: None,
        session: None,
        catch_all_last: false,
    }
}
