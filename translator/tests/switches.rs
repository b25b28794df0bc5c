//! Switches of the environment: what each of them changes, counted in the JSON of one resource before and after it is set.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings};
use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::json::to_json;
use pilotfish_envoy::validate::validate_any;
use pilotfish_model::features::switches::SWITCHES;
use pilotfish_model::proxy::Node;
use pilotfish_model::{Features, MeshConfig, Proxy};
use pilotfish_translator::{World, classify, snapshot};
use serde_json::json;

const OBJECTS: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop, labels: {istio.io/persistent-session: 'kept:/in', other/session: other}}
spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop, labels: {istio.io/persistent-session-header: x-kept, other/header: x-other}}
spec: {clusterIP: 10.0.0.2, ports: [{name: http, port: 80}, {name: guessed, port: 81}]}
---
apiVersion: v1
kind: Service
metadata: {name: stores, namespace: shop}
spec: {clusterIP: 10.0.0.3, ports: [{name: mongo, port: 1}, {name: redis, port: 2}, {name: mysql, port: 3}]}
---
apiVersion: v1
kind: Service
metadata: {name: pods, namespace: shop}
spec: {clusterIP: None, selector: {app: web}, ports: [{name: http, port: 82, targetPort: 8080}]}
---
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: shop}
spec: {clusterIP: 10.0.0.4, selector: {app: edge}, ports: [{name: https, port: 443}, {name: https-udp, port: 443, protocol: UDP}, {name: http, port: 8000}]}
---
apiVersion: v1
kind: Service
metadata: {name: dual, namespace: shop}
spec: {clusterIP: 10.0.0.6, clusterIPs: [10.0.0.6, 'fd00:a::6'], selector: {app: dual}, ports: [{name: http, port: 80, targetPort: 8080}, {name: tcp, port: 86}]}
---
apiVersion: v1
kind: Pod
metadata: {name: dual-1, namespace: shop, labels: {app: dual}}
spec: {serviceAccountName: dual}
status: {phase: Running, podIP: 10.1.0.4, podIPs: [{ip: 10.1.0.4}, {ip: 'fd00::4'}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dual-4, namespace: shop, labels: {kubernetes.io/service-name: dual}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.4], conditions: {ready: true}, targetRef: {kind: Pod, name: dual-1, namespace: shop}}]
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: dual-6, namespace: shop, labels: {kubernetes.io/service-name: dual}}
addressType: IPv6
ports: [{name: http, port: 8080}]
endpoints: [{addresses: ['fd00::4'], conditions: {ready: true}, targetRef: {kind: Pod, name: dual-1, namespace: shop}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: allocated, namespace: shop}
spec: {hosts: [allocated.example], resolution: DNS, ports: [{number: 87, name: tcp, protocol: TCP}]}
status: {addresses: [{value: 240.240.0.1}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web}
status: {phase: Running, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-2, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web}
status: {phase: Running, podIP: 10.1.0.2, podIPs: [{ip: 10.1.0.2}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-3, namespace: shop, labels: {app: web, istio.io/draining: 'yes', other/draining: 'no'}}
spec: {serviceAccountName: web}
status: {phase: Running, podIP: 10.1.0.3, podIPs: [{ip: 10.1.0.3}]}
---
apiVersion: v1
kind: Pod
metadata: {name: edge-1, namespace: shop, labels: {app: edge}}
spec: {serviceAccountName: edge}
status: {phase: Running, podIP: 10.1.0.9, podIPs: [{ip: 10.1.0.9}], conditions: [{type: Ready, status: 'True'}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: web-a, namespace: shop, labels: {kubernetes.io/service-name: web}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints:
- {addresses: [10.1.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: web-1, namespace: shop}}
- {addresses: [10.1.0.3], conditions: {ready: true}, targetRef: {kind: Pod, name: web-3, namespace: shop}}
- {addresses: [10.1.0.2], conditions: {ready: false}, targetRef: {kind: Pod, name: web-2, namespace: shop}}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: pods-a, namespace: shop, labels: {kubernetes.io/service-name: pods}}
addressType: IPv4
ports: [{name: http, port: 8080}]
endpoints: [{addresses: [10.1.0.1], conditions: {ready: true}, targetRef: {kind: Pod, name: web-1, namespace: shop}}]
---
apiVersion: networking.istio.io/v1
kind: WorkloadEntry
metadata: {name: vm, namespace: shop}
spec: {address: 10.2.0.1, labels: {app: web}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: of-pods, namespace: shop}
spec:
  hosts: [of-pods.example]
  ports: [{number: 84, name: http, protocol: HTTP}]
  resolution: STATIC
  workloadSelector: {labels: {app: web}}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop, labels: {app: billing}}
spec: {hosts: [outside.example], location: MESH_EXTERNAL, resolution: DNS, ports: [{number: 85, name: http, protocol: HTTP}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside, namespace: shop}
spec:
  host: outside.example
  trafficPolicy: {tls: {mode: MUTUAL, clientCertificate: /of/rule.pem, privateKey: /of/rule.key, caCertificates: /of/roots.pem}}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: counted, namespace: shop}
spec:
  host: api.shop.svc.cluster.local
  trafficPolicy: {outlierDetection: {minHealthPercent: 50}}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: mirrored, namespace: shop}
spec:
  hosts: [mirrored.example, same.example]
  gateways: [mesh, edge]
  http: [{route: [{destination: {host: web}}], mirror: {host: api}}]
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec:
  selector: {app: edge}
  servers:
  - {port: {number: 443, name: https, protocol: HTTPS}, hosts: ['mirrored.example', 'same.example'], tls: {mode: SIMPLE, credentialName: edge}}
---
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: far, namespace: elsewhere}
spec: {selector: {app: edge}, servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*']}]}
---
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: web, namespace: shop}
spec:
  workloadSelector: {labels: {app: web}}
  ingress:
  - {port: {number: 9090, name: http, protocol: HTTP}, defaultEndpoint: '127.0.0.1:9091'}
  - {port: {number: 9092, name: https, protocol: HTTPS}, defaultEndpoint: '127.0.0.1:9093', tls: {mode: SIMPLE, serverCertificate: /a, privateKey: /b}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, portLevelMtls: {9092: {mode: DISABLE}}}
";

/// Switch and value; proxy, type and name of a resource; a text, and how often it is in there without and with the switch.
type Row = (&'static str, &'static str, &'static str, TypeUrl, &'static str, &'static str, usize, usize);

use TypeUrl::{Cluster as CDS, Endpoint as EDS, Listener as LDS, Route as RDS};

const WEB: &str = "outbound|80||web.shop.svc.cluster.local";
const PODS: &str = "outbound|82||pods.shop.svc.cluster.local";
const DUAL: &str = "outbound|80||dual.shop.svc.cluster.local";
const OUTSIDE: &str = "outbound|85||outside.example";

#[rustfmt::skip]
const ROWS: &[Row] = &[
    ("PILOT_HTTP10", "true", "app", LDS, "0.0.0.0_80", "\"accept_http_10\":true", 0, 1),
    ("PILOT_HTTP10", "true", "plain", LDS, "0.0.0.0_80", "\"http/1.0\"", 0, 1),
    ("PILOT_HTTP10", "true", "web", LDS, "virtualInbound", "\"http/1.0\",\"http/1.1\",\"h2c\"", 0, 1),
    ("PILOT_ENABLE_ALPN_FILTER", "false", "app", LDS, "0.0.0.0_80", "\"name\":\"istio.alpn\"", 1, 0),
    ("PILOT_ENABLE_METADATA_EXCHANGE", "false", "app", LDS, "0.0.0.0_80", "\"istio.metadata_exchange\"", 1, 0),
    ("PILOT_ENABLE_METADATA_EXCHANGE", "false", "app", CDS, WEB, "\"istio.metadata_exchange\"", 1, 0),
    ("PILOT_DISABLE_MX_ALPN", "true", "app", CDS, WEB, "\"alpn_protocols\":[\"istio-peer-exchange\"", 1, 0),
    ("PILOT_MX_ADDITIONAL_LABELS", "b,a,b", "app", CDS, WEB, "\"additional_labels\":[\"a\",\"b\"]", 0, 1),
    ("PILOT_MX_ADDITIONAL_LABELS", "b,a,b", "app", LDS, "0.0.0.0_80", "\"additional_labels\":[\"a\",\"b\"]", 0, 1),
    ("PILOT_ENABLE_TELEMETRY_LABEL", "false", "app", CDS, WEB, "\"services\":", 1, 0),
    ("PILOT_ENABLE_TELEMETRY_LABEL", "false", "app", EDS, WEB, "\"workload\":", 4, 0),
    ("PILOT_ENDPOINT_TELEMETRY_LABEL", "false", "app", CDS, WEB, "\"services\":", 1, 1),
    ("PILOT_ENDPOINT_TELEMETRY_LABEL", "false", "plain", EDS, WEB, "\"workload\":", 4, 0),
    ("PILOT_ENABLE_MONGO_FILTER", "false", "app", LDS, "10.0.0.3_1", "envoy.filters.network.mongo_proxy\"", 1, 0),
    ("PILOT_ENABLE_MYSQL_FILTER", "true", "app", LDS, "10.0.0.3_3", "\"envoy.filters.network.mysql_proxy\"", 0, 1),
    ("PILOT_ENABLE_MYSQL_FILTER", "true", "bare", LDS, "10.0.0.3_3", "\"envoy.filters.network.mysql_proxy\"", 0, 0),
    ("PILOT_ENABLE_REDIS_FILTER", "true", "plain", LDS, "10.0.0.3_2", "\"envoy.filters.network.redis_proxy\"", 0, 1),
    ("PILOT_ENABLE_REDIS_FILTER", "true", "plain", CDS, "outbound|2||stores.shop.svc.cluster.local", "\"MAGLEV\"", 0, 1),
    ("PILOT_ENABLE_REDIS_FILTER", "true", "bare", CDS, "outbound|2||stores.shop.svc.cluster.local", "\"MAGLEV\"", 0, 0),
    ("PILOT_SIDECAR_USE_REMOTE_ADDRESS", "true", "plain", LDS, "0.0.0.0_80", "\"use_remote_address\":true", 0, 1),
    ("PILOT_ENABLE_PERSISTENT_SESSION_FILTER", "true", "plain", LDS, "0.0.0.0_80", "\"envoy.filters.http.stateful_session\"", 0, 1),
    ("PILOT_ENABLE_PERSISTENT_SESSION_FILTER", "true", "bare", LDS, "0.0.0.0_80", "\"envoy.filters.http.stateful_session\"", 0, 0),
    ("PILOT_ENABLE_PERSISTENT_SESSION_FILTER", "true", "web", LDS, "virtualInbound", "\"envoy.filters.http.stateful_session\"", 0, 0),
    ("PILOT_ENABLE_PERSISTENT_SESSION_FILTER", "true", "app", RDS, "80", "\"name\":\"kept\",\"path\":\"/in\"", 0, 1),
    ("PILOT_ENABLE_PERSISTENT_SESSION_FILTER", "true", "plain", RDS, "80", "\"name\":\"x-kept\"", 0, 1),
    ("PILOT_PERSISTENT_SESSION_LABEL", "none", "app", CDS, WEB, "\"override_host_status\"", 1, 0),
    ("PILOT_PERSISTENT_SESSION_HEADER_LABEL", "none", "app", CDS, "outbound|80||api.shop.svc.cluster.local", "\"override_host_status\"", 1, 0),
    ("PILOT_DRAINING_LABEL", "", "app", EDS, WEB, "\"DRAINING\"", 1, 0),
    ("PILOT_DRAINING_LABEL", "other/draining", "plain", EDS, WEB, "\"DRAINING\"", 1, 1),
    ("PILOT_ENABLE_ABSOLUTE_FQDN_VHOST_DOMAIN", "false", "plain", RDS, "80", "\"web.shop.svc.cluster.local.\"", 1, 0),
    ("PILOT_ENABLE_ROUTE_COLLAPSE_OPTIMIZATION", "false", "gateway", RDS, "https.443.https.edge.shop", "\"same.example:443\"", 0, 1),
    ("ENABLE_100_CONTINUE_HEADERS", "false", "app", LDS, "0.0.0.0_80", "\"proxy_100_continue\":true", 1, 0),
    ("ENABLE_LOCALITY_WEIGHTED_LB_CONFIG", "true", "plain", CDS, WEB, "\"locality_weighted_lb_config\"", 0, 1),
    ("PILOT_ALLOW_SIDECAR_SERVICE_INBOUND_LISTENER_MERGE", "true", "web", LDS, "virtualInbound", "\"destination_port\":8080", 0, 2),
    ("PILOT_ALLOW_SIDECAR_SERVICE_INBOUND_LISTENER_MERGE", "true", "web", CDS, "inbound|8080||", "\"inbound|8080||\"", 0, 1),
    ("MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP", "0", "app", LDS, "virtualOutbound", "\"max_connections_to_accept_per_socket_event\"", 1, 0),
    ("MAX_CONNECTIONS_PER_SOCKET_EVENT_LOOP", "7", "plain", LDS, "virtualOutbound", "\"max_connections_to_accept_per_socket_event\":7", 0, 1),
    ("PILOT_GATEWAY_TRANSPORT_SOCKET_CONNECT_TIMEOUT", "3s", "gateway", LDS, "0.0.0.0_443", "\"transport_socket_connect_timeout\":\"3s\"", 0, 1),
    ("PILOT_DNS_CARES_UDP_MAX_QUERIES", "5", "app", CDS, OUTSIDE, "\"udp_max_queries\":5", 0, 1),
    ("PILOT_DNS_JITTER_DURATION", "2s", "plain", CDS, OUTSIDE, "\"dns_jitter\":\"2s\"", 0, 1),
    ("PILOT_ALLOW_ANY_DYNAMIC_DNS_MAX_HOSTS", "9", "app", CDS, "AllowAnyDynamicDNSCluster", "\"max_hosts\":9", 0, 1),
    ("PILOT_ALLOW_ANY_DYNAMIC_DNS_MAX_HOSTS", "9", "plain", LDS, "virtualOutbound", "\"max_hosts\":9", 0, 1),
    ("DISABLE_SHADOW_HOST_SUFFIX", "false", "app", RDS, "80", "\"disable_shadow_host_suffix_append\":true", 2, 0),
    ("DISABLE_TRACK_REMAINING_CB_METRICS", "false", "plain", CDS, WEB, "\"track_remaining\":true", 0, 1),
    ("PREFER_DESTINATIONRULE_TLS_FOR_EXTERNAL_SERVICES", "false", "files", CDS, OUTSIDE, "file-cert:/of/proxy.pem", 0, 1),
    ("PREFER_DESTINATIONRULE_TLS_FOR_EXTERNAL_SERVICES", "false", "files", CDS, OUTSIDE, "file-cert:/of/rule.pem", 1, 0),
    ("LABEL_CANONICAL_SERVICES_FOR_MESH_EXTERNAL_SERVICE_ENTRIES", "true", "app", CDS, OUTSIDE, "\"outside;shop;billing;", 0, 1),
    ("PILOT_TRACE_SAMPLING", "12.5", "app", LDS, "0.0.0.0_80", "\"random_sampling\":{\"value\":12.5}", 0, 1),
    ("PILOT_SCOPE_GATEWAY_TO_NAMESPACE", "true", "gateway", LDS, "0.0.0.0_8000", "\"name\":\"0.0.0.0_8000\"", 1, 0),
    ("PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES", "true", "app", CDS, PODS, "\"ORIGINAL_DST\"", 1, 0),
    ("PILOT_ENABLE_EDS_FOR_HEADLESS_SERVICES", "true", "plain", EDS, PODS, "\"10.1.0.1\"", 0, 1),
    ("PILOT_AUTO_SEND_UNHEALTHY_ENDPOINTS", "false", "app", EDS, WEB, "\"10.1.0.2\"", 1, 0),
    ("PILOT_ENABLE_K8S_SELECT_WORKLOAD_ENTRIES", "false", "plain", EDS, WEB, "\"10.2.0.1\"", 1, 0),
    ("PILOT_ENABLE_SERVICEENTRY_SELECT_PODS", "false", "app", EDS, "outbound|84||of-pods.example", "\"10.1.0.1\"", 1, 0),
    ("ISTIO_DUAL_STACK", "true", "both", LDS, "virtualOutbound", "\"additional_addresses\"", 0, 1),
    ("ISTIO_DUAL_STACK", "true", "both", LDS, "virtualInbound", "\"additional_addresses\"", 0, 1),
    ("ISTIO_DUAL_STACK", "true", "both", LDS, "10.0.0.6_86", "\"additional_addresses\"", 0, 1),
    ("ISTIO_DUAL_STACK", "true", "both", EDS, DUAL, "\"additional_addresses\"", 0, 1),
    ("ISTIO_DUAL_STACK", "true", "plain", EDS, DUAL, "\"fd00::4\"", 1, 1),
    ("ISTIO_DUAL_STACK", "true", "plain", EDS, DUAL, "\"endpoint\":{", 2, 1),
    ("ISTIO_DUAL_STACK", "true", "both", RDS, "80", "\"[fd00:a::6]\"", 0, 1),
    ("ISTIO_DUAL_STACK", "true", "both", CDS, OUTSIDE, "\"dns_lookup_family\":\"V4_ONLY\"", 1, 0),
    ("ISTIO_ENABLE_IPV4_OUTBOUND_LISTENER_FOR_IPV6_CLUSTERS", "true", "six", LDS, "virtualOutbound", "\"address\":\"0.0.0.0\"", 0, 1),
    ("ISTIO_ENABLE_IPV4_OUTBOUND_LISTENER_FOR_IPV6_CLUSTERS", "true", "six", CDS, OUTSIDE, "\"dns_lookup_family\":\"V6_ONLY\"", 1, 0),
    ("PILOT_ENABLE_IP_AUTOALLOCATE", "false", "captures", LDS, "240.240.0.1_87", "\"240.240.0.1\"", 1, 0),
    ("PILOT_ENABLE_IP_AUTOALLOCATE", "false", "app", LDS, "240.240.0.1_87", "\"240.240.0.1\"", 0, 0),
    ("ISTIO_ENABLE_IPV4_OUTBOUND_LISTENER_FOR_IPV6_CLUSTERS", "true", "six", LDS, "virtualInbound", "\"address\":\"0.0.0.0\"", 0, 0),
    ("PILOT_SKIP_VALIDATE_TRUST_DOMAIN", "true", "app", LDS, "virtualInbound", "\"spiffe://cluster.local/\"", 2, 0),
    ("COMPLIANCE_POLICY", "fips-140-2", "app", LDS, "virtualInbound", "\"AES128-GCM-SHA256\"", 2, 0),
    ("COMPLIANCE_POLICY", "fips-140-2", "app", CDS, WEB, "\"TLSv1_3\"", 1, 0),
    ("COMPLIANCE_POLICY", "fips-140-3", "plain", LDS, "virtualInbound", "\"FIPS_202205\"", 0, 2),
    ("PILOT_FILTER_GATEWAY_CLUSTER_CONFIG", "true", "gateway", CDS, "outbound|2||stores.shop.svc.cluster.local", "\"eds_cluster_config\"", 1, 0),
    ("COMPLIANCE_POLICY", "fips-140-3", "gateway", LDS, "0.0.0.0_443", "\"FIPS_202205\"", 0, 1),
    ("COMPLIANCE_POLICY", "pqc", "app", CDS, WEB, "\"ecdh_curves\":[\"X25519MLKEM768\"]", 0, 1),
    ("PILOT_ENABLE_QUIC_LISTENERS", "true", "gateway", LDS, "udp_0.0.0.0_443", "\"udp_listener_config\"", 0, 1),
    ("ENABLE_TLS_ON_SIDECAR_INGRESS", "true", "web", LDS, "virtualInbound", "file-cert:/a", 0, 1),
];

/// What others test: with providers, key servers, and rules that want a share of endpoints to be well.
const ELSEWHERE: [&str; 3] =
    ["PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS", "PILOT_JWT_ENABLE_REMOTE_JWKS", "PILOT_SEND_UNHEALTHY_ENDPOINTS"];

fn world(switches: &[(&str, &str)]) -> World {
    let value = |name: &str| switches.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
    let (features, bad) = Features::of(value);
    assert!(bad.is_empty(), "{bad:?}");
    let policy = pilotfish_model::mesh_config::OutboundTrafficPolicy {
        mode: pilotfish_model::sidecar::OutboundMode::AllowAnyDynamicDns,
        ..MeshConfig::default().outbound_traffic_policy
    };
    let config = MeshConfig { features, outbound_traffic_policy: policy, ..MeshConfig::default() };
    let mut index = Index::new(Settings { mesh_config: Arc::new(config), ..Settings::default() });
    for document in yaml::split(OBJECTS) {
        let Decoded::Object(object) = decode(yaml::parse(document.text).unwrap()).unwrap() else { panic!("{}", document.text) };
        index.apply(Arc::from(object));
    }
    World::new(index.publish().unwrap().0)
}

/// A proxy of each kind that rows name.
fn proxy(world: &World, name: &str) -> Proxy {
    let (kind, ip, app) = match name {
        "gateway" => ("router", "10.1.0.9", "edge"),
        "web" => ("sidecar", "10.1.0.1", "web"),
        "six" => ("sidecar", "fd00::7", "app"),
        _ => ("sidecar", "10.1.0.7", "app"),
    };
    let mut metadata = json!({"ISTIO_VERSION": "1.30.0", "NAMESPACE": "shop", "CLUSTER_ID": "Kubernetes", "LABELS": {"app": app}});
    let fields = metadata.as_object_mut().unwrap();
    match name {
        "both" => drop(fields.insert("INSTANCE_IPS".into(), "10.1.0.7,fd00::7".into())),
        "captures" => drop(fields.insert("DNS_CAPTURE".into(), "true".into())),
        "files" => {
            for (key, path) in [("CERT_CHAIN", "proxy.pem"), ("KEY", "proxy.key"), ("ROOT_CERT", "roots.pem")] {
                fields.insert(format!("TLS_CLIENT_{key}"), format!("/of/{path}").into());
            }
        }
        "plain" | "bare" => drop(fields.remove("ISTIO_VERSION")),
        _ => {}
    }
    if name == "plain" {
        for (key, path) in [("CERT_CHAIN", "own.pem"), ("KEY", "own.key"), ("ROOT_CERT", "roots.pem")] {
            metadata[format!("TLS_SERVER_{key}")] = format!("/of/{path}").into();
        }
    }
    let extensions = match name {
        "bare" => json!([{"name": "envoy.filters.http.router"}, {"name": "envoy.filters.network.tcp_proxy"}]),
        _ => json!([]),
    };
    let node = json!({"id": format!("{kind}~{ip}~{app}-1.shop~shop.svc.cluster.local"), "metadata": metadata, "extensions": extensions});
    let node: Node = serde_json::from_value(node).unwrap();
    Proxy::parse(node, &world.mesh.config.root_namespace, &world.mesh.domain).unwrap()
}

/// Resources as JSON, by type and name.
type Dump = BTreeMap<(String, String), String>;

/// Resources of a proxy. All of them pass Envoy's own rules.
fn resources(world: &World, name: &str) -> Dump {
    let made = snapshot(world, &classify(world, &proxy(world, name)));
    let mut all = BTreeMap::new();
    for of in [CDS, EDS, LDS, RDS] {
        for resource in made.get(of).iter() {
            validate_any(&resource.to_any()).unwrap_or_else(|e| panic!("{} of {name}: {e:?}", resource.name()));
            all.insert((of.short().to_owned(), resource.name().to_string()), to_json(&resource.to_any()).to_string());
        }
    }
    all
}

#[test]
fn each_switch_changes_what_it_is_for() {
    type Of = (Vec<(&'static str, &'static str)>, &'static str);
    let mut known: BTreeMap<Of, Dump> = BTreeMap::new();
    let mut wrong = Vec::new();
    for (switch, value, proxy, of, name, text, without, with) in ROWS {
        let mut count = |switches: Vec<(&'static str, &'static str)>| {
            let all = known.entry((switches.clone(), proxy)).or_insert_with(|| resources(&world(&switches), proxy));
            all.get(&(of.short().to_owned(), (*name).to_owned())).map_or(0, |json| json.matches(text).count())
        };
        let found = (count(Vec::new()), count(vec![(*switch, *value)]));
        if found != (*without, *with) {
            wrong.push(format!("{switch}={value}: {proxy}'s {name} has {text} {found:?} times, not {:?}", (without, with)));
        }
    }
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn no_switch_is_without_a_test() {
    let tested: BTreeSet<&str> = ROWS.iter().map(|r| r.0).chain(ELSEWHERE).collect();
    let all: BTreeSet<&str> = SWITCHES.iter().map(|s| s.name).collect();
    assert_eq!(tested, all);
}

/// A rule that wants a share of endpoints to be well does not see those that are not; the mesh may insist.
#[test]
fn endpoints_that_are_not_ready_can_be_sent_in_any_case() {
    let counted = "apiVersion: networking.istio.io/v1\nkind: DestinationRule\nmetadata: {name: web, namespace: shop}\n\
                   spec: {host: web, trafficPolicy: {outlierDetection: {minHealthPercent: 50}}}";
    let with = |switches: &[(&str, &str)]| {
        let value = |name: &str| switches.iter().find(|(n, _)| *n == name).map(|(_, v)| (*v).to_owned());
        let config = MeshConfig { features: Features::of(value).0, ..MeshConfig::default() };
        let mut index = Index::new(Settings { mesh_config: Arc::new(config), ..Settings::default() });
        for text in yaml::split(OBJECTS).iter().map(|d| d.text).chain([counted]) {
            let Decoded::Object(object) = decode(yaml::parse(text).unwrap()).unwrap() else { panic!("{text}") };
            index.apply(Arc::from(object));
        }
        let world = World::new(index.publish().unwrap().0);
        resources(&world, "app")[&(EDS.short().to_owned(), WEB.to_owned())].matches("\"10.1.0.2\"").count()
    };
    assert_eq!([with(&[]), with(&[("PILOT_SEND_UNHEALTHY_ENDPOINTS", "true")])], [0, 1]);
}
