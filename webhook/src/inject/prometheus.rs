//! One scrape for application and proxy: the agent merges both, so the annotations point to the agent.

use serde_json::{Map, Value, json};

use super::annotations::{MERGE_METRICS, parse_bool};
use super::tree::{at, list_mut, number, object, texts};
use super::{InjectError, containers};

const SCRAPE: &str = "prometheus.io/scrape";
const PORT: &str = "prometheus.io/port";
const PATH: &str = "prometheus.io/path";
/// Port for scrapes over mTLS.
const SECURE_PORT: &str = "prometheus.istio.io/secure-port";
/// Env by which the agent learns what the application's own annotations said.
const ENV: &str = "ISTIO_PROMETHEUS_ANNOTATIONS";
/// Where the agent serves the merged metrics.
const MERGED: &str = "/stats/prometheus";
/// Ports of the proxy itself.
const RESERVED: &[&str] = &["15000", "15001", "15006", "15008", "15021", "15053", "15090"];

/// Prometheus itself reads annotations as labels: other characters count as `_`.
fn is(name: &str, wanted: &str) -> bool {
    let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    name.chars().map(plain).eq(wanted.chars().map(plain))
}

/// Redirects the scrape, if there is one.
pub(crate) fn merge(pod: &mut Value, proxy: &Value, mesh: &Value) -> Result<(), InjectError> {
    let annotations = texts(pod, &["metadata", "annotations"]);
    let get = |wanted: &str| annotations.iter().find(|(k, _)| is(k, wanted)).map(|(_, v)| v.clone());
    let on = match annotations.get(MERGE_METRICS).and_then(|v| parse_bool(v)) {
        Some(asked) => asked,
        None => at(mesh, &["enablePrometheusMerge"]).and_then(Value::as_bool).unwrap_or(true),
    };
    if !on || get(SCRAPE).is_some_and(|v| parse_bool(&v) == Some(false)) {
        return Ok(());
    }
    let agent = at(proxy, &["statusPort"]).and_then(number).unwrap_or(15020).to_string();
    if get(PORT).as_ref() != Some(&agent) {
        let original: Map<String, Value> = [("scrape", get(SCRAPE)), ("path", get(PATH)), ("port", get(PORT))]
            .into_iter()
            .filter_map(|(k, v)| Some((k.to_owned(), json!(v.filter(|v| !v.is_empty())?))))
            .collect();
        if let Some(port) = get(PORT).filter(|p| RESERVED.contains(&p.as_str())) {
            return Err(InjectError::Metrics { name: PORT.to_owned(), reason: format!("port {port} is the proxy's own") });
        }
        if !original.is_empty() {
            let field = |key: &str| original.get(key).map_or_else(|| json!(""), Clone::clone);
            let text = format!(r#"{{"scrape":{},"path":{},"port":{}}}"#, field("scrape"), field("path"), field("port"));
            if let Some(proxy) = containers::proxy_mut(pod) {
                let env = list_mut(proxy, &[], "env");
                env.retain(|e| super::name(e) != ENV);
                env.push(json!({"name": ENV, "value": text}));
            }
        }
        let map = object(pod, &["metadata", "annotations"]);
        map.retain(|k, _| ![SCRAPE, PORT, PATH].iter().any(|wanted| is(k, wanted)));
        for (key, value) in [(SCRAPE, "true"), (PORT, agent.as_str()), (PATH, MERGED)] {
            map.insert(key.to_owned(), json!(value));
        }
    }
    secure_port(pod);
    Ok(())
}

fn secure_port(pod: &mut Value) {
    let port = containers::proxy_mut(pod).and_then(|proxy| {
        let env = super::list(proxy, &["env"]).iter().find(|e| super::name(e) == "ENVOY_SECURE_MERGED_METRICS_PORT")?;
        env.get("value")?.as_str().filter(|v| !v.is_empty() && *v != "0").map(str::to_owned)
    });
    if let Some(port) = port {
        object(pod, &["metadata", "annotations"]).entry(SECURE_PORT).or_insert_with(|| json!(port));
    }
}

/// Whether an annotation is one that an earlier injection wrote.
pub(crate) fn is_ours(key: &str, value: &Value) -> bool {
    key == PATH && value == MERGED
}
