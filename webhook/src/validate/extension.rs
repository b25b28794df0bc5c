//! Telemetry, extensions, ProxyConfig and EnvoyFilter.

use std::collections::BTreeSet;

use super::cursor::{At, Findings};
use super::{names, target};

pub(crate) fn telemetry(f: &mut Findings, spec: &At<'_>) {
    target(f, spec);
    let tracing = spec.items("tracing");
    if tracing.len() > 1 {
        f.warning(&spec.get("tracing"), "multiple tracing is not currently supported");
    }
    for t in &tracing {
        if t.items("providers").len() > 1 {
            f.warning(&t.get("providers"), "multiple providers is not currently supported");
        }
        let sampling = t.get("randomSamplingPercentage");
        f.within(&sampling, 0.0, 100.0);
        providers(f, t);
        for (name, tag) in t.fields("customTags") {
            f.require(!name.is_empty(), &tag, "tag name must be non-empty");
            let kinds = ["literal", "environment", "header", "formatter"].iter().filter(|k| tag.has(k)).count();
            f.require(kinds <= 1, &tag, "exactly one of literal, environment and header must be given");
            f.require(!tag.has("literal") || !tag.get("literal").str("value").is_empty(), &tag, "literal tag value may not be empty");
            for kind in ["environment", "header"] {
                f.require(!tag.has(kind) || !tag.get(kind).str("name").is_empty(), &tag, format!("{kind} tag name may not be empty"));
            }
        }
    }
    for m in spec.items("metrics") {
        providers(f, &m);
        f.duration(&m.get("reportingInterval"));
        for o in m.items("overrides") {
            for (name, tag) in o.fields("tagOverrides") {
                f.require(!name.is_empty(), &tag, "tag name must be non-empty");
                let (operation, value) = (tag.str("operation"), tag.str("value"));
                if operation == "REMOVE" {
                    f.require(value.is_empty(), &tag, "tagOverrides.value must not be set when operation is REMOVE");
                } else {
                    f.require(!value.is_empty(), &tag, "tagOverrides.value must be set when operation is UPSERT");
                    expression(f, &tag.get("value"));
                }
            }
        }
    }
    for l in spec.items("accessLogging") {
        providers(f, &l);
        let filter = l.get("filter");
        if filter.exists() {
            expression(f, &filter.get("expression"));
        }
    }
}

fn providers(f: &mut Findings, at: &At<'_>) {
    for p in at.items("providers") {
        f.require(!p.str("name").is_empty(), &p, "providers.name must be non-empty");
    }
}

/// A CEL expression.
fn expression(f: &mut Findings, at: &At<'_>) {
    if let Err(e) = pilotfish_model::cel::check(at.text().unwrap_or_default()) {
        f.error(at, format!("must be a valid CEL expression: {e}"));
    }
}

pub(crate) fn wasm_plugin(f: &mut Findings, spec: &At<'_>) {
    target(f, spec);
    wasm(f, spec);
    traffic_match(f, spec);
}

fn wasm(f: &mut Findings, at: &At<'_>) {
    let url = at.get("url");
    let text = url.text().unwrap_or_default();
    if text.is_empty() {
        f.error(&url, "url field needs to be set");
    } else if let Some((scheme, _)) = text.split_once("://") {
        f.require(matches!(scheme, "oci" | "http" | "https" | "file"), &url, format!("url contains unsupported scheme: {scheme}"));
    }
    let sha = at.get("sha256");
    if let Some(text) = sha.text().filter(|t| !t.is_empty()) {
        f.require(text.len() == 64, &sha, "sha256 field must be 64 characters long");
        f.require(
            text.chars().all(|c| c.is_ascii_digit() || ('a'..='f').contains(&c)),
            &sha,
            "sha256 field must match [a-f0-9]{64} pattern",
        );
    }
    let secret = at.str("imagePullSecret");
    f.require(!secret.contains('/'), &at.get("imagePullSecret"), "must be the name of a secret");
    let mut seen = BTreeSet::new();
    for env in at.get("vmConfig").items("env") {
        let name = env.str("name");
        f.require(!name.is_empty(), &env, "spec.vmConfig.env invalid");
        f.require(seen.insert(name), &env, "duplicate env");
        f.require(env.str("valueFrom") != "HOST" || env.str("value").is_empty(), &env, "value must not be set if valueFrom is HOST");
    }
}

fn traffic_match(f: &mut Findings, spec: &At<'_>) {
    for m in spec.items("match") {
        for port in m.items("ports") {
            names::port(f, &port.get("number"));
        }
    }
}

pub(crate) fn traffic_extension(f: &mut Findings, spec: &At<'_>) {
    target(f, spec);
    let (wasm_config, lua) = (spec.get("wasm"), spec.get("lua"));
    f.require(wasm_config.exists() != lua.exists(), spec, "exactly one of wasm or lua must be set");
    if wasm_config.exists() {
        wasm(f, &wasm_config);
    }
    if lua.exists() {
        let code = lua.str("inlineCode");
        f.require(!code.is_empty(), &lua.get("inlineCode"), "lua.inlineCode cannot be empty");
        f.require(code.len() <= 64 << 10, &lua.get("inlineCode"), "lua.inlineCode exceeds maximum size of 64KB");
    }
    traffic_match(f, spec);
}

pub(crate) fn proxy_config(f: &mut Findings, spec: &At<'_>) {
    super::selector(f, &spec.get("selector"));
    let concurrency = spec.get("concurrency");
    f.require(concurrency.number().is_none_or(|n| n >= 0.0), &concurrency, "concurrency must be greater than or equal to 0");
}

pub(crate) fn envoy_filter(f: &mut Findings, spec: &At<'_>) {
    f.warnings.push(
        "EnvoyFilter exposes internal implementation details that may change at any time. Prefer other APIs if possible, and exercise \
         extreme caution, especially around upgrades."
            .to_owned(),
    );
    let selector = spec.get("workloadSelector");
    super::workload_selector(f, &selector, "labels");
    target(f, spec);
    f.require(!(selector.exists() && spec.get("targetRefs").is_set()), spec, "only one of targetRefs or workloadSelector can be set");
    for patch in spec.items("configPatches") {
        let apply_to = patch.str("applyTo");
        let class = match apply_to {
            "" | "INVALID" => {
                f.error(&patch.get("applyTo"), "missing applyTo");
                continue;
            }
            "LISTENER" | "FILTER_CHAIN" | "NETWORK_FILTER" | "HTTP_FILTER" | "LISTENER_FILTER" => "listener",
            "ROUTE_CONFIGURATION" | "VIRTUAL_HOST" | "HTTP_ROUTE" => "routeConfiguration",
            "CLUSTER" => "cluster",
            _ => "",
        };
        let p = patch.get("patch");
        let operation = p.str("operation");
        if !p.exists() {
            f.error(&p, "missing patch");
            continue;
        }
        f.require(!matches!(operation, "" | "INVALID"), &p.get("operation"), "missing patch operation");
        f.require(operation == "REMOVE" || p.has("value"), &p.get("value"), "missing patch value for non-remove operation");
        f.require(p.value.get("value").is_none_or(|v| v.is_object() || v.is_null()), &p.get("value"), "must be an object");
        let positional = matches!(operation, "INSERT_BEFORE" | "INSERT_AFTER" | "INSERT_FIRST");
        let ordered = matches!(apply_to, "NETWORK_FILTER" | "HTTP_FILTER" | "HTTP_ROUTE" | "LISTENER_FILTER");
        f.require(!positional || ordered, &p.get("operation"), format!("{operation} is not for {apply_to}"));
        class_matches(f, &patch.get("match"), class);
        old_types(f, &p.get("value"));
    }
}

fn class_matches(f: &mut Findings, m: &At<'_>, class: &str) {
    names::regex(f, &m.get("proxy").get("proxyVersion"));
    let other = ["listener", "routeConfiguration", "cluster"].into_iter().find(|k| m.has(k) && *k != class);
    if let Some(other) = other
        && !class.is_empty()
        && !m.has("waypoint")
    {
        f.error(&m.get(other), format!("objects of this applyTo cannot have a {other} match"));
    }
    let filter = m.get("listener").get("filterChain").get("filter");
    if filter.exists() {
        f.require(!filter.str("name").is_empty(), &filter, "filter match has no name to match on");
        let sub = filter.get("subFilter");
        f.require(!sub.exists() || !sub.str("name").is_empty(), &sub, "subfilter match has no name to match on");
        let name = filter.str("name");
        if let Some(new) = RENAMED.iter().find(|(old, _)| *old == name) {
            f.warning(&filter.get("name"), format!("using deprecated filter name {name:?}; use {:?} instead", new.1));
        }
    }
}

/// Filters whose names Envoy changed.
const RENAMED: &[(&str, &str)] = &[
    ("envoy.http_connection_manager", "envoy.filters.network.http_connection_manager"),
    ("envoy.tcp_proxy", "envoy.filters.network.tcp_proxy"),
    ("envoy.router", "envoy.filters.http.router"),
    ("envoy.ext_authz", "envoy.filters.http.ext_authz"),
    ("envoy.lua", "envoy.filters.http.lua"),
    ("envoy.cors", "envoy.filters.http.cors"),
    ("envoy.fault", "envoy.filters.http.fault"),
    ("envoy.rate_limit", "envoy.filters.http.ratelimit"),
];

/// Types of the API before v3, which no Envoy knows any more.
fn old_types(f: &mut Findings, at: &At<'_>) {
    match at.value {
        serde_json::Value::Object(map) => {
            for (key, value) in map {
                let inner = At { value, path: format!("{}.{key}", at.path) };
                if matches!(key.as_str(), "@type" | "typeUrl" | "type_url")
                    && let Some(text) = value.as_str()
                {
                    let old = ["v2", "v2alpha", "v1"].iter().any(|v| text.split('.').any(|part| part == *v));
                    let known = text.contains("envoy.config.filter.") || text.contains("envoy.api.v2");
                    f.require(!(old && known), &inner, format!("referenced type unknown (hint: try using the v3 XDS API): {text}"));
                }
                old_types(f, &inner);
            }
        }
        serde_json::Value::Array(items) => {
            for (i, value) in items.iter().enumerate() {
                old_types(f, &At { value, path: format!("{}[{i}]", at.path) });
            }
        }
        _ => {}
    }
}
