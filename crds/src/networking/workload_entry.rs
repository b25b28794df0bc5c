//! WorkloadEntry; also the form of inline endpoints.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Num;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct WorkloadEntrySpec {
    pub address: String,
    pub ports: BTreeMap<String, Num<u16>>,
    pub labels: BTreeMap<String, String>,
    pub network: String,
    pub locality: String,
    pub weight: Num<u32>,
    pub service_account: String,
}
