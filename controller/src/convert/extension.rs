//! WasmPlugin and TrafficExtension.

use std::collections::BTreeMap;

use pilotfish_crds::extensions::{TrafficExtensionSpec, WasmPluginSpec, traffic_extension as te, wasm_plugin as wp};
use pilotfish_crds::policy::TrafficSelector;
use pilotfish_model::extension::{Code, Extension, FailStrategy, Phase, PullPolicy, Traffic, Wasm};
use pilotfish_model::name::{Kind, Str};
use serde_json::{Map, Value};

use super::attachment::attachment;
use super::fields::{Path, Scope, optional};
use super::telemetry::mode;

/// Longest script, in bytes, as the API says.
const LONGEST_SCRIPT: usize = 64 << 10;

pub(super) fn wasm_plugin(scope: &mut Scope<'_>, spec: &WasmPluginSpec) -> Extension {
    let module = te::WasmConfig {
        url: spec.url.clone(),
        sha256: spec.sha256.clone(),
        image_pull_policy: spec.image_pull_policy,
        image_pull_secret: spec.image_pull_secret.clone(),
        verification_key: spec.verification_key.clone(),
        plugin_config: spec.plugin_config.clone(),
        plugin_name: spec.plugin_name.clone(),
        fail_strategy: spec.fail_strategy,
        vm_config: spec.vm_config.clone(),
        plugin_type: spec.plugin_type,
    };
    Extension {
        kind: Kind::WasmPlugin,
        meta: scope.meta_without_labels(),
        attachment: attachment(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs),
        phase: match spec.phase {
            wp::PluginPhase::UnspecifiedPhase => Phase::Unspecified,
            wp::PluginPhase::Authn => Phase::Authn,
            wp::PluginPhase::Authz => Phase::Authz,
            wp::PluginPhase::Stats => Phase::Stats,
        },
        priority: spec.priority.map(|p| p.0),
        traffic: traffic(scope, &spec.matches),
        code: Code::Wasm(wasm(scope, &Path::SPEC, &module)),
    }
}

pub(super) fn traffic_extension(scope: &mut Scope<'_>, spec: &TrafficExtensionSpec) -> Extension {
    let root = Path::SPEC;
    let code = match (&spec.wasm, &spec.lua) {
        (Some(module), None) => Code::Wasm(wasm(scope, &root.field("wasm"), module)),
        (None, Some(lua)) => Code::Lua(script(scope, &root.field("lua").field("inlineCode"), &lua.inline_code)),
        _ => {
            scope.error(&root, "needs one of wasm and lua");
            Code::Lua("".into())
        }
    };
    Extension {
        kind: Kind::TrafficExtension,
        meta: scope.meta_without_labels(),
        attachment: attachment(spec.selector.as_ref(), None, &spec.target_refs),
        phase: match spec.phase {
            te::ExecutionPhase::Unspecified => Phase::Unspecified,
            te::ExecutionPhase::Authn => Phase::Authn,
            te::ExecutionPhase::Authz => Phase::Authz,
            te::ExecutionPhase::Stats => Phase::Stats,
        },
        priority: spec.priority.map(|p| p.0),
        traffic: traffic(scope, &spec.matches),
        code,
    }
}

fn traffic(scope: &mut Scope<'_>, selectors: &[TrafficSelector]) -> Vec<Traffic> {
    let path = Path::SPEC;
    let path = path.field("match");
    let mut one = |(i, selector): (usize, &TrafficSelector)| {
        if let Some(j) = selector.ports.iter().position(|p| p.number.0 == 0) {
            scope.error(&path.index(i).field("ports").index(j).field("number"), "must be between 1 and 65535");
        }
        Traffic { mode: mode(selector.mode), ports: selector.ports.iter().map(|p| p.number.0).collect() }
    };
    selectors.iter().enumerate().map(&mut one).collect()
}

fn script(scope: &mut Scope<'_>, path: &Path<'_>, code: &str) -> Str {
    if code.trim().is_empty() {
        scope.error(path, "must not be empty");
    } else if code.len() > LONGEST_SCRIPT {
        scope.error(path, format!("has {} bytes; at most {LONGEST_SCRIPT} are accepted", code.len()));
    }
    code.into()
}

fn wasm(scope: &mut Scope<'_>, path: &Path<'_>, module: &te::WasmConfig) -> Wasm {
    if !module.verification_key.is_empty() {
        // The reference does not check signatures either. Whoever asks for it must not believe that somebody does.
        scope.warning(&path.field("verificationKey"), "has no effect: signatures of modules are not verified");
    }
    let sha256 = module.sha256.as_str();
    if !sha256.is_empty() && (sha256.len() != 64 || !sha256.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))) {
        scope.error(&path.field("sha256"), "must be 64 hexadecimal digits");
    }
    let (env, host_env) = environment(scope, &path.field("vmConfig").field("env"), module.vm_config.as_ref());
    Wasm {
        url: url(scope, &path.field("url"), &module.url),
        sha256: sha256.into(),
        pull_policy: match module.image_pull_policy {
            wp::PullPolicy::Unspecified => None,
            wp::PullPolicy::IfNotPresent => Some(PullPolicy::IfNotPresent),
            wp::PullPolicy::Always => Some(PullPolicy::Always),
        },
        pull_secret: optional(secret_name(&module.image_pull_secret)),
        configuration: if module.plugin_config.is_empty() { "".into() } else { object(&module.plugin_config).into() },
        plugin_name: module.plugin_name.as_str().into(),
        fail_strategy: match module.fail_strategy {
            wp::FailStrategy::FailClose => FailStrategy::Close,
            wp::FailStrategy::FailOpen => FailStrategy::Open,
            wp::FailStrategy::FailReload => FailStrategy::Reload,
        },
        env,
        host_env,
        network: module.plugin_type == wp::PluginType::Network,
    }
}

/// A Secret's name, however it is written: its namespace is always that of the object.
fn secret_name(written: &str) -> &str {
    written.rsplit('/').next().unwrap_or_default()
}

/// With its scheme: where none is given it is an image.
fn url(scope: &mut Scope<'_>, path: &Path<'_>, url: &str) -> Str {
    let Some((scheme, rest)) = url.split_once("://") else {
        let bad = |c: char| c.is_whitespace() || c.is_control();
        if url.is_empty() {
            scope.error(path, "is missing");
        } else if url.contains(bad) || url.starts_with('/') {
            scope.error(path, format!("{url:?} is neither a URL nor the name of an image"));
        }
        return format!("oci://{url}").into();
    };
    if !matches!(scheme, "oci" | "http" | "https" | "file") {
        scope.error(path, format!("the scheme {scheme:?} is none of oci, http, https and file"));
    } else if rest.is_empty() || rest.contains(|c: char| c.is_whitespace() || c.is_control()) {
        scope.error(path, format!("{url:?} is not a URL"));
    }
    url.into()
}

fn environment(scope: &mut Scope<'_>, path: &Path<'_>, vm: Option<&wp::VmConfig>) -> (BTreeMap<Str, Str>, Vec<Str>) {
    let (mut fixed, mut from_host) = (BTreeMap::new(), Vec::new());
    for (i, variable) in vm.iter().flat_map(|vm| &vm.env).enumerate() {
        let name = Str::from(variable.name.as_str());
        let path = path.index(i);
        if name.is_empty() || name.contains(['=', '\0']) {
            scope.error(&path.field("name"), format!("{name:?} is not the name of a variable"));
        } else if fixed.contains_key(&name) || from_host.contains(&name) {
            // Proxies refuse a module with a variable that has two values.
            scope.error(&path.field("name"), format!("{name:?} is there twice"));
        }
        match variable.value_from {
            wp::EnvValueSource::Inline => drop(fixed.insert(name, variable.value.as_str().into())),
            wp::EnvValueSource::Host => from_host.push(name),
        }
    }
    (fixed, from_host)
}

/// JSON with numbers as the API's free-form objects know them: as floating-point numbers, whole ones without a fraction.
fn object(fields: &Map<String, Value>) -> String {
    let pair = |(k, v): (&String, &Value)| format!("{}:{}", Value::from(k.as_str()), text(v));
    let mut fields: Vec<_> = fields.iter().collect();
    fields.sort_by_key(|(k, _)| *k);
    format!("{{{}}}", fields.into_iter().map(pair).collect::<Vec<_>>().join(","))
}

fn text(value: &Value) -> String {
    match value {
        Value::Object(fields) => object(fields),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(",")),
        Value::Number(n) => n.as_f64().map_or_else(|| n.to_string(), |n| n.to_string()),
        other => other.to_string(),
    }
}
