//! A world and a translator of a few lines.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex};

use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pilotfish_envoy::pb::envoy::config::core::v3::{DataSource, TypedExtensionConfig, data_source::Specifier};
use pilotfish_envoy::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use pilotfish_envoy::pb::envoy::config::listener::v3::Listener;
use pilotfish_envoy::pb::envoy::config::route::v3::RouteConfiguration;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret};
use pilotfish_envoy::pb::google::protobuf::Any;
use pilotfish_envoy::{Layer, Layers, Resource, ResourceSet, TypeUrl};
use pilotfish_model::Proxy;
use pilotfish_push::Merge;
use pilotfish_xds_server::{Config, PushReport, Server, Translate};
use prost::Message as _;
use tokio::net::TcpListener;
use tokio::time::Instant;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Per type, names and content. A class is a namespace; content that holds `{ns}` differs by class.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) resources: BTreeMap<TypeUrl, BTreeMap<String, String>>,
    /// Translating for this namespace panics.
    pub(crate) poison: Option<String>,
    /// Proxies of the first namespace are of another class.
    pub(crate) moved: BTreeMap<String, String>,
    /// Key material by namespace and name. Looking up `poison` panics.
    pub(crate) keys: BTreeMap<(String, String), String>,
    /// What settings of extensions say to those who have proved who they are, by what they say to all.
    pub(crate) credentials: BTreeMap<String, String>,
}

impl World {
    pub(crate) fn with(mut self, type_url: TypeUrl, resources: &[(&str, &str)]) -> Self {
        let resources = resources.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        self.resources.insert(type_url, resources);
        self
    }

    pub(crate) fn with_credentials(mut self, shared: &str, content: &str) -> Self {
        self.credentials.insert(shared.into(), content.into());
        self
    }

    pub(crate) fn with_key(mut self, namespace: &str, name: &str, content: &str) -> Self {
        self.keys.insert((namespace.into(), name.into()), content.into());
        self
    }
}

#[derive(Default)]
pub(crate) struct Fake {
    /// While it is locked, no view is finished.
    pub(crate) gate: Arc<Mutex<()>>,
}

/// What changed: these namespaces, or all.
#[derive(Clone, Default)]
pub(crate) struct Change {
    pub(crate) only: Option<BTreeSet<String>>,
    /// Proxies may be of other classes now.
    pub(crate) classes: bool,
}

impl Merge for Change {
    fn merge(&mut self, later: Change) {
        self.classes |= later.classes;
        self.only = match (self.only.take(), later.only) {
            (Some(mut a), Some(b)) => {
                a.extend(b);
                Some(a)
            }
            _ => None,
        };
    }
}

pub(crate) struct View {
    namespace: String,
    layers: Layers,
}

impl Change {
    fn touches(&self, namespace: &str) -> bool {
        self.only.as_ref().is_none_or(|only| only.contains(namespace))
    }
}

impl Fake {
    fn layer(world: &World, type_url: TypeUrl, namespace: &str) -> Layer {
        let resources = world.resources.get(&type_url).into_iter().flatten();
        let made = |(name, content): (&String, &String)| {
            resource(type_url, name, &content.replace("{ns}", namespace)).with_sources([Arc::from(format!("Thing/ns/{name}"))])
        };
        Layer::new(resources.map(made))
    }
}

/// A scope is a namespace; a class is a proxy's name in it, without the number.
impl Translate for Fake {
    type World = World;
    type Change = Change;
    type Class = (String, String);
    type Scope = String;
    type View = View;
    type Endpoints = Arc<Layer>;
    type Own = Layers;

    fn root_namespace<'a>(&self, _: &'a World) -> &'a str {
        "root"
    }

    fn domain<'a>(&self, _: &'a World) -> &'a str {
        "cluster.local"
    }

    fn classify(&self, world: &World, proxy: &Proxy) -> (String, String) {
        let moved = world.moved.get(&*proxy.namespace).cloned();
        (moved.unwrap_or_else(|| proxy.namespace.to_string()), proxy.name.trim_end_matches(|c: char| c != '-').to_owned())
    }

    fn reclassifies(&self, change: &Change, _: &Proxy) -> bool {
        change.classes
    }

    fn scope(&self, class: &(String, String)) -> String {
        class.0.clone()
    }

    fn group(&self, scope: &String) -> Arc<str> {
        scope.as_str().into()
    }

    fn view(&self, world: &World, scope: &String, before: Option<(&Arc<View>, &Change)>) -> Arc<View> {
        drop(self.gate.lock().unwrap());
        assert_ne!(world.poison.as_ref(), Some(scope));
        if let Some((view, _)) = before.filter(|(_, change)| !change.touches(scope)) {
            return view.clone();
        }
        let mut layers = Layers::new();
        for type_url in world.resources.keys().filter(|t| **t != TypeUrl::Endpoint) {
            let layer = Self::layer(world, *type_url, scope);
            layers.insert(*type_url, before.map_or_else(|| Arc::new(layer.clone()), |(v, _)| layer.clone().after(v.layers.get(*type_url))));
        }
        Arc::new(View { namespace: scope.clone(), layers })
    }

    fn endpoints(&self, world: &World, view: &Arc<View>, before: Option<&Arc<Arc<Layer>>>, _: Option<&Change>) -> Arc<Arc<Layer>> {
        let layer = Self::layer(world, TypeUrl::Endpoint, &view.namespace);
        Arc::new(before.map_or_else(|| Arc::new(layer.clone()), |before| layer.clone().after(before)))
    }

    fn own(&self, _: &World, _: &(String, String), _: &Arc<View>, before: Option<(&Arc<Layers>, &Change)>) -> Arc<Layers> {
        before.map_or_else(Arc::default, |(own, _)| own.clone())
    }

    fn touches_view(&self, _: &World, view: &View, change: &Change) -> bool {
        change.touches(&view.namespace)
    }

    fn touches_own(&self, _: &World, _: &Layers, _: &Change) -> bool {
        false
    }

    fn touches_endpoints(&self, view: &View, change: &Change) -> bool {
        change.touches(&view.namespace)
    }

    fn touches_secrets(&self, _: &Change) -> bool {
        true
    }

    fn view_layers<'a>(&self, view: &'a View) -> &'a Layers {
        &view.layers
    }

    fn endpoint_layer<'a>(&self, endpoints: &'a Arc<Layer>) -> &'a Arc<Layer> {
        endpoints
    }

    fn own_layers<'a>(&self, own: &'a Layers) -> &'a Layers {
        own
    }

    fn secrets(&self, world: &World, proxy: &Proxy, names: &[Arc<str>]) -> Vec<Resource> {
        assert!(names.iter().all(|n| &**n != "poison"));
        let find = |name: &Arc<str>| world.keys.get(&(proxy.namespace.to_string(), name.to_string()));
        names.iter().filter_map(|n| Some(resource(TypeUrl::Secret, n, find(n)?))).collect()
    }

    fn with_credentials(&self, world: &World, extensions: &ResourceSet) -> Vec<Resource> {
        let told = |r: &Resource| {
            let shared = TypedExtensionConfig::decode(r.value()).unwrap().typed_config.unwrap().type_url;
            let own = resource(TypeUrl::ExtensionConfig, r.name(), world.credentials.get(&shared)?);
            Some(own.with_sources([Arc::from(format!("Thing/ns/{}", r.name()))]))
        };
        extensions.iter().filter_map(told).collect()
    }
}

/// A resource whose content shows up in some text field.
pub(crate) fn resource(type_url: TypeUrl, name: &str, content: &str) -> Resource {
    let (n, c) = (name.to_owned(), content.to_owned());
    match type_url {
        TypeUrl::Cluster => Resource::new(name, &Cluster { name: n, alt_stat_name: c, ..Default::default() }),
        TypeUrl::Endpoint => Resource::new(
            name,
            &ClusterLoadAssignment { cluster_name: n, named_endpoints: [(c, Default::default())].into(), ..Default::default() },
        ),
        TypeUrl::Listener => Resource::new(name, &Listener { name: n, stat_prefix: c, ..Default::default() }),
        TypeUrl::Route => Resource::new(name, &RouteConfiguration { name: n, internal_only_headers: vec![c], ..Default::default() }),
        TypeUrl::ExtensionConfig => {
            let typed_config = Some(Any { type_url: c, ..Default::default() });
            Resource::new(name, &TypedExtensionConfig { name: n, typed_config })
        }
        TypeUrl::Secret => {
            let source = DataSource { specifier: Some(Specifier::InlineString(c)), ..Default::default() };
            let tls = TlsCertificate { private_key: Some(source), ..Default::default() };
            Resource::new(name, &Secret { name: n, r#type: Some(secret::Type::TlsCertificate(tls)) })
        }
        other => panic!("no fake {other:?}"),
    }
}

/// A server on a port of its own; dropped, it drains.
pub(crate) struct Running {
    pub(crate) server: Server<Fake>,
    pub(crate) url: String,
    pub(crate) drain: CancellationToken,
    /// Holds up views while it is locked.
    pub(crate) gate: Arc<Mutex<()>>,
    _guard: DropGuard,
}

pub(crate) async fn start(config: Config) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let gate = Arc::<Mutex<()>>::default();
    let (server, drain) = (Server::new(Fake { gate: gate.clone() }, config), CancellationToken::new());
    let (serving, token) = (server.clone(), drain.clone());
    tokio::spawn(async move { serving.serve(listener, token).await });
    let (working, token) = (server.clone(), drain.clone());
    tokio::spawn(async move { working.run(token).await });
    Running { server, url, gate, _guard: drain.clone().drop_guard(), drain }
}

impl Running {
    /// A world in which everything may differ, and waits until it is what streams are served.
    pub(crate) async fn publish(&self, world: &World) -> PushReport {
        self.change(world, Change { classes: true, ..Change::default() }).await
    }

    pub(crate) async fn change(&self, world: &World, change: Change) -> PushReport {
        self.server.publish(Arc::new(world.clone()));
        self.server.push(change, Instant::now()).await
    }

    /// A world in which only endpoints differ.
    pub(crate) async fn publish_endpoints(&self, world: &World) -> PushReport {
        self.server.publish(Arc::new(world.clone()));
        self.server.push_endpoints(Change::default(), Instant::now()).await
    }
}
