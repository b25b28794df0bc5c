//! WorkloadGroup.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use super::WorkloadEntrySpec;
use super::workload_entry::ADDRESS_REQUIRED;
use crate::Num;
use crate::schema::{at_most_one, port, set, without_rule};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["template"]))]
pub struct WorkloadGroupSpec {
    /// What the entries of the group have as labels and annotations.
    pub metadata: Option<EntryMeta>,
    /// What they have in common; a workload says its own address.
    #[schemars(transform = without_rule(ADDRESS_REQUIRED))]
    pub template: Option<WorkloadEntrySpec>,
    pub probe: Option<ReadinessProbe>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct EntryMeta {
    #[schemars(transform = set("maxProperties", 256))]
    pub labels: BTreeMap<String, String>,
    #[schemars(transform = set("maxProperties", 256))]
    pub annotations: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(transform = at_most_one("httpGet tcpSocket exec grpc"))]
pub struct ReadinessProbe {
    #[schemars(range(min = 0))]
    pub initial_delay_seconds: Num<i32>,
    #[schemars(range(min = 0))]
    pub timeout_seconds: Num<i32>,
    #[schemars(range(min = 0))]
    pub period_seconds: Num<i32>,
    #[schemars(range(min = 0))]
    pub success_threshold: Num<i32>,
    #[schemars(range(min = 0))]
    pub failure_threshold: Num<i32>,
    pub http_get: Option<HttpProbe>,
    pub tcp_socket: Option<TcpProbe>,
    pub exec: Option<ExecProbe>,
    pub grpc: Option<GrpcProbe>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["port"]))]
pub struct HttpProbe {
    pub path: String,
    #[schemars(transform = port)]
    pub port: Num<u16>,
    pub host: String,
    pub scheme: String,
    pub http_headers: Vec<HttpHeader>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct HttpHeader {
    #[schemars(regex(pattern = "^[-_A-Za-z0-9]+$"))]
    pub name: String,
    pub value: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["port"]))]
pub struct TcpProbe {
    pub host: String,
    #[schemars(transform = port)]
    pub port: Num<u16>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["command"]))]
pub struct ExecProbe {
    #[schemars(inner(length(min = 1)))]
    pub command: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GrpcProbe {
    #[schemars(transform = port)]
    pub port: Num<u16>,
    pub service: String,
}
