//! VirtualServices.

use std::collections::{BTreeSet, HashMap};

use pilotfish_model::virtual_service::GRPC_STATUS;

use super::cursor::{At, Findings};
use super::names;

pub(crate) fn virtual_service(f: &mut Findings, spec: &At<'_>, namespace: &str) {
    let delegate = !spec.get("hosts").is_set();
    let gateways = spec.items("gateways");
    if delegate {
        f.require(gateways.is_empty(), &spec.get("gateways"), "delegate virtual service must have no gateways specified");
    }
    for gateway in &gateways {
        gateway_name(f, gateway);
    }
    let in_mesh = gateways.is_empty() || gateways.iter().any(|g| g.text() == Some("mesh"));
    let hosts = spec.items("hosts");
    for host in &hosts {
        let text = host.text().unwrap_or_default();
        if !names::ip(text) {
            f.check(host, names::wildcard_domain(text));
        }
        f.require(text != "*" || !in_mesh, host, "wildcard host * is not allowed for virtual services bound to the mesh gateway");
    }
    for (i, a) in hosts.iter().enumerate() {
        for b in hosts.iter().skip(i + 1) {
            let (a, b) = (a.text().unwrap_or_default(), b.text().unwrap_or_default());
            f.require(!names::overlap(a, b), &spec.get("hosts"), format!("duplicate hosts in virtual service: {a} & {b}"));
        }
    }
    if !spec.get("http").is_set() && !spec.get("tcp").is_set() && !spec.get("tls").is_set() {
        f.error(spec, "http, tcp or tls must be provided in virtual service");
    }
    let http = spec.items("http");
    for (i, route) in http.iter().enumerate() {
        http_route(f, route, delegate);
        if i + 1 < http.len() && !route.get("match").is_set() {
            f.warnings.push(format!("virtualService rule #{i} not used (only the last rule can have no matches)"));
        }
    }
    unused(f, &http);
    for route in spec.items("tls") {
        let matches = route.items("match");
        f.require(!matches.is_empty(), &route.get("match"), "TLS route must have at least one SNI match");
        for m in &matches {
            f.require(m.get("sniHosts").is_set(), &m.get("sniHosts"), "TLS match must have at least one SNI host");
            for sni in m.items("sniHosts") {
                let text = sni.text().unwrap_or_default();
                f.check(&sni, names::wildcard_domain(text));
                let covered = hosts.iter().any(|h| names::overlap(h.text().unwrap_or_default(), text));
                f.require(covered, &sni, format!("SNI host {text:?} is not a compatible subset of any of the virtual service hosts"));
            }
            l4_match(f, m);
        }
        f.require(route.get("route").is_set(), &route.get("route"), "TLS route is required");
        destinations(f, &route, "route");
    }
    for route in spec.items("tcp") {
        for m in route.items("match") {
            l4_match(f, &m);
        }
        f.require(route.get("route").is_set(), &route.get("route"), "TCP route is required");
        destinations(f, &route, "route");
    }
    names::export_to(f, spec, namespace, false, false);
}

fn gateway_name(f: &mut Findings, at: &At<'_>) {
    let text = at.text().unwrap_or_default();
    if let Some((ns, name)) = text.split_once('/') {
        f.require(names::namespace(ns), at, format!("invalid value for namespace: {ns:?}"));
        f.require(names::fqdn(name).is_ok(), at, format!("invalid value for gateway name: {name:?}"));
    } else if text.contains('.') {
        f.check(at, names::fqdn(text));
        f.warning(at, format!("using legacy gatewayName format {text:?}; prefer the <namespace>/<name> format"));
    } else {
        f.require(names::label(text), at, format!("invalid value for gateway name: {text:?}"));
    }
}

fn l4_match(f: &mut Findings, m: &At<'_>) {
    for subnet in m.items("destinationSubnets") {
        let text = subnet.text().unwrap_or_default();
        f.require(names::ip_or_range(text), &subnet, format!("{text} is not a range of addresses"));
    }
    if m.has("port") {
        names::port(f, &m.get("port"));
    }
    names::label_map(f, m, "sourceLabels");
    for gateway in m.items("gateways") {
        gateway_name(f, &gateway);
    }
}

fn http_route(f: &mut Findings, route: &At<'_>, delegate: bool) {
    let delegates = route.has("delegate");
    if delegate {
        f.require(!delegates, &route.get("delegate"), "delegate HTTP route cannot contain delegate");
        for m in route.items("match") {
            let regex = ["uri", "scheme", "method", "authority"].iter().any(|k| m.get(k).has("regex"));
            let in_maps = ["headers", "withoutHeaders", "queryParams"].iter().any(|k| m.fields(k).iter().any(|(_, v)| v.has("regex")));
            f.require(!regex && !in_maps, &m, "delegate HTTP route does not support regex match");
        }
    }
    if delegates && !delegate {
        for key in ["route", "redirect", "directResponse"] {
            f.require(!route.get(key).is_set(), &route.get(key), format!("root HTTP route must not specify {key}"));
        }
    } else {
        let (to, redirect, direct) = (route.get("route").is_set(), route.has("redirect"), route.has("directResponse"));
        f.require(!(to && redirect), route, "HTTP route cannot contain both route and redirect");
        f.require(!(to && direct), route, "HTTP route cannot contain both route and direct_response");
        f.require(!(redirect && direct), route, "HTTP route cannot contain both redirect and direct_response");
        f.require(to || redirect || direct, route, "HTTP route, redirect or direct_response is required");
        f.require(!(redirect && route.has("rewrite")), route, "HTTP route rule cannot contain both rewrite and redirect");
        f.require(!(redirect && route.has("fault")), route, "HTTP route cannot contain both fault and redirect");
    }
    for m in route.items("match") {
        http_match(f, &m);
    }
    redirect(f, route);
    direct_response(f, &route.get("directResponse"));
    rewrite(f, route);
    f.duration(&route.get("timeout"));
    retries(f, &route.get("retries"));
    fault(f, &route.get("fault"));
    cors(f, &route.get("corsPolicy"));
    mirrors(f, route);
    headers(f, &route.get("headers"));
    destinations(f, route, "route");
    for d in route.items("route") {
        headers(f, &d.get("headers"));
    }
    authority(f, route);
}

/// The authority can be set by the rewrite, by the route's headers or by those of all destinations: once.
fn authority(f: &mut Findings, route: &At<'_>) {
    let of = |headers: &At<'_>| {
        let set = headers.get("request");
        let names = set.fields("set");
        names.iter().find(|(k, _)| k.eq_ignore_ascii_case("host") || *k == ":authority").and_then(|(_, v)| v.text().map(str::to_owned))
    };
    let rewrite = route.get("rewrite").str("authority");
    let by_route = of(&route.get("headers"));
    let by_destination = route.items("route").iter().find_map(|d| of(&d.get("headers")));
    let all = [Some(rewrite.to_owned()).filter(|r| !r.is_empty()), by_route, by_destination];
    let set = all.iter().flatten().count();
    f.require(set <= 1, route, "authority header cannot be set multiple times");
}

fn http_match(f: &mut Findings, m: &At<'_>) {
    for key in ["uri", "scheme", "method", "authority"] {
        string_match(f, &m.get(key), false);
    }
    for key in ["headers", "withoutHeaders", "queryParams"] {
        for (name, value) in m.fields(key) {
            header_name(f, &value, name);
            string_match(f, &value, true);
        }
    }
    if m.has("port") {
        names::port(f, &m.get("port"));
    }
    names::label_map(f, m, "sourceLabels");
    for gateway in m.items("gateways") {
        gateway_name(f, &gateway);
    }
}

fn string_match(f: &mut Findings, m: &At<'_>, presence: bool) {
    if !m.exists() {
        return;
    }
    for kind in ["exact", "prefix", "regex"] {
        let at = m.get(kind);
        if let Some(text) = at.text() {
            f.require(!text.is_empty() || kind == "exact", &at, format!("{kind} string match should not be empty"));
            // `*` is an old way to ask for presence.
            if kind == "regex" && !(presence && text == "*") {
                names::regex(f, &at);
            }
        }
    }
}

fn header_name(f: &mut Findings, at: &At<'_>, name: &str) {
    f.require(!name.is_empty(), at, "header name cannot be empty");
    let fine = |c: char| c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~:".contains(c);
    f.require(name.chars().all(fine), at, format!("{name:?} is not a valid header name"));
}

fn headers(f: &mut Findings, at: &At<'_>) {
    for direction in ["request", "response"] {
        let ops = at.get(direction);
        for key in ["set", "add"] {
            for (name, value) in ops.fields(key) {
                header_name(f, &value, name);
                let text = value.text().unwrap_or_default();
                f.require(balanced(text), &value, format!("invalid header configuration. Un-terminated variable expression {text:?}"));
            }
        }
        for name in ops.items("remove") {
            header_name(f, &name, name.text().unwrap_or_default());
        }
    }
}

/// Envoy's variables stand between percent signs; two of them are one that is meant.
fn balanced(text: &str) -> bool {
    let (mut inside, mut depth) = (false, 0i32);
    let mut rest = text.chars().peekable();
    while let Some(c) = rest.next() {
        match c {
            '%' if !inside && rest.peek() == Some(&'%') => drop(rest.next()),
            '%' if depth <= 0 => inside = !inside,
            '(' if inside => depth += 1,
            ')' if inside => depth -= 1,
            _ => {}
        }
    }
    !inside
}

fn redirect(f: &mut Findings, route: &At<'_>) {
    let r = route.get("redirect");
    if !r.exists() {
        return;
    }
    let says = ["uri", "authority", "scheme", "prefixRewrite"].iter().any(|k| r.get(k).is_set()) || r.has("port") || r.has("derivePort");
    f.require(says, &r, "redirect must specify URI, authority, scheme, or port");
    let code = r.get("redirectCode").number().unwrap_or_default();
    f.require(
        code == 0.0 || (300.0..400.0).contains(&code),
        &r.get("redirectCode"),
        format!("{code} is not a valid redirect code, must be 3xx"),
    );
    let scheme = r.str("scheme");
    f.require(
        matches!(scheme, "" | "http" | "https"),
        &r.get("scheme"),
        format!("redirect scheme must be one of http or https, not {scheme}"),
    );
    if r.has("prefixRewrite") {
        f.require(r.str("uri").is_empty(), &r, "redirect may only specify one of uri or prefix_rewrite");
        let all = route.items("match").iter().all(|m| !m.has("uri") || m.get("uri").has("prefix"));
        f.require(all, &r.get("prefixRewrite"), "redirect prefix_rewrite requires all URI matches to use prefix match type");
    }
    if r.has("port") {
        names::port(f, &r.get("port"));
    }
}

fn direct_response(f: &mut Findings, d: &At<'_>) {
    if !d.exists() {
        return;
    }
    let status = d.get("status").number().unwrap_or_default();
    f.require((100.0..600.0).contains(&status), &d.get("status"), format!("HTTP status {status} is not in range 100-599"));
    let body = d.get("body");
    // What is sent as bytes is written in base64, a third longer.
    let size = body.str("string").len().max(body.str("bytes").len() / 4 * 3);
    if size > 1 << 20 {
        f.error(&body, "large direct_responses may impact control plane performance, must be less than 1MB");
    } else if size > 100 << 10 {
        f.warning(&body, "large direct_responses may impact control plane performance");
    }
}

fn rewrite(f: &mut Findings, route: &At<'_>) {
    let r = route.get("rewrite");
    if !r.exists() {
        return;
    }
    let regex = r.get("uriRegexRewrite");
    let uri = r.get("uri").is_set();
    let fine = (uri || regex.is_set() || r.get("authority").is_set()) && !(uri && regex.is_set());
    f.require(
        fine,
        &r,
        "rewrite must specify at least one of URI, UriRegexRewrite, or authority. Only one of URI or UriRegexRewrite may be specified",
    );
    if regex.exists() {
        f.require(
            !regex.str("match").is_empty() && !regex.str("rewrite").is_empty(),
            &regex,
            "UriRegexRewrite requires both Rewrite and Match fields to be specified",
        );
        names::regex(f, &regex.get("match"));
    }
}

const RETRY_ON: &[&str] = &[
    "5xx",
    "gateway-error",
    "reset",
    "reset-before-request",
    "connect-failure",
    "envoy-ratelimited",
    "retriable-4xx",
    "refused-stream",
    "retriable-status-codes",
    "retriable-headers",
    "http3-post-connect-failure",
    "cancelled",
    "deadline-exceeded",
    "internal",
    "resource-exhausted",
    "unavailable",
];

fn retries(f: &mut Findings, r: &At<'_>) {
    if !r.exists() {
        return;
    }
    let attempts = r.get("attempts").number().unwrap_or_default();
    f.require(attempts >= 0.0, &r.get("attempts"), "attempts cannot be negative");
    let configured = ["perTryTimeout", "retryOn", "retryRemoteLocalities", "backoff", "retryIgnorePreviousHosts"].iter().any(|k| r.has(k));
    f.require(!(attempts == 0.0 && configured), r, "http retry policy configured when attempts are set to 0 (disabled)");
    f.duration(&r.get("perTryTimeout"));
    f.duration(&r.get("backoff"));
    let on = r.get("retryOn");
    for policy in on.text().unwrap_or_default().split(',').map(str::trim).filter(|p| !p.is_empty()) {
        let fine = RETRY_ON.contains(&policy) || policy.parse::<u16>().is_ok_and(|c| (100..600).contains(&c));
        f.require(fine, &on, format!("{policy:?} is not a valid retryOn policy"));
    }
}

fn percentage(f: &mut Findings, at: &At<'_>) {
    if at.exists() {
        let n = at.get("value").number().unwrap_or_default();
        f.require(n == 0.0 || (0.0001..=100.0).contains(&n), at, format!("percentage {n} is neither 0.0, nor in range [0.0001, 100.0]"));
    }
}

fn fault(f: &mut Findings, fault: &At<'_>) {
    if !fault.exists() {
        return;
    }
    let (delay, abort) = (fault.get("delay"), fault.get("abort"));
    f.require(delay.exists() || abort.exists(), fault, "HTTP fault injection must have an abort and/or a delay");
    if abort.exists() {
        percentage(f, &abort.get("percentage"));
        let status = abort.get("httpStatus");
        if let Some(n) = status.number() {
            f.require((200.0..600.0).contains(&n), &status, format!("HTTP status {n} is not in range 200-599"));
        }
        let grpc = abort.get("grpcStatus");
        if let Some(text) = grpc.text() {
            f.require(
                GRPC_STATUS.contains(&text.to_ascii_uppercase().replace('-', "_").as_str()),
                &grpc,
                format!("gRPC status {text:?} is not supported"),
            );
        }
        f.require(status.exists() || grpc.exists() || abort.has("http2Error"), &abort, "abort must say with which status");
    }
    if delay.exists() {
        f.within(&delay.get("percent"), 0.0, 100.0);
        percentage(f, &delay.get("percentage"));
        f.require(delay.has("fixedDelay") || delay.has("exponentialDelay"), &delay, "delay must say how long");
        f.duration(&delay.get("fixedDelay"));
        f.duration(&delay.get("exponentialDelay"));
    }
}

const METHODS: &[&str] = &["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS", "CONNECT", "TRACE", "*"];

fn cors(f: &mut Findings, c: &At<'_>) {
    if !c.exists() {
        return;
    }
    for origin in c.items("allowOrigins") {
        string_match(f, &origin, false);
    }
    for method in c.items("allowMethods") {
        let text = method.text().unwrap_or_default();
        f.require(METHODS.contains(&text), &method, format!("{text:?} is not a supported HTTP method"));
    }
    for key in ["allowHeaders", "exposeHeaders"] {
        for name in c.items(key) {
            header_name(f, &name, name.text().unwrap_or_default());
        }
    }
    let age = c.get("maxAge");
    if let Some(d) = f.duration(&age) {
        f.require(d.subsec_nanos() == 0, &age, "max_age duration is accurate only to seconds precision");
    }
}

fn mirrors(f: &mut Findings, route: &At<'_>) {
    let (mirror, mirrors) = (route.get("mirror"), route.get("mirrors"));
    f.require(!(mirror.is_set() && mirrors.is_set()), &mirrors, "HTTP route rule cannot contain both mirror and mirrors");
    let old = route.get("mirrorPercent");
    f.within(&old, 0.0, 100.0);
    if old.exists() {
        f.warning(&old, "using deprecated setting \"mirrorPercent\", use \"mirrorPercentage\" instead");
    }
    f.within(&route.get("mirrorPercentage").get("value"), 0.0, 100.0);
    if mirror.exists() {
        destination(f, &mirror);
    }
    for m in route.items("mirrors") {
        f.within(&m.get("percentage").get("value"), 0.0, 100.0);
        f.require(m.has("destination"), &m, "destination is required for mirrors");
        destination(f, &m.get("destination"));
    }
}

fn destinations(f: &mut Findings, route: &At<'_>, key: &str) {
    let all = route.items(key);
    let mut total = 0.0;
    for d in &all {
        let to = d.get("destination");
        if to.exists() {
            destination(f, &to);
        } else {
            f.error(&to, "destination is required");
        }
        let weight = d.get("weight").number().unwrap_or_default();
        f.require(weight >= 0.0, &d.get("weight"), format!("weight {weight} < 0"));
        total += weight;
    }
    f.require(all.len() <= 1 || total > 0.0, &route.get(key), "total destination weight = 0");
}

fn destination(f: &mut Findings, to: &At<'_>) {
    let host = to.str("host");
    if host == "*" {
        f.error(&to.get("host"), "invalid destination host *");
    } else if !names::ip(host) {
        f.check(&to.get("host"), names::wildcard_domain(host));
    }
    let subset = to.str("subset");
    f.require(subset.is_empty() || names::label(subset), &to.get("subset"), format!("subset name is invalid: {subset:?}"));
    if to.has("port") {
        names::port(f, &to.get("port").get("number"));
    }
}

/// Matches that an earlier rule takes already.
fn unused(f: &mut Findings, http: &[At<'_>]) {
    // The first match of each prefix by its method, and the lengths that there are: an object may have thousands.
    let mut first: HashMap<(String, String), (usize, usize)> = HashMap::new();
    let mut lengths = BTreeSet::new();
    for (i, route) in http.iter().enumerate() {
        for (j, m) in route.items("match").iter().enumerate() {
            let prefix = m.get("uri").str("prefix").to_owned();
            let only = m.value.as_object().is_some_and(|map| map.keys().all(|k| matches!(k.as_str(), "uri" | "method" | "name")));
            if prefix.is_empty() || !only {
                continue;
            }
            let method = m.get("method").value.to_string();
            let shorter = lengths.range(..=prefix.len()).filter_map(|n| prefix.get(..*n));
            let earlier = shorter.filter_map(|p| first.get(&(method.clone(), p.to_owned())).map(|at| (*at, p))).min();
            if let Some(((ei, ej), p)) = earlier {
                f.warning_of_all(format!(
                    "virtualService rule #{i} match #{j} of prefix {prefix} is not used (duplicate/overlapping match in rule #{ei} of prefix {p} on #{ej})"
                ));
            }
            lengths.insert(prefix.len());
            first.entry((method, prefix)).or_insert((i, j));
        }
    }
}
