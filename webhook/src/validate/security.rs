//! Policies: who may call, how they prove who they are.

use super::cursor::{At, Findings};
use super::{names, target};

pub(crate) fn authorization_policy(f: &mut Findings, spec: &At<'_>, annotations: &At<'_>) {
    target(f, spec);
    let action = match spec.str("action") {
        "" => "ALLOW",
        a => a,
    };
    let dry_run = annotations.get("istio.io/dry-run");
    if let Some(text) = dry_run.text() {
        f.require(crate::inject::parse_bool(text).is_some(), &dry_run, format!("invalid value ({text})"));
        f.require(
            matches!(action, "ALLOW" | "DENY"),
            &dry_run,
            format!("currently only supports action ALLOW/DENY, found action {action}"),
        );
    }
    let rules = spec.items("rules");
    let custom = action == "CUSTOM";
    if custom {
        f.require(!rules.is_empty(), &spec.get("rules"), "CUSTOM action without rules is meaningless as it will never be triggered");
        f.require(!spec.get("provider").str("name").is_empty(), &spec.get("provider"), "`provider.name` must not be empty");
    } else {
        f.require(!spec.has("provider"), &spec.get("provider"), "`provider` must not be with actions other than CUSTOM");
    }
    if action == "DENY" {
        f.require(!rules.is_empty(), &spec.get("rules"), "DENY action without `rules` is meaningless as it will never be triggered");
    }
    for rule in &rules {
        let mut http_only = false;
        let mut tcp = false;
        if rule.has("from") {
            f.require(rule.get("from").is_set(), &rule.get("from"), "`from` cannot be empty");
        }
        if rule.has("to") {
            f.require(rule.get("to").is_set(), &rule.get("to"), "`to` cannot be empty");
        }
        for from in rule.items("from") {
            source(f, &from.get("source"), custom, &mut http_only);
        }
        for to in rule.items("to") {
            operation(f, &to.get("operation"), &mut http_only, &mut tcp);
        }
        for when in rule.items("when") {
            condition(f, &when, custom, &mut http_only, &mut tcp);
        }
        if action == "DENY" && http_only && !tcp {
            f.warnings.push(
                "configured AuthorizationPolicy will deny all traffic to TCP ports under its scope due to the use of only HTTP \
                 attributes in a DENY rule; it is recommended to explicitly specify the port"
                    .to_owned(),
            );
        }
    }
}

const SOURCE: &[&str] = &[
    "principals",
    "requestPrincipals",
    "namespaces",
    "serviceAccounts",
    "ipBlocks",
    "remoteIpBlocks",
    "trustDomains",
    "notPrincipals",
    "notRequestPrincipals",
    "notNamespaces",
    "notServiceAccounts",
    "notIpBlocks",
    "notRemoteIpBlocks",
    "notTrustDomains",
];

fn source(f: &mut Findings, s: &At<'_>, custom: bool, http_only: &mut bool) {
    let given: Vec<_> = SOURCE.iter().filter(|k| s.get(k).is_set()).collect();
    if !s.exists() || given.is_empty() {
        return f.error(s, "`from.source` must not be empty");
    }
    let any = |keys: &[&str]| keys.iter().any(|k| s.get(k).is_set());
    *http_only |= any(&["requestPrincipals", "notRequestPrincipals"]);
    if any(&["serviceAccounts", "notServiceAccounts"]) && any(&["namespaces", "notNamespaces", "principals", "notPrincipals"]) {
        f.error(s, "cannot set serviceAccounts with namespaces or principals");
    }
    for key in SOURCE {
        values(f, s, key);
        let base = key.strip_prefix("not").unwrap_or(key).to_ascii_lowercase();
        let at = s.get(key);
        if custom && at.is_set() {
            // These come from the peer's certificate or a token, which the external authorizer's filter has not seen yet.
            let fine = !matches!(base.as_str(), "namespaces" | "principals" | "requestprincipals" | "serviceaccounts" | "trustdomains");
            f.require(fine, &at, format!("{key} is currently not supported with CUSTOM action"));
        }
        if base.ends_with("ipblocks") {
            for block in s.items(key) {
                let text = block.text().unwrap_or_default();
                f.require(names::ip_or_range(text), &block, format!("bad IP address ({text})"));
            }
        }
        if base == "serviceaccounts" {
            for account in s.items(key) {
                let text = account.text().unwrap_or_default();
                let (ns, name) = text.split_once('/').unwrap_or(("default", text));
                let fine = !text.is_empty() && names::namespace(ns) && names::fqdn(name).is_ok();
                f.require(fine || text.is_empty(), &account, format!("{text:?} is neither a name nor namespace/name"));
            }
        }
    }
}

const OPERATION: &[&str] = &["hosts", "methods", "paths", "ports", "notHosts", "notMethods", "notPaths", "notPorts"];

fn operation(f: &mut Findings, o: &At<'_>, http_only: &mut bool, tcp: &mut bool) {
    if !o.exists() {
        return f.error(o, "`to.operation` must not be nil");
    }
    if !OPERATION.iter().any(|k| o.get(k).is_set()) {
        return f.error(o, "`to.operation` must not be empty");
    }
    for key in OPERATION {
        values(f, o, key);
        if key.eq_ignore_ascii_case("ports") || key.eq_ignore_ascii_case("notports") {
            *tcp |= o.get(key).is_set();
            for port in o.items(key) {
                let text = port.text().unwrap_or_default();
                f.require(text.parse::<u16>().is_ok_and(|p| p > 0), &port, format!("bad port ({text})"));
            }
        } else {
            *http_only |= o.get(key).is_set();
        }
        if key.to_ascii_lowercase().ends_with("paths") {
            for path in o.items(key) {
                path_template(f, &path);
            }
        }
    }
}

/// `{*}` stands for one segment, `{**}` for the rest.
fn path_template(f: &mut Findings, at: &At<'_>) {
    let text = at.text().unwrap_or_default();
    let template = text.contains("{*}") || text.contains("{**}");
    if !template {
        return f.require(!text.contains(['{', '}']), at, format!("invalid or unsupported path {text}. Contains '{{' or '}}'"));
    }
    let segments: Vec<&str> = text.split('/').collect();
    let mut rest = false;
    for segment in &segments {
        match *segment {
            "{**}" => {
                f.require(!rest, at, "{**} may stand only once");
                rest = true;
            }
            "{*}" => f.require(!rest, at, "{**} must be the last operator"),
            other => f.require(!other.contains(['{', '}', '*']), at, format!("invalid or unsupported path {text}")),
        }
    }
}

/// No value is empty.
fn values(f: &mut Findings, at: &At<'_>, key: &str) {
    for value in at.items(key) {
        f.require(value.text().is_none_or(|t| !t.is_empty()), &value, format!("empty value not allowed, found in {key}"));
    }
}

const ATTRIBUTES: &[&str] = &[
    "source.ip",
    "remote.ip",
    "source.namespace",
    "source.principal",
    "source.serviceAccount",
    "source.trustDomain",
    "request.auth.principal",
    "request.auth.audiences",
    "request.auth.presenter",
    "destination.ip",
    "destination.port",
    "connection.sni",
];

fn condition(f: &mut Findings, c: &At<'_>, custom: bool, http_only: &mut bool, tcp: &mut bool) {
    let key = c.str("key");
    if key.is_empty() {
        return f.error(&c.get("key"), "`key` must not be empty");
    }
    f.require(c.get("values").is_set() || c.get("notValues").is_set(), c, "at least one of `values` or `notValues` must be set");
    let bracketed =
        |prefix: &str| key.strip_prefix(prefix).is_some_and(|rest| rest.len() > 2 && rest.starts_with('[') && rest.ends_with(']'));
    let known = ATTRIBUTES.contains(&key)
        || ["request.headers", "request.experimental.inline.headers", "request.auth.claims"].iter().any(|p| bracketed(p))
        || key.starts_with("experimental.envoy.filters.");
    f.require(known, &c.get("key"), format!("unknown attribute: {key}"));
    if custom {
        let authenticated = ["source.namespace", "source.principal", "source.serviceAccount", "source.trustDomain"].contains(&key)
            || key.starts_with("request.auth.");
        f.require(!authenticated, &c.get("key"), format!("{key} is currently not supported with CUSTOM action"));
    }
    *http_only |= key.starts_with("request.");
    *tcp |= key == "destination.port";
    for list in ["values", "notValues"] {
        values(f, c, list);
        for value in c.items(list) {
            let text = value.text().unwrap_or_default();
            match key {
                "source.ip" | "remote.ip" | "destination.ip" => {
                    f.require(names::ip_or_range(text), &value, format!("bad IP address ({text})"))
                }
                "destination.port" => f.require(text.parse::<u16>().is_ok_and(|p| p > 0), &value, format!("bad port ({text})")),
                _ => {}
            }
        }
    }
}

pub(crate) fn request_authentication(f: &mut Findings, spec: &At<'_>) {
    target(f, spec);
    for rule in spec.items("jwtRules") {
        let issuer = rule.str("issuer");
        let uri = rule.get("jwksUri");
        f.require(!issuer.is_empty() || uri.is_set(), &rule, "issuer or jwksUri must be non-empty string");
        for audience in rule.items("audiences") {
            f.require(audience.is_set(), &audience, "audience must be non-empty string");
        }
        if let Some(text) = uri.text().filter(|t| !t.is_empty()) {
            f.check(&uri, http_url(text));
        }
        if let Some(text) = rule.get("jwks").text().filter(|t| !t.is_empty()) {
            let keys = serde_json::from_str::<serde_json::Value>(text);
            let fine = keys.is_ok_and(|k| k.get("keys").is_some_and(serde_json::Value::is_array));
            f.require(fine, &rule.get("jwks"), "is not a set of keys in JSON");
        }
        for header in rule.items("fromHeaders") {
            f.require(!header.str("name").is_empty(), &header, "location header name must be non-empty string");
        }
        for (key, what) in [("fromParams", "location query"), ("fromCookies", "location cookie")] {
            for name in rule.items(key) {
                f.require(name.is_set(), &name, format!("{what} must be non-empty string"));
            }
        }
        for claim in rule.items("outputClaimToHeaders") {
            let fine = !claim.str("header").is_empty() && !claim.str("claim").is_empty();
            f.require(fine, &claim, "outputClaimToHeaders header and claim value must be non-empty string");
        }
        f.duration(&rule.get("timeout"));
    }
}

fn http_url(text: &str) -> Result<(), String> {
    let (scheme, rest) = text.split_once("://").unwrap_or(("", text));
    if !matches!(scheme, "http" | "https") {
        return Err(format!("URI scheme {scheme:?} is not supported"));
    }
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    let port = authority.rsplit_once(':').filter(|(_, p)| !p.ends_with(']')).map(|(_, p)| p);
    if authority.is_empty() || port.is_some_and(|p| p.parse::<u16>().is_err()) {
        return Err(format!("{text:?} has no host, or a bad port"));
    }
    Ok(())
}

pub(crate) fn peer_authentication(f: &mut Findings, spec: &At<'_>) {
    let selector = spec.get("selector");
    super::selector(f, &selector);
    let ports = spec.fields("portLevelMtls");
    let selects = selector.get("matchLabels").is_set();
    f.require(ports.is_empty() || selects, &spec.get("portLevelMtls"), "mesh/namespace peer authentication cannot have port level mTLS");
    if spec.get("portLevelMtls").is_empty_map() {
        f.error(&spec.get("portLevelMtls"), "port level mTLS, if defined, must have at least one element");
    }
    for (port, at) in ports {
        f.require(port.parse::<u16>().is_ok_and(|p| p > 0), &at, "port must be in range 1..65535");
    }
}
