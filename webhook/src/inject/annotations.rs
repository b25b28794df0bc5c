//! Annotations by which a pod shapes its sidecar, and what they may say.

use std::collections::BTreeMap;

use super::InjectError;
use super::quantity;

/// What was injected, for the next time.
pub(crate) const STATUS: &str = "sidecar.istio.io/status";
/// What the user wrote for containers that a template has as well.
pub(crate) const OVERRIDES: &str = "proxy.istio.io/overrides";
/// Templates to use.
pub(crate) const TEMPLATES: &str = "inject.istio.io/templates";
/// ProxyConfig of one pod.
pub(crate) const PROXY_CONFIG: &str = "proxy.istio.io/config";
/// How connections reach the proxy.
pub(crate) const INTERCEPTION: &str = "sidecar.istio.io/interceptionMode";
/// Port of the agent.
pub(crate) const STATUS_PORT: &str = "status.sidecar.istio.io/port";
/// Whether metrics of application and proxy are merged.
pub(crate) const MERGE_METRICS: &str = "prometheus.istio.io/merge-metrics";
/// Whether probes go through the agent.
pub(crate) const REWRITE_PROBES: &str = "sidecar.istio.io/rewriteAppHTTPProbers";
/// Whether the proxy is an init container that keeps running.
pub(crate) const NATIVE: &str = "sidecar.istio.io/nativeSidecar";

type Check = fn(&str) -> Result<(), String>;

const CHECKS: &[(&str, Check)] = &[
    (INTERCEPTION, interception),
    (STATUS_PORT, port_or_zero),
    ("readiness.status.sidecar.istio.io/initialDelaySeconds", unsigned),
    ("readiness.status.sidecar.istio.io/periodSeconds", unsigned),
    ("readiness.status.sidecar.istio.io/failureThreshold", unsigned),
    ("traffic.sidecar.istio.io/includeOutboundIPRanges", included_ranges),
    ("traffic.sidecar.istio.io/excludeOutboundIPRanges", ranges),
    ("traffic.sidecar.istio.io/includeInboundPorts", included_ports),
    ("traffic.sidecar.istio.io/excludeInboundPorts", ports),
    ("traffic.sidecar.istio.io/excludeOutboundPorts", ports),
    ("traffic.sidecar.istio.io/excludeInterfaces", names),
    ("traffic.sidecar.istio.io/kubevirtInterfaces", names),
    ("istio.io/reroute-virtual-interfaces", names),
    (MERGE_METRICS, boolean),
    (PROXY_CONFIG, yaml_map),
    ("sidecar.istio.io/proxyCPU", quantity_text),
    ("sidecar.istio.io/proxyMemory", quantity_text),
    ("sidecar.istio.io/proxyCPULimit", quantity_text),
    ("sidecar.istio.io/proxyMemoryLimit", quantity_text),
];

/// Checks all annotations of a pod; the first bad one is the error.
pub(crate) fn check(annotations: &BTreeMap<String, String>) -> Result<(), InjectError> {
    for (name, check) in CHECKS {
        if let Some(value) = annotations.get(*name) {
            check(value).map_err(|reason| InjectError::Annotation { name: (*name).to_owned(), reason })?;
        }
    }
    Ok(())
}

fn interception(value: &str) -> Result<(), String> {
    match value {
        "REDIRECT" | "TPROXY" | "NONE" => Ok(()),
        _ => Err(format!("{value:?} is none of REDIRECT, TPROXY and NONE")),
    }
}

fn port_or_zero(value: &str) -> Result<(), String> {
    value.parse::<u16>().map(drop).map_err(|_| format!("{value:?} is not a port"))
}

fn unsigned(value: &str) -> Result<(), String> {
    value.parse::<u32>().map(drop).map_err(|_| format!("{value:?} is not an unsigned number"))
}

fn items(value: &str) -> impl Iterator<Item = &str> {
    value.split(',').map(str::trim).filter(|item| !item.is_empty())
}

fn ranges(value: &str) -> Result<(), String> {
    match items(value).find(|item| item.parse::<ipnet::IpNet>().is_err()) {
        Some(bad) => Err(format!("{bad:?} is not a range of addresses (CIDR)")),
        None => Ok(()),
    }
}

fn included_ranges(value: &str) -> Result<(), String> {
    if value == "*" { Ok(()) } else { ranges(value) }
}

fn ports(value: &str) -> Result<(), String> {
    items(value).try_for_each(|item| match item.parse::<u16>() {
        Ok(1..) => Ok(()),
        _ => Err(format!("{item:?} is not a port")),
    })
}

fn included_ports(value: &str) -> Result<(), String> {
    if value == "*" { Ok(()) } else { ports(value) }
}

fn names(value: &str) -> Result<(), String> {
    match items(value).find(|item| item.contains(char::is_whitespace)) {
        Some(bad) => Err(format!("{bad:?} is not a name")),
        None => Ok(()),
    }
}

/// As Go reads a boolean.
pub(crate) fn parse_bool(value: &str) -> Option<bool> {
    match value {
        "1" | "t" | "T" | "true" | "TRUE" | "True" => Some(true),
        "0" | "f" | "F" | "false" | "FALSE" | "False" => Some(false),
        _ => None,
    }
}

fn boolean(value: &str) -> Result<(), String> {
    parse_bool(value).map(drop).ok_or_else(|| format!("{value:?} is not a boolean"))
}

fn yaml_map(value: &str) -> Result<(), String> {
    match yaml_serde::from_str::<serde_json::Value>(value) {
        Ok(v) if v.is_object() || v.is_null() => Ok(()),
        Ok(_) => Err("is not a ProxyConfig".to_owned()),
        Err(e) => Err(format!("is not a ProxyConfig: {e}")),
    }
}

fn quantity_text(value: &str) -> Result<(), String> {
    quantity::canonical(value).map(drop).ok_or_else(|| format!("{value:?} is not a quantity"))
}
