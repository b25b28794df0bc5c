//! No object is silently without effect: what no resource of any proxy is made of has a finding that says why.
//!
//! Over the shared scenarios and damaged variants of them; `DAMAGE_ROUNDS` runs more of these. The proxies are those of the scenario,
//! one beside each workload, one in each namespace, and a gateway for each selector.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod damage;
mod scenario;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use damage::damage;
use pilotfish_controller::object::{Decoded, decode};
use pilotfish_model::name::{Kind, Labels, ObjectId, Str};
use pilotfish_model::proxy::{Metadata, Node};
use pilotfish_model::{Mesh, Proxy};
use pilotfish_testkit::{Random, skip};
use pilotfish_translator::diagnose::{Workloads, findings};
use pilotfish_translator::{World, classify, patch_diagnostics, snapshot_with_patches};

/// What somebody might connect with.
fn everybody(mesh: &Mesh) -> Vec<Proxy> {
    let node = |kind: &str, ip: &str, name: &str, namespace: &str, labels: &Labels| {
        let metadata = Metadata {
            istio_version: Some("1.30.0".into()),
            namespace: Some(namespace.into()),
            labels: labels.clone(),
            ..Metadata::default()
        };
        Node { id: format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.{}", mesh.domain), metadata, ..Node::default() }
    };
    let mut nodes = Vec::new();
    for (ip, instances) in &mesh.workloads {
        for w in instances.iter().map(|i| &i.workload) {
            nodes.push(node("sidecar", &ip.to_string(), &w.name, &w.namespace, &w.labels));
            nodes.push(node("router", &ip.to_string(), &w.name, &w.namespace, &w.labels));
        }
    }
    let namespaces: BTreeSet<_> = mesh.namespaces.keys().chain(mesh.services.keys().map(|k| &k.namespace)).collect();
    nodes.extend(namespaces.iter().map(|ns| node("sidecar", "10.255.255.1", "anybody", ns, &Labels::new())));
    nodes.iter().filter_map(|node| Proxy::parse(node.clone(), &mesh.config.root_namespace, &mesh.domain).ok()).collect()
}

/// A sidecar where something else is connected.
fn beside(proxy: &Proxy, mesh: &Mesh) -> Option<Proxy> {
    let (ip, namespace) = (proxy.ips.first()?, &proxy.namespace);
    let metadata = Metadata { istio_version: Some("1.30.0".into()), generator: None, ..proxy.metadata.clone() };
    let id = format!("sidecar~{ip}~beside.{namespace}~{namespace}.svc.{}", mesh.domain);
    Proxy::parse(Node { id, metadata, ..Node::default() }, &mesh.config.root_namespace, &mesh.domain).ok()
}

fn check(name: &str, mesh: Arc<Mesh>, objects: &BTreeMap<ObjectId, Str>, mut proxies: Vec<Proxy>, failures: &mut Vec<String>) -> usize {
    let world = World::new(mesh.clone());
    proxies.extend(everybody(&mesh));
    let mut workloads = Workloads::of(&mesh);
    let mut sources: BTreeSet<Arc<str>> = BTreeSet::new();
    let (mut done, mut applied) = (BTreeSet::new(), Vec::new());
    let beside: Vec<Proxy> = proxies.iter().filter_map(|p| beside(p, &mesh)).collect();
    proxies.extend(beside);
    for proxy in &proxies {
        let class = classify(&world, proxy);
        let (namespace, labels) = class.workload();
        workloads.add(namespace, labels);
        if done.insert(class.clone()) {
            let (snapshot, patches) = snapshot_with_patches(&world, &class);
            sources.extend(snapshot.iter().flat_map(|(_, set)| set.iter().flat_map(|r| r.sources().cloned()).collect::<Vec<_>>()));
            applied.extend(patches);
        }
    }
    let mut found = findings(&world, &workloads, objects.keys());
    // What is taken out is made of nothing.
    sources.extend(applied.iter().filter(|a| a.times > 0).map(|a| format!("EnvoyFilter/{}/{}", a.object.namespace, a.object.name).into()));
    for finding in patch_diagnostics(applied) {
        found.entry(finding.object.clone()).or_default().push(finding);
    }
    let mut silent = 0;
    // Gateways of the Gateway API have no listeners yet, so what is for them has nowhere to show.
    let has_place = |text: &str| !text.contains(r#""group":"gateway.networking.k8s.io","kind":"Gateway""#);
    for (id, text) in objects.iter().filter(|(id, text)| TRANSLATED.contains(&id.kind) && has_place(text)) {
        if !sources.contains(&*format!("{}/{}/{}", id.kind.as_str(), id.namespace, id.name)) {
            silent += 1;
            if !found.contains_key(id) {
                failures.push(format!("{name}: {id}: nothing is made of it, and nothing says so: {text}"));
            }
        }
    }
    silent
}

/// Kinds whose objects end up in resources.
const TRANSLATED: &[Kind] = &[
    Kind::VirtualService,
    Kind::DestinationRule,
    Kind::Gateway,
    Kind::ServiceEntry,
    Kind::WorkloadEntry,
    Kind::Sidecar,
    Kind::PeerAuthentication,
    Kind::Telemetry,
    Kind::WasmPlugin,
    Kind::TrafficExtension,
    Kind::EnvoyFilter,
];

#[test]
fn what_nothing_is_made_of_is_told_why() {
    let Some(shared) = skip::shared("contributions") else { return };
    let rounds: u64 = std::env::var("DAMAGE_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(2);
    let (mut failures, mut silent, mut kinds) = (Vec::new(), 0, BTreeMap::<Kind, usize>::new());
    for (i, scenario) in scenario::all(&shared).iter().enumerate() {
        for round in 0..=rounds {
            let mut random = Random(round * 1000 + i as u64);
            let mut index = scenario::index(scenario);
            for mut value in scenario::documents(scenario) {
                // The first round takes the scenario as it is.
                if round > 0 && random.below(3) == 0 {
                    damage(&mut value, &mut random, 0);
                }
                if let Ok(Decoded::Object(object)) = decode(value) {
                    index.apply(Arc::from(object));
                }
            }
            let Some((mesh, _)) = index.publish() else { continue };
            // What is wrong with an object by itself is said there.
            let objects = index.snapshot().objects.into_iter().filter(|(id, _)| index.diagnostics_of(id).is_empty());
            let objects: BTreeMap<ObjectId, Str> = objects.collect();
            objects.keys().for_each(|o| *kinds.entry(o.kind).or_default() += 1);
            let name = format!("{} round {round}", scenario.file_name().unwrap().to_string_lossy());
            silent += check(&name, mesh.clone(), &objects, scenario::proxies(scenario, &mesh), &mut failures);
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    assert!(silent > 20, "hardly any object was without effect: {silent}");
    assert!(TRANSLATED.iter().all(|kind| kinds.contains_key(kind)), "{kinds:?}");
}
