//! ServiceEntries, WorkloadEntries and WorkloadGroups.

use std::collections::BTreeSet;

use super::cursor::{At, Findings};
use super::names;

pub(crate) fn service_entry(f: &mut Findings, spec: &At<'_>, namespace: &str, labels: &At<'_>) {
    let resolution = match spec.str("resolution") {
        "" => "NONE",
        r => r,
    };
    let hosts = spec.items("hosts");
    f.require(!hosts.is_empty(), &spec.get("hosts"), "service entry must have at least one host");
    for host in &hosts {
        let text = host.text().unwrap_or_default();
        if text == "*" {
            f.error(host, "invalid host *");
        } else {
            f.check(host, names::wildcard_domain(text));
        }
    }
    let selector = spec.get("workloadSelector");
    if selector.exists() {
        if resolution == "NONE" {
            f.warning(&selector, "should not be set when resolution mode is NONE");
        }
        f.require(!spec.get("endpoints").is_set(), &selector, "only one of WorkloadSelector or Endpoints is allowed in Service Entry");
    }
    super::workload_selector(f, &selector, "labels");
    let ports = ports(f, spec, resolution);
    for address in spec.items("addresses") {
        let text = address.text().unwrap_or_default();
        f.require(names::ip_or_range(text), &address, format!("{text} is not an address or a range of addresses"));
        let range = text.contains('/');
        f.require(
            !range || matches!(resolution, "NONE" | "STATIC"),
            &address,
            "CIDR addresses are allowed only for NONE/STATIC resolution types",
        );
    }
    addresses_needed(f, spec);
    let endpoints = spec.items("endpoints");
    match resolution {
        "NONE" => f.require(endpoints.is_empty(), &spec.get("endpoints"), "no endpoints should be provided for resolution type none"),
        "STATIC" => {
            for e in &endpoints {
                endpoint(f, e, &ports, Address::Ip);
            }
        }
        "DNS" | "DNS_ROUND_ROBIN" => {
            if resolution == "DNS_ROUND_ROBIN" {
                f.require(
                    endpoints.len() <= 1,
                    &spec.get("endpoints"),
                    "there must only be 0 or 1 endpoint for resolution mode DNS_ROUND_ROBIN",
                );
            }
            if endpoints.is_empty() {
                for host in &hosts {
                    let text = host.text().unwrap_or_default();
                    let fine = names::fqdn(text).is_ok() || (selector.exists() && !text.is_empty());
                    f.require(fine, host, format!("hosts must be FQDN if no endpoints are provided for resolution mode {resolution}"));
                }
            }
            for e in &endpoints {
                endpoint(f, e, &ports, Address::Name);
            }
        }
        "DYNAMIC_DNS" => dynamic_dns(f, spec, &hosts, labels),
        _ => {}
    }
    names::export_to(f, spec, namespace, true, false);
}

fn ports<'a>(f: &mut Findings, spec: &At<'a>, resolution: &str) -> BTreeSet<&'a str> {
    let (mut names_seen, mut numbers) = (BTreeSet::new(), BTreeSet::new());
    for port in spec.items("ports") {
        let name = port.str("name");
        f.require(names::label(name), &port.get("name"), format!("invalid port name: {name}"));
        f.require(names_seen.insert(name), &port.get("name"), format!("service entry port name {name:?} already defined"));
        names::port(f, &port.get("number"));
        let number = port.get("number").number().unwrap_or_default();
        f.require(numbers.insert(number as u32), &port.get("number"), format!("service entry port {number} already defined"));
        if port.has("targetPort") {
            names::port(f, &port.get("targetPort"));
        }
        let protocol = port.str("protocol");
        f.require(names::protocol(protocol), &port.get("protocol"), format!("unsupported protocol: {protocol}"));
        if resolution == "DYNAMIC_DNS" {
            let fine = ["HTTP", "TLS", "GRPC", "HTTP2", "HTTPS"].iter().any(|k| k.eq_ignore_ascii_case(protocol));
            f.require(
                fine,
                &port.get("protocol"),
                "only HTTP, TLS, GRPC, and HTTP2 protocols are supported for resolution type DYNAMIC_DNS",
            );
        }
    }
    names_seen
}

fn addresses_needed(f: &mut Findings, spec: &At<'_>) {
    let tcp = spec.items("ports").iter().any(|p| matches!(p.str("protocol").to_ascii_uppercase().as_str(), "" | "TCP"));
    if !spec.get("addresses").is_set() && tcp && spec.str("resolution") != "DYNAMIC_DNS" {
        f.warning(
            &spec.get("addresses"),
            "addresses are required for ports serving TCP (or unset) protocol when IP Autoallocation is not enabled",
        );
    }
}

fn dynamic_dns(f: &mut Findings, spec: &At<'_>, hosts: &[At<'_>], labels: &At<'_>) {
    f.require(!spec.get("addresses").is_set(), &spec.get("addresses"), "addresses cannot be set for resolution type DYNAMIC_DNS");
    f.require(!spec.get("endpoints").is_set(), &spec.get("endpoints"), "endpoints cannot be set for resolution type DYNAMIC_DNS");
    for host in hosts {
        f.require(host.text().is_some_and(|h| h.starts_with('*')), host, "host must be wildcarded for resolution mode DYNAMIC_DNS");
    }
    if spec.str("location") == "MESH_INTERNAL" && !labels.str("istio.io/use-waypoint").is_empty() {
        f.error(&spec.get("location"), "location MESH_INTERNAL with resolution type DYNAMIC_DNS is not supported when using waypoints");
    }
}

/// What an endpoint's address may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Address {
    /// An address or a Unix socket.
    Ip,
    /// A name or an address.
    Name,
    /// Any of them.
    Any,
}

fn endpoint(f: &mut Findings, e: &At<'_>, ports: &BTreeSet<&str>, address: Address) {
    entry(f, e, address, true);
    let unix = e.str("address").starts_with("unix://");
    for (name, port) in e.fields("ports") {
        f.require(unix || ports.contains(name), &port, format!("endpoint port {name} is not defined by the service entry"));
    }
}

fn entry(f: &mut Findings, e: &At<'_>, kind: Address, required: bool) {
    let at = e.get("address");
    let text = at.text().unwrap_or_default();
    if text.is_empty() {
        let network = e.str("network");
        if !network.is_empty() {
            f.warning(&at, format!("address is unset with network {network:?}"));
        } else if required {
            f.error(&at, "address is required");
        }
    } else if text.starts_with("unix://") {
        f.require(kind != Address::Name, &at, format!("endpoint address {text:?} is not a valid FQDN or an IP address"));
        f.check(&at, names::unix_path(text));
        f.require(!e.get("ports").is_set(), &e.get("ports"), format!("unix endpoint {text} must not include ports"));
    } else if kind == Address::Ip {
        f.require(names::ip(text), &at, format!("endpoint address {text:?} is not a valid IP address"));
    } else {
        f.require(
            names::ip(text) || names::fqdn(text).is_ok(),
            &at,
            format!("endpoint address {text:?} is not a valid FQDN or an IP address"),
        );
    }
    for (name, port) in e.fields("ports") {
        f.require(names::label(name), &port, format!("invalid port name: {name}"));
        names::port(f, &port);
    }
    names::label_map(f, e, "labels");
    let locality = e.get("locality");
    if let Some(text) = locality.text().filter(|t| !t.is_empty()) {
        let parts = text.split('/').count();
        let fine = parts <= 3 && text.split('/').all(|p| !p.is_empty()) && !text.contains('*');
        f.require(fine, &locality, format!("{text:?} is not region/zone/subzone"));
    }
}

pub(crate) fn workload_entry(f: &mut Findings, spec: &At<'_>) {
    entry(f, spec, Address::Any, true);
}

pub(crate) fn workload_group(f: &mut Findings, spec: &At<'_>) {
    let template = spec.get("template");
    f.require(template.exists(), &template, "template is required");
    if template.exists() {
        entry(f, &template, Address::Any, false);
    }
    names::label_map(f, &spec.get("metadata"), "labels");
    let probe = spec.get("probe");
    if !probe.exists() {
        return;
    }
    for key in ["initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"] {
        f.require(probe.get(key).number().is_none_or(|n| n >= 0.0), &probe.get(key), "must be non-negative");
    }
    let methods: Vec<_> = ["httpGet", "tcpSocket", "exec", "grpc"].into_iter().filter(|k| probe.has(k)).collect();
    f.require(methods.len() == 1, &probe, "exactly one health check method must be given");
    for method in methods {
        let m = probe.get(method);
        match method {
            "httpGet" => {
                names::port(f, &m.get("port"));
                let scheme = m.str("scheme").to_ascii_uppercase();
                f.require(matches!(scheme.as_str(), "" | "HTTP" | "HTTPS"), &m.get("scheme"), "must be HTTP or HTTPS");
                for header in m.items("httpHeaders") {
                    f.require(!header.str("name").is_empty(), &header, "header name cannot be empty");
                }
            }
            "exec" => f.require(m.get("command").is_set(), &m.get("command"), "exec.command is required"),
            _ => names::port(f, &m.get("port")),
        }
    }
}
