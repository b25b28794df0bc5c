//! A world and a translator of a few lines.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pilotfish_envoy::pb::envoy::config::core::v3::{DataSource, data_source::Specifier};
use pilotfish_envoy::pb::envoy::config::endpoint::v3::ClusterLoadAssignment;
use pilotfish_envoy::pb::envoy::config::listener::v3::Listener;
use pilotfish_envoy::pb::envoy::config::route::v3::RouteConfiguration;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{Secret, TlsCertificate, secret};
use pilotfish_envoy::{Resource, ResourceSet, Snapshot, TypeUrl};
use pilotfish_model::Proxy;
use pilotfish_xds_server::{Config, Server, Translate};
use tokio::net::TcpListener;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Per type, names and content. A class is a namespace; content that holds `{ns}` differs by class.
#[derive(Clone, Default)]
pub(crate) struct World {
    pub(crate) resources: BTreeMap<TypeUrl, BTreeMap<String, String>>,
    /// Translating for this namespace panics.
    pub(crate) poison: Option<String>,
    /// Key material by namespace and name. Looking up `poison` panics.
    pub(crate) keys: BTreeMap<(String, String), String>,
}

impl World {
    pub(crate) fn with(mut self, type_url: TypeUrl, resources: &[(&str, &str)]) -> Self {
        let resources = resources.iter().map(|(n, v)| (n.to_string(), v.to_string())).collect();
        self.resources.insert(type_url, resources);
        self
    }

    pub(crate) fn with_key(mut self, namespace: &str, name: &str, content: &str) -> Self {
        self.keys.insert((namespace.into(), name.into()), content.into());
        self
    }
}

pub(crate) struct Fake;

impl Translate for Fake {
    type World = World;
    type Class = String;

    fn root_namespace<'a>(&self, _: &'a World) -> &'a str {
        "root"
    }

    fn domain<'a>(&self, _: &'a World) -> &'a str {
        "cluster.local"
    }

    fn classify(&self, _: &World, proxy: &Proxy) -> String {
        proxy.namespace.to_string()
    }

    fn translate(&self, world: &World, class: &String) -> Snapshot {
        assert_ne!(world.poison.as_ref(), Some(class));
        let mut snapshot = Snapshot::new();
        for (type_url, resources) in &world.resources {
            let encode = |(name, content): (&String, &String)| resource(*type_url, name, &content.replace("{ns}", class));
            snapshot.insert(*type_url, ResourceSet::new(resources.iter().map(encode)));
        }
        snapshot
    }

    fn secrets(&self, world: &World, proxy: &Proxy, names: &[Arc<str>]) -> Vec<Resource> {
        assert!(names.iter().all(|n| &**n != "poison"));
        let find = |name: &Arc<str>| world.keys.get(&(proxy.namespace.to_string(), name.to_string()));
        names.iter().filter_map(|n| Some(resource(TypeUrl::Secret, n, find(n)?))).collect()
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
    _guard: DropGuard,
}

pub(crate) async fn start(config: Config) -> Running {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}", listener.local_addr().unwrap());
    let (server, drain) = (Server::new(Fake, config), CancellationToken::new());
    let (serving, token) = (server.clone(), drain.clone());
    tokio::spawn(async move { serving.serve(listener, token).await });
    Running { server, url, _guard: drain.clone().drop_guard(), drain }
}

impl Running {
    pub(crate) async fn publish(&self, world: &World) {
        self.server.publish(Arc::new(world.clone())).await;
    }
}
