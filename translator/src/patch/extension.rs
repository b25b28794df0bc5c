//! Which extension a value needs: one that a client lacks would cost it the whole resource.

use bytes::Bytes;
use pilotfish_envoy::descriptors;
use pilotfish_envoy::pb::envoy::config::core::v3::TypedExtensionConfig;
use pilotfish_envoy::pb::envoy::config::listener::v3::{Filter, ListenerFilter};
use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::HttpFilter;
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_envoy::pb::udpa::r#type::v1::TypedStruct;
use pilotfish_model::envoy_filter::{ApplyTo, Operation, Patch};
use pilotfish_model::name::Str;
use prost::Message;

use super::filter::Named;

/// The extension that a filter needs which the patch puts in. `None` if it puts in none, or one of a type that does not say.
pub(super) fn needed(patch: &Patch, value: &Bytes) -> Option<Str> {
    if matches!(patch.operation, Operation::Merge | Operation::MergeAndReplaceList | Operation::Remove) {
        return None;
    }
    let config = match patch.apply_to {
        ApplyTo::HttpFilter => HttpFilter::decode(value.clone()).ok()?.config()?.clone(),
        ApplyTo::NetworkFilter => Filter::decode(value.clone()).ok()?.config()?.clone(),
        ApplyTo::ListenerFilter => ListenerFilter::decode(value.clone()).ok()?.config()?.clone(),
        ApplyTo::ExtensionConfig => TypedExtensionConfig::decode(value.clone()).ok()?.typed_config?,
        _ => return None,
    };
    extension_of(&config_type(&config))
}

/// The type of a config, behind the form that holds it as a structure.
pub(super) fn config_type(config: &Any) -> String {
    let name = descriptors::type_name(&config.type_url);
    match is_typed_struct(name) {
        true => TypedStruct::decode(config.value.clone()).map(|s| descriptors::type_name(&s.type_url).to_owned()).unwrap_or_default(),
        false => name.to_owned(),
    }
}

pub(super) fn is_typed_struct(name: &str) -> bool {
    matches!(name, "udpa.type.v1.TypedStruct" | "xds.type.v3.TypedStruct")
}

/// Envoy names extensions by the packages of their configs: `envoy.extensions.filters.http.lua.v3.Lua` is that of
/// `envoy.filters.http.lua`.
fn extension_of(type_name: &str) -> Option<Str> {
    let (package, _) = type_name.strip_prefix("envoy.extensions.")?.rsplit_once('.')?;
    let (name, version) = package.rsplit_once('.')?;
    version.starts_with('v').then(|| format!("envoy.{name}").into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_package_names_its_extension() {
        let of = |name| extension_of(name).map(|e| e.to_string());
        assert_eq!(of("envoy.extensions.filters.http.lua.v3.Lua").as_deref(), Some("envoy.filters.http.lua"));
        assert_eq!(of("envoy.extensions.filters.network.tcp_proxy.v3.TcpProxy").as_deref(), Some("envoy.filters.network.tcp_proxy"));
        assert_eq!((of("stats.PluginConfig"), of("envoy.config.core.v3.Node")), (None, None));
    }
}
