//! Names in statistics: patterns of mesh config, and the sign that ends a name.

use pilotfish_model::name::{Host, Str};

use crate::naming::StatLabels;

/// What a pattern may name.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct StatName<'a> {
    /// Pattern of mesh config; empty: none.
    pub pattern: &'a str,
    /// Host of the service.
    pub host: &'a Host,
    /// Name of the Kubernetes Service, or of whatever stands for it.
    pub name: &'a str,
    /// Its namespace.
    pub namespace: &'a str,
    /// Subset; may be empty.
    pub subset: &'a str,
    /// Port of the service.
    pub port: u16,
    /// Where the workload listens, where that is known.
    pub target_port: u16,
    /// Name of the port.
    pub port_name: &'a str,
}

impl StatName<'_> {
    /// The name that the pattern makes; `None` without a pattern, and where it names only what there is not: Envoy takes no filter
    /// without a name, and one such chain would cost the whole listener.
    pub fn resolve(&self) -> Option<String> {
        if self.pattern.is_empty() {
            return None;
        }
        let short = if self.namespace.is_empty() { self.name.to_owned() } else { format!("{}.{}", self.name, self.namespace) };
        let labels = StatLabels { short: &short, name: self.name, host: self.host.as_str(), port: self.port, port_name: self.port_name };
        Some(labels.fill(self.pattern, self.subset, self.target_port)).filter(|name| !name.is_empty())
    }
}

/// `outbound_0.0.0.0_80;`. The sign tells tools where the name ends, which may itself hold dots.
pub fn outbound(listener: &str) -> String {
    format!("outbound_{listener};")
}

/// `inbound_0.0.0.0_8080;`.
pub fn inbound(chain: &str) -> String {
    format!("inbound_{chain};")
}

/// A cluster name as a connection manager's name.
pub fn cluster(name: &Str) -> String {
    format!("{name};")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn patterns_are_filled_in() {
        let host = Host::new("web.shop.svc.cluster.local");
        let name = |pattern| StatName {
            pattern,
            host: &host,
            name: "web",
            namespace: "shop",
            subset: "v1",
            port: 80,
            target_port: 8080,
            port_name: "http",
        };
        assert_eq!(name("").resolve(), None);
        assert_eq!(StatName { subset: "", ..name("%SUBSET_NAME%") }.resolve(), None);
        assert_eq!(name("%SERVICE%_%SERVICE_PORT_NAME%_%SERVICE_PORT%").resolve().unwrap(), "web.shop_http_80");
        assert_eq!(
            name("%SERVICE_FQDN%|%SUBSET_NAME%|%TARGET_PORT%|%SERVICE_NAME%").resolve().unwrap(),
            "web.shop.svc.cluster.local|v1|8080|web"
        );
    }
}
