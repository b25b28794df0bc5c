//! The resource types of xDS.

use std::fmt;

/// A type that clients may subscribe to. The order is the order of additions in a push ("make before break"): clusters
/// before their endpoints, listeners before the routes they name, secrets and the rest after.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum TypeUrl {
    /// CDS.
    Cluster,
    /// EDS.
    Endpoint,
    /// LDS.
    Listener,
    /// RDS.
    Route,
    /// SDS.
    Secret,
    /// ECDS.
    ExtensionConfig,
    /// Istio's DNS name table (NDS).
    NameTable,
    /// Istio's per-proxy ProxyConfig (PCDS).
    ProxyConfig,
}

impl TypeUrl {
    /// Every type, in push order.
    pub const ALL: [TypeUrl; 8] = [
        TypeUrl::Cluster,
        TypeUrl::Endpoint,
        TypeUrl::Listener,
        TypeUrl::Route,
        TypeUrl::Secret,
        TypeUrl::ExtensionConfig,
        TypeUrl::NameTable,
        TypeUrl::ProxyConfig,
    ];

    /// The URL on the wire.
    pub const fn as_str(self) -> &'static str {
        match self {
            TypeUrl::Cluster => "type.googleapis.com/envoy.config.cluster.v3.Cluster",
            TypeUrl::Endpoint => "type.googleapis.com/envoy.config.endpoint.v3.ClusterLoadAssignment",
            TypeUrl::Listener => "type.googleapis.com/envoy.config.listener.v3.Listener",
            TypeUrl::Route => "type.googleapis.com/envoy.config.route.v3.RouteConfiguration",
            TypeUrl::Secret => "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret",
            TypeUrl::ExtensionConfig => "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            TypeUrl::NameTable => "type.googleapis.com/istio.networking.nds.v1.NameTable",
            TypeUrl::ProxyConfig => "type.googleapis.com/istio.mesh.v1alpha1.ProxyConfig",
        }
    }

    /// From the wire; `None` for a type that is not served.
    pub fn parse(url: &str) -> Option<TypeUrl> {
        TypeUrl::ALL.into_iter().find(|t| t.as_str() == url)
    }

    /// The abbreviation that metrics and the debug interface use, in lower case.
    pub const fn short(self) -> &'static str {
        match self {
            TypeUrl::Cluster => "cds",
            TypeUrl::Endpoint => "eds",
            TypeUrl::Listener => "lds",
            TypeUrl::Route => "rds",
            TypeUrl::Secret => "sds",
            TypeUrl::ExtensionConfig => "ecds",
            TypeUrl::NameTable => "nds",
            TypeUrl::ProxyConfig => "pcds",
        }
    }

    /// True for types whose first request without names means everything (the xDS protocol's legacy wildcard).
    pub const fn is_wildcard(self) -> bool {
        matches!(self, TypeUrl::Cluster | TypeUrl::Listener | TypeUrl::NameTable | TypeUrl::ProxyConfig)
    }
}

impl fmt::Display for TypeUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}
