//! Names: hosts, namespaces, ports, labels, addresses.

use std::net::IpAddr;

use super::cursor::{At, Findings};

pub(crate) fn label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric());
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || c == '-')
}

/// A name of a Kubernetes namespace.
pub(crate) fn namespace(text: &str) -> bool {
    label(text) && !text.chars().any(|c| c.is_ascii_uppercase())
}

/// Part of a host. Hosts that are SNI names of the mesh have underscores.
fn host_label(text: &str) -> bool {
    let edge = |c: Option<char>| c.is_some_and(|c| c.is_ascii_alphanumeric() || c == '_');
    text.len() <= 63
        && edge(text.chars().next())
        && edge(text.chars().last())
        && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_'))
}

fn labels(name: &str) -> Result<(), String> {
    let name = name.strip_suffix('.').unwrap_or(name);
    if let Some(bad) = name.split('.').find(|l| !host_label(l)) {
        return Err(format!("domain name {name:?} invalid (label {bad:?} invalid)"));
    }
    let top = name.rsplit('.').next().unwrap_or_default();
    if top.chars().all(|c| c.is_ascii_digit()) {
        return Err(format!("domain name {name:?} invalid (top level domain {top:?} is a number)"));
    }
    Ok(())
}

fn length(name: &str) -> Result<(), String> {
    match name.len() {
        0 => Err("empty domain name not allowed".to_owned()),
        256.. => Err("domain name too long (at most 255)".to_owned()),
        _ => Ok(()),
    }
}

pub(crate) fn fqdn(name: &str) -> Result<(), String> {
    length(name)?;
    labels(name)
}

/// A host that may begin with a wildcard.
pub(crate) fn wildcard_domain(name: &str) -> Result<(), String> {
    length(name)?;
    let (first, rest) = name.split_once('.').map_or((name, None), |(f, r)| (f, Some(r)));
    let plain = first.strip_prefix("*-").or_else(|| first.strip_prefix('*')).unwrap_or(first);
    if first != "*" && !host_label(plain) {
        return Err(format!("domain name {name:?} invalid (label {first:?} invalid)"));
    }
    match rest {
        Some(rest) if rest.contains('*') => Err(format!("partial wildcard {name:?} not allowed")),
        Some(rest) => labels(rest),
        None => Ok(()),
    }
}

/// A host of a Gateway or Sidecar, without its namespace.
fn listener_host(name: &str, gateway: bool) -> Result<(), String> {
    if name != "*" && !name.contains('.') && !(gateway && ip(name)) {
        return Err("short names (non FQDN) are not allowed".to_owned());
    }
    if gateway && ip(name) {
        return Ok(());
    }
    if name.strip_prefix('*').is_some_and(|rest| !rest.is_empty() && !rest.starts_with('.')) {
        return Err(format!("partial wildcard {name:?} not allowed"));
    }
    wildcard_domain(name)
}

/// `namespace/host`; Gateways may leave the namespace out.
pub(crate) fn scoped_host(f: &mut Findings, at: &At<'_>, gateway: bool) {
    let text = at.text().unwrap_or_default();
    let Some((ns, host)) = text.split_once('/') else {
        let outcome = if gateway { listener_host(text, true) } else { Err("host must be of form namespace/dnsName".to_owned()) };
        return f.check(at, outcome);
    };
    if ns.is_empty() || host.is_empty() {
        f.error(at, "config namespace and dnsName in host entry cannot be empty");
    }
    // A Sidecar may leave namespaces out.
    let known = matches!(ns, "*" | ".") || namespace(ns) || (!gateway && (ns == "~" || ns.strip_prefix('~').is_some_and(namespace)));
    f.require(known, at, format!("invalid namespace value {ns:?}"));
    f.check(at, listener_host(host, gateway));
}

pub(crate) fn ip(text: &str) -> bool {
    text.parse::<IpAddr>().is_ok()
}

/// An address or a range of addresses.
pub(crate) fn ip_or_range(text: &str) -> bool {
    ip(text) || text.parse::<ipnet::IpNet>().is_ok()
}

pub(crate) fn port(f: &mut Findings, at: &At<'_>) {
    let n = at.number().unwrap_or_default();
    f.require((1.0..=65535.0).contains(&n) && n.fract() == 0.0, at, format!("port number {n} must be in the range 1..65535"));
}

/// The protocols that a port may declare.
pub(crate) fn protocol(text: &str) -> bool {
    const KNOWN: &[&str] =
        &["HTTP", "HTTPS", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY", "TCP", "TLS", "UDP", "MONGO", "REDIS", "MYSQL", "HBONE", "HTTP/2"];
    text.is_empty() || KNOWN.iter().any(|k| k.eq_ignore_ascii_case(text))
}

pub(crate) fn is_http(protocol: &str) -> bool {
    ["HTTP", "HTTP2", "GRPC", "GRPC-WEB", "HTTP_PROXY"].iter().any(|k| k.eq_ignore_ascii_case(protocol))
}

pub(crate) fn is_tls(protocol: &str) -> bool {
    ["HTTPS", "TLS"].iter().any(|k| k.eq_ignore_ascii_case(protocol))
}

/// A path of a Unix socket.
pub(crate) fn unix_path(text: &str) -> Result<(), String> {
    let path = text.trim_start_matches("unix://");
    if path.is_empty() {
        Err("unix address must not be empty".to_owned())
    } else if path.starts_with('@') {
        Ok(())
    } else if !path.starts_with('/') || path.ends_with('/') {
        Err(format!("{path} is not an absolute path to a file"))
    } else {
        Ok(())
    }
}

/// Labels of workloads.
pub(crate) fn label_map(f: &mut Findings, at: &At<'_>, key: &str) {
    let word = |text: &str, max: usize| {
        let edge = |c: Option<char>| c.is_none_or(|c| c.is_ascii_alphanumeric());
        text.len() <= max
            && edge(text.chars().next())
            && edge(text.chars().last())
            && text.chars().all(|c| c.is_ascii_alphanumeric() || matches!(c, '-' | '_' | '.'))
    };
    for (name, value) in at.fields(key) {
        let (prefix, bare) = name.rsplit_once('/').map_or((None, name), |(p, n)| (Some(p), n));
        let prefixed = prefix.is_none_or(|p| fqdn(p).is_ok());
        f.require(prefixed && !bare.is_empty() && word(bare, 63), &value, format!("invalid tag key: {name:?}"));
        let text = value.text().unwrap_or_default();
        f.require(word(text, 63), &value, format!("invalid tag value: {text:?}"));
    }
}

/// Whether two hosts can be asked for by one name.
pub(crate) fn overlap(a: &str, b: &str) -> bool {
    match (a.strip_prefix('*'), b.strip_prefix('*')) {
        (Some(a), Some(b)) => a.ends_with(b) || b.ends_with(a),
        (Some(a), None) => b.ends_with(a),
        (None, Some(b)) => a.ends_with(b),
        (None, None) => a == b,
    }
}

/// Which namespaces an object is for.
pub(crate) fn export_to(f: &mut Findings, spec: &At<'_>, own: &str, service_entry: bool, selects_workloads: bool) {
    let mut seen = std::collections::BTreeSet::new();
    let all = spec.items("exportTo");
    for entry in &all {
        let text = entry.text().unwrap_or_default();
        f.require(
            matches!(text, "*" | "." | "~") || namespace(text),
            entry,
            "only .,*, or a valid DNS 1123 label is allowed as exportTo entry",
        );
        f.require(text != "~" || service_entry, entry, "exportTo ~ (none) is not allowed for Istio configuration objects");
        let name = if text == "." { own } else { text };
        f.require(seen.insert(name), entry, format!("duplicate entries in exportTo for entry {name}"));
    }
    let at = spec.get("exportTo");
    if selects_workloads && (all.len() > 1 || all.iter().any(|e| e.text() != Some("."))) {
        f.error(&at, "an object with a workload selector is for its own namespace only");
    }
    if all.len() > 1 {
        f.require(!seen.contains("*"), &at, "cannot have both public (*) and non-public exportTo values for a resource");
        f.require(!seen.contains("~"), &at, "cannot export service entry to no one (~) and someone");
    }
}

/// Longest pattern: reading one takes hundreds of times its length.
const LONGEST: usize = 16 << 10;
/// How large a program a pattern may become, in bytes.
const LARGEST: usize = 512 << 10;
/// What is large: it takes a millisecond or so to find out how large.
const LARGE: usize = 16 << 10;
/// How many of these an object may have.
const MANY: usize = 32;

/// A pattern that Envoy will take: linear time, bounded size.
pub(crate) fn regex(f: &mut Findings, at: &At<'_>) {
    let Some(text) = at.text().filter(|_| !f.is_full()) else { return };
    if text.len() > LONGEST {
        return f.error(at, format!("a regexp of more than {LONGEST} bytes"));
    }
    let read = |limit: usize| regex::RegexBuilder::new(text).size_limit(limit).build().map(drop);
    let outcome = match read(LARGE) {
        Err(regex::Error::CompiledTooBig(_)) if f.large_patterns >= MANY => {
            return f.error(at, "one more large regexp than an object may have");
        }
        Err(regex::Error::CompiledTooBig(_)) => {
            f.large_patterns += 1;
            read(LARGEST)
        }
        outcome => outcome,
    };
    if let Err(e) = outcome {
        f.error(at, format!("error parsing regexp: {e}"));
    }
}
