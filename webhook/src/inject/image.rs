//! Which image a proxy runs.

use std::collections::BTreeMap;

use serde_json::Value;

use super::tree::{at, text};

/// Kinds of images that have a tag suffix of their own.
const TYPES: &[&str] = &["distroless", "debug"];

/// The reference of the image that `default_path` of the values names.
pub(crate) fn reference(values: &Value, proxy: &Value, annotations: &BTreeMap<String, String>, default_path: &[&str]) -> String {
    let annotation = |name: &str| annotations.get(name).map(String::as_str).filter(|v| !v.is_empty());
    if let Some(image) = annotation("sidecar.istio.io/proxyImage") {
        return image.to_owned();
    }
    let image = text(values, default_path).unwrap_or("proxyv2");
    if image.contains('/') {
        return image.to_owned();
    }
    let hub = text(values, &["global", "hub"]).unwrap_or_default();
    // Helm users write tags such as 1.20 as numbers.
    let tag = at(values, &["global", "tag"]).map(|t| t.as_str().map_or_else(|| t.to_string(), str::to_owned)).unwrap_or_default();
    let kind = annotation("sidecar.istio.io/proxyImageType")
        .or_else(|| text(proxy, &["image", "imageType"]))
        .or_else(|| text(values, &["global", "variant"]));
    let mut tag = tag;
    if let Some(kind) = kind {
        for known in TYPES {
            if let Some(plain) = tag.strip_suffix(known).and_then(|t| t.strip_suffix('-')) {
                tag = plain.to_owned();
                break;
            }
        }
        if kind != "default" {
            tag = format!("{tag}-{kind}");
        }
    }
    let hub = if hub.is_empty() { String::new() } else { format!("{hub}/") };
    if tag.is_empty() { format!("{hub}{image}") } else { format!("{hub}{image}:{tag}") }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn references() {
        for (image, tag, variant, kind, wanted) in [
            ("proxyv2", json!("1.28"), "", "", "hub/proxyv2:1.28"),
            ("proxyv2", json!("1.28"), "distroless", "", "hub/proxyv2:1.28-distroless"),
            ("proxyv2", json!("1.28-distroless"), "", "debug", "hub/proxyv2:1.28-debug"),
            ("proxyv2", json!("1.28-distroless"), "debug", "default", "hub/proxyv2:1.28"),
            ("example.com/x:1", json!("1.28"), "debug", "", "example.com/x:1"),
        ] {
            let values = json!({"global": {"hub": "hub", "tag": tag, "variant": variant, "proxy": {"image": image}}});
            let mut annotations = BTreeMap::new();
            if !kind.is_empty() {
                annotations.insert("sidecar.istio.io/proxyImageType".to_owned(), kind.to_owned());
            }
            assert_eq!(reference(&values, &Value::Null, &annotations, &["global", "proxy", "image"]), wanted);
        }
    }
}
