//! Secret. ConfigMaps have the same shape, with plain text in `data`.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(rename_all = "camelCase", default)]
pub struct Secret {
    #[serde(rename = "type")]
    pub kind: String,
    /// Base64.
    pub data: BTreeMap<String, String>,
    pub string_data: BTreeMap<String, String>,
}
