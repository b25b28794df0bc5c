//! Names of Envoy resources. Tools and dashboards parse them, so they are part of the contract. Every resource has some, so
//! they are put together in one go, which formatting would not do.

/// Which way traffic goes, from the workload's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Direction {
    /// From the workload.
    Outbound,
    /// To the workload.
    Inbound,
}

impl Direction {
    /// As names spell it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Direction::Outbound => "outbound",
            Direction::Inbound => "inbound",
        }
    }
}

/// Takes nothing, answers nothing.
pub const BLACK_HOLE: &str = "BlackHoleCluster";
/// To the address that the client asked for.
pub const PASSTHROUGH: &str = "PassthroughCluster";
/// To the name that the request carries.
pub const DYNAMIC_DNS: &str = "AllowAnyDynamicDNSCluster";
/// To the workload's own address and port.
pub const INBOUND_PASSTHROUGH: &str = "InboundPassthroughCluster";
/// Captured outbound traffic.
pub const VIRTUAL_OUTBOUND: &str = "virtualOutbound";
/// Captured inbound traffic.
pub const VIRTUAL_INBOUND: &str = "virtualInbound";

/// `outbound|80|v1|shop.default.svc.cluster.local`.
pub fn cluster(direction: Direction, port: u16, subset: &str, host: &str) -> String {
    [direction.as_str(), "|", &port.to_string(), "|", subset, "|", host].concat()
}

/// The same with separators that a server name may hold: SNI of mesh mTLS, and clusters behind AUTO_PASSTHROUGH.
pub fn sni(direction: Direction, port: u16, subset: &str, host: &str) -> String {
    [direction.as_str(), "_.", &port.to_string(), "_.", subset, "_.", host].concat()
}

/// `inbound|8080||`.
pub fn inbound_cluster(port: u16) -> String {
    format!("inbound|{port}||")
}

/// `0.0.0.0_80`; of a Unix socket its path and port 0.
pub fn listener(bind: &str, port: u16) -> String {
    format!("{bind}_{port}")
}

/// `host:port`, as virtual hosts are named.
pub fn host_port(host: &str, port: u16) -> String {
    [host, ":", &port.to_string()].concat()
}

/// Path of a configuration object in the API, as telemetry metadata shows it. Always the newest API version.
pub fn config_path(group: &str, resource: &str, namespace: &str, name: &str) -> String {
    ["/apis/", group, "/v1/namespaces/", namespace, "/", resource, "/", name].concat()
}

/// `namespace/host` or `host`, as providers name their servers.
pub(crate) fn namespaced(service: &str) -> (Option<&str>, &str) {
    service.split_once('/').map_or((None, service), |(namespace, host)| (Some(namespace), host))
}

/// What a pattern of names in statistics may say of a service.
pub(crate) struct StatLabels<'a> {
    pub short: &'a str,
    pub name: &'a str,
    pub host: &'a str,
    pub port: u16,
    pub port_name: &'a str,
}

impl StatLabels<'_> {
    pub(crate) fn fill(&self, pattern: &str, subset: &str, target: u16) -> String {
        pattern
            .replace("%SERVICE%", self.short)
            .replace("%SERVICE_NAME%", self.name)
            .replace("%SERVICE_FQDN%", self.host)
            .replace("%SERVICE_PORT%", &self.port.to_string())
            .replace("%SERVICE_PORT_NAME%", self.port_name)
            .replace("%TARGET_PORT%", &target.to_string())
            .replace("%SUBSET_NAME%", subset)
    }
}
