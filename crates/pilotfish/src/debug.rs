//! Answers of the debug interface, by path. Knows nothing of how they travel.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_controller::source::kube::health::{Health, KindHealth};
use pilotfish_controller::{State, debug as listings};
use pilotfish_model::{Kind, Mesh};
use pilotfish_xds_server::debug::{Debug as AdsDebug, DebugError};
use serde_json::{Value, json};
use tokio::sync::watch;

use crate::findings::Findings;
use crate::pipeline::MeshTranslator;

/// An answer.
#[derive(Debug, PartialEq)]
pub enum Answer {
    /// A document.
    Json(Value),
    /// Plain text.
    Text(String),
    /// The question lacks something.
    Invalid(String),
    /// No such thing.
    NotFound(String),
}

/// Where answers come from.
pub struct Debug {
    ads: AdsDebug<MeshTranslator>,
    state: watch::Receiver<State>,
    findings: watch::Receiver<Findings>,
    health: Arc<Health>,
    cluster_id: String,
}

/// Paths with a line of help, in the order of the alphabet.
const PATHS: &[(&str, &str)] = &[
    ("adsz", "Connected proxies and what they watch"),
    ("applied", "Which proxies have confirmed an object: kind, ns, name"),
    ("config_dump", "Everything that a proxy is sent; needs proxyID"),
    ("configz", "Configuration objects as accepted"),
    ("connections", "Connected proxies"),
    ("diagnosticz", "What is wrong with files and objects"),
    ("ecdsz", "Extension configurations of a proxy; needs proxyID"),
    ("edsz", "Endpoints of a proxy; needs proxyID"),
    ("endpointShardz", "Endpoints of services by registry"),
    ("endpointz", "Older name of endpointShardz"),
    ("instancesz", "Service ports that connected proxies serve"),
    ("list", "Names of these pages"),
    ("ndsz", "DNS name table of a proxy; needs proxyID"),
    ("push_status", "Problems found in the last push"),
    ("registryz", "Services"),
    ("resourcesz", "Kinds of configuration that are read"),
    ("syncz", "How far each proxy is"),
    ("watchz", "How far the watches of the API server are"),
];

/// Pages about one proxy, which those of its namespace may see too.
pub const PROXY_PAGES: [&str; 3] = ["config_dump", "edsz", "ndsz"];

impl Debug {
    /// The namespace of the proxy that such an id names, as the pages find it.
    pub fn namespace_of(&self, proxy_id: &str) -> Option<String> {
        self.ads.namespace_of(proxy_id)
    }

    /// Where the control plane is.
    pub fn root_namespace(&self) -> String {
        self.state.borrow().snapshot.mesh.config.root_namespace.to_string()
    }

    /// Answers from these sources.
    pub fn new(
        ads: AdsDebug<MeshTranslator>,
        state: watch::Receiver<State>,
        findings: watch::Receiver<Findings>,
        health: Arc<Health>,
        cluster_id: String,
    ) -> Self {
        Debug { ads, state, findings, health, cluster_id }
    }

    /// HTML index of all pages.
    pub fn index(&self) -> String {
        let rows = PATHS.iter().map(|(path, help)| format!("<tr><td><a href=\"/debug/{path}\">{path}</a></td><td>{help}</td></tr>\n"));
        format!("<!doctype html><title>Pilotfish</title><h1>Debug pages</h1><table>\n{}</table>\n", rows.collect::<String>())
    }

    /// The answer for a path behind `/debug/`.
    pub fn answer(&self, path: &str, query: &BTreeMap<String, String>) -> Answer {
        let state = self.state.borrow().clone();
        let mesh = &state.snapshot.mesh;
        match path {
            "list" => Answer::Json(PATHS.iter().map(|(path, _)| json!(path)).collect()),
            "registryz" => Answer::Json(listings::registryz(mesh, &self.cluster_id)),
            "endpointShardz" | "endpointz" => Answer::Json(listings::endpoint_shardz(mesh, &self.cluster_id)),
            "configz" => Answer::Json(listings::configz(&state.snapshot)),
            "instancesz" => Answer::Json(self.instances(mesh)),
            "resourcesz" => Answer::Json(listings::resourcesz()),
            "push_status" => Answer::Json(push_status(&state)),
            "diagnosticz" => Answer::Json(diagnostics(&state, &self.findings.borrow())),
            "watchz" => Answer::Json(watches(&self.health)),
            "applied" => self.applied(query),
            _ => self.ads_answer(path, query),
        }
    }

    fn instances(&self, mesh: &Mesh) -> Value {
        let proxies = self.ads.proxies();
        let served = proxies.iter().filter_map(|(id, proxy)| {
            let workload = mesh.workload_of(&proxy.ips, &proxy.namespace, proxy.metadata.name.as_deref())?;
            Some((id.clone(), workload.targets.as_slice()))
        });
        listings::instancesz(mesh, &self.cluster_id, served)
    }

    fn applied(&self, query: &BTreeMap<String, String>) -> Answer {
        let get = |key: &str| query.get(key).map(String::as_str).unwrap_or_default();
        let (asked, name) = (get("kind"), get("name"));
        let Some(kind) = Kind::ALL.iter().find(|k| k.as_str().eq_ignore_ascii_case(asked)) else {
            return Answer::Invalid(format!("kind {asked:?} is not one that is read; see /debug/resourcesz\n"));
        };
        if name.is_empty() {
            return Answer::Invalid("name is missing\n".into());
        }
        Answer::Json(self.ads.applied(&format!("{}/{}/{name}", kind.as_str(), get("ns"))))
    }

    /// Pages about connected proxies.
    fn ads_answer(&self, path: &str, query: &BTreeMap<String, String>) -> Answer {
        let get = |key: &str| query.get(key).map(String::as_str).filter(|v| !v.is_empty());
        let proxy = get("proxyID");
        let outcome = match path {
            "syncz" => Ok(self.ads.syncz(get("namespace"))),
            "connections" => Ok(self.ads.connections()),
            "adsz" => self.ads.adsz(proxy),
            "config_dump" => match get("types") {
                Some(types) => self.ads.resources(proxy, types),
                None => self.ads.config_dump(proxy, query.contains_key("include_eds")),
            },
            "edsz" => self.ads.edsz(proxy),
            "ndsz" => self.ads.ndsz(proxy),
            "ecdsz" => self.ads.ecdsz(proxy),
            _ => return Answer::NotFound("404 page not found\n".into()),
        };
        match outcome {
            Ok(value) => Answer::Json(value),
            Err(e @ DebugError::NoProxy) => Answer::Invalid(format!("{e}\n")),
            Err(e) => Answer::NotFound(format!("{e}\n")),
        }
    }
}

/// How far the watch of each kind is, in the order of their names.
fn watches(health: &Health) -> Value {
    let mut kinds = health.report();
    kinds.sort_by_key(|k| k.kind.as_str());
    let one = |k: &KindHealth| {
        json!({
            "kind": k.kind.as_str(), "listed": k.listed, "staleSeconds": k.staleness.as_secs(), "lists": k.lists,
            "audits": k.audits, "healedObjects": k.healed, "trouble": k.trouble,
        })
    };
    kinds.iter().map(one).collect()
}

/// Findings by kind of object and object, in the shape of the reference: metric -> key -> {proxy, message}.
fn push_status(state: &State) -> Value {
    let mut metrics: BTreeMap<String, BTreeMap<String, Value>> = BTreeMap::new();
    for d in state.snapshot.diagnostics.iter() {
        let key = format!("{} {}", d.object, d.field).trim_end().to_owned();
        metrics.entry("pilot_total_rejected_configs".into()).or_default().insert(key, json!({"message": d.message}));
    }
    json!(metrics)
}

fn diagnostics(state: &State, findings: &Findings) -> Value {
    let files = state.problems.iter().map(|p| json!({"message": p.to_string()}));
    let mut objects: Vec<_> = state.snapshot.diagnostics.iter().chain(findings.values().flatten()).collect();
    objects.sort_by(|a, b| (&a.object, a).cmp(&(&b.object, b)));
    let objects = objects.into_iter().map(|d| json!(d));
    json!({"files": files.collect::<Value>(), "objects": objects.collect::<Value>()})
}
