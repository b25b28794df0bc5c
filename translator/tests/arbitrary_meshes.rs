//! Arbitrary objects of every kind: what is accepted translates for Istio and plain proxies without a panic, into resources that pass
//! Envoy's own validation rules.
//!
//! The random numbers are seeded by the round, so a failure repeats. `ARBITRARY_ROUNDS` runs more of them; seeds that once failed
//! stand in `tests/arbitrary/seeds.txt` and are run always.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

mod arbitrary;

use std::collections::BTreeMap;
use std::panic::{AssertUnwindSafe, catch_unwind};

use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings};
use pilotfish_envoy::{TypeUrl, validate};
use pilotfish_model::Proxy;
use pilotfish_model::name::Labels;
use pilotfish_model::proxy::{Flavour, Metadata, Node};
use pilotfish_testkit::Random;
use pilotfish_translator::{World, classify, snapshot};

/// What is there beside the arbitrary objects.
const BASE: &str = "
{apiVersion: v1, kind: Service, metadata: {name: web, namespace: shop}, spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 9000}, {name: any, port: 8080}]}}
---
{apiVersion: v1, kind: Service, metadata: {name: api, namespace: shop}, spec: {clusterIP: None, selector: {app: api}, ports: [{name: tcp-x, port: 9000}, {name: grpc, port: 80}]}}
---
{apiVersion: v1, kind: Pod, metadata: {name: web-1, namespace: shop, labels: {app: web}}, spec: {serviceAccountName: web, nodeName: n}, status: {phase: Running, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}]}}
---
{apiVersion: discovery.k8s.io/v1, kind: EndpointSlice, metadata: {name: web-1, namespace: shop, labels: {kubernetes.io/service-name: web}}, addressType: IPv4, ports: [{name: http, port: 8080, protocol: TCP}], endpoints: [{addresses: [10.1.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: web-1, namespace: shop}}]}
";

fn proxies() -> Vec<Proxy> {
    let mut all = Vec::new();
    for (kind, ip, name, namespace, label) in
        [("sidecar", "10.1.0.1", "web-1", "shop", ("app", "web")), ("router", "10.1.0.9", "gw-1", "edge", ("istio", "gw"))]
    {
        for istio in [Some("1.30.0".into()), None] {
            let labels = Labels::from([(label.0.into(), label.1.into())]);
            let metadata = Metadata { istio_version: istio, namespace: Some(namespace.into()), labels, ..Metadata::default() };
            let node = Node { id: format!("{kind}~{ip}~{name}.{namespace}~{namespace}.svc.cluster.local"), metadata, ..Node::default() };
            all.push(Proxy::parse(node, "istio-system", "cluster.local").unwrap());
        }
    }
    all
}

#[test]
fn what_is_accepted_translates_into_what_envoy_accepts() {
    let rounds: u64 = std::env::var("ARBITRARY_ROUNDS").ok().and_then(|n| n.parse().ok()).unwrap_or(300);
    let corpus = include_str!("arbitrary/seeds.txt").lines().filter_map(|l| l.split_whitespace().next()?.parse().ok());
    let kinds = arbitrary::kinds();
    let base: Vec<_> = yaml::split(BASE).into_iter().map(|d| yaml::parse(d.text).unwrap()).collect();
    let (mut failures, mut accepted) = (Vec::new(), BTreeMap::<&str, usize>::new());
    for seed in corpus.chain(0..rounds) {
        let mut random = Random(seed);
        let mut index = Index::new(Settings::default());
        for object in &base {
            let Decoded::Object(object) = decode(object.clone()).unwrap() else { panic!("not ours") };
            index.apply((*object).into());
        }
        for number in 0..12 {
            let kind = &kinds[random.below(kinds.len())];
            let object = kind.object(&mut random, number);
            let taken = catch_unwind(AssertUnwindSafe(|| match decode(object.clone()) {
                Ok(Decoded::Object(object)) => {
                    let id = object.id.clone();
                    index.apply((*object).into());
                    index.diagnostics_of(&id).iter().all(|d| d.severity == pilotfish_model::diagnostic::Severity::Warning)
                }
                _ => false,
            }));
            match taken {
                Ok(taken) => *accepted.entry(&kind.name).or_default() += usize::from(taken),
                Err(_) => failures.push(format!("seed {seed}: conversion panics: {object}")),
            }
        }
        let Some((mesh, _)) = index.publish() else { continue };
        let world = World::new(mesh);
        for proxy in proxies() {
            let made = catch_unwind(AssertUnwindSafe(|| snapshot(&world, &classify(&world, &proxy))));
            let Ok(made) = made else {
                failures.push(format!("seed {seed}: {} {:?} panics", proxy.name, proxy.flavour));
                continue;
            };
            // Beside an Istio proxy the agent takes extension configurations: it loads the code and fills in what Envoy asks for.
            let is_read = |type_url| type_url != TypeUrl::ExtensionConfig || proxy.flavour != Flavour::Istio;
            for (type_url, set) in made.iter().filter(|(type_url, _)| is_read(*type_url)) {
                for resource in set.iter() {
                    if let Err(v) = validate::validate_any(&resource.to_any()) {
                        failures.push(format!(
                            "seed {seed}: {} {:?} {} {}: {v:?}",
                            proxy.name,
                            proxy.flavour,
                            type_url.short(),
                            resource.name()
                        ));
                    }
                }
            }
        }
    }
    assert!(failures.is_empty(), "{} failures:\n{}", failures.len(), failures.join("\n"));
    // The seeds are fixed: a kind that is never accepted is one that is never tried.
    if std::env::var_os("ARBITRARY_COUNTS").is_some() {
        println!("accepted: {accepted:?}");
    }
    let untried: Vec<&str> = kinds.iter().map(|k| &*k.name).filter(|k| accepted.get(k).is_none_or(|n| *n == 0)).collect();
    assert!(untried.is_empty(), "never accepted: {untried:?} of {accepted:?}");
}
