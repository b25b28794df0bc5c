//! ProxyConfig.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Num;
use crate::policy::LabelsSelector;
use crate::schema::{each, set};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProxyConfigSpec {
    pub selector: Option<LabelsSelector>,
    /// Threads of the proxy; 0 is one per core.
    #[schemars(range(min = 0))]
    pub concurrency: Option<Num<i32>>,
    #[schemars(transform = each(set("maxLength", 2048)))]
    pub environment_variables: BTreeMap<String, String>,
    pub image: Option<ProxyImage>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct ProxyImage {
    pub image_type: String,
}
