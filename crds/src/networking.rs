//! `networking.istio.io`.

pub mod destination_rule;
pub mod gateway;
pub mod service_entry;
pub mod sidecar;
pub mod tls;
pub mod virtual_service;
pub mod workload_entry;

pub use destination_rule::DestinationRuleSpec;
pub use gateway::GatewaySpec;
pub use service_entry::{ServiceEntrySpec, ServiceEntryStatus};
pub use sidecar::SidecarSpec;
pub use virtual_service::VirtualServiceSpec;
pub use workload_entry::WorkloadEntrySpec;

use serde::Deserialize;

use crate::Num;

/// A port by number, as selectors of ports are written.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PortSelector {
    pub number: Option<Num<u16>>,
}

/// A service of the mesh as a target.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Destination {
    pub host: String,
    pub subset: String,
    pub port: Option<PortSelector>,
}

/// Workloads by labels, under the key `labels`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorkloadSelector {
    pub labels: std::collections::BTreeMap<String, String>,
}

/// Workloads by labels, under the key `matchLabels`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelsSelector {
    pub match_labels: std::collections::BTreeMap<String, String>,
}
