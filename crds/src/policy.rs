//! What policies of several groups apply to.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Num;
use crate::schema::{each, list_by, rule, set};

/// Workloads by labels, under the key `matchLabels`.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct LabelsSelector {
    #[schemars(
        transform = set("maxProperties", 4096),
        transform = rule("self.all(key, key.size() != 0)", "key must not be empty"),
        transform = rule("self.all(key, !key.contains('*'))", "wildcard not allowed in label key match"),
        transform = each(set("maxLength", 63)),
        transform = each(rule("!self.contains('*')", "wildcard not allowed in label value match")),
    )]
    pub match_labels: BTreeMap<String, String>,
}

/// An object in the namespace of the policy.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["kind", "name"]))]
pub struct PolicyTargetReference {
    #[schemars(length(max = 253), regex(pattern = r"^$|^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$"))]
    pub group: String,
    #[schemars(length(min = 1, max = 63), regex(pattern = r"^[a-zA-Z]([-a-zA-Z0-9]*[a-zA-Z0-9])?$"))]
    pub kind: String,
    #[schemars(length(min = 1, max = 253))]
    pub name: String,
    #[schemars(transform = rule("self == ''", "cross namespace referencing is not currently supported"))]
    pub namespace: String,
}

/// Direction of traffic, as the workload sees it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum WorkloadMode {
    #[default]
    Undefined,
    Client,
    Server,
    ClientAndServer,
}

/// Traffic by direction and port.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct TrafficSelector {
    pub mode: WorkloadMode,
    #[schemars(transform = list_by("number"))]
    pub ports: Vec<SelectedPort>,
}

/// A port by number.
#[derive(Clone, Copy, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["number"]))]
pub struct SelectedPort {
    #[schemars(range(min = 1, max = 65535))]
    pub number: Num<u16>,
}
