//! ProxyConfig: settings of one proxy, from the mesh's default and from the proxy's own metadata.

mod connections;

use std::collections::BTreeMap;

use serde::Deserialize;

pub use self::connections::{ConnectionSettings, EscapedSlashes, Profile, Underscores};

use crate::mesh_config::Unused;
use crate::name::Str;
use crate::time::Span;

/// What Pilotfish reads of a ProxyConfig; other fields concern the agent and are ignored.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ProxyConfig {
    pub discovery_address: Option<Str>,
    pub status_port: Option<u16>,
    pub proxy_admin_port: Option<u16>,
    pub drain_duration: Option<Span>,
    pub termination_drain_duration: Option<Span>,
    pub tracing: Option<Tracing>,
    pub gateway_topology: Option<GatewayTopology>,
    pub proxy_headers: Option<ProxyHeaders>,
    pub envoy_access_log_service: Option<RemoteService>,
    pub proxy_metadata: BTreeMap<Str, Str>,
    pub connection_settings: Option<ConnectionSettings>,
    #[serde(deserialize_with = "key_provider")]
    pub private_key_provider: Option<PrivateKeyProvider>,
}

/// Hardware that signs with private keys.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum PrivateKeyProvider {
    /// Vector instructions, for several handshakes at a time.
    Cryptomb(KeyProviderSettings),
    /// A card.
    Qat(KeyProviderSettings),
}

/// See [`PrivateKeyProvider`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct KeyProviderSettings {
    /// How long operations are collected, or results waited for.
    pub poll_delay: Option<Span>,
    /// Without such hardware keys are used as always.
    pub fallback: Option<bool>,
}

/// One of another kind is none: agents describe themselves with it.
#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenProvider {
    cryptomb: Option<KeyProviderSettings>,
    qat: Option<KeyProviderSettings>,
}

fn key_provider<'de, D: serde::Deserializer<'de>>(d: D) -> Result<Option<PrivateKeyProvider>, D::Error> {
    let written = Option::<WrittenProvider>::deserialize(d)?.unwrap_or_default();
    Ok(written.cryptomb.map(PrivateKeyProvider::Cryptomb).or(written.qat.map(PrivateKeyProvider::Qat)))
}

/// Tracing of one proxy.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Tracing {
    pub zipkin: Option<RemoteService>,
    /// Percent.
    pub sampling: Option<Percent>,
    pub max_path_tag_length: Option<u32>,
    pub enable_istio_tags: Option<bool>,
    #[serde(deserialize_with = "custom_tags")]
    pub custom_tags: BTreeMap<Str, CustomTag>,
}

/// Where the value of a tag comes from.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum CustomTag {
    /// It is fixed.
    Literal(Str),
    /// A variable of the proxy's environment.
    Environment(TagSource),
    /// A header of the request.
    Header(TagSource),
    /// Envoy's format of access logs.
    Formatter(Str),
}

/// Something by name.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct TagSource {
    pub name: Str,
    pub default_value: Str,
}

/// A tag as it is written. Agents describe themselves with it, so that what is unknown must not fail.
#[derive(Deserialize, Default)]
#[serde(rename_all = "camelCase", default)]
struct WrittenTag {
    literal: Option<WrittenLiteral>,
    environment: Option<TagSource>,
    header: Option<TagSource>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
struct WrittenLiteral {
    value: Str,
}

fn custom_tags<'de, D: serde::Deserializer<'de>>(d: D) -> Result<BTreeMap<Str, CustomTag>, D::Error> {
    let written = BTreeMap::<Str, WrittenTag>::deserialize(d)?;
    let tag = |t: WrittenTag| {
        let literal = t.literal.map(|l| CustomTag::Literal(l.value));
        literal.or(t.environment.map(CustomTag::Environment)).or(t.header.map(CustomTag::Header))
    };
    Ok(written.into_iter().filter_map(|(name, t)| Some((name, tag(t)?))).collect())
}

/// A percentage as text keeps all digits; equality and hashing need no floats.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Percent(pub Str);

impl Percent {
    /// As a number.
    pub fn get(&self) -> f64 {
        self.0.parse().unwrap_or_default()
    }
}

impl<'de> Deserialize<'de> for Percent {
    fn deserialize<D: serde::Deserializer<'de>>(d: D) -> Result<Self, D::Error> {
        f64::deserialize(d).map(|n| Percent(n.to_string().into()))
    }
}

/// A server that the proxy calls, as `host:port`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct RemoteService {
    pub address: Str,
}

/// What stands before a gateway.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct GatewayTopology {
    pub num_trusted_proxies: u32,
    pub forward_client_cert_details: Option<ForwardClientCert>,
    pub proxy_protocol: Option<Unused>,
}

/// What becomes of the `x-forwarded-client-cert` header.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[allow(missing_docs)]
pub enum ForwardClientCert {
    Undefined,
    Sanitize,
    ForwardOnly,
    AppendForward,
    SanitizeSet,
    AlwaysForwardOnly,
}

/// Headers that the proxy writes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ProxyHeaders {
    pub forwarded_client_cert: Option<ForwardClientCert>,
    pub set_current_client_cert_details: Option<ClientCertDetails>,
    pub request_id: Option<Disabled>,
    pub server: Option<ServerHeader>,
    pub attempt_count: Option<Disabled>,
    pub envoy_debug_headers: Option<Disabled>,
    pub metadata_exchange_headers: Option<MetadataExchangeHeaders>,
    pub preserve_http1_header_case: Option<bool>,
    #[serde(rename = "xForwardedHost")]
    pub x_forwarded_host: Option<Enabled>,
    #[serde(rename = "xForwardedPort")]
    pub x_forwarded_port: Option<Enabled>,
}

/// Parts of the client certificate that are forwarded; `None` leaves the default.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ClientCertDetails {
    pub subject: Option<bool>,
    pub cert: Option<bool>,
    pub chain: Option<bool>,
    pub dns: Option<bool>,
    pub uri: Option<bool>,
}

/// A switch that is on unless `disabled`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Disabled {
    pub disabled: Option<bool>,
}

/// A switch that is off unless `enabled`.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct Enabled {
    pub enabled: Option<bool>,
}

/// The `server` header.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct ServerHeader {
    pub disabled: Option<bool>,
    pub value: Str,
}

/// Headers that carry peer metadata.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash, Deserialize)]
#[serde(rename_all = "camelCase", default)]
#[allow(missing_docs)]
pub struct MetadataExchangeHeaders {
    pub mode: Option<Str>,
}
