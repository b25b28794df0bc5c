//! What means nothing to the mesh goes no further than the index, whatever the kind: annotations of others, bookkeeping of
//! the API server, status, and the order of what has none. The objects are those of the shared parity scenarios, and some
//! more for kinds that they lack.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic, missing_docs)]

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::{Arc, LazyLock};

use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings, load_mesh_config};
use pilotfish_model::{Kind, ObjectId};
use proptest::prelude::*;
use serde_json::{Value, json};

/// A mesh and its objects.
struct World {
    name: String,
    settings: Settings,
    objects: Vec<Value>,
}

/// Kinds that no scenario has, or none with everything.
const MORE: &str = "
apiVersion: v1
kind: ConfigMap
metadata: {name: istio, namespace: istio-system}
data: {mesh: 'trustDomain: td', meshNetworks: 'networks: {}', other: x}
---
apiVersion: v1
kind: Node
metadata: {name: n1, labels: {topology.kubernetes.io/region: r}}
---
apiVersion: v1
kind: Namespace
metadata: {name: ns}
---
apiVersion: v1
kind: Secret
metadata: {name: cert, namespace: ns}
stringData: {tls.crt: c, tls.key: k}
---
apiVersion: v1
kind: Service
metadata: {name: web, namespace: ns, annotations: {networking.istio.io/exportTo: 'a,b,.'}}
spec: {clusterIP: 10.1.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: web}, {name: tcp, port: 81}]}
status: {loadBalancer: {ingress: [{ip: 192.0.2.1}]}}
---
apiVersion: v1
kind: Pod
metadata: {name: p1, namespace: ns, labels: {app: web}}
spec: {nodeName: n1, containers: [{name: web, ports: [{name: web, containerPort: 8080}]}]}
status: {phase: Running, podIP: 10.0.0.1, conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-x, namespace: ns, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}, {name: tcp, port: 81}]
endpoints:
- {addresses: [10.0.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: p1}}
- {addresses: [10.0.0.9], conditions: {ready: false}}
- {addresses: [10.0.0.8], conditions: {ready: true}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: se, namespace: ns}
spec: {hosts: [a.example], exportTo: [a, b, .], resolution: DNS, ports: [{number: 80, name: http}]}
status: {addresses: [{host: a.example, value: 240.240.0.1}]}
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: we, namespace: ns}
spec: {address: 192.0.2.7, labels: {app: web}}
---
apiVersion: networking.istio.io/v1
kind: WorkloadGroup
metadata: {name: wg, namespace: ns}
spec: {template: {serviceAccount: x}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: vs, namespace: ns}
spec: {hosts: [web], exportTo: [a, b], http: [{route: [{destination: {host: web}}]}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: dr, namespace: ns}
spec: {host: web, exportTo: [a, b], trafficPolicy: {tls: {mode: SIMPLE, credentialName: cert}}}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: sc, namespace: ns}
spec: {egress: [{hosts: [./*]}]}
---
apiVersion: networking.istio.io/v1beta1
kind: ProxyConfig
metadata: {name: pc, namespace: ns}
spec: {concurrency: 2}
";

static WORLDS: LazyLock<Vec<World>> = LazyLock::new(worlds);

fn worlds() -> Vec<World> {
    let objects = |text: &str| yaml::split(text).into_iter().map(|d| yaml::parse(d.text).unwrap()).collect::<Vec<_>>();
    let config_maps = vec![ObjectId::new(Kind::ConfigMap, "istio-system", "istio")];
    let mut worlds = vec![World { name: "more".into(), settings: Settings { config_maps, ..Settings::default() }, objects: objects(MORE) }];
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/parity/scenarios");
    let Ok(entries) = std::fs::read_dir(folder) else {
        assert_ne!(std::env::var("CI").as_deref(), Ok("true"), "the shared scenarios are missing");
        println!("SKIPPED: no shared scenarios here");
        return worlds;
    };
    let mut scenarios: Vec<_> = entries.map(|e| e.unwrap().path()).collect();
    scenarios.sort();
    for scenario in scenarios {
        let config = std::fs::read_to_string(scenario.join("mesh.yaml")).unwrap_or_default();
        let settings = Settings { mesh_config: Arc::new(load_mesh_config(&config).unwrap()), ..Settings::default() };
        let name = scenario.file_name().unwrap().to_string_lossy().into_owned();
        worlds.push(World { name, settings, objects: objects(&std::fs::read_to_string(scenario.join("input.yaml")).unwrap()) });
    }
    worlds
}

/// The object, if it is of a kind that the mesh reads.
fn apply(index: &mut Index, object: &Value) -> Option<ObjectId> {
    match decode(object.clone()).unwrap() {
        Decoded::Object(object) => {
            let id = object.id.clone();
            index.apply(Arc::from(object));
            Some(id)
        }
        _ => None,
    }
}

/// Changes of an object that mean nothing, and what each is called.
fn edits(object: &Value, text: &str, turn: usize) -> Vec<(&'static str, Value)> {
    let kind = object["kind"].as_str().unwrap();
    let is_istio = object["apiVersion"].as_str().unwrap().contains(".istio.io/");
    let mut edits = Vec::new();
    let mut edit = |name, f: &dyn Fn(&mut Value)| {
        let mut edited = object.clone();
        f(&mut edited);
        if edited != *object {
            edits.push((name, edited));
        }
    };
    edit("annotation", &|o| o["metadata"]["annotations"]["example.com/note"] = text.into());
    edit("resourceVersion", &|o| o["metadata"]["resourceVersion"] = text.into());
    edit("generation", &|o| o["metadata"]["generation"] = text.len().into());
    edit("uid", &|o| o["metadata"]["uid"] = text.into());
    edit("finalizers", &|o| o["metadata"]["finalizers"] = json!([text]));
    edit("managedFields", &|o| o["metadata"]["managedFields"] = json!([{"manager": text, "operation": "Update", "time": text}]));
    let condition = json!([{"type": "Example", "status": "True", "message": text}]);
    match kind {
        "Pod" => {
            edit("status of a Pod", &|o| {
                o["status"]["hostIP"] = "10.9.9.9".into();
                o["status"]["containerStatuses"] = json!([{"name": text, "restartCount": text.len()}]);
                let conditions = &mut o["status"]["conditions"];
                match conditions.as_array_mut() {
                    Some(list) => list.extend(condition.as_array().unwrap().iter().cloned()),
                    None => *conditions = condition.clone(),
                }
            });
        }
        "Node" => edit("heartbeat", &|o| o["status"] = json!({"conditions": condition, "images": [{"names": [text]}]})),
        "Namespace" => edit("phase", &|o| o["status"] = json!({"phase": text})),
        "Service" | "ServiceEntry" => edit("conditions", &|o| o["status"]["conditions"] = condition.clone()),
        "Secret" => edit("type", &|o| o["type"] = text.into()),
        "ConfigMap" => edit("other key", &|o| o["data"]["other"] = text.into()),
        _ if is_istio => {
            edit("status", &|o| o["status"] = json!({"conditions": condition, "observedGeneration": text.len(), "validationMessages": []}));
        }
        _ => {}
    }
    for path in ["/endpoints", "/ports", "/spec/exportTo"] {
        edit("order", &|o| {
            if let Some(list) = o.pointer_mut(path).and_then(Value::as_array_mut) {
                let n = list.len().max(1);
                list.rotate_left(turn % n);
            }
        });
    }
    edit("order of an annotation", &|o| {
        if let Some(list) = o.pointer_mut("/metadata/annotations/networking.istio.io~1exportTo") {
            *list = list.as_str().unwrap().split(',').rev().collect::<Vec<_>>().join(", ").into();
        }
    });
    edits
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 8, ..ProptestConfig::default() })]

    #[test]
    fn what_means_nothing_is_suppressed(text in "[a-z]{1,12}", turn in 1..7usize) {
        let mut tried: BTreeMap<Kind, BTreeSet<&str>> = BTreeMap::new();
        for world in &*WORLDS {
            let mut index = Index::new(world.settings.clone());
            world.objects.iter().for_each(|o| drop(apply(&mut index, o)));
            index.publish();
            for object in &world.objects {
                for (edit, edited) in edits(object, &text, turn) {
                    let before = index.stats();
                    let Some(id) = apply(&mut index, &edited) else { continue };
                    let published = index.publish().map(|(_, changes)| changes);
                    prop_assert_eq!(published, None, "{}: {} of {}", world.name, edit, id);
                    let after = index.stats();
                    let counted = (after.suppressed - before.suppressed, after.services_joined - before.services_joined);
                    prop_assert_eq!(counted, (1, 0), "{}: {} of {}", world.name, edit, id);
                    prop_assert_eq!(after.workloads_joined, before.workloads_joined);
                    tried.entry(id.kind).or_default().insert(edit);
                }
            }
        }
        // Kinds that files do not have, or that only scenarios have.
        let elsewhere = [Kind::MeshConfig, Kind::Gateway, Kind::EnvoyFilter, Kind::PeerAuthentication, Kind::RequestAuthentication,
            Kind::AuthorizationPolicy, Kind::Telemetry, Kind::WasmPlugin, Kind::TrafficExtension];
        for kind in Kind::ALL.iter().filter(|k| !elsewhere.contains(k)) {
            prop_assert!(tried.get(kind).is_some_and(|t| t.len() >= 7), "{:?}: {:?}", kind, tried.get(kind));
        }
    }
}
