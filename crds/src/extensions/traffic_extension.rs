//! TrafficExtension.

use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::{Map, Value};

use super::wasm_plugin::{FailStrategy, PluginType, PullPolicy, VmConfig, module_url};
use crate::Num;
use crate::policy::{LabelsSelector, PolicyTargetReference, TrafficSelector};
use crate::schema::{FreeForm, one_target, rule};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(transform = one_target, transform = rule("has(self.wasm) != has(self.lua)", "exactly one of wasm or lua must be set"))]
pub struct TrafficExtensionSpec {
    pub selector: Option<LabelsSelector>,
    #[schemars(length(max = 16))]
    pub target_refs: Vec<PolicyTargetReference>,
    #[schemars(extend("enum" = PHASES))]
    pub phase: ExecutionPhase,
    pub priority: Option<Num<i32>>,
    #[serde(rename = "match")]
    pub matches: Vec<TrafficSelector>,
    pub wasm: Option<WasmConfig>,
    pub lua: Option<LuaConfig>,
}

/// A phase has a long and a short name.
const PHASES: [&str; 7] =
    ["EXECUTION_PHASE_UNSPECIFIED", "EXECUTION_PHASE_AUTHN", "EXECUTION_PHASE_AUTHZ", "EXECUTION_PHASE_STATS", "AUTHN", "AUTHZ", "STATS"];

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum ExecutionPhase {
    #[default]
    #[serde(rename = "EXECUTION_PHASE_UNSPECIFIED")]
    Unspecified,
    #[serde(rename = "EXECUTION_PHASE_AUTHN", alias = "AUTHN")]
    Authn,
    #[serde(rename = "EXECUTION_PHASE_AUTHZ", alias = "AUTHZ")]
    Authz,
    #[serde(rename = "EXECUTION_PHASE_STATS", alias = "STATS")]
    Stats,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]))]
pub struct WasmConfig {
    #[schemars(length(min = 1), transform = module_url)]
    pub url: String,
    #[schemars(regex(pattern = "(^$|^[a-f0-9]{64}$)"))]
    pub sha256: String,
    pub image_pull_policy: PullPolicy,
    #[schemars(length(min = 1, max = 253))]
    pub image_pull_secret: String,
    pub verification_key: String,
    #[schemars(with = "FreeForm")]
    pub plugin_config: Map<String, Value>,
    #[schemars(length(min = 1, max = 256))]
    pub plugin_name: String,
    pub fail_strategy: FailStrategy,
    pub vm_config: Option<VmConfig>,
    #[serde(rename = "type")]
    pub plugin_type: PluginType,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["inlineCode"]))]
pub struct LuaConfig {
    #[schemars(length(min = 1, max = 65536))]
    pub inline_code: String,
}
