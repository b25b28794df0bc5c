//! PeerAuthentication.

use std::collections::BTreeMap;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::Num;
use crate::policy::LabelsSelector;
use crate::schema::{rule, set};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(
    transform = rule(
        "!has(self.portLevelMtls) || (has(self.selector) && has(self.selector.matchLabels) && self.selector.matchLabels.size() > 0)",
        "portLevelMtls requires selector",
    ),
)]
pub struct PeerAuthenticationSpec {
    pub selector: Option<LabelsSelector>,
    pub mtls: Option<MutualTls>,
    #[schemars(
        with = "BTreeMap<String, MutualTls>",
        transform = set("minProperties", 1),
        transform = set("maxProperties", 65535),
        transform = rule("self.all(key, 0 < int(key) && int(key) <= 65535)", "port must be between 1-65535"),
    )]
    pub port_level_mtls: BTreeMap<Num<u16>, MutualTls>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MutualTls {
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}
