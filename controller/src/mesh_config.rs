//! Reading the mesh's settings, which several places may say something of: see [`Layer`].

use pilotfish_model::MeshConfig;
use pilotfish_model::mesh_config::MeshNetworks;
use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use crate::source::yaml;

/// Why a mesh configuration is refused. Fatal at start; later the last good one stays.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("mesh configuration, line {line}{}: {message}", if .field.is_empty() { String::new() } else { format!(", {}", .field) })]
pub struct MeshConfigError {
    /// Line, from 1.
    pub line: usize,
    /// Path of the field; empty if it is about the whole.
    pub field: String,
    /// What is wrong.
    pub message: String,
}

/// What one place says of the mesh's settings: the fields that somebody wrote there.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Layer(Map<String, Value>);

impl Layer {
    /// Reads YAML or JSON. An empty text and `{}` say nothing.
    pub fn parse(text: &str) -> Result<Layer, MeshConfigError> {
        let mut value = yaml::parse(text).map_err(|e| MeshConfigError { line: e.line, field: String::new(), message: e.message })?;
        crate::object::remove_nulls(&mut value);
        // A layer that makes no sense by itself is refused by itself.
        let alone = read::<MeshConfig>(text, value.clone())?;
        if let Some((field, message)) = alone.mistake() {
            let line = yaml::line_of(text, field).unwrap_or(1);
            return Err(MeshConfigError { line, field: field.to_owned(), message: message.to_owned() });
        }
        Ok(Layer(match value {
            Value::Object(map) => map,
            _ => Map::new(),
        }))
    }

    /// Lays another layer over this one. A field that both have is the other's, but for what is collected: fields of
    /// `defaultConfig` and `defaultProviders`, providers by name, and aliases of the trust domain.
    fn cover(&mut self, over: &Layer) {
        for (key, new) in &over.0 {
            match (key.as_str(), self.0.get_mut(key)) {
                ("defaultConfig", Some(old)) => cover_fields(old, new, &["proxyMetadata"]),
                ("defaultProviders", Some(old)) => cover_fields(old, new, &[]),
                ("extensionProviders", Some(Value::Array(old))) => {
                    for provider in new.as_array().into_iter().flatten() {
                        match old.iter_mut().find(|p| p.get("name") == provider.get("name")) {
                            Some(same) => *same = provider.clone(),
                            None => old.push(provider.clone()),
                        }
                    }
                }
                ("trustDomainAliases", Some(Value::Array(old))) => {
                    let more: Vec<_> = new.as_array().into_iter().flatten().filter(|a| !old.contains(a)).cloned().collect();
                    old.extend(more);
                }
                _ => drop(self.0.insert(key.clone(), new.clone())),
            }
        }
    }
}

/// Replaces fields one by one; those that are named, in the same way once more.
fn cover_fields(old: &mut Value, new: &Value, within: &[&str]) {
    let (Value::Object(old), Value::Object(new)) = (old, new) else { return };
    for (key, value) in new {
        match old.get_mut(key) {
            Some(known) if within.contains(&key.as_str()) => cover_fields(known, value, &[]),
            _ => drop(old.insert(key.clone(), value.clone())),
        }
    }
}

/// The settings that layers make, the first one at the bottom; what none of them says is as by default.
pub fn merge<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> Result<MeshConfig, MeshConfigError> {
    let mut all = Layer::default();
    layers.into_iter().for_each(|layer| all.cover(layer));
    let mut config: MeshConfig = read("", Value::Object(all.0))?;
    look_up(&mut config, |name| std::env::var(name).ok());
    Ok(config)
}

/// Fills in headers whose value a variable of this process has. Without the variable the header is not sent.
fn look_up(config: &mut MeshConfig, variable: impl Fn(&str) -> Option<String>) {
    let headers = config.extension_providers.iter_mut().flat_map(|p| p.kind.headers_mut());
    for header in headers.filter(|h| h.value.is_none() && !h.env_name.is_empty()) {
        header.value = variable(&header.env_name).map(Into::into);
    }
}

/// What layers say together, as they spell it: for readers of fields that the model has no use for.
pub fn combined<'a>(layers: impl IntoIterator<Item = &'a Layer>) -> Value {
    let mut all = Layer::default();
    layers.into_iter().for_each(|layer| all.cover(layer));
    Value::Object(all.0)
}

/// Reads MeshConfig from YAML or JSON. An empty text and `{}` give the defaults.
pub fn load_mesh_config(text: &str) -> Result<MeshConfig, MeshConfigError> {
    merge([&Layer::parse(text)?])
}

/// Reads MeshNetworks from YAML or JSON.
pub fn load_mesh_networks(text: &str) -> Result<MeshNetworks, MeshConfigError> {
    let value = yaml::parse(text).map_err(|e| MeshConfigError { line: e.line, field: String::new(), message: e.message })?;
    read(text, value)
}

fn read<T: DeserializeOwned + Default>(text: &str, mut value: Value) -> Result<T, MeshConfigError> {
    if value.is_null() {
        return Ok(T::default());
    }
    crate::object::remove_nulls(&mut value);
    serde_path_to_error::deserialize(value).map_err(|e| {
        let field = e.path().to_string();
        let line = yaml::line_of(text, &field).unwrap_or(1);
        MeshConfigError { line, field, message: e.inner().to_string() }
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nothing_means_defaults() {
        for text in ["", "{}", "# nothing\n", "rootNamespace:\n"] {
            assert_eq!(load_mesh_config(text).unwrap(), MeshConfig::default(), "{text:?}");
        }
    }

    #[test]
    fn headers_come_from_variables() {
        let text = "extensionProviders:\n\
             - {name: z, zipkin: {service: z, port: 1, headers: [{name: a, envName: A}, {name: b, envName: GONE}, {name: c, value: c}]}}\n\
             - {name: o, opentelemetry: {service: o, port: 1, http: {path: /, headers: [{name: d, envName: A}]}, \
             grpc: {initialMetadata: [{name: e, envName: A}]}, \
             dynatraceSampler: {tenant: t, clusterId: 1, httpService: {service: s, port: 1, http: {headers: [{name: f, envName: A}]}}}}}\n\
             - {name: l, envoyFileAccessLog: {path: /dev/stdout}}";
        let mut config = load_mesh_config(text).unwrap();
        look_up(&mut config, |name| (name == "A").then(|| "of A".to_owned()));
        let headers = config.extension_providers.iter_mut().flat_map(|p| p.kind.headers_mut());
        let values: Vec<_> = headers.map(|h| (h.name.to_string(), h.value.as_deref().map(str::to_owned))).collect();
        let of = |name: &str, value: Option<&str>| (name.to_owned(), value.map(str::to_owned));
        let a = Some("of A");
        assert_eq!(values, [of("a", a), of("b", None), of("c", Some("c")), of("d", a), of("f", a), of("e", a)]);
    }

    #[test]
    fn what_nothing_could_mean_is_refused() {
        for text in [
            "meshMTLS: {ecdhCurves: [P-256]}",
            "extensionProviders: [{name: a, envoyTcpAls: {service: a, port: 1, additionalRequestHeadersToLog: [x]}}]",
        ] {
            assert!(load_mesh_config(text).is_err(), "{text}");
        }
    }

    #[test]
    fn layers_cover_each_other() {
        let layers = [
            "trustDomain: a\nrootNamespace: r\ntrustDomainAliases: [x, y]\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n\
             defaultConfig: {concurrency: 1, drainDuration: 5s, proxyMetadata: {A: '1', B: '1'}}\n\
             defaultProviders: {metrics: [m], tracing: [t]}\n\
             extensionProviders: [{name: one, prometheus: {}}, {name: two, prometheus: {}}]",
            "trustDomain: b\ntrustDomainAliases: [y, z]\ndefaultConfig: {concurrency: 2, proxyMetadata: {B: '2'}}\n\
             defaultProviders: {metrics: [n]}\nextensionProviders: [{name: two, envoyFileAccessLog: {path: /x}}, {name: three, prometheus: {}}]",
            "# nothing",
        ];
        let whole = "trustDomain: b\nrootNamespace: r\ntrustDomainAliases: [x, y, z]\noutboundTrafficPolicy: {mode: REGISTRY_ONLY}\n\
             defaultConfig: {concurrency: 2, drainDuration: 5s, proxyMetadata: {A: '1', B: '2'}}\n\
             defaultProviders: {metrics: [n], tracing: [t]}\n\
             extensionProviders: [{name: one, prometheus: {}}, {name: two, envoyFileAccessLog: {path: /x}}, {name: three, prometheus: {}}]";
        let layers = layers.map(|text| Layer::parse(text).unwrap());
        assert_eq!(merge(&layers).unwrap(), load_mesh_config(whole).unwrap());
        assert_eq!(merge([]).unwrap(), MeshConfig::default());
    }

    #[test]
    fn networks_are_read_strictly() {
        let networks = load_mesh_networks(
            "networks:\n  n1:\n    endpoints: [{fromRegistry: c1}, {fromCidr: 10.0.0.0/8}]\n    gateways: [{address: 192.0.2.1, port: 15443}]\n",
        );
        assert_eq!(networks.unwrap().networks.len(), 1);
        for (text, line) in [
            ("networks:\n  n1:\n    endpoint: []\n", 3),
            ("networks:\n  n1:\n    endpoints:\n    - fromCidr: 10.0.0.0/99\n", 4),
            ("networks:\n  n1:\n    gateways:\n    - port: 15443\n", 4),
        ] {
            assert_eq!(load_mesh_networks(text).unwrap_err().line, line, "{text}");
        }
    }

    #[test]
    fn a_mistake_is_named_with_line_and_field() {
        for (text, line, field) in [
            ("trustDomain: a\nconnectTimeout: soon\n", 2, "connectTimeout"),
            ("defaultConfig:\n  x: 1\nunheardOf: 1\n", 3, "unheardOf"),
            ("outboundTrafficPolicy:\n  # why\n  mode: MAYBE\n", 3, "outboundTrafficPolicy.mode"),
            (
                "outboundTrafficPolicy:\n  mode: ALLOW_ANY_DYNAMIC_DNS\n  tls: {mode: SIMPLE, credentialName: c}\n",
                3,
                "outboundTrafficPolicy.tls",
            ),
            ("outboundTrafficPolicy: {tls: {mode: MUTUAL}}\n", 1, "outboundTrafficPolicy.tls"),
            ("serviceEntryVisibility:\n  defaultVisibility: SOME\n", 2, "serviceEntryVisibility.defaultVisibility"),
            ("a: [\n", 2, ""),
            ("trustDomain: a\ntrustDomain: b\n", 2, ""),
        ] {
            let e = load_mesh_config(text).unwrap_err();
            assert_eq!((e.line, e.field.as_str()), (line, field), "{e}");
        }
    }
}
