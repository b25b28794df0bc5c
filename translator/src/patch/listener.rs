//! Patches of listeners: of the listener, its filters, its chains, their network filters, and HTTP filters in these.

use pilotfish_envoy::pb::envoy::config::core::v3::{address, socket_address::PortSpecifier};
use pilotfish_envoy::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, ListenerFilter};
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager::RouteSpecifier;
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::{HttpConnectionManager, HttpFilter};
use pilotfish_envoy::{any, any::unpack, merge::Lists, merge::MergeError};
use pilotfish_model::envoy_filter::{ApplyTo, ChainMatch, ListenerMatch, Matching, Operation, PatchContext};
use pilotfish_model::name::Str;

use super::cluster::merged_socket;
use super::compile::Ready;
use super::filter::Named;
use super::run::Run;
use super::{list, merge, routes};
use crate::extensions::HTTP_CONNECTION_MANAGER;
use crate::naming;

/// Things of which there may be patches inside a listener.
pub(super) const KINDS: &[ApplyTo] =
    &[ApplyTo::Listener, ApplyTo::ListenerFilter, ApplyTo::FilterChain, ApplyTo::NetworkFilter, ApplyTo::HttpFilter];

/// Applies all patches of a listener but additions.
pub(super) fn patch(run: &Run<'_>, mut listener: Listener) -> Option<Listener> {
    if run.context == PatchContext::SidecarInbound {
        inline_routes(run, &mut listener);
    }
    for (at, ready) in run.of_kind(ApplyTo::Listener) {
        if !is_listener(ready, &listener) {
            continue;
        }
        match (ready.patch.operation, merge::lists(ready.patch.operation)) {
            (Operation::Remove, _) => {
                run.applied(at);
                return None;
            }
            (_, Some(lists)) => run.note(at, merge::into(&mut listener, ready, lists)),
            _ => {}
        }
    }
    listener_filters(run, &mut listener);
    let had_chains = !listener.filter_chains.is_empty() || listener.default_filter_chain.is_some();
    chains(run, &mut listener);
    // There is no such thing as a listener that leads nowhere.
    let has_chains = !listener.filter_chains.is_empty() || listener.default_filter_chain.is_some();
    (has_chains || !had_chains).then_some(listener)
}

/// Routes of inbound connections are part of their listener.
fn inline_routes(run: &Run<'_>, listener: &mut Listener) {
    let kinds = [ApplyTo::RouteConfiguration, ApplyTo::VirtualHost, ApplyTo::HttpRoute];
    if kinds.iter().all(|kind| run.of_kind(*kind).next().is_none()) {
        return;
    }
    let chains = listener.filter_chains.iter_mut().chain(&mut listener.default_filter_chain);
    for filter in chains.flat_map(|c| &mut c.filters).filter(|f| f.name == HTTP_CONNECTION_MANAGER) {
        let Some(config) = filter.parts().1 else { continue };
        let Some(mut manager) = unpack::<HttpConnectionManager>(config) else { continue };
        if let Some(RouteSpecifier::RouteConfig(configuration)) = &mut manager.route_specifier {
            let old = std::mem::take(configuration);
            *configuration = routes::patch(run, old.clone());
            if *configuration != old {
                *config = any(&manager);
            }
        }
    }
}

fn listener_filters(run: &Run<'_>, listener: &mut Listener) {
    for (at, ready) in run.of_kind(ApplyTo::ListenerFilter) {
        if !is_listener(ready, listener) {
            continue;
        }
        let wanted = listener_match(ready).map(|m| &m.listener_filter).filter(|name| !name.is_empty());
        let is_wanted = |f: &ListenerFilter| wanted.is_some_and(|name| **name == *f.name);
        let filters = &mut listener.listener_filters;
        match merge::lists(ready.patch.operation) {
            None => {
                let found: Option<&dyn Fn(&ListenerFilter) -> bool> = if wanted.is_some() { Some(&is_wanted) } else { None };
                if list::apply(filters, ready.patch.operation, found, || ready.value()) {
                    run.applied(at);
                }
            }
            Some(lists) => filters.iter_mut().filter(|f| is_wanted(f)).for_each(|f| merged_filter(run, at, f, &ready.value(), lists, true)),
        }
    }
}

fn chains(run: &Run<'_>, listener: &mut Listener) {
    let old = std::mem::take(&mut listener.filter_chains);
    let new: Vec<FilterChain> = old.into_iter().filter_map(|c| chain(run, listener, c)).collect();
    listener.default_filter_chain = listener.default_filter_chain.take().and_then(|c| chain(run, listener, c));
    listener.filter_chains = new;
    for (at, ready) in run.of_kind(ApplyTo::FilterChain).filter(|(_, p)| p.patch.operation == Operation::Add) {
        if is_listener(ready, listener) {
            listener.filter_chains.push(ready.value());
            run.applied(at);
        }
    }
}

fn chain(run: &Run<'_>, listener: &Listener, mut chain: FilterChain) -> Option<FilterChain> {
    for (at, ready) in run.of_kind(ApplyTo::FilterChain) {
        if !is_listener(ready, listener) || !is_chain(ready, listener, &chain) {
            continue;
        }
        match (ready.patch.operation, merge::lists(ready.patch.operation)) {
            (Operation::Remove, _) => {
                run.applied(at);
                return None;
            }
            (_, Some(lists)) => run.note(at, merged_chain(&mut chain, ready, lists)),
            _ => {}
        }
    }
    network_filters(run, listener, &mut chain);
    Some(chain)
}

/// A transport socket of the same name is all that a patch with one is about.
fn merged_chain(chain: &mut FilterChain, ready: &Ready, lists: Lists) -> Result<(), MergeError> {
    let patch = ready.value::<FilterChain>();
    match (&mut chain.transport_socket, &patch.transport_socket) {
        (Some(target), Some(patch)) if target.name == patch.name => merged_socket(target, patch, lists),
        _ => merge::into(chain, ready, lists),
    }
}

fn network_filters(run: &Run<'_>, listener: &Listener, chain: &mut FilterChain) {
    let concerned = |kind: ApplyTo, chain: &FilterChain| -> Vec<(usize, &Ready)> {
        run.of_kind(kind).filter(|(_, p)| is_listener(p, listener) && is_chain(p, listener, chain)).collect()
    };
    let patches = concerned(ApplyTo::NetworkFilter, chain);
    for (at, ready) in &patches {
        let wanted = filter_match(ready);
        let is_wanted = |f: &Filter| wanted.is_some_and(|name| **name == *f.name);
        let found: Option<&dyn Fn(&Filter) -> bool> = if wanted.is_some() { Some(&is_wanted) } else { None };
        if list::apply(&mut chain.filters, ready.patch.operation, found, || ready.value()) {
            run.applied(*at);
        }
    }
    let in_managers = concerned(ApplyTo::HttpFilter, chain);
    for filter in &mut chain.filters {
        for (at, ready) in &patches {
            if let Some(lists) = merge::lists(ready.patch.operation)
                && filter_match(ready).is_none_or(|name| **name == *filter.name)
            {
                merged_filter(run, *at, filter, &ready.value(), lists, filter_match(ready).is_some());
            }
        }
        if filter.name == HTTP_CONNECTION_MANAGER {
            http_filters(run, &in_managers, filter);
        }
    }
}

fn http_filters(run: &Run<'_>, patches: &[(usize, &Ready)], filter: &mut Filter) {
    let of_filter = |ready: &Ready| filter_match(ready).is_none_or(|name| **name == *filter.name);
    let patches: Vec<&(usize, &Ready)> = patches.iter().filter(|(_, p)| of_filter(p)).collect();
    if patches.is_empty() {
        return;
    }
    let Some(config) = filter.parts().1 else { return };
    let Some(mut manager) = unpack::<HttpConnectionManager>(config) else { return };
    for (at, ready) in &patches {
        let wanted = sub_filter_match(ready);
        let is_wanted = |f: &HttpFilter| wanted.is_some_and(|name| **name == *f.name);
        let found: Option<&dyn Fn(&HttpFilter) -> bool> = if wanted.is_some() { Some(&is_wanted) } else { None };
        if list::apply(&mut manager.http_filters, ready.patch.operation, found, || ready.value()) {
            run.applied(*at);
        }
    }
    for http_filter in &mut manager.http_filters {
        for (at, ready) in &patches {
            if let Some(lists) = merge::lists(ready.patch.operation)
                && sub_filter_match(ready).is_none_or(|name| **name == *http_filter.name)
            {
                merged_filter(run, *at, http_filter, &ready.value(), lists, sub_filter_match(ready).is_some());
            }
        }
    }
    *config = any(&manager);
}

/// Merges name and config. `named`: the patch says which filter is meant; else all of its type are.
fn merged_filter<T: Named>(run: &Run<'_>, at: usize, target: &mut T, patch: &T, lists: Lists, named: bool) {
    let (name, Some(config)) = target.parts() else { return };
    let outcome = match patch.config() {
        Some(patch) => merge::config(config, patch, lists),
        None if named => Ok(()),
        None => return,
    };
    if !named && matches!(outcome, Err(MergeError::OtherType { .. })) {
        return;
    }
    if outcome.is_ok() && !patch.name().is_empty() {
        patch.name().clone_into(name);
    }
    run.note(at, outcome);
}

fn listener_match(ready: &Ready) -> Option<&ListenerMatch> {
    match &ready.patch.matching {
        Some(Matching::Listener(m)) => Some(m),
        _ => None,
    }
}

fn chain_match(ready: &Ready) -> Option<&ChainMatch> {
    listener_match(ready)?.chain.as_ref()
}

fn filter_match(ready: &Ready) -> Option<&Str> {
    chain_match(ready)?.filter.as_ref()
}

fn sub_filter_match(ready: &Ready) -> Option<&Str> {
    filter_match(ready).and(chain_match(ready)?.sub_filter.as_ref())
}

/// Takes connections that were meant for any port.
fn is_virtual(listener: &Listener) -> bool {
    listener.name == naming::VIRTUAL_INBOUND || listener.name == naming::VIRTUAL_OUTBOUND
}

fn is_listener(ready: &Ready, listener: &Listener) -> bool {
    let Some(ListenerMatch { port, name, .. }) = listener_match(ready) else { return true };
    if !name.is_empty() && **name != *listener.name {
        return false;
    }
    // In these, ports are those of chains.
    let by_chain = ready.patch.apply_to != ApplyTo::Listener && is_virtual(listener);
    *port == 0 || by_chain || own_port(listener) == Some(*port)
}

fn own_port(listener: &Listener) -> Option<u32> {
    let address::Address::SocketAddress(socket) = listener.address.as_ref()?.address.as_ref()? else { return None };
    match socket.port_specifier {
        Some(PortSpecifier::PortValue(port)) => Some(port),
        _ => Some(0),
    }
}

fn is_chain(ready: &Ready, listener: &Listener, chain: &FilterChain) -> bool {
    let Some(wanted) = listener_match(ready) else { return true };
    let matching = chain.filter_chain_match.as_ref();
    let port = matching.and_then(|m| m.destination_port);
    if is_virtual(listener) && wanted.port != 0 && port.unwrap_or(0) != wanted.port {
        return false;
    }
    let Some(ChainMatch { name, sni, transport, alpn, port: chain_port, .. }) = &wanted.chain else { return true };
    (name.is_empty() || **name == *chain.name)
        && (sni.is_empty() || matching.is_some_and(|m| m.server_names.iter().any(|s| **s == **sni)))
        && (transport.is_empty() || matching.is_some_and(|m| *m.transport_protocol == **transport))
        && alpn.iter().all(|wanted| matching.is_some_and(|m| m.application_protocols.iter().any(|p| **p == **wanted)))
        && (*chain_port == 0 || port == Some(*chain_port))
}
