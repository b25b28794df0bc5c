//! WasmPlugin.

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use serde_json::{Map, Value};

use crate::Num;
use crate::policy::{LabelsSelector, PolicyTargetReference, TrafficSelector};
use crate::schema::{FreeForm, list_by, one_target, rule};

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(extend("required" = ["url"]), transform = one_target)]
pub struct WasmPluginSpec {
    pub selector: Option<LabelsSelector>,
    pub target_ref: Option<PolicyTargetReference>,
    #[schemars(length(max = 16))]
    pub target_refs: Vec<PolicyTargetReference>,
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
    pub phase: PluginPhase,
    pub priority: Option<Num<i32>>,
    pub fail_strategy: FailStrategy,
    pub vm_config: Option<VmConfig>,
    #[serde(rename = "match")]
    pub matches: Vec<TrafficSelector>,
    #[serde(rename = "type")]
    pub plugin_type: PluginType,
}

/// A file, a download or an image; an image if nothing is said.
pub(super) fn module_url(schema: &mut Schema) {
    let known = "self.contains('://') ? isURL(self) && url(self).getScheme() in ['http', 'https', 'file', 'oci'] : isURL('oci://' + self)";
    rule(known, "url must have schema one of [http, https, file, oci]")(schema);
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
pub enum PullPolicy {
    #[default]
    #[serde(rename = "UNSPECIFIED_POLICY")]
    Unspecified,
    IfNotPresent,
    Always,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PluginPhase {
    #[default]
    UnspecifiedPhase,
    Authn,
    Authz,
    Stats,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum FailStrategy {
    #[default]
    FailClose,
    FailOpen,
    FailReload,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum PluginType {
    #[default]
    UnspecifiedPluginType,
    Http,
    Network,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
pub struct VmConfig {
    #[schemars(length(max = 256), transform = list_by("name"))]
    pub env: Vec<EnvVar>,
}

#[derive(Clone, Debug, Default, PartialEq, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", default, deny_unknown_fields)]
#[schemars(
    extend("required" = ["name"]),
    transform = rule(
        "!has(self.value) || !has(self.valueFrom) || self.valueFrom == 'INLINE'",
        "value may only be set when valueFrom is INLINE",
    ),
)]
pub struct EnvVar {
    #[schemars(length(min = 1, max = 256))]
    pub name: String,
    pub value_from: EnvValueSource,
    #[schemars(length(max = 2048))]
    pub value: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum EnvValueSource {
    #[default]
    Inline,
    Host,
}
