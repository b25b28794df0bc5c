//! The mesh that benches translate: 50 namespaces, a VirtualService of three rules per service, a DestinationRule with two
//! subsets for every fifth, five endpoints per service.

use std::sync::Arc;

use pilotfish_model::destination_rule::{Subset, TrafficPolicy};
use pilotfish_model::endpoint::{EndpointAddress, Health, Workload};
use pilotfish_model::matching::StringMatch;
use pilotfish_model::mesh::{ObjectKey, ServiceKey};
use pilotfish_model::name::{Labels, Meta, Str, Visibility};
use pilotfish_model::proxy::{Metadata, Node};
use pilotfish_model::service::{Address, Registry, TrafficDistribution};
use pilotfish_model::virtual_service::{Destination, GatewayRef, HttpDestination, HttpMatch, HttpRoute};
use pilotfish_model::{
    DestinationRule, Endpoint, Host, Kind, Mesh, ObjectId, Protocol, Proxy, Resolution, Service, ServicePort, VirtualService,
};
use pilotfish_translator::{ProxyClass, World, classify};

const NAMESPACES: usize = 50;

/// A mesh of `services` services.
pub(crate) fn mesh(services: usize) -> Mesh {
    let mut mesh = Mesh { domain: "cluster.local".into(), ..Mesh::default() };
    for i in 0..services {
        let namespace: Str = format!("ns{}", i % NAMESPACES).into();
        let name: Str = format!("svc{i}").into();
        let host = Host::new(&format!("{name}.{namespace}.svc.cluster.local"));
        let key = ServiceKey { namespace: namespace.clone(), host: host.clone() };
        mesh.endpoints.insert(key.clone(), Arc::new((0..5).map(|n| endpoint(i, n, &namespace, &name)).collect()));
        mesh.services.insert(key, Arc::new(service(i, &namespace, &name, &host)));
        let object = ObjectKey { namespace: namespace.clone(), name: name.clone() };
        let meta = Meta { namespace: namespace.clone(), name: name.clone(), ..Meta::default() };
        mesh.virtual_services.insert(object.clone(), Arc::new(virtual_service(meta.clone(), &host)));
        if i.is_multiple_of(5) {
            mesh.destination_rules.insert(object, Arc::new(destination_rule(meta, &host)));
        }
    }
    mesh
}

/// The class of a sidecar that sees all of it.
pub(crate) fn class(world: &World) -> ProxyClass {
    let metadata = Metadata { istio_version: Some("1.29.1".into()), namespace: Some("ns0".into()), ..Metadata::default() };
    let node = Node { id: "sidecar~10.9.9.9~client.ns0~ns0.svc.cluster.local".into(), metadata, ..Node::default() };
    let proxy = Proxy::parse(node, "istio-system", "cluster.local").expect("the node is well formed");
    classify(world, &proxy)
}

fn service(i: usize, namespace: &Str, name: &Str, host: &Host) -> Service {
    let ip = std::net::Ipv4Addr::from(0x0a60_0000 + i as u32);
    Service {
        host: host.clone(),
        namespace: namespace.clone(),
        name: name.clone(),
        registry: Registry::Kubernetes,
        source: ObjectId::new(Kind::Service, namespace.clone(), name.clone()),
        created: Default::default(),
        labels: Labels::new(),
        selector: Labels::from([("app".into(), name.clone())]),
        visibility: Visibility::Public,
        addresses: vec![Address::Ip(ip.into())],
        auto_addresses: Vec::new(),
        ports: vec![ServicePort { name: "http".into(), port: 80, protocol: Protocol::Http, target_port: None }],
        resolution: Resolution::Static,
        headless: false,
        mesh_external: false,
        service_accounts: Default::default(),
        external_name: None,
        k8s_type: "ClusterIP".into(),
        external_addresses: Vec::new(),
        node_local: false,
        publish_not_ready: false,
        persistent_session: false,
        traffic_distribution: TrafficDistribution::Any,
    }
}

/// The `n`th endpoint of service `i`.
pub(crate) fn endpoint(i: usize, n: usize, namespace: &Str, name: &Str) -> Endpoint {
    let ip = std::net::Ipv4Addr::from(0x0af4_0000 + (i * 5 + n) as u32);
    let version = if n.is_multiple_of(2) { "v1" } else { "v2" };
    let workload = Workload {
        labels: Labels::from([("app".into(), name.clone()), ("version".into(), version.into())]),
        namespace: namespace.clone(),
        name: format!("{name}-{n}").into(),
        workload_name: name.clone(),
        service_account: format!("spiffe://cluster.local/ns/{namespace}/sa/{name}").into(),
        cluster_id: "Kubernetes".into(),
        mtls: true,
        ..Workload::default()
    };
    Endpoint {
        address: EndpointAddress::Ip(ip.into()),
        additional_addresses: Vec::new(),
        port: 8080,
        service_port: "http".into(),
        weight: 1,
        health: Health::Healthy,
        workload: Arc::new(workload),
    }
}

fn virtual_service(meta: Meta, host: &Host) -> VirtualService {
    let to = || {
        let destination = Destination { host: host.clone(), subset: "".into(), port: None };
        vec![HttpDestination { destination, weight: 100, headers: Default::default() }]
    };
    let path = |p: &str| HttpMatch { uri: Some(StringMatch::Prefix(p.into())), ..HttpMatch::default() };
    VirtualService {
        meta,
        hosts: vec![host.clone()],
        gateways: vec![GatewayRef::Mesh],
        visibility: None,
        http: vec![
            HttpRoute { matches: vec![path("/api")], route: to(), ..HttpRoute::default() },
            HttpRoute { matches: vec![path("/static")], route: to(), ..HttpRoute::default() },
            HttpRoute { route: to(), ..HttpRoute::default() },
        ],
        tls: Vec::new(),
        tcp: Vec::new(),
    }
}

fn destination_rule(meta: Meta, host: &Host) -> DestinationRule {
    let subset =
        |v: &str| Subset { name: v.into(), labels: Labels::from([("version".into(), v.into())]), policy: TrafficPolicy::default() };
    DestinationRule {
        meta,
        host: host.clone(),
        policy: TrafficPolicy::default(),
        subsets: vec![subset("v1"), subset("v2")],
        visibility: None,
        workload_selector: Labels::new(),
    }
}
