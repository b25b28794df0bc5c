//! Rules between fields that schemas do not know: objects are changed until they keep to them.

use pilotfish_testkit::Random;
use serde_json::{Map, Value, json};

const SERVICES: &[&str] = &["web", "api", "web.shop.svc.cluster.local", "out.example.com"];

/// Makes an object of that kind one that is probably accepted.
pub(crate) fn mend(kind: &str, spec: &mut Value, random: &mut Random) {
    let Some(spec) = spec.as_object_mut() else { return };
    match kind {
        "VirtualService" => virtual_service(spec, random),
        "DestinationRule" => {
            spec.insert("host".into(), json!(service(random)));
            policy(spec.get_mut("trafficPolicy"));
            for (i, subset) in each(spec, "subsets").enumerate() {
                subset.insert("name".into(), json!(format!("v{}", i + 1)));
                policy(subset.get_mut("trafficPolicy"));
            }
        }
        "Gateway" => gateway(spec, random),
        "EnvoyFilter" => each(spec, "configPatches").for_each(|p| patch(p, random)),
        "Sidecar" => sidecar(spec, random),
        "AuthorizationPolicy" => authorization(spec),
        "RequestAuthentication" => each(spec, "jwtRules").for_each(|rule| {
            rule.insert("issuer".into(), json!("https://out.example.com"));
            let keys = json!({"keys": [{"kty": "oct", "k": "AAEC", "alg": "HS256", "kid": "1"}]}).to_string();
            rule.get_mut("jwks").into_iter().for_each(|j| *j = json!(keys));
        }),
        "WasmPlugin" => module(spec),
        "TrafficExtension" => spec.get_mut("wasm").and_then(Value::as_object_mut).into_iter().for_each(module),
        _ => {}
    }
}

fn service(random: &mut Random) -> &'static str {
    SERVICES[random.below(SERVICES.len())]
}

fn any_of<T: Copy>(from: &[T], random: &mut Random) -> T {
    from[random.below(from.len())]
}

/// The objects of a list.
fn each<'a>(of: &'a mut Map<String, Value>, field: &str) -> impl Iterator<Item = &'a mut Map<String, Value>> + use<'a> {
    of.get_mut(field).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

fn is_filled(value: Option<&Value>) -> bool {
    value.is_some_and(|v| v.as_array().is_none_or(|a| !a.is_empty()))
}

/// Of fields that exclude each other one at most.
fn keep_one(of: &mut Map<String, Value>, fields: &[&str], random: &mut Random) {
    let given: Vec<&str> = fields.iter().copied().filter(|f| is_filled(of.get(*f))).collect();
    let kept = if given.is_empty() { None } else { Some(given[random.below(given.len())]) };
    fields.iter().filter(|f| Some(**f) != kept).for_each(|f| drop(of.remove(*f)));
}

fn virtual_service(spec: &mut Map<String, Value>, random: &mut Random) {
    let gateways = spec.get("gateways").and_then(Value::as_array).cloned().unwrap_or_default();
    let mesh = gateways.is_empty() || gateways.iter().any(|g| g == "mesh");
    let hosts = if mesh { ["web", "*.example.com", "api"] } else { ["*", "out.example.com", "*.example.com"] };
    spec.insert("hosts".into(), json!([hosts[random.below(3)]]));
    spec.insert("exportTo".into(), json!(["*"]));
    for field in ["tls", "tcp"] {
        for rule in each(spec, field) {
            destinations(rule, random);
            for condition in each(rule, "match") {
                condition.get_mut("destinationSubnets").into_iter().for_each(|s| *s = json!(["10.0.0.0/8"]));
                if field == "tls" {
                    condition.insert("sniHosts".into(), json!(["out.example.com"]));
                }
            }
        }
    }
    if !["http", "tls", "tcp"].iter().any(|f| is_filled(spec.get(*f))) {
        spec.insert("http".into(), json!([{}]));
    }
    each(spec, "http").for_each(|rule| http_rule(rule, random));
}

fn http_rule(rule: &mut Map<String, Value>, random: &mut Random) {
    keep_one(rule, &["route", "redirect", "directResponse", "delegate"], random);
    if rule.get("route").is_none_or(|r| r.as_array().is_some_and(Vec::is_empty))
        && !["redirect", "directResponse", "delegate"].iter().any(|f| rule.contains_key(*f))
    {
        rule.insert("route".into(), json!([{}]));
    }
    if rule.contains_key("route") {
        destinations(rule, random);
    }
    keep_one(rule, &["mirror", "mirrors"], random);
    for (name, list) in [("mirror", false), ("mirrors", true)] {
        let to = json!({"host": service(random), "subset": "v1", "port": {"number": 80}});
        match (rule.get_mut(name), list) {
            (Some(mirror), false) => *mirror = to,
            (Some(mirrors), true) => *mirrors = json!([{"destination": to, "percentage": {"value": 7}}]),
            _ => {}
        }
    }
    if let Some(redirect) = rule.get_mut("redirect").and_then(Value::as_object_mut) {
        redirect.insert("redirectCode".into(), json!([301, 302, 303, 307, 308][random.below(5)]));
        keep_one(redirect, &["port", "derivePort"], random);
        keep_one(redirect, &["uri", "prefixRewrite"], random);
    }
    if let Some(response) = rule.get_mut("directResponse").and_then(Value::as_object_mut) {
        response.insert("status".into(), json!([200, 404, 503][random.below(3)]));
        response.insert("body".into(), if random.below(2) == 0 { json!({"string": "x"}) } else { json!({"bytes": "eA=="}) });
    }
    if let Some(rewrite) = rule.get_mut("rewrite").and_then(Value::as_object_mut) {
        keep_one(rewrite, &["uri", "uriRegexRewrite"], random);
        if let Some(regex) = rewrite.get_mut("uriRegexRewrite") {
            *regex = json!({"match": "/x(.*)", "rewrite": "/y\\1"});
        }
    }
    if let Some(retries) = rule.get_mut("retries").and_then(Value::as_object_mut) {
        retries.get_mut("backoff").into_iter().for_each(|b| *b = json!("30ms"));
    }
    if rule.contains_key("fault") {
        let abort = [json!({"httpStatus": 503, "percentage": {"value": 1}}), json!({"grpcStatus": "UNAVAILABLE"})];
        let share = [json!({"percentage": {"value": 0.5}}), json!({"percent": 5})];
        let mut delay = share[random.below(2)].clone();
        delay["fixedDelay"] = json!("1s");
        let fault = json!({"delay": delay, "abort": abort[random.below(2)]});
        rule.insert("fault".into(), fault);
    }
    for condition in each(rule, "match") {
        for field in ["headers", "withoutHeaders", "queryParams"] {
            let matches = condition.get_mut(field).and_then(Value::as_object_mut).into_iter().flat_map(|m| m.iter_mut());
            matches.for_each(|(_, m)| text_match(m));
        }
        for field in ["uri", "scheme", "method", "authority"] {
            condition.get_mut(field).into_iter().for_each(text_match);
        }
    }
    if let Some(cors) = rule.get_mut("corsPolicy").and_then(Value::as_object_mut) {
        each(cors, "allowOrigins").filter(|o| o.contains_key("regex")).for_each(|o| drop(o.insert("regex".into(), json!("a.*"))));
    }
}

fn text_match(m: &mut Value) {
    if m.get("regex").is_some() {
        *m = json!({"regex": "/x.*"});
    }
}

fn destinations(rule: &mut Map<String, Value>, random: &mut Random) {
    if !is_filled(rule.get("route")) {
        rule.insert("route".into(), json!([{}]));
    }
    for (i, to) in each(rule, "route").enumerate() {
        let mut destination = json!({"host": service(random)});
        if random.below(3) == 0 {
            destination["port"] = json!({"number": any_of(&[80, 9000, 443], random)});
        }
        if random.below(3) == 0 {
            destination["subset"] = json!("v1");
        }
        to.insert("destination".into(), destination);
        to.insert("weight".into(), json!(if i == 0 { 80 } else { 20 * random.below(2) }));
    }
}

fn policy(policy: Option<&mut Value>) {
    let Some(policy) = policy.and_then(Value::as_object_mut) else { return };
    let ports = each(policy, "portLevelSettings");
    for (i, port) in ports.enumerate() {
        port.insert("port".into(), json!({"number": ([80, 443, 9000, 8080][i % 4])}));
        components(port);
    }
    components(policy);
}

fn components(policy: &mut Map<String, Value>) {
    if let Some(balancer) = policy.get_mut("loadBalancer").and_then(Value::as_object_mut) {
        if let Some(warmup) = balancer.get_mut("warmup") {
            *warmup = json!({"duration": "10s", "aggression": 2});
        }
        if let Some(locality) = balancer.get_mut("localityLbSetting").and_then(Value::as_object_mut)
            && locality.contains_key("distribute")
        {
            *locality = Map::from_iter([("distribute".to_owned(), json!([{"from": "r1/*", "to": {"r1/*": 60, "r2/*": 40}}]))]);
        }
    }
    if let Some(outlier) = policy.get_mut("outlierDetection").and_then(Value::as_object_mut) {
        for field in ["maxEjectionPercent", "minHealthPercent"] {
            outlier.get_mut(field).into_iter().for_each(|n| *n = json!(50));
        }
        let values = [("interval", json!("5s")), ("baseEjectionTime", json!("7s")), ("outlierDetectionHttpErrorCodes", json!([503]))];
        for (field, value) in values {
            outlier.get_mut(field).into_iter().for_each(|f| *f = value.clone());
        }
    }
    if let Some(tunnel) = policy.get_mut("tunnel") {
        *tunnel = json!({"protocol": "POST", "targetHost": "out.example.com", "targetPort": 8080});
    }
}

fn gateway(spec: &mut Map<String, Value>, random: &mut Random) {
    if !is_filled(spec.get("servers")) {
        spec.insert("servers".into(), json!([{}]));
    }
    for (i, server) in each(spec, "servers").enumerate() {
        let protocol = ["HTTP", "HTTPS", "TCP", "TLS", "GRPC"][random.below(5)];
        server.insert(
            "port".into(),
            json!({"number": any_of(&[80, 443, 9000, 8443], random), "name": format!("p{i}"), "protocol": protocol}),
        );
        server.insert("hosts".into(), json!([any_of(&["*", "out.example.com", "./*.example.com"], random)]));
        server.remove("bind");
        server.remove("tls");
        if matches!(protocol, "HTTPS" | "TLS") {
            let modes = [
                json!({"mode": "SIMPLE", "credentialName": "c"}),
                json!({"mode": "PASSTHROUGH"}),
                json!({"mode": "MUTUAL", "serverCertificate": "/c", "privateKey": "/k", "caCertificates": "/r"}),
                json!({"mode": "ISTIO_MUTUAL"}),
            ];
            server.insert("tls".into(), modes[random.below(modes.len())].clone());
        }
    }
}

fn module(module: &mut Map<String, Value>) {
    module.insert("url".into(), json!("oci://out.example.com/x:1"));
    module.get_mut("sha256").into_iter().for_each(|h| *h = json!("0".repeat(64)));
    module.get_mut("pluginConfig").into_iter().for_each(|c| *c = json!({"a": 1}));
}

fn authorization(spec: &mut Map<String, Value>) {
    for rule in each(spec, "rules") {
        for (list, field) in [("from", "source"), ("to", "operation")] {
            for fields in each(rule, list).filter_map(|e| e.get_mut(field)).filter_map(Value::as_object_mut) {
                for (name, value) in fields.iter_mut() {
                    match name.to_lowercase() {
                        n if n.ends_with("ports") => *value = json!(["8080"]),
                        n if n.ends_with("ipblocks") => *value = json!(["10.0.0.0/8"]),
                        n if n.ends_with("serviceaccounts") => *value = json!(["shop/web"]),
                        _ => *value = json!(["web"]),
                    }
                }
            }
        }
    }
}

/// A patch whose condition is about what it applies to.
fn patch(patch: &mut Map<String, Value>, random: &mut Random) {
    let kinds = ["LISTENER", "FILTER_CHAIN", "NETWORK_FILTER", "HTTP_FILTER", "LISTENER_FILTER"];
    let routes = ["ROUTE_CONFIGURATION", "VIRTUAL_HOST", "HTTP_ROUTE"];
    let (kind, kept) = match random.below(3) {
        0 => (any_of(&kinds, random), "listener"),
        1 => (any_of(&routes, random), "routeConfiguration"),
        _ => ("CLUSTER", "cluster"),
    };
    patch.insert("applyTo".into(), json!(kind));
    patch.insert(
        "patch".into(),
        json!({"operation": any_of(&["MERGE", "REMOVE", "MERGE_AND_REPLACE_LIST"], random), "value": {"name": "x"}}),
    );
    let Some(matching) = patch.get_mut("match").and_then(Value::as_object_mut) else { return };
    matching.remove("waypoint");
    matching.insert("context".into(), json!(any_of(&["ANY", "SIDECAR_INBOUND", "SIDECAR_OUTBOUND", "GATEWAY"], random)));
    for field in ["listener", "routeConfiguration", "cluster"].into_iter().filter(|f| *f != kept) {
        matching.remove(field);
    }
    if let Some(version) = matching.get_mut("proxy").and_then(|p| p.get_mut("proxyVersion")) {
        *version = json!("^1\\..*");
    }
    if random.below(2) == 0 {
        let full = match kept {
            "listener" => json!({"portNumber": 80, "portName": "http", "name": "l", "listenerFilter": "f", "filterChain": {
                "name": "c", "sni": "s", "transportProtocol": "tls", "applicationProtocols": "h2", "destinationPort": 80,
                "filter": {"name": "n", "subFilter": {"name": "s"}}}}),
            "cluster" => json!({"portNumber": 80, "service": "web", "subset": "v1", "name": "c"}),
            _ => json!({"portNumber": 80, "portName": "http", "gateway": "shop/gw", "name": "80", "vhost": {
                "name": "v", "domainName": "d", "route": {"name": "r", "action": "ROUTE"}}}),
        };
        matching.insert(kept.into(), full);
    }
}

fn sidecar(spec: &mut Map<String, Value>, random: &mut Random) {
    for (field, mode) in [("egress", "hosts"), ("ingress", "defaultEndpoint")] {
        for (i, listener) in each(spec, field).enumerate() {
            listener.insert(mode.into(), if mode == "hosts" { json!(["./*", "edge/*"]) } else { json!("127.0.0.1:8080") });
            if mode == "defaultEndpoint" || random.below(2) == 0 {
                listener.insert(
                    "port".into(),
                    json!({"number": 9100 + i, "protocol": any_of(&["HTTP", "TCP"], random), "name": format!("p{i}")}),
                );
            } else {
                listener.remove("port");
            }
            listener.get_mut("bind").into_iter().for_each(|b| *b = json!("127.0.0.1"));
            if let Some(pool) = listener.get_mut("connectionPool") {
                *pool = json!({"tcp": {"maxConnections": 7, "connectTimeout": "1s", "idleTimeout": "2s", "maxConnectionDuration": "3s",
                        "tcpKeepalive": {"probes": 3, "time": "4s", "interval": "5s"}},
                    "http": {"http1MaxPendingRequests": 1, "http2MaxRequests": 2, "maxRequestsPerConnection": 3, "maxRetries": 4,
                        "idleTimeout": "6s", "h2UpgradePolicy": "UPGRADE", "useClientProtocol": true, "maxConcurrentStreams": 5,
                        "http2KeepAlive": {"interval": "7s", "timeout": "8s"}}});
            }
        }
    }
}
