//! What decides about injection beside the pod: the injector's configuration, Helm values and the mesh's settings.

use std::collections::BTreeMap;

use pilotfish_model::mesh_config::LabelSelector;
use serde::Deserialize;
use serde_json::Value;

use super::annotations::TEMPLATES;
use super::decision::{Policy, Rules};
use super::native::NativeSidecars;
use super::template::Templates;
use super::{InjectError, strategic};

/// Values that a user need not give.
const DEFAULT_VALUES: &str = include_str!("../../templates/default-values.json");

/// The key `config` of the injector's ConfigMap.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Settings {
    /// `enabled` or `disabled`.
    pub policy: Option<String>,
    /// Templates of pods that name none.
    pub default_templates: Vec<String>,
    /// Names that stand for lists of templates.
    pub aliases: BTreeMap<String, Vec<String>>,
    /// Pods that are left alone.
    pub never_inject_selector: Vec<LabelSelector>,
    /// Pods that are injected.
    pub always_inject_selector: Vec<LabelSelector>,
    /// Annotations of every injected pod.
    pub injected_annotations: BTreeMap<String, String>,
    /// Templates beside the shipped ones, or instead of them.
    pub templates: BTreeMap<String, String>,
}

/// A configuration that makes no sense. The last good one stays.
#[derive(Debug, thiserror::Error)]
#[error("injection configuration, {part}: {reason}")]
pub struct ConfigError {
    /// `config`, `values` or a template.
    pub part: &'static str,
    /// Why.
    pub reason: String,
}

/// All that injection depends on beside the pod.
#[derive(Debug)]
pub struct Config {
    /// Whether to inject at all.
    pub rules: Rules,
    /// Helm values.
    pub values: Value,
    /// The mesh's settings, as the API spells them.
    pub mesh: Value,
    /// Our revision.
    pub revision: String,
    /// How the proxy runs.
    pub native: NativeSidecars,
    /// Whether namespaces give user ids, as OpenShift's do.
    pub openshift: bool,
    /// Name of a compliance policy.
    pub compliance_policy: Option<String>,
    /// ClusterTrustBundle with the mesh's roots, if the cluster has these.
    pub trust_bundle: Option<String>,
    pub(crate) injected_annotations: BTreeMap<String, String>,
    pub(crate) templates: Templates,
    default_templates: Vec<String>,
    aliases: BTreeMap<String, Vec<String>>,
}

impl Config {
    /// Reads the keys `config` and `values` of the injector's ConfigMap.
    pub fn parse(config: &str, values: &str, mesh: Value) -> Result<Config, ConfigError> {
        let settings = match config.trim() {
            "" => Settings::default(),
            _ => yaml_serde::from_str(config).map_err(|e| ConfigError { part: "config", reason: e.to_string() })?,
        };
        let values = match values.trim() {
            "" => Value::Null,
            _ => yaml_serde::from_str(values).map_err(|e| ConfigError { part: "values", reason: e.to_string() })?,
        };
        Config::new(settings, &values, mesh)
    }

    /// From what was read already; values that are missing are the defaults.
    pub fn new(settings: Settings, values: &Value, mesh: Value) -> Result<Config, ConfigError> {
        let mut all: Value = serde_json::from_str(DEFAULT_VALUES).map_err(|e| ConfigError { part: "values", reason: e.to_string() })?;
        if values.is_object() {
            lay(&mut all, values);
        }
        let mut custom = settings.templates;
        let in_values = all.pointer("/sidecarInjectorWebhook/templates").and_then(Value::as_object);
        for (name, text) in in_values.into_iter().flatten() {
            if let Some(text) = text.as_str() {
                custom.entry(name.clone()).or_insert_with(|| text.to_owned());
            }
        }
        let templates = Templates::new(&custom).map_err(|e| ConfigError { part: "templates", reason: e.to_string() })?;
        Ok(Config {
            rules: Rules {
                policy: settings.policy.as_deref().map_or(Policy::Enabled, Policy::parse),
                never: settings.never_inject_selector,
                always: settings.always_inject_selector,
            },
            values: all,
            mesh,
            revision: String::new(),
            native: NativeSidecars::default(),
            openshift: false,
            compliance_policy: None,
            trust_bundle: None,
            injected_annotations: settings.injected_annotations,
            templates,
            default_templates: if settings.default_templates.is_empty() { vec!["sidecar".to_owned()] } else { settings.default_templates },
            aliases: settings.aliases,
        })
    }

    /// The templates of a pod, aliases resolved.
    pub(crate) fn chosen(&self, annotations: &BTreeMap<String, String>) -> Vec<String> {
        let asked: Vec<String> = match annotations.get(TEMPLATES) {
            Some(list) => list.split(',').map(|t| t.trim().to_owned()).filter(|t| !t.is_empty()).collect(),
            None => self.default_templates.clone(),
        };
        asked.into_iter().flat_map(|t| self.aliases.get(&t).cloned().unwrap_or_else(|| vec![t])).collect()
    }

    /// Whether a pod's templates exist, so that a mistake is found when the configuration is read.
    pub fn check(&self) -> Result<(), InjectError> {
        for name in &self.default_templates {
            self.templates.exists(name)?;
        }
        Ok(())
    }
}

/// Maps merge, everything else is replaced; a null takes a default away where it says so.
fn lay(base: &mut Value, over: &Value) {
    match (base.as_object_mut(), over.as_object()) {
        (Some(fields), Some(new)) => {
            for (key, value) in new {
                match fields.get_mut(key) {
                    Some(old) if old.is_object() && value.is_object() => lay(old, value),
                    _ => drop(fields.insert(key.clone(), value.clone())),
                }
            }
        }
        _ => strategic::merge(base, over),
    }
}
