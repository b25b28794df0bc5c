//! Settings of extensions (ECDS): WebAssembly modules, where they are and what they are given.
//!
//! Credentials for registries are no part of what is shared by proxies, whose identities are not known: there an empty text is in
//! their place, which agents take for a mistake. [`with_credentials`] makes of that what one proxy is sent.

use std::collections::BTreeMap;
use std::time::Duration;

use pilotfish_envoy::any::unpack;
use pilotfish_envoy::pb::envoy::config::core::v3::{
    AsyncDataSource, DataSource, HttpUri, RemoteDataSource, TypedExtensionConfig, async_data_source, data_source, http_uri,
};
use pilotfish_envoy::pb::envoy::extensions::filters::http::wasm::v3::Wasm as HttpWasm;
use pilotfish_envoy::pb::envoy::extensions::filters::network::wasm::v3::Wasm as NetworkWasm;
use pilotfish_envoy::pb::envoy::extensions::wasm::v3::{EnvironmentVariables, FailurePolicy, PluginConfig, VmConfig, plugin_config};
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_envoy::{Resource, any};
use pilotfish_model::ContentHash;
use pilotfish_model::extension::{Code, FailStrategy, PullPolicy, Wasm};
use prost::Message as _;

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

/// The same with the credentials by which the agent pulls the module. `None`: no agent takes them out again.
pub(crate) fn with_credentials(resource: &Resource, credentials: &str) -> Option<Resource> {
    let mut extension = TypedExtensionConfig::decode(resource.to_any().value).ok()?;
    let typed = extension.typed_config.as_mut()?;
    if let Some(mut http) = unpack::<HttpWasm>(typed) {
        fill(http.config.as_mut()?, credentials)?;
        *typed = any(&http);
    } else {
        let mut network = unpack::<NetworkWasm>(typed)?;
        fill(network.config.as_mut()?, credentials)?;
        *typed = any(&network);
    }
    let sources: Vec<_> = resource.sources().cloned().collect();
    Some(Resource::new(resource.name().clone(), &extension).with_sources(sources))
}

fn fill(config: &mut PluginConfig, credentials: &str) -> Option<()> {
    let Some(plugin_config::Vm::VmConfig(vm)) = &mut config.vm else { return None };
    // Of what it does not have to fetch itself, an agent takes nothing away.
    let fetched = matches!(vm.code.as_ref()?.specifier, Some(async_data_source::Specifier::Remote(_)));
    let place = vm.environment_variables.as_mut().filter(|_| fetched)?.key_values.get_mut(PULL_SECRET)?;
    if place.is_empty() {
        *place = credentials.to_owned();
    }
    Some(())
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
        let policy = wasm.pull_policy.map(|p| if p == PullPolicy::Always { "Always" } else { "IfNotPresent" });
        variables.extend(policy.map(|p| (PULL_POLICY.to_owned(), p.to_owned())));
    }
    variables.extend(wasm.env.iter().map(|(k, v)| (k.to_string(), v.to_string())));
    // Not for users to say: what stands here is what the agent pulls with.
    if plugin.agent && (wasm.pull_secret.is_some() || variables.contains_key(PULL_SECRET)) {
        variables.insert(PULL_SECRET.to_owned(), String::new());
    }
    variables
}
