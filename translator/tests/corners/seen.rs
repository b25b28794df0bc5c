//! What one proxy of a small mesh gets, in a few words each.

use std::sync::Arc;

use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings, load_mesh_config};
use pilotfish_envoy::{Snapshot, TypeUrl, json};
use pilotfish_model::proxy::Node;
use pilotfish_model::{Features, MeshConfig, Proxy};
use pilotfish_translator::{World, classify, translate};
use serde_json::Value;

/// A sidecar of `shop` with the labels `app: client`.
pub(crate) const SIDECAR: &str = "id: sidecar~10.1.0.9~client.shop~shop.svc.cluster.local, cluster: client.shop, metadata: {ISTIO_VERSION: 1.29.0, \
                           NAMESPACE: shop, LABELS: {app: client}}";
/// A gateway of `edge` with the labels `istio: gw`.
pub(crate) const GATEWAY: &str = "id: router~10.1.0.2~gw.edge~edge.svc.cluster.local, cluster: gw.edge, metadata: {ISTIO_VERSION: 1.29.0, \
                           NAMESPACE: edge, LABELS: {istio: gw}}";

/// What is given.
pub(crate) struct Given<'a> {
    pub node: &'a str,
    pub mesh_config: &'a str,
    pub features: Features,
    /// Documents, oldest first.
    pub objects: &'a str,
}

/// A proxy's resources.
pub(crate) struct Seen(Snapshot);

/// What such a proxy sees of these objects.
pub(crate) fn seen(node: &str, objects: &str) -> Seen {
    Given { node, mesh_config: "", features: Features::default(), objects }.seen()
}

impl Given<'_> {
    pub(crate) fn seen(self) -> Seen {
        let config = load_mesh_config(self.mesh_config).unwrap();
        let mesh_config = Arc::new(MeshConfig { features: self.features, ..config });
        let mut index = Index::new(Settings { mesh_config, ..Settings::default() });
        for (i, document) in yaml::split(self.objects).into_iter().enumerate() {
            let mut object = yaml::parse(document.text).unwrap();
            object["metadata"]["creationTimestamp"] = format!("2026-01-01T00:00:{i:02}Z").into();
            let Decoded::Object(object) = decode(object).unwrap() else { panic!("not ours: {}", document.text) };
            index.apply((*object).into());
        }
        let (mesh, _) = index.publish().unwrap();
        let problems: Vec<String> = index.snapshot().diagnostics.iter().map(ToString::to_string).collect();
        assert_eq!(problems, Vec::<String>::new());
        let node: Node = serde_json::from_value(yaml::parse(&format!("{{{}}}", self.node)).unwrap()).unwrap();
        let proxy = Proxy::parse(node, &mesh.config.root_namespace, &mesh.domain).unwrap();
        let class = classify(&World::new(mesh.clone()), &proxy);
        Seen(translate(&mesh, &class))
    }
}

impl Seen {
    fn all(&self, type_url: TypeUrl) -> Vec<Value> {
        self.0.get(type_url).iter().map(|r| json::to_json(&r.to_any())).collect()
    }

    fn one(&self, type_url: TypeUrl, name: &str) -> Value {
        let found = self.0.get(type_url).iter().find(|r| &**r.name() == name);
        found.map_or(Value::Null, |r| json::to_json(&r.to_any()))
    }

    /// Outbound clusters as `name TYPE endpoint ...`.
    pub(crate) fn clusters(&self) -> Vec<String> {
        let one = |c: &Value| {
            let name = text(c, "/name");
            name.starts_with("outbound").then(|| [vec![name, text(c, "/type")], endpoints(&c["load_assignment"])].concat().join(" "))
        };
        self.all(TypeUrl::Cluster).iter().filter_map(one).map(|s| s.replace("outbound", "")).collect()
    }

    /// The endpoints that a cluster is given, as `address:port`.
    pub(crate) fn assignment(&self, cluster: &str) -> Vec<String> {
        endpoints(&self.one(TypeUrl::Endpoint, cluster))
    }

    /// A listener as it is.
    pub(crate) fn listener(&self, name: &str) -> Value {
        self.one(TypeUrl::Listener, name)
    }

    /// Listeners that are not the proxy's own, as `name: what is matched > where it goes, ...`.
    pub(crate) fn listeners(&self) -> Vec<String> {
        let one = |l: &Value| {
            let name = text(l, "/name");
            let chains = l["filter_chains"].as_array().map(Vec::as_slice).unwrap_or_default();
            (!name.starts_with("virtual")).then(|| format!("{name}: {}", chains.iter().map(chain).collect::<Vec<_>>().join(", ")))
        };
        self.all(TypeUrl::Listener).iter().filter_map(one).collect()
    }

    /// Names that the agent resolves, as `name registry address ...`.
    pub(crate) fn names(&self) -> Vec<String> {
        let tables = self.all(TypeUrl::NameTable);
        let all = tables.iter().filter_map(|t| t["table"].as_object()).flatten();
        let ips = |info: &Value| info["ips"].as_array().into_iter().flatten().filter_map(Value::as_str).collect::<Vec<_>>().join(" ");
        all.map(|(name, info)| format!("{name} {} {}", text(info, "/registry"), ips(info))).collect()
    }

    /// Virtual hosts of a route configuration, as `name [domains] > where routes lead`.
    pub(crate) fn routes(&self, name: &str) -> Vec<String> {
        let routes = self.one(TypeUrl::Route, name);
        let hosts = routes["virtual_hosts"].as_array().map(Vec::as_slice).unwrap_or_default();
        let known = hosts.iter().filter(|h| !["allow_any", "block_all"].contains(&&*text(h, "/name")));
        known.map(|h| format!("{} {} > {}", text(h, "/name"), h["domains"], clusters(&h["routes"]).join(" "))).collect()
    }
}

fn text(value: &Value, pointer: &str) -> String {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
}

fn endpoints(assignment: &Value) -> Vec<String> {
    let localities = assignment["endpoints"].as_array().map(Vec::as_slice).unwrap_or_default();
    let all = localities.iter().filter_map(|l| l["lb_endpoints"].as_array()).flatten();
    let one = |e: &Value| {
        let socket = &e["endpoint"]["address"]["socket_address"];
        format!("{}:{}", text(socket, "/address"), socket["port_value"])
    };
    all.map(one).collect()
}

fn chain(chain: &Value) -> String {
    let found = &chain["filter_chain_match"];
    let mut said = Vec::new();
    for key in ["server_names", "application_protocols"] {
        said.extend(found[key].as_array().into_iter().flatten().filter_map(Value::as_str).map(str::to_owned));
    }
    for range in found["prefix_ranges"].as_array().into_iter().flatten() {
        said.push(format!("{}/{}", text(range, "/address_prefix"), range["prefix_len"]));
    }
    let filters = chain["filters"].as_array().map(Vec::as_slice).unwrap_or_default();
    let goes: Vec<String> = filters.iter().map(|f| &f["typed_config"]).flat_map(goes).collect();
    format!("{}> {}", said.into_iter().map(|s| s + " ").collect::<String>(), goes.join(" "))
}

fn goes(filter: &Value) -> Vec<String> {
    let rds = text(filter, "/rds/route_config_name");
    if rds.is_empty() { clusters(filter) } else { vec![format!("rds {rds}")] }
}

/// All clusters that something names, in order.
fn clusters(value: &Value) -> Vec<String> {
    match value {
        Value::Object(map) => map
            .iter()
            .flat_map(|(key, value)| match (key.as_str(), value) {
                ("cluster", Value::String(cluster)) => vec![cluster.clone()],
                ("name", Value::String(cluster)) if map.contains_key("weight") => vec![cluster.clone()],
                ("access_log", _) => Vec::new(),
                _ => clusters(value),
            })
            .collect(),
        Value::Array(list) => list.iter().flat_map(clusters).collect(),
        _ => Vec::new(),
    }
}
