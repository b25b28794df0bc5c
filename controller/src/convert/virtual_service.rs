//! VirtualService.

use std::collections::HashMap;

use base64::Engine as _;
use pilotfish_crds::networking::Destination as ApiDestination;
use pilotfish_crds::networking::virtual_service as api;
use pilotfish_model::VirtualService;
use pilotfish_model::matching::StringMatch;
use pilotfish_model::name::Host;
use pilotfish_model::virtual_service::{
    AbortStatus, Body, CorsPolicy, Delegate, Destination, DirectResponse, FaultAbort, FaultDelay, GRPC_STATUS, GatewayRef,
    HeaderOperations, HeaderOps, HttpDestination, HttpFault, HttpMatch, HttpMirror, HttpRedirect, HttpRetry, HttpRewrite, HttpRoute,
    L4Match, RedirectPort, RegexRewrite, Share, TcpDestination, TcpRoute, TlsMatch, TlsRoute,
};

use super::fields::{Path, Scope, labels, optional, strs};

pub(super) fn convert(scope: &mut Scope<'_>, spec: &api::VirtualServiceSpec) -> VirtualService {
    let root = Path::SPEC;
    let hosts_path = root.field("hosts");
    let gateways = gateways(scope, &root.field("gateways"), &spec.gateways);
    let gateways = if gateways.is_empty() { vec![GatewayRef::Mesh] } else { gateways };
    if spec.http.is_empty() && spec.tls.is_empty() && spec.tcp.is_empty() {
        scope.error(&root.field("http"), "one of http, tls and tcp must be given");
    }
    if spec.hosts.is_empty() && !(spec.tls.is_empty() && spec.tcp.is_empty()) {
        scope.error(&hosts_path, "may only be empty for delegates, which have http routes alone");
    }
    if gateways.contains(&GatewayRef::Mesh) && spec.hosts.iter().any(|h| h == "*") {
        scope.error(&hosts_path, "the host * is not allowed for the mesh gateway");
    }
    let http = each(scope, &root.field("http"), &spec.http, http_route);
    unreachable(scope, &root.field("http"), &http);
    VirtualService {
        hosts: spec.hosts.iter().enumerate().map(|(i, h)| scope.host(&hosts_path.index(i), h)).collect(),
        visibility: scope.visibility(&root.field("exportTo"), &spec.export_to),
        http,
        tls: each(scope, &root.field("tls"), &spec.tls, tls_route),
        tcp: each(scope, &root.field("tcp"), &spec.tcp, tcp_route),
        meta: scope.meta_without_labels(),
        gateways,
    }
}

/// Warns of rules that no request ever comes to: one before them takes everything, or all that they ask for.
fn unreachable(scope: &mut Scope<'_>, path: &Path<'_>, rules: &[HttpRoute]) {
    let nothing = HttpMatch::default();
    let asked = |m: &HttpMatch| {
        let slash = |m: &StringMatch| matches!(m, StringMatch::Prefix(p) if &**p == "/");
        let uri = m.uri.clone().filter(|u| !slash(u));
        HttpMatch { name: nothing.name.clone(), stat_prefix: nothing.stat_prefix.clone(), uri, ..m.clone() }
    };
    // By the first rule that asks for it; an object may have thousands.
    let mut taken: HashMap<HttpMatch, usize> = HashMap::new();
    for (i, rule) in rules.iter().enumerate() {
        let matches: Vec<HttpMatch> =
            if rule.matches.is_empty() { vec![nothing.clone()] } else { rule.matches.iter().map(asked).collect() };
        let by = |m: &HttpMatch| taken.get(&nothing).into_iter().chain(taken.get(m)).min().copied();
        let takers: Option<Vec<usize>> = matches.iter().map(by).collect();
        if let Some(last) = takers.and_then(|t| t.into_iter().max()) {
            scope.warning(&path.index(i), format!("is never reached: {} takes all that it matches", path.index(last)));
        }
        // What a delegate does not match goes on to the next rule.
        if rule.delegate.is_none() {
            for m in matches {
                taken.entry(m).or_insert(i);
            }
        }
    }
}

/// Converts a list, giving each entry its path.
fn each<A, T>(scope: &mut Scope<'_>, path: &Path<'_>, list: &[A], f: impl Fn(&mut Scope<'_>, &Path<'_>, &A) -> T) -> Vec<T> {
    list.iter().enumerate().map(|(i, a)| f(scope, &path.index(i), a)).collect()
}

fn gateways(scope: &mut Scope<'_>, path: &Path<'_>, names: &[String]) -> Vec<GatewayRef> {
    each(scope, path, names, |scope, path, name| match name.split_once('/') {
        _ if name == "mesh" => GatewayRef::Mesh,
        Some((".", gateway)) => GatewayRef::Gateway { namespace: scope.namespace().into(), name: gateway.into() },
        Some((namespace, gateway)) if !gateway.contains('/') => GatewayRef::Gateway { namespace: namespace.into(), name: gateway.into() },
        Some(_) => {
            scope.error(path, format!("{name:?} is neither name nor namespace/name"));
            GatewayRef::Mesh
        }
        // Old spelling: gateways by the DNS name of a Service that they would have.
        None => match name.split_once('.') {
            Some((gateway, rest)) => {
                GatewayRef::Gateway { namespace: rest.split('.').next().unwrap_or_default().into(), name: gateway.into() }
            }
            None => GatewayRef::Gateway { namespace: scope.namespace().into(), name: name.as_str().into() },
        },
    })
}

fn http_route(scope: &mut Scope<'_>, path: &Path<'_>, r: &api::HttpRoute) -> HttpRoute {
    let actions = [r.redirect.is_some(), r.direct_response.is_some(), r.delegate.is_some(), !r.route.is_empty()];
    match actions.iter().filter(|a| **a).count() {
        0 => scope.error(path, "one of route, redirect, directResponse and delegate must be given"),
        1 => {}
        _ => scope.error(path, "route, redirect, directResponse and delegate exclude each other"),
    }
    HttpRoute {
        name: r.name.as_str().into(),
        matches: each(scope, &path.field("match"), &r.matches, http_match),
        route: http_destinations(scope, &path.field("route"), &r.route),
        redirect: r.redirect.as_ref().map(|x| Box::new(redirect(scope, &path.field("redirect"), x))),
        direct_response: r.direct_response.as_ref().map(|x| Box::new(direct_response(scope, &path.field("directResponse"), x))),
        delegate: r.delegate.as_ref().map(|d| Delegate {
            namespace: optional(&d.namespace).unwrap_or_else(|| scope.namespace().into()),
            name: d.name.as_str().into(),
        }),
        rewrite: r.rewrite.as_ref().map(|x| Box::new(rewrite(scope, &path.field("rewrite"), x))),
        timeout: scope.duration(&path.field("timeout"), &r.timeout),
        retries: r.retries.as_ref().map(|x| Box::new(retry(scope, &path.field("retries"), x))),
        fault: r.fault.as_ref().map(|x| Box::new(fault(scope, &path.field("fault"), x))),
        mirrors: mirrors(scope, path, r),
        cors: r.cors_policy.as_ref().map(|x| Box::new(cors(scope, &path.field("corsPolicy"), x))),
        headers: r.headers.as_ref().and_then(headers),
    }
}

fn http_match(scope: &mut Scope<'_>, path: &Path<'_>, m: &api::HttpMatchRequest) -> HttpMatch {
    let mut one = |name, m: &Option<api::StringMatch>| m.as_ref().and_then(|m| scope.string_match(&path.field(name), m));
    let (uri, scheme, method, authority) =
        (one("uri", &m.uri), one("scheme", &m.scheme), one("method", &m.method), one("authority", &m.authority));
    HttpMatch {
        name: m.name.as_str().into(),
        uri,
        scheme,
        method,
        authority,
        headers: scope.matches(&path.field("headers"), &m.headers),
        without_headers: scope.matches(&path.field("withoutHeaders"), &m.without_headers),
        query_params: scope.matches(&path.field("queryParams"), &m.query_params),
        ignore_uri_case: m.ignore_uri_case,
        port: m.port.map(|p| p.0).filter(|p| *p > 0),
        source_labels: labels(&m.source_labels),
        source_namespace: optional(&m.source_namespace),
        gateways: gateways(scope, &path.field("gateways"), &m.gateways),
        stat_prefix: m.stat_prefix.as_str().into(),
    }
}

fn destination(scope: &mut Scope<'_>, path: &Path<'_>, d: &Option<ApiDestination>) -> Destination {
    let Some(d) = d else {
        scope.error(path, "is missing");
        return Destination { host: Host::new(""), subset: "".into(), port: None };
    };
    let port = d.port.map(|p| scope.port(&path.field("port").field("number"), p.number));
    let host = path.field("host");
    if d.host == "*" {
        scope.error(&host, "must name one service");
    }
    Destination { host: scope.host(&host, &d.host), subset: d.subset.as_str().into(), port }
}

fn http_destinations(scope: &mut Scope<'_>, path: &Path<'_>, list: &[api::HttpRouteDestination]) -> Vec<HttpDestination> {
    let found: Vec<_> = each(scope, path, list, |scope, path, d| HttpDestination {
        destination: destination(scope, &path.field("destination"), &d.destination),
        weight: scope.positive(&path.field("weight"), d.weight).unwrap_or(0),
        headers: d.headers.as_ref().and_then(headers),
    });
    if found.len() > 1 && found.iter().all(|d| d.weight == 0) {
        scope.error(path, "the weights of several destinations must not all be 0");
    }
    found
}

/// `None` if nothing is to do.
fn headers(h: &api::Headers) -> Option<Box<HeaderOperations>> {
    let ops = |o: &Option<api::HeaderOperations>| {
        let Some(o) = o else { return HeaderOps::default() };
        let pairs =
            |m: &std::collections::BTreeMap<String, String>| m.iter().map(|(k, v)| (k.as_str().into(), v.as_str().into())).collect();
        HeaderOps { set: pairs(&o.set), add: pairs(&o.add), remove: strs(&o.remove) }
    };
    let operations = HeaderOperations { request: ops(&h.request), response: ops(&h.response) };
    (!operations.is_empty()).then(|| Box::new(operations))
}

fn redirect(scope: &mut Scope<'_>, path: &Path<'_>, r: &api::HttpRedirect) -> HttpRedirect {
    if r.port.is_some() && r.derive_port.is_some() {
        scope.error(path, "port and derivePort exclude each other");
    }
    let derived = r.derive_port.map(|d| match d {
        api::RedirectPortSelection::FromProtocolDefault => RedirectPort::ProtocolDefault,
        api::RedirectPortSelection::FromRequestPort => RedirectPort::Request,
    });
    let code = match r.redirect_code.0 {
        0 => 301,
        n @ 300..=399 => n as u16,
        other => {
            scope.error(&path.field("redirectCode"), format!("{other} is not a redirection"));
            301
        }
    };
    HttpRedirect {
        uri: r.uri.as_str().into(),
        prefix_rewrite: r.prefix_rewrite.as_deref().map(Into::into),
        authority: r.authority.as_str().into(),
        scheme: r.scheme.as_str().into(),
        port: r.port.map(|p| RedirectPort::Number(p.0)).or(derived),
        code,
    }
}

fn direct_response(scope: &mut Scope<'_>, path: &Path<'_>, r: &api::HttpDirectResponse) -> DirectResponse {
    let status = u16::try_from(r.status.0).ok().filter(|s| (200..=599).contains(s)).unwrap_or_else(|| {
        scope.error(&path.field("status"), format!("{} is not an HTTP status", r.status.0));
        200
    });
    let body_path = path.field("body");
    let body = r.body.as_ref().and_then(|b| match (&b.string, &b.bytes) {
        (Some(text), None) => Some(Body::Text(text.as_str().into())),
        (None, Some(bytes)) => match base64::engine::general_purpose::STANDARD.decode(bytes) {
            Ok(bytes) => Some(Body::Bytes(bytes)),
            Err(e) => {
                scope.error(&body_path.field("bytes"), format!("is not base64: {e}"));
                None
            }
        },
        (None, None) => None,
        (Some(_), Some(_)) => {
            scope.error(&body_path, "string and bytes exclude each other");
            None
        }
    });
    DirectResponse { status, body }
}

fn rewrite(scope: &mut Scope<'_>, path: &Path<'_>, r: &api::HttpRewrite) -> HttpRewrite {
    if !r.uri.is_empty() && r.uri_regex_rewrite.is_some() {
        scope.error(path, "uri and uriRegexRewrite exclude each other");
    }
    let regex_path = path.field("uriRegexRewrite");
    let uri_regex = r.uri_regex_rewrite.as_ref().and_then(|x| {
        let pattern = scope.pattern(&regex_path.field("match"), &x.pattern)?;
        Some(RegexRewrite { pattern, rewrite: x.rewrite.as_str().into() })
    });
    HttpRewrite { uri: r.uri.as_str().into(), authority: r.authority.as_str().into(), uri_regex }
}

fn retry(scope: &mut Scope<'_>, path: &Path<'_>, r: &api::HttpRetry) -> HttpRetry {
    HttpRetry {
        attempts: scope.positive(&path.field("attempts"), r.attempts).unwrap_or(0),
        per_try_timeout: scope.duration(&path.field("perTryTimeout"), &r.per_try_timeout),
        retry_on: r.retry_on.as_str().into(),
        retry_remote_localities: r.retry_remote_localities,
        retry_ignore_previous_hosts: r.retry_ignore_previous_hosts,
        backoff: scope.duration(&path.field("backoff"), &r.backoff),
    }
}

fn fault(scope: &mut Scope<'_>, path: &Path<'_>, f: &api::HttpFaultInjection) -> HttpFault {
    HttpFault {
        delay: f.delay.as_ref().and_then(|d| fault_delay(scope, &path.field("delay"), d)),
        abort: f.abort.as_ref().and_then(|a| fault_abort(scope, &path.field("abort"), a)),
    }
}

fn fault_delay(scope: &mut Scope<'_>, path: &Path<'_>, d: &api::FaultDelay) -> Option<FaultDelay> {
    let old = d.percent.map(|p| Share::whole(p.0.into()));
    let percentage = scope.percent(&path.field("percentage"), &d.percentage).or(old);
    if d.fixed_delay.is_none() {
        scope.error(&path.field("fixedDelay"), "is missing");
    }
    Some(FaultDelay { fixed: scope.duration(&path.field("fixedDelay"), &d.fixed_delay)?, percentage })
}

/// gRPC's status names, by number.
fn fault_abort(scope: &mut Scope<'_>, path: &Path<'_>, a: &api::FaultAbort) -> Option<FaultAbort> {
    let percentage = scope.percent(&path.field("percentage"), &a.percentage);
    let status = match (&a.http_status, &a.grpc_status) {
        (Some(n), None) => match u16::try_from(n.0) {
            Ok(n @ 200..=599) => AbortStatus::Http(n),
            _ => {
                scope.error(&path.field("httpStatus"), format!("{} is not an HTTP status", n.0));
                return None;
            }
        },
        (None, Some(name)) => match GRPC_STATUS.iter().position(|s| s == name).or_else(|| name.parse().ok().filter(|n| *n < 17)) {
            Some(n) => AbortStatus::Grpc(n as u32),
            None => {
                scope.error(&path.field("grpcStatus"), format!("{name:?} is not a gRPC status"));
                return None;
            }
        },
        _ => {
            scope.error(path, "one of httpStatus and grpcStatus must be given");
            return None;
        }
    };
    Some(FaultAbort { status, percentage })
}

fn mirrors(scope: &mut Scope<'_>, path: &Path<'_>, r: &api::HttpRoute) -> Vec<HttpMirror> {
    if r.mirror.is_some() && !r.mirrors.is_empty() {
        scope.error(path, "mirror and mirrors exclude each other");
    }
    let old = r.mirror_percent.map(|p| Share::whole(p.0.into()));
    let percentage = scope.percent(&path.field("mirrorPercentage"), &r.mirror_percentage).or(old);
    let mut found: Vec<_> = each(scope, &path.field("mirrors"), &r.mirrors, |scope, path, m| HttpMirror {
        destination: destination(scope, &path.field("destination"), &m.destination),
        percentage: scope.percent(&path.field("percentage"), &m.percentage),
    });
    if r.mirror.is_some() {
        found.insert(0, HttpMirror { destination: destination(scope, &path.field("mirror"), &r.mirror), percentage });
    }
    found
}

fn cors(scope: &mut Scope<'_>, path: &Path<'_>, c: &api::CorsPolicy) -> CorsPolicy {
    let origins = path.field("allowOrigins");
    let mut allow_origins: Vec<StringMatch> = c.allow_origin.iter().map(|o| StringMatch::Exact(o.as_str().into())).collect();
    for (i, m) in c.allow_origins.iter().enumerate() {
        // Here a pattern of `*` is no presence; nothing given matches nothing.
        match (&m.regex, scope.string_match(&origins.index(i), m)) {
            (_, Some(m)) => allow_origins.push(m),
            (Some(all), None) if all == "*" => allow_origins.extend(scope.pattern(&origins.index(i), ".*").map(StringMatch::Regex)),
            _ => {}
        }
    }
    CorsPolicy {
        allow_origins,
        allow_methods: strs(&c.allow_methods),
        allow_headers: strs(&c.allow_headers),
        expose_headers: strs(&c.expose_headers),
        max_age: scope.duration(&path.field("maxAge"), &c.max_age),
        allow_credentials: c.allow_credentials,
        forward_unmatched_preflights: c.unmatched_preflights.and_then(|p| match p {
            api::UnmatchedPreflights::Unspecified => None,
            api::UnmatchedPreflights::Forward => Some(true),
            api::UnmatchedPreflights::Ignore => Some(false),
        }),
    }
}

fn tcp_destinations(scope: &mut Scope<'_>, path: &Path<'_>, list: &[api::RouteDestination]) -> Vec<TcpDestination> {
    if list.is_empty() {
        scope.error(path, "must not be empty");
    }
    each(scope, path, list, |scope, path, d| TcpDestination {
        destination: destination(scope, &path.field("destination"), &d.destination),
        weight: scope.positive(&path.field("weight"), d.weight).unwrap_or(0),
    })
}

fn tls_route(scope: &mut Scope<'_>, path: &Path<'_>, r: &api::TlsRoute) -> TlsRoute {
    let matches_path = path.field("match");
    if r.matches.is_empty() {
        scope.error(&matches_path, "must not be empty");
    }
    let matches = each(scope, &matches_path, &r.matches, |scope, path, m| {
        let hosts = path.field("sniHosts");
        if m.sni_hosts.is_empty() {
            scope.error(&hosts, "must not be empty");
        }
        for (i, h) in m.sni_hosts.iter().enumerate() {
            scope.check_host(&hosts.index(i), h);
        }
        TlsMatch {
            sni_hosts: m.sni_hosts.iter().map(|h| Host::new(h)).collect(),
            l4: L4Match {
                destination_subnets: subnets(scope, path, &m.destination_subnets),
                port: m.port.map(|p| p.0).filter(|p| *p > 0),
                source_labels: labels(&m.source_labels),
                source_namespace: optional(&m.source_namespace),
                gateways: gateways(scope, &path.field("gateways"), &m.gateways),
            },
        }
    });
    TlsRoute { matches, route: tcp_destinations(scope, &path.field("route"), &r.route) }
}

fn tcp_route(scope: &mut Scope<'_>, path: &Path<'_>, r: &api::TcpRoute) -> TcpRoute {
    let matches = each(scope, &path.field("match"), &r.matches, |scope, path, m| L4Match {
        destination_subnets: subnets(scope, path, &m.destination_subnets),
        port: m.port.map(|p| p.0).filter(|p| *p > 0),
        source_labels: labels(&m.source_labels),
        source_namespace: optional(&m.source_namespace),
        gateways: gateways(scope, &path.field("gateways"), &m.gateways),
    });
    TcpRoute { matches, route: tcp_destinations(scope, &path.field("route"), &r.route) }
}

fn subnets(scope: &mut Scope<'_>, path: &Path<'_>, list: &[String]) -> Vec<pilotfish_model::Str> {
    for (i, text) in list.iter().enumerate() {
        if super::service_entry::address(text).is_none() {
            scope.error(&path.field("destinationSubnets").index(i), format!("{text:?} is neither an address nor a range"));
        }
    }
    strs(list)
}
