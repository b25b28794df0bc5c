//! EnvoyFilter. A patch that can have no effect is left out with a warning: the others of its object count.

use pilotfish_crds::networking::EnvoyFilterSpec;
use pilotfish_crds::networking::envoy_filter as api;
use pilotfish_model::EnvoyFilter;
use pilotfish_model::attachment::Attachment;
use pilotfish_model::envoy_filter::{
    ApplyTo, ChainMatch, ClusterMatch, HostMatch, ListenerMatch, Matching, Operation, Patch, PatchContext, ProxyMatch, RouteAction,
    RouteMatch, RoutesMatch,
};
use pilotfish_model::matching::Pattern;
use pilotfish_model::name::Str;

use super::attachment::attachment;
use super::fields::{Path, Scope, labels};

/// Patches of one object. Each is looked for in every resource of its kind, so they must be few enough to look at.
const MAX_PATCHES: usize = 1000;
/// Length of a value, in bytes of JSON: it may end up in every listener.
const MAX_VALUE: usize = 1 << 20;

pub(super) fn convert(scope: &mut Scope<'_>, spec: &EnvoyFilterSpec) -> EnvoyFilter {
    let path = Path::SPEC.field("configPatches");
    if spec.config_patches.len() > MAX_PATCHES {
        scope.error(&path, format!("has {} patches; at most {MAX_PATCHES} are accepted", spec.config_patches.len()));
    }
    if spec.config_patches.is_empty() {
        scope.warning(&path, "has no effect: there is no patch");
    }
    let patches = spec.config_patches.iter().take(MAX_PATCHES).enumerate();
    EnvoyFilter {
        meta: scope.meta_without_labels(),
        attachment: Attachment {
            selector: spec.workload_selector.as_ref().map(|s| labels(&s.labels)).unwrap_or_default(),
            ..attachment(None, None, &spec.target_refs)
        },
        priority: spec.priority.0,
        patches: patches.filter_map(|(index, given)| patch(scope, &path.index(index), index, given)).collect(),
    }
}

/// `None` if it can have no effect.
fn patch(scope: &mut Scope<'_>, path: &Path<'_>, index: usize, given: &api::ConfigPatch) -> Option<Patch> {
    let Some(body) = &given.patch else {
        scope.warning(&path.field("patch"), "is missing");
        return None;
    };
    let apply_to = apply_to(scope, path, given.apply_to)?;
    let patch_path = path.field("patch");
    let operation = operation(scope, &patch_path, apply_to, body.operation)?;
    let value = body.value.as_ref().filter(|_| operation != Operation::Remove);
    if value.is_none() && operation != Operation::Remove {
        scope.warning(&patch_path.field("value"), "is missing");
        return None;
    }
    let value = value.and_then(|v| serde_json::to_string(v).ok());
    if let Some(value) = value.as_ref().filter(|v| v.len() > MAX_VALUE) {
        scope.warning(&patch_path.field("value"), format!("has {} bytes; at most {MAX_VALUE} are accepted", value.len()));
        return None;
    }
    let unconditional = api::ObjectMatch::default();
    let matches = given.matches.as_ref().unwrap_or(&unconditional);
    let match_path = path.field("match");
    let context = match matches.context {
        api::PatchContext::Any => None,
        api::PatchContext::SidecarInbound => Some(PatchContext::SidecarInbound),
        api::PatchContext::SidecarOutbound => Some(PatchContext::SidecarOutbound),
        api::PatchContext::Gateway => Some(PatchContext::Gateway),
        api::PatchContext::Waypoint => {
            scope.warning(&match_path.field("context"), "waypoints are not patched");
            return None;
        }
    };
    let matching = matching(scope, &match_path, apply_to, matches)?;
    Some(Patch {
        index,
        apply_to,
        operation,
        context,
        proxy: proxy(scope, &match_path.field("proxy"), matches.proxy.as_ref())?,
        matching,
        value: value.map(Str::from),
    })
}

fn apply_to(scope: &mut Scope<'_>, path: &Path<'_>, given: api::ApplyTo) -> Option<ApplyTo> {
    Some(match given {
        api::ApplyTo::Listener => ApplyTo::Listener,
        api::ApplyTo::ListenerFilter => ApplyTo::ListenerFilter,
        api::ApplyTo::FilterChain => ApplyTo::FilterChain,
        api::ApplyTo::NetworkFilter => ApplyTo::NetworkFilter,
        api::ApplyTo::HttpFilter => ApplyTo::HttpFilter,
        api::ApplyTo::RouteConfiguration => ApplyTo::RouteConfiguration,
        api::ApplyTo::VirtualHost => ApplyTo::VirtualHost,
        api::ApplyTo::HttpRoute => ApplyTo::HttpRoute,
        api::ApplyTo::Cluster => ApplyTo::Cluster,
        api::ApplyTo::ExtensionConfig => ApplyTo::ExtensionConfig,
        api::ApplyTo::Bootstrap => {
            scope.warning(&path.field("applyTo"), "has no effect: what proxies start with is not patched");
            return None;
        }
        api::ApplyTo::Invalid => {
            scope.warning(&path.field("applyTo"), "does not say what to patch");
            return None;
        }
    })
}

fn operation(scope: &mut Scope<'_>, path: &Path<'_>, apply_to: ApplyTo, given: api::Operation) -> Option<Operation> {
    use Operation::{Add, InsertAfter, InsertBefore, InsertFirst, Merge, MergeAndReplaceList, Remove, Replace};
    let operation = match given {
        api::Operation::Merge => Merge,
        api::Operation::MergeAndReplaceList => MergeAndReplaceList,
        api::Operation::Add => Add,
        api::Operation::Remove => Remove,
        api::Operation::InsertBefore => InsertBefore,
        api::Operation::InsertAfter => InsertAfter,
        api::Operation::InsertFirst => InsertFirst,
        api::Operation::Replace => Replace,
        api::Operation::Invalid => {
            scope.warning(&path.field("operation"), "is missing");
            return None;
        }
    };
    // Where the order says nothing, all insertions are the same.
    let ordered = matches!(apply_to, ApplyTo::ListenerFilter | ApplyTo::NetworkFilter | ApplyTo::HttpFilter | ApplyTo::HttpRoute);
    let operation = if !ordered && matches!(operation, InsertBefore | InsertAfter | InsertFirst) { Add } else { operation };
    let possible = match (apply_to, operation) {
        (ApplyTo::RouteConfiguration, op) => matches!(op, Merge | MergeAndReplaceList),
        (ApplyTo::ExtensionConfig, op) => op == Add,
        (ApplyTo::ListenerFilter | ApplyTo::NetworkFilter | ApplyTo::HttpFilter | ApplyTo::VirtualHost, Replace) => true,
        (_, Replace) => false,
        _ => true,
    };
    if !possible {
        scope.warning(&path.field("operation"), "has no effect on what is patched");
    }
    possible.then_some(operation)
}

fn proxy(scope: &mut Scope<'_>, path: &Path<'_>, given: Option<&api::ProxyMatch>) -> Option<ProxyMatch> {
    let Some(given) = given else { return Some(ProxyMatch::default()) };
    let version = match given.proxy_version.as_str() {
        "" => None,
        text => match Pattern::new(text) {
            Ok(pattern) if pattern.search().is_some() => Some(pattern),
            other => {
                let why = other.map_or_else(|e| e.to_string(), |_| "is too large a pattern".to_owned());
                scope.warning(&path.field("proxyVersion"), why);
                return None;
            }
        },
    };
    Some(ProxyMatch { version, metadata: labels(&given.metadata) })
}

/// `None` if it looks for something else than is patched; else what to look for, if anything.
fn matching(scope: &mut Scope<'_>, path: &Path<'_>, apply_to: ApplyTo, given: &api::ObjectMatch) -> Option<Option<Matching>> {
    let (name, found) = match given {
        api::ObjectMatch { listener: Some(m), .. } => ("listener", Matching::Listener(listener(m))),
        api::ObjectMatch { route_configuration: Some(m), .. } => ("routeConfiguration", Matching::Routes(routes(m))),
        api::ObjectMatch { cluster: Some(m), .. } => ("cluster", Matching::Cluster(cluster(m))),
        _ => return Some(None),
    };
    let fits = match (apply_to, &found) {
        (ApplyTo::ExtensionConfig, _) => true,
        (ApplyTo::Cluster, m) => matches!(m, Matching::Cluster(_)),
        (ApplyTo::RouteConfiguration | ApplyTo::VirtualHost | ApplyTo::HttpRoute, m) => matches!(m, Matching::Routes(_)),
        (_, m) => matches!(m, Matching::Listener(_)),
    };
    if !fits {
        scope.warning(&path.field(name), "is no match for what is patched");
    }
    fits.then_some(Some(found))
}

fn listener(given: &api::ListenerMatch) -> ListenerMatch {
    let chain = given.filter_chain.as_ref().map(|c| ChainMatch {
        name: c.name.as_str().into(),
        sni: c.sni.as_str().into(),
        transport: c.transport_protocol.as_str().into(),
        alpn: c.application_protocols.split(',').filter(|p| !p.is_empty()).map(Str::from).collect(),
        port: c.destination_port.0,
        filter: c.filter.as_ref().map(|f| f.name.as_str().into()),
        sub_filter: c.filter.as_ref().and_then(|f| f.sub_filter.as_ref()).map(|s| s.name.as_str().into()),
    });
    ListenerMatch {
        port: given.port_number.0,
        name: given.name.as_str().into(),
        listener_filter: given.listener_filter.as_str().into(),
        chain,
    }
}

fn routes(given: &api::RouteConfigurationMatch) -> RoutesMatch {
    let action = |action| match action {
        api::RouteAction::Any => None,
        api::RouteAction::Route => Some(RouteAction::Route),
        api::RouteAction::Redirect => Some(RouteAction::Redirect),
        api::RouteAction::DirectResponse => Some(RouteAction::DirectResponse),
    };
    RoutesMatch {
        port: given.port_number.0,
        port_name: given.port_name.as_str().into(),
        gateway: given.gateway.as_str().into(),
        name: given.name.as_str().into(),
        host: given.vhost.as_ref().map(|h| HostMatch {
            name: h.name.as_str().into(),
            domain: h.domain_name.as_str().into(),
            route: h.route.as_ref().map(|r| RouteMatch { name: r.name.as_str().into(), action: action(r.action) }),
        }),
    }
}

fn cluster(given: &api::ClusterMatch) -> ClusterMatch {
    ClusterMatch {
        port: given.port_number.0,
        service: given.service.as_str().into(),
        subset: given.subset.as_str().into(),
        name: given.name.as_str().into(),
    }
}
