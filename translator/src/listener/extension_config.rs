//! Settings of extensions (ECDS): WebAssembly modules, where they are and what they are given.
//!
//! Credentials for registries are no part of this: resources are shared by proxies whose identities are not known. The agent is
//! told that there are some, and gets an empty text in their place.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::core::v3::{
    AsyncDataSource, DataSource, HttpUri, RemoteDataSource, TypedExtensionConfig, async_data_source, data_source, http_uri,
};
use pilotfish_envoy::pb::envoy::extensions::filters::http::wasm::v3::Wasm as HttpWasm;
use pilotfish_envoy::pb::envoy::extensions::filters::network::wasm::v3::Wasm as NetworkWasm;
use pilotfish_envoy::pb::envoy::extensions::wasm::v3::{EnvironmentVariables, FailurePolicy, PluginConfig, VmConfig, plugin_config};
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_model::ContentHash;
use pilotfish_model::extension::{Code, FailStrategy, PullPolicy, Wasm};

use super::extension::{FILE, Plugin};
use super::pack::duration;

const RUNTIME: &str = "envoy.wasm.runtime.v8";
/// How long a module may take to be fetched.
const TIMEOUT: Duration = Duration::from_secs(30);
/// Variables by which Istio's agent is told how to fetch a module.
const PULL_SECRET: &str = "ISTIO_META_WASM_IMAGE_PULL_SECRET";
const PULL_POLICY: &str = "ISTIO_META_WASM_IMAGE_PULL_POLICY";
const RESOURCE_VERSION: &str = "ISTIO_META_WASM_PLUGIN_RESOURCE_VERSION";

/// The resource of a plugin; `None` for a script.
pub(crate) fn resource(plugin: &Plugin) -> Option<TypedExtensionConfig> {
    let Code::Wasm(wasm) = &plugin.extension.code else { return None };
    let config = Some(config(plugin, wasm));
    let typed = if wasm.network { any(&NetworkWasm { config }) } else { any(&HttpWasm { config }) };
    Some(TypedExtensionConfig { name: plugin.name(), typed_config: Some(typed) })
}

fn config(plugin: &Plugin, wasm: &Wasm) -> PluginConfig {
    let configuration = match &*wasm.configuration {
        "" => Any::default(),
        json => any(&json.to_owned()),
    };
    let failure_policy = match wasm.fail_strategy {
        FailStrategy::Close => FailurePolicy::FailClosed,
        FailStrategy::Open => FailurePolicy::FailOpen,
        FailStrategy::Reload => FailurePolicy::FailReload,
    };
    let vm = VmConfig {
        runtime: RUNTIME.to_owned(),
        code: Some(code(wasm)),
        environment_variables: Some(EnvironmentVariables {
            host_env_keys: wasm.host_env.iter().map(ToString::to_string).collect(),
            key_values: variables(plugin, wasm),
        }),
        ..Default::default()
    };
    PluginConfig {
        name: format!("{}.{}", plugin.extension.meta.namespace, plugin.extension.unique_name()),
        root_id: wasm.plugin_name.to_string(),
        configuration: Some(configuration),
        failure_policy: failure_policy as i32,
        vm: Some(plugin_config::Vm::VmConfig(vm)),
        ..Default::default()
    }
}

fn code(wasm: &Wasm) -> AsyncDataSource {
    let specifier = match wasm.url.strip_prefix(FILE) {
        Some(path) => {
            let specifier = Some(data_source::Specifier::Filename(path.to_owned()));
            async_data_source::Specifier::Local(DataSource { specifier, ..Default::default() })
        }
        None => {
            let uri = HttpUri {
                uri: wasm.url.to_string(),
                timeout: Some(duration(TIMEOUT)),
                // The agent fetches it; something has to stand here.
                http_upstream_type: Some(http_uri::HttpUpstreamType::Cluster("_".to_owned())),
            };
            async_data_source::Specifier::Remote(RemoteDataSource {
                http_uri: Some(uri),
                sha256: wasm.sha256.to_string(),
                ..Default::default()
            })
        }
    };
    AsyncDataSource { specifier: Some(specifier) }
}

fn variables(plugin: &Plugin, wasm: &Wasm) -> BTreeMap<String, String> {
    let mut variables = BTreeMap::new();
    if plugin.agent {
        // By this the agent sees that it has to look again.
        variables.insert(RESOURCE_VERSION.to_owned(), ContentHash::of(&*plugin.extension).to_string());
        if wasm.pull_secret.is_some() {
            variables.insert(PULL_SECRET.to_owned(), String::new());
        }
        let policy = wasm.pull_policy.map(|p| if p == PullPolicy::Always { "Always" } else { "IfNotPresent" });
        variables.extend(policy.map(|p| (PULL_POLICY.to_owned(), p.to_owned())));
    }
    variables.extend(wasm.env.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    variables
}
