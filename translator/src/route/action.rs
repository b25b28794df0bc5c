//! One Envoy route out of one rule.

use std::collections::BTreeMap;

use pilotfish_envoy::pb::envoy::config::core::v3::{DataSource, RuntimeFractionalPercent, data_source};
use pilotfish_envoy::pb::envoy::config::route::v3::redirect_action::{PathRewriteSpecifier, RedirectResponseCode, SchemeRewriteSpecifier};
use pilotfish_envoy::pb::envoy::config::route::v3::route_action::{ClusterSpecifier, HostRewriteSpecifier, RequestMirrorPolicy};
use pilotfish_envoy::pb::envoy::config::route::v3::route_match::PathSpecifier;
use pilotfish_envoy::pb::envoy::config::route::v3::weighted_cluster::{ClusterWeight, cluster_weight};
use pilotfish_envoy::pb::envoy::config::route::v3::{
    Decorator, DirectResponseAction, RedirectAction, Route, RouteAction, RouteMatch, WeightedCluster, route,
};
use pilotfish_envoy::pb::envoy::r#type::matcher::v3::RegexMatchAndSubstitute;
use pilotfish_envoy::{Metadata, any};
use pilotfish_model::virtual_service::{
    Body, DirectResponse, HttpDestination, HttpMirror, HttpRedirect, HttpRetry, HttpRoute, RedirectPort, Share,
};

use super::retry::RetryExtensions;
use super::rule::{AppliedRule, RuleSet, Target};
use super::{config_path, filters, hash, headers, matching, proto_duration, retry};
use crate::extensions::{HTTP_CORS, HTTP_FAULT};
use crate::metadata;

/// What holds for all routes of a class.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct RouteDefaults {
    /// Retries where a rule says nothing; `None`: the built-in default.
    pub retry: Option<HttpRetry>,
    /// What of retrying the client can do.
    pub retry_extensions: RetryExtensions,
    /// The client has the fault filter.
    pub fault: bool,
    /// The client has the CORS filter.
    pub cors: bool,
    /// Mirrored requests are told from others by their host.
    pub shadow_suffix: bool,
    /// The host that the client asked for is kept in `x-forwarded-host`.
    pub append_x_forwarded_host: bool,
}

/// Builds one.
pub fn route(set: &RuleSet, applied: &AppliedRule) -> Route {
    let rule = set.route(applied);
    let condition = set.condition(applied);
    let r#match = matching::route_match(condition);
    let mut operations = headers::operations(rule.headers.as_deref());
    let action = if let Some(redirect) = &rule.redirect {
        redirect_action(redirect, set).map(route::Action::Redirect)
    } else if let Some(response) = &rule.direct_response {
        Some(route::Action::DirectResponse(direct_response(response)))
    } else {
        if let ([only], [_]) = (rule.route.as_slice(), &*applied.destinations) {
            operations = operations.then(headers::operations(only.headers.as_deref()));
        }
        let authority = rule.rewrite.as_ref().map(|r| str::to_owned(&r.authority)).filter(|a| !a.is_empty());
        let reachable = matches!(rule.route.as_slice(), [_]) || rule.route.iter().any(|d| d.weight > 0);
        reachable.then(|| route::Action::Route(forward(set, applied, authority.or(operations.authority.take()))))
    };
    let meta = &set.virtual_service.meta;
    let name = match condition.map(|c| &*c.name).filter(|n| !n.is_empty()) {
        Some(condition) => [&*rule.name, ".", condition].concat(),
        None => str::to_owned(&rule.name),
    };
    // Envoy refuses a whole configuration for one route that leads nowhere.
    let action = action.unwrap_or(route::Action::DirectResponse(DirectResponseAction { status: 500, ..Default::default() }));
    Route {
        name,
        decorator: Some(Decorator { operation: operation(set, rule, applied, &r#match), ..Default::default() }),
        r#match: Some(r#match),
        metadata: Some(Metadata::texts(&[(metadata::ISTIO, &[("config", &config_path(&meta.namespace, &meta.name))])])),
        stat_prefix: condition.map(|c| str::to_owned(&c.stat_prefix)).unwrap_or_default(),
        typed_per_filter_config: per_filter(set, rule),
        request_headers_to_add: operations.request_add,
        request_headers_to_remove: operations.request_remove,
        response_headers_to_add: operations
            .response_add
            .into_iter()
            .chain(set.http3.then(|| headers::alternative_service(set.port)))
            .collect(),
        response_headers_to_remove: operations.response_remove,
        action: Some(action),
        ..Default::default()
    }
}

fn per_filter(set: &RuleSet, rule: &HttpRoute) -> BTreeMap<String, pilotfish_envoy::pb::google::protobuf::Any> {
    let fault = rule.fault.as_ref().filter(|_| set.defaults.fault).map(|f| (HTTP_FAULT.to_owned(), any(&filters::fault(f))));
    let cors = rule.cors.as_ref().filter(|_| set.defaults.cors).map(|c| (HTTP_CORS.to_owned(), any(&filters::cors(c))));
    fault.into_iter().chain(cors).collect()
}

/// What a trace calls the request: the destination where there is one, else the rule's object.
fn operation(set: &RuleSet, rule: &HttpRoute, applied: &AppliedRule, m: &RouteMatch) -> String {
    let (path, rest) = match &m.path_specifier {
        Some(PathSpecifier::Prefix(p) | PathSpecifier::PathSeparatedPrefix(p)) => (p.as_str(), "*"),
        Some(PathSpecifier::Path(p)) => (p.as_str(), ""),
        Some(PathSpecifier::SafeRegex(r)) => (r.regex.as_str(), ""),
        _ => ("/*", ""),
    };
    let forwarded = rule.redirect.is_none() && rule.direct_response.is_none();
    let (host, port) = match &*applied.destinations {
        [only] if forwarded => (only.host.as_str(), only.port),
        _ => (&*set.virtual_service.meta.name, set.port),
    };
    [host, ":", &port.to_string(), path, rest].concat()
}

// `max_stream_duration` does more than its deprecated predecessor: it ends streams that are well.
#[allow(deprecated)]
fn forward(set: &RuleSet, applied: &AppliedRule, authority: Option<String>) -> RouteAction {
    let rule = set.route(applied);
    let timeout = Some(proto_duration(rule.timeout.unwrap_or_default()));
    let hashed = matches!(&*applied.destinations, [Target { hash: Some(_), .. }]);
    let retries = rule.retries.as_deref().or(set.defaults.retry.as_ref());
    let mut action = RouteAction {
        timeout,
        max_grpc_timeout: timeout,
        retry_policy: retry::encoded(retries, hashed, set.defaults.retry_extensions),
        request_mirror_policies: rule
            .mirrors
            .iter()
            .zip(&*applied.mirrors)
            .filter_map(|(m, cluster)| mirror(m, cluster, set.defaults.shadow_suffix))
            .collect(),
        append_x_forwarded_host: set.defaults.append_x_forwarded_host,
        host_rewrite_specifier: authority.map(HostRewriteSpecifier::HostRewriteLiteral),
        ..Default::default()
    };
    if let Some(rewrite) = &rule.rewrite {
        match &rewrite.uri_regex {
            Some(regex) => {
                let pattern = Some(matching::regex(&regex.pattern));
                action.regex_rewrite = Some(RegexMatchAndSubstitute { pattern, substitution: str::to_owned(&regex.rewrite) });
            }
            None => action.prefix_rewrite = str::to_owned(&rewrite.uri),
        }
    }
    match (rule.route.as_slice(), &*applied.destinations) {
        ([_], [only]) => {
            action.cluster_specifier = Some(ClusterSpecifier::Cluster(str::to_owned(&only.cluster)));
            action.hash_policy = only.hash.iter().filter_map(hash::policy).collect();
        }
        (several, targets) => {
            // One without weight gets nothing.
            let weighted = || several.iter().zip(targets).filter(|(d, _)| d.weight > 0);
            let clusters = weighted().map(|(d, t)| cluster_weight(d, t)).collect();
            action.cluster_specifier = Some(ClusterSpecifier::WeightedClusters(WeightedCluster { clusters, ..Default::default() }));
            action.hash_policy = weighted().filter_map(|(_, t)| hash::policy(t.hash.as_ref()?)).collect();
        }
    }
    action
}

fn cluster_weight(destination: &HttpDestination, target: &Target) -> ClusterWeight {
    let operations = headers::operations(destination.headers.as_deref());
    ClusterWeight {
        name: str::to_owned(&target.cluster),
        weight: Some(destination.weight),
        request_headers_to_add: operations.request_add,
        request_headers_to_remove: operations.request_remove,
        response_headers_to_add: operations.response_add,
        response_headers_to_remove: operations.response_remove,
        host_rewrite_specifier: operations.authority.map(cluster_weight::HostRewriteSpecifier::HostRewriteLiteral),
        ..Default::default()
    }
}

fn mirror(mirror: &HttpMirror, cluster: &str, shadow_suffix: bool) -> Option<RequestMirrorPolicy> {
    if mirror.percentage.is_some_and(Share::is_none) {
        return None;
    }
    let share = mirror.percentage.map_or_else(filters::all, filters::share);
    Some(RequestMirrorPolicy {
        cluster: cluster.to_owned(),
        runtime_fraction: Some(RuntimeFractionalPercent { default_value: Some(share), ..Default::default() }),
        trace_sampled: Some(false),
        disable_shadow_host_suffix_append: !shadow_suffix,
        ..Default::default()
    })
}

fn redirect_action(redirect: &HttpRedirect, set: &RuleSet) -> Option<RedirectAction> {
    let code = match redirect.code {
        0 | 301 => RedirectResponseCode::MovedPermanently,
        302 => RedirectResponseCode::Found,
        303 => RedirectResponseCode::SeeOther,
        307 => RedirectResponseCode::TemporaryRedirect,
        308 => RedirectResponseCode::PermanentRedirect,
        _ => return None,
    };
    let scheme = match &*redirect.scheme {
        "" if set.tls => "https",
        "" => "http",
        scheme => scheme,
    };
    let port = match redirect.port {
        // Envoy cannot take it from the request, but this is the configuration of one port.
        Some(RedirectPort::Request) => set.port,
        Some(RedirectPort::Number(port)) => port,
        Some(RedirectPort::ProtocolDefault) | None => 0,
    };
    let implied = matches!((port, scheme), (80, "http") | (443, "https"));
    Some(RedirectAction {
        host_redirect: str::to_owned(&redirect.authority),
        port_redirect: if implied { 0 } else { port.into() },
        response_code: code.into(),
        scheme_rewrite_specifier: (!redirect.scheme.is_empty())
            .then(|| SchemeRewriteSpecifier::SchemeRedirect(str::to_owned(&redirect.scheme))),
        path_rewrite_specifier: Some(match &redirect.prefix_rewrite {
            Some(prefix) => PathRewriteSpecifier::PrefixRewrite(str::to_owned(prefix)),
            None => PathRewriteSpecifier::PathRedirect(str::to_owned(&redirect.uri)),
        }),
        ..Default::default()
    })
}

fn direct_response(response: &DirectResponse) -> DirectResponseAction {
    let body = response.body.as_ref().map(|body| {
        let specifier = match body {
            Body::Text(text) => data_source::Specifier::InlineString(str::to_owned(text)),
            Body::Bytes(bytes) => data_source::Specifier::InlineBytes(bytes.clone().into()),
        };
        DataSource { specifier: Some(specifier), ..Default::default() }
    });
    DirectResponseAction { status: response.status.into(), body, ..Default::default() }
}
