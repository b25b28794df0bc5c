//! Gateway.

use std::collections::BTreeMap;

use serde::Deserialize;

use super::tls::ServerTlsSettings;
use crate::Num;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct GatewaySpec {
    pub servers: Vec<Server>,
    pub selector: BTreeMap<String, String>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Server {
    pub port: Option<Port>,
    pub bind: String,
    pub hosts: Vec<String>,
    pub tls: Option<ServerTlsSettings>,
    /// Has no effect in the reference either.
    pub default_endpoint: String,
    pub name: String,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct Port {
    pub number: Num<u16>,
    pub protocol: String,
    pub name: String,
    /// Deprecated, has no effect in the reference either.
    pub target_port: Option<Num<u16>>,
}
