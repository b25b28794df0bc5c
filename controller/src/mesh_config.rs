//! Reading the mesh's settings.

use pilotfish_model::MeshConfig;

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

/// Reads MeshConfig from YAML or JSON. An empty text and `{}` give the defaults.
pub fn load_mesh_config(text: &str) -> Result<MeshConfig, MeshConfigError> {
    let value = yaml::parse(text).map_err(|e| MeshConfigError { line: e.line, field: String::new(), message: e.message })?;
    let value = match value {
        serde_json::Value::Null => return Ok(MeshConfig::default()),
        mut value => {
            crate::object::remove_nulls(&mut value);
            value
        }
    };
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
    fn a_mistake_is_named_with_line_and_field() {
        for (text, line, field) in [
            ("trustDomain: a\nconnectTimeout: soon\n", 2, "connectTimeout"),
            ("defaultConfig:\n  x: 1\nunheardOf: 1\n", 3, "unheardOf"),
            ("outboundTrafficPolicy:\n  # why\n  mode: MAYBE\n", 3, "outboundTrafficPolicy.mode"),
            ("a: [\n", 2, ""),
            ("trustDomain: a\ntrustDomain: b\n", 2, ""),
        ] {
            let e = load_mesh_config(text).unwrap_err();
            assert_eq!((e.line, e.field.as_str()), (line, field), "{e}");
        }
    }
}
