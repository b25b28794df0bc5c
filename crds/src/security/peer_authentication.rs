//! PeerAuthentication.

use std::collections::BTreeMap;

use serde::Deserialize;

use crate::Num;
use crate::networking::LabelsSelector;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct PeerAuthenticationSpec {
    pub selector: Option<LabelsSelector>,
    pub mtls: Option<MutualTls>,
    pub port_level_mtls: BTreeMap<Num<u16>, MutualTls>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct MutualTls {
    pub mode: Mode,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum Mode {
    #[default]
    Unset,
    Disable,
    Permissive,
    Strict,
}
