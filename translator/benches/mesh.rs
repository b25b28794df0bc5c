//! The mesh that benches translate: 20 services per namespace, a VirtualService of three rules per service, a
//! DestinationRule with two subsets for every fifth, five endpoints per service; and what happens to it.

#![allow(dead_code)]

use std::sync::Arc;

use pilotfish_model::destination_rule::{Subset, TrafficPolicy};
use pilotfish_model::endpoint::{EndpointAddress, Health, Workload};
use pilotfish_model::matching::StringMatch;
use pilotfish_model::mesh::{ObjectKey, ServiceKey};
use pilotfish_model::name::{Labels, Meta, Str, Visibility};
use pilotfish_model::proxy::{Metadata, Node};
use pilotfish_model::service::{Address, Registry, TrafficDistribution};
use pilotfish_model::sidecar::{EgressHost, EgressListener, EgressNamespace, Sidecar};
use pilotfish_model::virtual_service::{Destination, GatewayRef, HttpDestination, HttpMatch, HttpRoute};
use pilotfish_model::{
    ChangeSet, DestinationRule, Endpoint, EndpointChange, Host, Kind, Mesh, ObjectId, Protocol, Proxy, Resolution, Service, ServicePort,
    VirtualService,
};
use pilotfish_translator::{ProxyClass, World, classify};

const PER_NAMESPACE: usize = 20;

/// A mesh of `services` services. `isolated`: each namespace sees its own only.
pub(crate) fn mesh(services: usize, isolated: bool) -> Mesh {
    let namespaces = services.div_ceil(PER_NAMESPACE);
    let mut mesh = Mesh { domain: "cluster.local".into(), ..Mesh::default() };
    for i in 0..services {
        let namespace: Str = format!("ns{}", i % namespaces).into();
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
    for n in (0..namespaces).filter(|_| isolated) {
        let (namespace, name): (Str, Str) = (format!("ns{n}").into(), "default".into());
        let key = ObjectKey { namespace: namespace.clone(), name: name.clone() };
        mesh.sidecars.insert(key, Arc::new(sidecar(Meta { namespace, name, ..Meta::default() })));
    }
    mesh
}

fn sidecar(meta: Meta) -> Sidecar {
    let host = |namespace| EgressHost { namespace, host: Host::new("*"), exclude: false };
    let hosts = vec![host(EgressNamespace::Own), host(EgressNamespace::Named("istio-system".into()))];
    let listener = EgressListener { port: None, bind: None, capture: Default::default(), hosts };
    Sidecar { meta, selector: None, ingress: Vec::new(), egress: vec![listener], outbound_policy: None, inbound_connection_pool: None }
}

/// The world after the VirtualService of the first service took another time-out, and what changed.
pub(crate) fn route_edit(world: &World) -> (World, ChangeSet) {
    let mut mesh = Mesh::clone(&world.mesh);
    let key = ObjectKey { namespace: "ns0".into(), name: "svc0".into() };
    let mut route = VirtualService::clone(&mesh.virtual_services[&key]);
    let timeout = route.http[0].timeout.unwrap_or_default();
    route.http[0].timeout = Some(timeout + std::time::Duration::from_millis(1));
    mesh.virtual_services.insert(key, Arc::new(route));
    let mut changes = ChangeSet::default();
    changes.objects.insert(ObjectId::new(Kind::VirtualService, "ns0", "svc0"));
    (world.next(Arc::new(mesh), &changes), changes)
}

/// The world after an endpoint of the first service went, and what changed.
pub(crate) fn endpoint_change(world: &World) -> (World, ChangeSet) {
    let mut mesh = Mesh::clone(&world.mesh);
    let key = mesh.services.keys().find(|k| &*k.namespace == "ns0").expect("there is one").clone();
    let mut endpoints = mesh.endpoints[&key].to_vec();
    endpoints.pop();
    mesh.endpoints.insert(key.clone(), Arc::new(endpoints));
    let mut changes = ChangeSet::default();
    changes.endpoints.insert(key, EndpointChange::Removed);
    (world.next(Arc::new(mesh), &changes), changes)
}

/// The world after the first service got persistent sessions, and what changed: its cluster.
pub(crate) fn service_change(world: &World) -> (World, ChangeSet) {
    let mut mesh = Mesh::clone(&world.mesh);
    let key = ServiceKey { namespace: "ns0".into(), host: Host::new("svc0.ns0.svc.cluster.local") };
    let service = Service { persistent_session: true, ..Service::clone(&mesh.services[&key]) };
    let mut changes = ChangeSet::default();
    changes.objects.insert(service.source.clone());
    mesh.services.insert(key.clone(), Arc::new(service));
    changes.services.insert(key);
    (world.next(Arc::new(mesh), &changes), changes)
}

/// The world after a service came, and what changed.
pub(crate) fn service_add(world: &World) -> (World, ChangeSet) {
    let mut mesh = Mesh::clone(&world.mesh);
    let (namespace, name): (Str, Str) = ("ns0".into(), "new".into());
    let host = Host::new("new.ns0.svc.cluster.local");
    let key = ServiceKey { namespace: namespace.clone(), host: host.clone() };
    mesh.services.insert(key.clone(), Arc::new(service(60_000, &namespace, &name, &host)));
    let mut changes = ChangeSet::default();
    changes.objects.insert(ObjectId::new(Kind::Service, namespace, name));
    changes.services.insert(key);
    (world.next(Arc::new(mesh), &changes), changes)
}

/// The class of a sidecar of a namespace.
pub(crate) fn class(world: &World, namespace: &str, app: &str) -> ProxyClass {
    classify(world, &proxy(namespace, app))
}

/// A sidecar of a namespace.
pub(crate) fn proxy(namespace: &str, app: &str) -> Proxy {
    let labels = Labels::from([("service.istio.io/canonical-name".into(), app.into())]);
    let metadata = Metadata { istio_version: Some("1.29.1".into()), namespace: Some(namespace.into()), labels, ..Metadata::default() };
    let node = Node { id: format!("sidecar~10.9.9.9~client.{namespace}~{namespace}.svc.cluster.local"), metadata, ..Node::default() };
    Proxy::parse(node, "istio-system", "cluster.local").expect("the node is well formed")
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
        races_addresses: false,
        twins: Vec::new(),
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
        additional_addresses: Box::default(),
        port: 8080,
        service_port: "http".into(),
        service_port_number: 0,
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
