//! MeshConfig: settings of the whole mesh, with the reference's defaults.
//!
//! Read straight from the file's shape; an unknown field or value is an error. Fields whose feature is not built yet are
//! accepted and kept out ([`Unused`]), so that a working istiod configuration starts.

mod client_tls;
mod networks;
mod provider;
mod selector;
mod traffic_policy;
mod visibility;

use std::collections::BTreeMap;
use std::sync::LazyLock;
use std::time::Duration;

use serde::{Deserialize, Deserializer};

use crate::destination_rule::{Distribute, H2Upgrade, LocalityLb, ZoneAwareLb};
use crate::features::Features;
use crate::name::Str;
use crate::proxy_config::ProxyConfig;
use crate::sidecar::OutboundMode;
use crate::time::Span;
use crate::tls::{ClientTls, ClientTlsMode, TlsVersion};

pub use networks::*;
pub use provider::*;
pub use selector::*;
pub use traffic_policy::*;
pub use visibility::*;

/// Cluster id where nobody says another.
pub const DEFAULT_CLUSTER_ID: &str = "Kubernetes";

/// A field that is valid and has no effect yet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub struct Unused;

impl<'de> Deserialize<'de> for Unused {
    fn deserialize<D: Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        serde::de::IgnoredAny::deserialize(d).map(|_| Unused)
    }
}

/// The mesh's settings.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct MeshConfig {
    pub root_namespace: Str,
    pub trust_domain: Str,
    pub trust_domain_aliases: Vec<Str>,
    pub proxy_listen_port: u16,
    pub proxy_inbound_listen_port: u16,
    /// Port of the HTTP proxy listener of sidecars; 0: none.
    pub proxy_http_port: u16,
    pub connect_timeout: Span,
    pub protocol_detection_timeout: Span,
    pub tcp_keepalive: Option<TcpKeepaliveConfig>,
    pub ingress_class: Str,
    pub ingress_service: Str,
    pub ingress_selector: Str,
    pub ingress_controller_mode: Str,
    pub enable_tracing: bool,
    pub access_log_file: Str,
    pub access_log_format: Str,
    pub access_log_encoding: AccessLogEncoding,
    pub enable_envoy_access_log_service: bool,
    pub disable_envoy_listener_log: bool,
    pub default_config: ProxyConfig,
    pub outbound_traffic_policy: OutboundTrafficPolicy,
    pub inbound_traffic_policy: InboundTrafficPolicy,
    pub enable_auto_mtls: bool,
    pub default_service_export_to: Vec<Str>,
    pub default_virtual_service_export_to: Vec<Str>,
    pub default_destination_rule_export_to: Vec<Str>,
    #[serde(deserialize_with = "locality")]
    pub locality_lb_setting: LocalityLb,
    pub dns_refresh_rate: Span,
    pub h2_upgrade_policy: H2UpgradePolicy,
    pub inbound_cluster_stat_name: Str,
    pub outbound_cluster_stat_name: Str,
    pub service_settings: Vec<ServiceSetting>,
    pub enable_prometheus_merge: bool,
    pub extension_providers: Vec<ExtensionProvider>,
    pub default_providers: DefaultProviders,
    pub discovery_selectors: Vec<LabelSelector>,
    pub path_normalization: PathNormalizationConfig,
    pub default_http_retry_policy: Option<RetryConfig>,
    #[serde(rename = "meshMTLS", deserialize_with = "between_proxies")]
    pub mesh_mtls: TlsConfig,
    pub tls_defaults: TlsConfig,
    pub verify_certificate_at_client: Option<bool>,
    pub hbone_idle_timeout: Option<Span>,
    pub ca_certificates: Unused,
    pub ca: Unused,
    pub certificates: Unused,
    pub config_sources: Unused,
    pub service_scope_configs: Unused,
    #[serde(deserialize_with = "zone_aware")]
    pub zone_aware_lb_setting: Option<ZoneAwareLb>,
    pub default_traffic_policy: Option<DefaultTrafficPolicy>,
    pub service_entry_visibility: Option<ServiceEntryVisibility>,
    /// Not of the file: switches of this process.
    #[serde(skip)]
    pub features: Features,
}

impl Default for MeshConfig {
    fn default() -> Self {
        let all = || vec![Str::from("*")];
        MeshConfig {
            root_namespace: "istio-system".into(),
            trust_domain: "cluster.local".into(),
            trust_domain_aliases: Vec::new(),
            proxy_listen_port: 15001,
            proxy_inbound_listen_port: 15006,
            proxy_http_port: 0,
            connect_timeout: Span(Duration::from_secs(10)),
            protocol_detection_timeout: Span::default(),
            tcp_keepalive: None,
            ingress_class: "istio".into(),
            ingress_service: "istio-ingressgateway".into(),
            ingress_selector: "".into(),
            ingress_controller_mode: "STRICT".into(),
            enable_tracing: true,
            access_log_file: "".into(),
            access_log_format: "".into(),
            access_log_encoding: AccessLogEncoding::Text,
            enable_envoy_access_log_service: false,
            disable_envoy_listener_log: false,
            default_config: ProxyConfig::default(),
            outbound_traffic_policy: OutboundTrafficPolicy { mode: OutboundMode::AllowAny, tls: None },
            inbound_traffic_policy: InboundTrafficPolicy::default(),
            enable_auto_mtls: true,
            default_service_export_to: all(),
            default_virtual_service_export_to: all(),
            default_destination_rule_export_to: all(),
            locality_lb_setting: LocalityLb { enabled: Some(true), ..LocalityLb::default() },
            dns_refresh_rate: Span(Duration::from_secs(60)),
            h2_upgrade_policy: H2UpgradePolicy::DoNotUpgrade,
            inbound_cluster_stat_name: "".into(),
            outbound_cluster_stat_name: "".into(),
            service_settings: Vec::new(),
            enable_prometheus_merge: true,
            extension_providers: Vec::new(),
            default_providers: DefaultProviders::default(),
            discovery_selectors: Vec::new(),
            path_normalization: PathNormalizationConfig::default(),
            default_http_retry_policy: None,
            mesh_mtls: TlsConfig::default(),
            tls_defaults: TlsConfig::default(),
            verify_certificate_at_client: None,
            hbone_idle_timeout: None,
            ca_certificates: Unused,
            ca: Unused,
            certificates: Unused,
            config_sources: Unused,
            service_scope_configs: Unused,
            zone_aware_lb_setting: None,
            default_traffic_policy: None,
            service_entry_visibility: None,
            features: Features::default(),
        }
    }
}

/// TCP keepalive of all upstream connections.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TcpKeepaliveConfig {
    pub probes: Option<u32>,
    pub time: Option<Span>,
    pub interval: Option<Span>,
}

/// How access logs are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum AccessLogEncoding {
    #[default]
    Text,
    Json,
}

/// Unknown outbound traffic.
#[derive(Clone, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[allow(missing_docs)]
pub struct OutboundTrafficPolicy {
    #[serde(default = "registry_only")]
    pub mode: OutboundMode,
    /// Towards hosts that proxies resolve themselves.
    #[serde(default, deserialize_with = "client_tls::read")]
    pub tls: Option<ClientTls>,
}

/// The API's zero value, for a policy that is given without a mode.
fn registry_only() -> OutboundMode {
    OutboundMode::RegistryOnly
}

/// Where inbound traffic goes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct InboundTrafficPolicy {
    pub mode: InboundMode,
}

/// Where inbound traffic goes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum InboundMode {
    /// To the address the client asked for.
    #[default]
    Passthrough,
    /// To the loopback address.
    Localhost,
}

/// Whether HTTP/1.1 becomes HTTP/2.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum H2UpgradePolicy {
    #[default]
    DoNotUpgrade,
    Upgrade,
}

impl From<H2UpgradePolicy> for H2Upgrade {
    fn from(policy: H2UpgradePolicy) -> Self {
        match policy {
            H2UpgradePolicy::DoNotUpgrade => H2Upgrade::DoNotUpgrade,
            H2UpgradePolicy::Upgrade => H2Upgrade::Upgrade,
        }
    }
}

/// Settings of named services.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ServiceSetting {
    pub settings: ServiceSettings,
    pub hosts: Vec<Str>,
}

/// See [`ServiceSetting`].
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct ServiceSettings {
    pub cluster_local: bool,
}

/// Providers used where no Telemetry names one.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct DefaultProviders {
    pub tracing: Vec<Str>,
    pub metrics: Vec<Str>,
    pub access_logging: Vec<Str>,
}

/// How paths are normalised.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct PathNormalizationConfig {
    pub normalization: PathNormalization,
}

/// How paths are normalised.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum PathNormalization {
    #[default]
    Default,
    None,
    Base,
    MergeSlashes,
    DecodeAndMergeSlashes,
}

/// Retries where a route says nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct RetryConfig {
    pub attempts: u32,
    pub per_try_timeout: Option<Span>,
    pub retry_on: Str,
    pub retry_remote_localities: Option<bool>,
    pub retry_ignore_previous_hosts: Option<bool>,
    pub backoff: Option<Span>,
}

impl From<&RetryConfig> for crate::virtual_service::HttpRetry {
    fn from(c: &RetryConfig) -> Self {
        crate::virtual_service::HttpRetry {
            attempts: c.attempts,
            per_try_timeout: c.per_try_timeout.map(Into::into),
            retry_on: c.retry_on.clone(),
            retry_remote_localities: c.retry_remote_localities,
            retry_ignore_previous_hosts: c.retry_ignore_previous_hosts,
            backoff: c.backoff.map(Into::into),
        }
    }
}

/// Limits of TLS.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[allow(missing_docs)]
pub struct TlsConfig {
    pub min_protocol_version: MinTlsVersion,
    pub ecdh_curves: Vec<Str>,
    pub cipher_suites: Vec<Str>,
}

/// Proxies agree on a curve among themselves.
#[derive(Default, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
struct MutualTlsConfig {
    min_protocol_version: MinTlsVersion,
    cipher_suites: Vec<Str>,
}

fn between_proxies<'de, D: Deserializer<'de>>(d: D) -> Result<TlsConfig, D::Error> {
    let MutualTlsConfig { min_protocol_version, cipher_suites } = MutualTlsConfig::deserialize(d)?;
    Ok(TlsConfig { min_protocol_version, cipher_suites, ecdh_curves: Vec::new() })
}

/// Lowest TLS version.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[allow(missing_docs)]
pub enum MinTlsVersion {
    #[default]
    #[serde(rename = "TLS_AUTO")]
    Auto,
    #[serde(rename = "TLSV1_2")]
    V1_2,
    #[serde(rename = "TLSV1_3")]
    V1_3,
}

impl MinTlsVersion {
    /// The version; `None` leaves the default.
    pub fn version(self) -> Option<TlsVersion> {
        match self {
            MinTlsVersion::Auto => None,
            MinTlsVersion::V1_2 => Some(TlsVersion::V1_2),
            MinTlsVersion::V1_3 => Some(TlsVersion::V1_3),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct LocalityConfig {
    #[serde(default)]
    distribute: Vec<DistributeConfig>,
    #[serde(default)]
    failover: Vec<FailoverConfig>,
    #[serde(default)]
    failover_priority: Vec<Str>,
    enabled: Option<bool>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct DistributeConfig {
    from: Str,
    to: BTreeMap<Str, u32>,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct FailoverConfig {
    from: Str,
    to: Str,
}

fn locality<'de, D: Deserializer<'de>>(d: D) -> Result<LocalityLb, D::Error> {
    let c = LocalityConfig::deserialize(d)?;
    Ok(LocalityLb {
        distribute: c.distribute.into_iter().map(|d| Distribute { from: d.from, to: d.to.into_iter().collect() }).collect(),
        failover: c.failover.into_iter().map(|f| (f.from, f.to)).collect(),
        failover_priority: c.failover_priority,
        enabled: c.enabled,
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
struct ZoneAwareConfig {
    enabled: Option<bool>,
    #[serde(default)]
    failover: Vec<FailoverConfig>,
    #[serde(default)]
    failover_priority: Vec<Str>,
    min_cluster_size: Option<u32>,
}

fn zone_aware<'de, D: Deserializer<'de>>(d: D) -> Result<Option<ZoneAwareLb>, D::Error> {
    let config = Option::<ZoneAwareConfig>::deserialize(d)?;
    Ok(config.map(|c| ZoneAwareLb {
        enabled: c.enabled,
        failover: c.failover.into_iter().map(|f| (f.from, f.to)).collect(),
        failover_priority: c.failover_priority,
        min_cluster_size: c.min_cluster_size,
    }))
}

/// Providers that exist without being declared.
static BUILT_IN_PROVIDERS: LazyLock<[ExtensionProvider; 2]> = LazyLock::new(|| {
    let file = FileAccessLogProvider { path: "/dev/stdout".into(), ..FileAccessLogProvider::default() };
    [
        ExtensionProvider { name: "prometheus".into(), kind: ProviderKind::Prometheus(Unused) },
        ExtensionProvider { name: BUILT_IN_LOG.into(), kind: ProviderKind::EnvoyFileAccessLog(file) },
    ]
});

/// Access log provider that writes as the mesh's own settings say.
pub const BUILT_IN_LOG: &str = "envoy";

impl MeshConfig {
    /// A field whose values do not go together, and why: what could not be kept would go out in clear text.
    pub fn mistake(&self) -> Option<(&'static str, &'static str)> {
        let tls = self.outbound_traffic_policy.tls.as_ref()?;
        let why = if !tls.credential_name.is_empty() {
            "credentialName is not for sidecars in general; name files"
        } else if tls.mode == ClientTlsMode::Mutual && (tls.client_certificate.is_empty() || tls.private_key.is_empty()) {
            "MUTUAL needs clientCertificate and privateKey"
        } else {
            return None;
        };
        Some(("outboundTrafficPolicy.tls", why))
    }

    /// The provider of that name; case does not matter.
    pub fn provider(&self, name: &str) -> Option<&ExtensionProvider> {
        self.extension_providers.iter().chain(&*BUILT_IN_PROVIDERS).find(|p| p.name.eq_ignore_ascii_case(name))
    }
}
