//! `networking.istio.io`.

pub mod destination_rule;
pub mod envoy_filter;
pub mod gateway;
pub mod proxy_config;
pub mod service_entry;
pub mod sidecar;
pub mod tls;
pub mod virtual_service;
pub mod workload_entry;
pub mod workload_group;

pub use destination_rule::DestinationRuleSpec;
pub use envoy_filter::EnvoyFilterSpec;
pub use gateway::GatewaySpec;
pub use proxy_config::ProxyConfigSpec;
pub use service_entry::{ServiceEntrySpec, ServiceEntryStatus};
pub use sidecar::SidecarSpec;
pub use virtual_service::VirtualServiceSpec;
pub use workload_entry::WorkloadEntrySpec;
pub use workload_group::WorkloadGroupSpec;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Num;
pub use crate::policy::LabelsSelector;
use crate::schema::{each, rule, set};

/// A port by number, as selectors of ports are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PortSelector {
    pub number: Option<Num<u16>>,
}

/// A service of the mesh as a target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["host"]))]
pub struct Destination {
    pub host: String,
    pub subset: String,
    pub port: Option<PortSelector>,
}

/// Workloads by labels, under the key `labels`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorkloadSelector {
    #[schemars(
        transform = set("maxProperties", 256),
        transform = each(set("maxLength", 63)),
        transform = each(rule("!self.contains('*')", "wildcard is not supported in selector")),
    )]
    pub labels: std::collections::BTreeMap<String, String>,
}
