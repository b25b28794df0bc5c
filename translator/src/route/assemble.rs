//! Route configurations as ropes of virtual hosts that scopes share.

use std::sync::Arc;

use pilotfish_envoy::{Fragment, Resource, TypeUrl};
use pilotfish_model::name::Str;
use prost::Message;

use super::configurations;
use super::virtual_host::{self, VIRTUAL_HOSTS, VirtualHost};
use crate::context::Context;
use crate::leaf::{Key, Leaves, payload};
use crate::refused::Refused;

/// How the route configurations of a view are put together.
#[derive(Clone, Default)]
pub(crate) struct Assembly {
    parts: Arc<[Part]>,
}

/// One configuration.
struct Part {
    name: Str,
    hosts: Vec<Fragment>,
}

/// What the name of a virtual host is read by.
#[derive(Clone, PartialEq, Message)]
struct Named {
    #[prost(string, tag = "1")]
    name: String,
}

/// All configurations of a scope. `before`: whose virtual hosts stand in for broken ones.
pub(crate) fn assemble(
    context: &Context<'_>,
    leaves: &Leaves,
    checked: bool,
    before: Option<&Assembly>,
    refused: &mut Vec<Refused>,
) -> (Assembly, Vec<Resource>) {
    let mut parts = Vec::new();
    let mut resources = Vec::new();
    for configuration in configurations(context) {
        let last_good = before.and_then(|b| b.parts.iter().find(|p| p.name == configuration.name));
        let host = |host: &VirtualHost| fragment(leaves, checked, &configuration.name, host, last_good, refused);
        let hosts: Vec<Fragment> = configuration.hosts.iter().filter_map(host).collect();
        resources.push(virtual_host::configuration(&configuration.name, hosts.iter().cloned()));
        parts.push(Part { name: configuration.name, hosts });
    }
    (Assembly { parts: parts.into() }, resources)
}

fn fragment(
    leaves: &Leaves,
    checked: bool,
    configuration: &str,
    host: &VirtualHost,
    last_good: Option<&Part>,
    refused: &mut Vec<Refused>,
) -> Option<Fragment> {
    let key = Key::of("virtual host", host);
    match leaves.fragment(VIRTUAL_HOSTS, &key, checked, || (virtual_host::build(host), host.sources())) {
        Ok(fragment) => Some(fragment),
        Err(violations) => {
            let known = last_good.and_then(|p| p.hosts.iter().find(|f| name_of(f) == host.name)).cloned();
            let name = format!("{configuration}/{}", host.name).into();
            refused.push(Refused { type_url: TypeUrl::Route, name, violations, replaced: known.is_some() });
            known
        }
    }
}

fn name_of(fragment: &Fragment) -> String {
    Named::decode(payload(fragment.bytes())).map(|n| n.name).unwrap_or_default()
}
