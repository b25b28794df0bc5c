//! EnvoyFilter: patches of what proxies get.
//!
//! What a patch puts in is Envoy's own configuration, which this crate does not know: it stays text until the translator reads
//! it by Envoy's descriptors.

use std::collections::BTreeMap;

use crate::attachment::{Attachment, attached};
use crate::matching::Pattern;
use crate::name::{Meta, Str};

/// An object.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct EnvoyFilter {
    /// Identity and age.
    pub meta: Meta,
    /// Workloads.
    pub attachment: Attachment,
    /// Lower ones are applied first.
    pub priority: i32,
    /// Its patches that proxies get, in order.
    pub patches: Vec<Patch>,
}

attached!(EnvoyFilter);

/// One change of the configuration that a proxy gets.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Patch {
    /// Where in the object it stands.
    pub index: usize,
    /// What is changed.
    pub apply_to: ApplyTo,
    /// How.
    pub operation: Operation,
    /// Resources for which traffic; `None`: any.
    pub context: Option<PatchContext>,
    /// Which proxies.
    pub proxy: ProxyMatch,
    /// Which resources, and where in them; `None`: all of the context.
    pub matching: Option<Matching>,
    /// What is put in: JSON of Envoy's message, keys sorted. `None` if there is nothing to put in.
    pub value: Option<Str>,
}

/// What a patch changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum ApplyTo {
    Listener,
    ListenerFilter,
    FilterChain,
    NetworkFilter,
    HttpFilter,
    RouteConfiguration,
    VirtualHost,
    HttpRoute,
    Cluster,
    ExtensionConfig,
}

/// How a patch changes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Operation {
    /// Fields that the value sets take its values; lists and maps grow.
    Merge,
    /// The same, but lists are replaced.
    MergeAndReplaceList,
    /// At the end of the list.
    Add,
    /// Taken out.
    Remove,
    /// Before the first match; without a match to look for, at the start.
    InsertBefore,
    /// After the first match; without a match to look for, at the end.
    InsertAfter,
    /// At the start.
    InsertFirst,
    /// In the place of the first match.
    Replace,
}

/// For which traffic resources are.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[allow(missing_docs)]
pub enum PatchContext {
    SidecarInbound,
    SidecarOutbound,
    Gateway,
}

/// Which proxies get a patch.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ProxyMatch {
    /// Found anywhere in `ISTIO_VERSION`; a proxy without version has no match.
    pub version: Option<Pattern>,
    /// Texts in its metadata.
    pub metadata: BTreeMap<Str, Str>,
}

/// Which part of which resources. Empty texts and zeros match all.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum Matching {
    Listener(ListenerMatch),
    Routes(RoutesMatch),
    Cluster(ClusterMatch),
}

/// Parts of listeners.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ListenerMatch {
    /// Its port; in listeners for all captured traffic, that of a chain.
    pub port: u32,
    /// Its name.
    pub name: Str,
    /// Name of a listener filter.
    pub listener_filter: Str,
    /// Its chains.
    pub chain: Option<ChainMatch>,
}

/// Parts of filter chains.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ChainMatch {
    /// Its name.
    pub name: Str,
    /// One of its server names.
    pub sni: Str,
    /// Its transport protocol.
    pub transport: Str,
    /// Application protocols that it must all have.
    pub alpn: Vec<Str>,
    /// Its destination port.
    pub port: u32,
    /// Name of a network filter.
    pub filter: Option<Str>,
    /// Name of an HTTP filter in it.
    pub sub_filter: Option<Str>,
}

/// Parts of route configurations.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RoutesMatch {
    /// Port of a sidecar's, or of a server behind a gateway's.
    pub port: u32,
    /// Name of the gateway server's port.
    pub port_name: Str,
    /// `namespace/name`.
    pub gateway: Str,
    /// Name of the route configuration.
    pub name: Str,
    /// Its virtual hosts.
    pub host: Option<HostMatch>,
}

/// Virtual hosts.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct HostMatch {
    /// Its name.
    pub name: Str,
    /// One of its domains.
    pub domain: Str,
    /// Its routes.
    pub route: Option<RouteMatch>,
}

/// Routes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct RouteMatch {
    /// Its name.
    pub name: Str,
    /// What it does.
    pub action: Option<RouteAction>,
}

/// What a route does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum RouteAction {
    Route,
    Redirect,
    DirectResponse,
}

/// Clusters.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct ClusterMatch {
    /// Port of the service, or of the workload for inbound traffic.
    pub port: u32,
    /// Host of the service.
    pub service: Str,
    /// Subset.
    pub subset: Str,
    /// Name; nothing else counts beside it.
    pub name: Str,
}
