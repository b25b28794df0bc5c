//! WorkloadEntry; also the form of inline endpoints.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Num;
use crate::schema::{each, port, rule, set};

/// What an entry must have that stands alone.
pub(crate) const ADDRESS_REQUIRED: &str = "Address is required";

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(
    transform = rule("has(self.address) || has(self.network)", ADDRESS_REQUIRED),
    transform = rule("!has(self.address) || !self.address.startsWith('unix://') || !has(self.ports)", "UDS may not include ports"),
)]
pub struct WorkloadEntrySpec {
    #[schemars(
        length(max = 256),
        transform = rule(
            "!self.startsWith('unix://') || self.startsWith('unix:///') || self.startsWith('unix://@')",
            "UDS must be an absolute path or abstract socket",
        ),
        transform = rule("!self.startsWith('unix://') || !self.endsWith('/')", "UDS may not be a dir"),
    )]
    pub address: String,
    #[schemars(transform = set("maxProperties", 128), transform = each(port))]
    pub ports: BTreeMap<String, Num<u16>>,
    #[schemars(transform = set("maxProperties", 256))]
    pub labels: BTreeMap<String, String>,
    #[schemars(length(max = 2048))]
    pub network: String,
    #[schemars(length(max = 2048))]
    pub locality: String,
    pub weight: Num<u32>,
    #[schemars(length(max = 253))]
    pub service_account: String,
}
