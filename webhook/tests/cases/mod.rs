//! The shared injection cases, with the configuration that each of them has.
#![allow(dead_code, unreachable_pub, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use pilotfish_webhook::inject::{self, Config, NativeSidecars, Outcome, ProxyConfigObject, Request, Settings};
use serde_json::{Value, json};

/// All cases.
pub struct Corpus {
    pub root: PathBuf,
    pub cases: Vec<Value>,
    values: Value,
    mesh: Value,
    namespaces: BTreeMap<String, BTreeMap<String, String>>,
}

pub fn yaml(path: &Path) -> Value {
    let text = std::fs::read_to_string(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()));
    yaml_serde::from_str(&text).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

/// A null takes away.
fn patch(base: &mut Value, over: &Value) {
    match (base.as_object_mut(), over.as_object()) {
        (Some(map), Some(new)) => {
            for (k, v) in new {
                match map.get_mut(k) {
                    Some(old) if old.is_object() && v.is_object() => patch(old, v),
                    _ => drop(map.insert(k.clone(), v.clone())),
                }
            }
        }
        _ => base.clone_from(over),
    }
}

impl Corpus {
    /// The cases, if they are there.
    pub fn load(suite: &str) -> Option<Corpus> {
        let root = pilotfish_testkit::skip::shared(suite)?.join("peer-data/inject");
        let all = yaml(&root.join("cases.yaml"));
        let (values, mesh) = (yaml(&root.join("default-values.yaml")), yaml(&root.join("default-mesh.yaml")));
        let namespaces = all["defaults"]["namespaces"].as_array().unwrap().iter();
        let namespaces =
            namespaces.map(|n| (n["name"].as_str().unwrap().to_owned(), serde_json::from_value(n["annotations"].clone()).unwrap()));
        Some(Corpus { cases: all["cases"].as_array().unwrap().clone(), namespaces: namespaces.collect(), root, values, mesh })
    }

    /// What the API server showed to the webhook in a case, and what came of it.
    pub fn webhook(&self, case: &Value) -> Vec<Value> {
        serde_json::from_str(&std::fs::read_to_string(self.root.join(case["webhook"].as_str().unwrap())).unwrap()).unwrap()
    }

    /// The configuration of a case.
    pub fn config(&self, case: &Value, revision: &str) -> Config {
        let (mut values, mut mesh) = (self.values.clone(), self.mesh.clone());
        let options = &case["options"];
        for (base, over) in [(&mut values, &options["values_patch"]), (&mut mesh, &options["mesh_patch"])] {
            if over.is_object() {
                patch(base, over);
            }
        }
        let mut config = Config::new(Settings::default(), &values, mesh).unwrap();
        let versions = options["node_kubelet_versions"].as_array().cloned().unwrap_or_else(|| vec![json!("v1.33.0"), json!("v1.34.0")]);
        let kubelets = versions.iter().enumerate().map(|(i, v)| (i.to_string(), v.as_str().unwrap().to_owned())).collect();
        config.native =
            if options["native_sidecars"] == "disabled" { NativeSidecars::Forced(false) } else { NativeSidecars::Nodes { kubelets } };
        config.openshift = options["platform"] == "openshift";
        config.compliance_policy = options["compliance_policy"].as_str().map(str::to_owned);
        config.revision = revision.to_owned();
        config
    }

    /// What becomes of a Pod.
    pub fn inject(&self, pod: &Value, namespace: &str, config: &Config) -> Result<Value, inject::InjectError> {
        let none = BTreeMap::new();
        let request = Request {
            pod,
            namespace,
            namespace_annotations: self.namespaces.get(namespace).unwrap_or(&none),
            variables: &none,
            proxy_configs: &[] as &[ProxyConfigObject],
        };
        Ok(match inject::inject(&request, config)? {
            Outcome::Skipped(_) => pod.clone(),
            Outcome::Injected(pod) => pod,
        })
    }
}
