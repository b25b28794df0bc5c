//! ServiceEntry.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{WorkloadEntrySpec, WorkloadSelector};
use crate::Num;
use crate::schema::{each, list_by, port, rule};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(
    extend("required" = ["hosts"]),
    transform = rule("!has(self.workloadSelector) || !has(self.endpoints)", "only one of WorkloadSelector or Endpoints can be set"),
    transform = rule(
        "!has(self.addresses) || !has(self.resolution) || self.resolution in ['NONE', 'STATIC'] || \
         !self.addresses.exists(a, a.contains('/'))",
        "CIDR addresses are allowed only for NONE/STATIC resolution types",
    ),
    transform = rule("!has(self.endpoints) || (has(self.resolution) && self.resolution != 'NONE')", "NONE mode cannot set endpoints"),
    transform = rule(
        "!has(self.endpoints) || !has(self.resolution) || self.resolution != 'DNS_ROUND_ROBIN' || self.endpoints.size() <= 1",
        "DNS_ROUND_ROBIN mode cannot have multiple endpoints",
    ),
)]
pub struct ServiceEntrySpec {
    #[schemars(length(min = 1, max = 256), transform = each(rule("self != '*'", "hostname cannot be wildcard")))]
    pub hosts: Vec<String>,
    #[schemars(length(max = 256), inner(length(max = 64)))]
    pub addresses: Vec<String>,
    #[schemars(
        length(max = 256),
        transform = list_by("name"),
        transform = rule("self.all(one, self.exists_one(other, one.number == other.number))", "port number cannot be duplicated"),
    )]
    pub ports: Vec<ServicePort>,
    pub location: Location,
    pub resolution: Resolution,
    #[schemars(length(max = 4096))]
    pub endpoints: Vec<WorkloadEntrySpec>,
    pub workload_selector: Option<WorkloadSelector>,
    pub export_to: Vec<String>,
    pub subject_alt_names: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["number", "name"]))]
pub struct ServicePort {
    #[schemars(transform = port)]
    pub number: Num<u16>,
    #[schemars(length(max = 256))]
    pub protocol: String,
    #[schemars(length(max = 256))]
    pub name: String,
    #[schemars(transform = port)]
    pub target_port: Option<Num<u16>>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Location {
    #[default]
    MeshExternal,
    MeshInternal,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Resolution {
    #[default]
    None,
    Static,
    Dns,
    DnsRoundRobin,
    DynamicDns,
}

/// What a control plane wrote; other fields are its own business.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntryStatus {
    pub addresses: Vec<ServiceEntryAddress>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default)]
pub struct ServiceEntryAddress {
    pub value: String,
    pub host: String,
}
