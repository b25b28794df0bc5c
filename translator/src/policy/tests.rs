use pilotfish_model::destination_rule::{ConnectionPool, LoadBalancer, OutlierDetection, PortPolicy};
use pilotfish_model::mesh::ObjectKey;
use pilotfish_model::name::Meta;
use pilotfish_model::proxy::{Node, Proxy};
use pilotfish_model::service::{Registry, TrafficDistribution};

use super::*;
use crate::facts::{self, ScopeFacts};
use crate::naming::Direction;
use crate::world::World;

fn class(namespace: &str, labels: &[(&str, &str)]) -> ScopeFacts {
    let mut node = Node { id: format!("sidecar~10.0.0.1~a.{namespace}~{namespace}.svc.cluster.local"), ..Node::default() };
    node.metadata.labels = map(labels);
    let proxy = Proxy::parse(node, "istio-system", "cluster.local").unwrap();
    ScopeFacts { labels: map(labels), ..facts::of(&World::new(Mesh::default().into()), &proxy).0 }
}

fn map(labels: &[(&str, &str)]) -> Labels {
    labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect()
}

fn rule(namespace: &str, name: &str, host: &str) -> DestinationRule {
    DestinationRule {
        meta: Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() },
        host: Host::new(host),
        policy: TrafficPolicy::default(),
        subsets: Vec::new(),
        visibility: None,
        workload_selector: Labels::new(),
    }
}

fn mesh(rules: Vec<DestinationRule>) -> Mesh {
    let key = |m: &Meta| ObjectKey { namespace: m.namespace.clone(), name: m.name.clone() };
    Mesh { destination_rules: rules.into_iter().map(|r| (key(&r.meta), Arc::new(r))).collect(), ..Mesh::default() }
}

fn service() -> Service {
    Service {
        host: Host::new("web.shop.svc.cluster.local"),
        namespace: "shop".into(),
        name: "web".into(),
        registry: Registry::Kubernetes,
        source: ObjectId::new(Kind::Service, "shop", "web"),
        created: Default::default(),
        labels: Labels::new(),
        selector: Labels::new(),
        visibility: Visibility::Public,
        addresses: Vec::new(),
        auto_addresses: Vec::new(),
        ports: Vec::new(),
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

/// Name of the rule that a client uses.
fn used(mesh: &Mesh, class: &ScopeFacts, direction: Direction) -> Option<String> {
    let rule = RuleIndex::new(mesh).lookup(&mesh.config.root_namespace, class, &service(), direction).rule?;
    Some(rule.sources[0].name.to_string())
}

#[test]
fn the_client_s_namespace_decides_then_the_service_s_then_the_root() {
    let of = |namespaces: &[&str]| {
        let rules = namespaces.iter().map(|n| rule(n, n, "web.shop.svc.cluster.local")).collect();
        used(&mesh(rules), &class("client", &[]), Direction::Outbound)
    };
    assert_eq!(of(&["client", "shop", "istio-system"]).as_deref(), Some("client"));
    assert_eq!(of(&["shop", "istio-system"]).as_deref(), Some("shop"));
    assert_eq!(of(&["istio-system", "other"]).as_deref(), Some("istio-system"));
    assert_eq!(of(&["other"]), None);
}

#[test]
fn the_most_specific_host_decides_even_if_its_rule_is_for_others() {
    let wide = rule("client", "wide", "*.shop.svc.cluster.local");
    let wider = rule("client", "wider", "*.cluster.local");
    let picky = DestinationRule { workload_selector: map(&[("v", "2")]), ..rule("client", "picky", "web.shop.svc.cluster.local") };
    let one = |direction, labels: &[(&str, &str)], rules: &[&DestinationRule]| {
        used(&mesh(rules.iter().map(|r| (*r).clone()).collect()), &class("client", labels), direction)
    };
    assert_eq!(one(Direction::Outbound, &[], &[&wider, &wide]).as_deref(), Some("wide"));
    assert_eq!(one(Direction::Outbound, &[("v", "2")], &[&wide, &picky]).as_deref(), Some("picky"));
    assert_eq!(one(Direction::Outbound, &[("v", "1")], &[&wide, &picky]), None);
    assert_eq!(one(Direction::Inbound, &[("v", "2")], &[&wide, &picky]), None, "selectors are about clients");
}

#[test]
fn rules_for_one_host_merge_the_oldest_first() {
    let subset = |name: &str, v: &str| Subset { name: name.into(), labels: map(&[("v", v)]), policy: TrafficPolicy::default() };
    let outlier = TrafficPolicy { outlier_detection: Some(OutlierDetection::default()), ..TrafficPolicy::default() };
    let a = DestinationRule { subsets: vec![subset("one", "a")], ..rule("shop", "a", "web.shop.svc.cluster.local") };
    let b = DestinationRule {
        subsets: vec![subset("one", "b"), subset("two", "b")],
        policy: outlier.clone(),
        ..rule("shop", "b", "web.shop.svc.cluster.local")
    };
    let private = DestinationRule { visibility: Some(Visibility::Private), ..rule("shop", "c", "web.shop.svc.cluster.local") };
    let mesh = mesh(vec![b, private, a]);
    let root = &mesh.config.root_namespace;
    let merged = RuleIndex::new(&mesh).lookup(root, &class("client", &[]), &service(), Direction::Outbound).rule.unwrap();
    assert_eq!(merged.sources.iter().map(|s| &*s.name).collect::<Vec<_>>(), ["a", "b"]);
    assert_eq!(merged.subsets, [subset("one", "a"), subset("two", "b")]);
    assert_eq!(merged.policy, outlier);
}

#[test]
fn a_port_s_settings_replace_all_that_a_port_may_have() {
    let pool = |n| Some(ConnectionPool { max_connections: Some(n), ..ConnectionPool::default() });
    let host = TrafficPolicy {
        connection_pool: pool(1),
        load_balancer: Some(LoadBalancer::default()),
        ports: [(90, PortPolicy { outlier_detection: Some(OutlierDetection::default()), ..PortPolicy::default() })].into_iter().collect(),
        ..TrafficPolicy::default()
    };
    let subset = TrafficPolicy { connection_pool: pool(2), ..TrafficPolicy::default() };
    assert_eq!(effective(&host, None, 80), TrafficPolicy { ports: Default::default(), ..host.clone() });
    assert_eq!(
        effective(&host, None, 90),
        TrafficPolicy { outlier_detection: Some(OutlierDetection::default()), ..TrafficPolicy::default() }
    );
    assert_eq!(effective(&host, Some(&subset), 80).connection_pool, pool(2));
}

#[test]
fn what_workloads_accept() {
    let policy = |namespace: &str, name: &str, selector: &[(&str, &str)], mode, ports: &[(u16, Option<MtlsMode>)]| PeerAuthentication {
        meta: Meta { namespace: namespace.into(), name: name.into(), ..Meta::default() },
        selector: map(selector),
        mode,
        ports: ports.iter().copied().collect(),
    };
    use MtlsMode::{Disable, Permissive, Strict};
    let all = vec![
        policy("istio-system", "root", &[], Some(Strict), &[]),
        policy("istio-system", "selecting", &[("app", "web")], Some(Disable), &[]),
        policy("b", "web", &[("app", "web")], None, &[(90, Some(Disable)), (91, None)]),
        policy("c", "all", &[], Some(Permissive), &[]),
    ];
    let key = |m: &Meta| ObjectKey { namespace: m.namespace.clone(), name: m.name.clone() };
    let mesh = Mesh { peer_authentications: all.into_iter().map(|p| (key(&p.meta), Arc::new(p))).collect(), ..Mesh::default() };
    for (namespace, app, port, mode) in [
        ("a", "web", None, Strict),
        ("istio-system", "web", None, Strict),
        ("b", "web", None, Strict),
        ("b", "web", Some(90), Disable),
        ("b", "web", Some(91), Strict),
        ("b", "db", Some(90), Strict),
        ("c", "web", Some(90), Permissive),
    ] {
        assert_eq!(mtls_mode(&mesh, namespace, &map(&[("app", app)]), port), mode, "{namespace} {app} {port:?}");
    }
}
