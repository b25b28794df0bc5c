//! What a client would refuse in a patched resource. The rules of Envoy's protos hold for all clients; what Envoy checks beyond
//! them is looked for where patches are strict.

use std::collections::HashSet;

use pilotfish_envoy::any::unpack;
use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pilotfish_envoy::pb::envoy::config::core::v3::TypedExtensionConfig;
use pilotfish_envoy::pb::envoy::config::listener::v3::Listener;
use pilotfish_envoy::pb::envoy::config::route::v3::RouteConfiguration;
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpConnectionManager;
use pilotfish_envoy::validate;
use prost::{Message, Name};

use super::extension::config_type;
use super::filter::Named;
use crate::extensions::HTTP_CONNECTION_MANAGER;

/// A resource that can be patched.
pub(super) trait Sound: Message + Name + Default + Clone {
    /// What Envoy checks beyond the rules of its protos.
    fn refused(&self) -> Option<String> {
        None
    }

    /// What it is called.
    fn name(&mut self) -> &mut String;
}

/// Why a client would refuse it, if it would.
pub(super) fn check<M: Sound>(message: &M, strict: bool) -> Result<(), String> {
    validate::validate(&M::full_name(), &message.encode_to_vec())
        .map_err(|violations| violations.first().map(ToString::to_string).unwrap_or_default())?;
    match message.refused() {
        Some(why) if strict => Err(why),
        _ => Ok(()),
    }
}

impl Sound for Cluster {
    fn name(&mut self) -> &mut String {
        &mut self.name
    }
}

impl Sound for TypedExtensionConfig {
    fn name(&mut self) -> &mut String {
        &mut self.name
    }
}

impl Sound for RouteConfiguration {
    fn refused(&self) -> Option<String> {
        let (mut names, mut domains) = (HashSet::new(), HashSet::new());
        for host in &self.virtual_hosts {
            if !names.insert(&host.name) {
                return Some(format!("two virtual hosts are called {:?}", host.name));
            }
            if let Some(domain) = host.domains.iter().find(|d| !domains.insert(*d)) {
                return Some(format!("two virtual hosts have the domain {domain:?}"));
            }
        }
        None
    }

    fn name(&mut self) -> &mut String {
        &mut self.name
    }
}

impl Sound for Listener {
    fn refused(&self) -> Option<String> {
        let mut matches = HashSet::new();
        if self.filter_chains.iter().any(|c| !matches.insert(c.filter_chain_match.as_ref().map(Message::encode_to_vec).unwrap_or_default()))
        {
            return Some("two filter chains match the same connections".to_owned());
        }
        let chains = self.filter_chains.iter().chain(&self.default_filter_chain);
        let managers = chains.flat_map(|c| &c.filters).filter(|f| f.name == HTTP_CONNECTION_MANAGER);
        let is_router = |config: &_| config_type(config) == "envoy.extensions.filters.http.router.v3.Router";
        for manager in managers.filter_map(|f| unpack::<HttpConnectionManager>(f.config()?)) {
            let routers: Vec<bool> = manager.http_filters.iter().map(|f| f.config().is_some_and(is_router)).collect();
            if routers.iter().rev().skip(1).any(|is| *is) {
                return Some("no HTTP filter may come after the router".to_owned());
            }
        }
        None
    }

    fn name(&mut self) -> &mut String {
        &mut self.name
    }
}
