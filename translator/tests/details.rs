//! Details of single resources: what is at a place of one, for one proxy of a small mesh.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::sync::Arc;

use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::source::yaml;
use pilotfish_controller::{Index, Settings, load_mesh_config};
use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::json::to_json;
use pilotfish_envoy::validate::validate_any;
use pilotfish_model::proxy::Node;
use pilotfish_model::{Features, MeshConfig, Proxy};
use pilotfish_translator::{World, classify, snapshot};
use serde_json::{Value, json};

use TypeUrl::{Cluster as CDS, Endpoint as EDS, Listener as LDS};

struct Case {
    /// Objects beside the service and the Pod that all cases have.
    objects: &'static str,
    mesh_config: &'static str,
    features: Features,
    /// Metadata of the proxy, a sidecar of the Pod.
    metadata: Value,
    router: bool,
}

impl Default for Case {
    fn default() -> Self {
        Case { objects: "", mesh_config: "", features: Features::default(), metadata: json!({}), router: false }
    }
}

const COMMON: &str = "
apiVersion: v1
kind: Service
metadata: {name: web, namespace: shop}
spec: {clusterIP: 10.0.0.1, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}, {name: guessed, port: 81, targetPort: 8081}]}
---
apiVersion: v1
kind: Pod
metadata: {name: web-1, namespace: shop, labels: {app: web}}
spec: {serviceAccountName: web}
status: {phase: Running, podIP: 10.1.0.1, podIPs: [{ip: 10.1.0.1}], conditions: [{type: Ready, status: 'True'}]}
";

impl Case {
    fn of(objects: &'static str) -> Case {
        Case { objects, ..Case::default() }
    }

    /// What is at a place (a JSON pointer) of a resource; null if there is nothing.
    fn at(&self, of: TypeUrl, name: &str, pointer: &str) -> Value {
        let config = load_mesh_config(self.mesh_config).unwrap();
        let config = MeshConfig { features: self.features.clone(), ..config };
        let mut index = Index::new(Settings { mesh_config: Arc::new(config), ..Settings::default() });
        let text = format!("{COMMON}---{}", self.objects);
        for document in yaml::split(&text) {
            let Decoded::Object(object) = decode(yaml::parse(document.text).unwrap()).unwrap() else { panic!("{}", document.text) };
            index.apply(Arc::from(object));
        }
        let mesh = index.publish().unwrap().0;
        let mut metadata = json!({"ISTIO_VERSION": "1.30.0", "NAMESPACE": "shop", "CLUSTER_ID": "Kubernetes", "LABELS": {"app": "web"}});
        metadata.as_object_mut().unwrap().extend(self.metadata.as_object().unwrap().clone());
        let kind = if self.router { "router" } else { "sidecar" };
        let node = json!({"id": format!("{kind}~10.1.0.1~web-1.shop~shop.svc.cluster.local"), "metadata": metadata});
        let node: Node = serde_json::from_value(node).unwrap();
        let proxy = Proxy::parse(node, &mesh.config.root_namespace, &mesh.domain).unwrap();
        let world = World::new(mesh);
        let snapshot = snapshot(&world, &classify(&world, &proxy));
        let found = snapshot.get(of).get(name).map(|r| r.to_any());
        found.iter().for_each(|any| validate_any(any).unwrap_or_else(|e| panic!("{name}: {e:?}")));
        found.map(|any| to_json(&any)).and_then(|json| json.pointer(pointer).cloned()).unwrap_or_default()
    }
}

const SOURCE: &str = "/load_assignment/endpoints/0/lb_endpoints/0/endpoint/address/socket_address/address";
const SERVICES: &str = "/metadata/filter_metadata/istio/services";

const INGRESS: &str = "
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: own, namespace: shop}
spec:
  ingress:
  - {port: {number: 8080, name: http, protocol: HTTP}, defaultEndpoint: '0.0.0.0:1'}
  - {port: {number: 8081, name: tcp, protocol: TCP}, defaultEndpoint: '[::]:2'}
  - {port: {number: 9001, name: six, protocol: TCP}, defaultEndpoint: '[::1]:3'}
  - {port: {number: 9002, name: bound, protocol: TCP}, defaultEndpoint: '127.0.0.1:4', captureMode: NONE, bind: 10.1.0.1}
  - {port: {number: 15021, name: status, protocol: HTTP}, defaultEndpoint: '127.0.0.1:5'}
  - {port: {number: 9004, name: told, protocol: HTTP}, defaultEndpoint: '127.0.0.1:6', captureMode: NONE, bind: 10.1.0.1}
---
apiVersion: v1
kind: Service
metadata: {name: webs, namespace: shop}
spec: {clusterIP: 10.0.0.2, selector: {app: web}, ports: [{name: http, port: 80, targetPort: 8080}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  trafficPolicy:
    connectionPool: {tcp: {maxConnections: 1}}
    portLevelSettings:
    - {port: {number: 80}, connectionPool: {tcp: {maxConnections: 80}}}
    - {port: {number: 8080}, connectionPool: {tcp: {maxConnections: 8080}}}
---
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, portLevelMtls: {9002: {mode: DISABLE}, 9003: {mode: DISABLE}}}
";

#[test]
fn a_sidecars_ingress_stands_for_the_workload_in_the_family_that_it_names() {
    let four = Case::of(INGRESS);
    assert_eq!(four.at(CDS, "inbound|8080||", SOURCE), "10.1.0.1");
    assert_eq!(four.at(CDS, "inbound|8081||", SOURCE), "::1");
    assert_eq!(four.at(CDS, "inbound|9001||", SOURCE), "127.0.0.1");
    let six = Case { metadata: json!({"INSTANCE_IPS": "fd00::1"}), ..Case::of(INGRESS) };
    assert_eq!(six.at(CDS, "inbound|8080||", SOURCE), "127.0.0.1");
    assert_eq!(six.at(CDS, "inbound|8081||", SOURCE), "fd00::1");
    let both = Case { metadata: json!({"INSTANCE_IPS": "10.1.0.1,fd00::1"}), ..Case::of(INGRESS) };
    assert_eq!(both.at(CDS, "inbound|9001||", SOURCE), "::1");
    assert_eq!(both.at(CDS, "inbound|9002||", SOURCE), "127.0.0.1");
}

#[test]
fn a_sidecars_ingress_is_a_port_of_its_own() {
    let case =
        Case { mesh_config: "inboundClusterStatName: '%SERVICE%_%SERVICE_PORT_NAME%_%SERVICE_PORT%_%TARGET_PORT%'", ..Case::of(INGRESS) };
    let first = json!([{"host": "web.shop.svc.cluster.local", "name": "web", "namespace": "shop"}]);
    assert_eq!(case.at(CDS, "inbound|8080||", SERVICES), first);
    assert_eq!(case.at(CDS, "inbound|8080||", "/circuit_breakers/thresholds/0/max_connections"), 8080);
    assert_eq!(case.at(CDS, "inbound|8080||", "/alt_stat_name"), "web.shop_http_8080_8080;");
    assert_eq!(case.at(CDS, "inbound|9001||", SERVICES), Value::Null);
    assert_eq!(case.at(CDS, "inbound|9001||", "/alt_stat_name"), "own.shop_six_9001_9001;");
}

/// Ports of chains of the listener for captured connections.
fn ports(case: &Case) -> Vec<u64> {
    let chains = case.at(LDS, "virtualInbound", "/filter_chains");
    let mut ports: Vec<u64> =
        chains.as_array().unwrap().iter().filter_map(|c| c["filter_chain_match"]["destination_port"].as_u64()).collect();
    ports.dedup();
    ports
}

#[test]
fn ports_that_a_sidecar_opens_or_the_proxy_has_are_not_captured() {
    let metadata = json!({"ENVOY_STATUS_PORT": 15021, "ENVOY_PROMETHEUS_PORT": 15090});
    assert_eq!(ports(&Case { metadata, ..Case::of(INGRESS) }), [15006, 9003, 8080, 8081, 9001]);
    let unprivileged = json!({"UNPRIVILEGED_POD": "true", "INTERCEPTION_MODE": "NONE"});
    let low = Case {
        metadata: unprivileged,
        ..Case::of("
apiVersion: networking.istio.io/v1
kind: Sidecar
metadata: {name: own, namespace: shop}
spec: {ingress: [{port: {number: 80, name: http, protocol: HTTP}, defaultEndpoint: '127.0.0.1:1'}, {port: {number: 8080, name: tcp, protocol: TCP}, defaultEndpoint: '127.0.0.1:2'}]}
")
    };
    assert_eq!(low.at(LDS, "10.1.0.1_80", "/name"), Value::Null);
    assert_eq!(low.at(LDS, "10.1.0.1_8080", "/name"), "10.1.0.1_8080");
}

#[test]
fn who_opens_its_ports_listens_on_loopback_beside_the_proxys_own_ports() {
    let service = "
apiVersion: v1
kind: Service
metadata: {name: edge, namespace: shop}
spec: {clusterIP: 10.0.0.9, ports: [{name: status-port, port: 15021}, {name: http-metrics, port: 15090}]}
";
    let metadata = json!({"ENVOY_STATUS_PORT": 15021, "ENVOY_PROMETHEUS_PORT": 15090, "INTERCEPTION_MODE": "NONE"});
    let opens = Case { metadata, ..Case::of(service) };
    assert_eq!(opens.at(LDS, "127.0.0.1_15021", "/name"), "127.0.0.1_15021");
    assert_eq!(opens.at(LDS, "127.0.0.1_15090", "/name"), "127.0.0.1_15090");
    let metadata = json!({"ENVOY_STATUS_PORT": 15021, "ENVOY_PROMETHEUS_PORT": 15090});
    let captured = Case { metadata, ..Case::of(service) };
    assert_eq!(captured.at(LDS, "10.0.0.9_15021", "/name"), "10.0.0.9_15021");
    assert_eq!(captured.at(LDS, "0.0.0.0_15090", "/name"), Value::Null);
}

#[test]
fn where_most_of_a_workload_is_strict_http_is_looked_for_on_the_rest() {
    let strict = Case::of(
        "
apiVersion: security.istio.io/v1
kind: PeerAuthentication
metadata: {name: web, namespace: shop}
spec: {selector: {matchLabels: {app: web}}, mtls: {mode: STRICT}, portLevelMtls: {8081: {mode: PERMISSIVE}}}
",
    );
    let range = |port: u32| json!({"destination_port_range": {"start": port, "end": port + 1}});
    let others = json!({"destination_port_range": {"end": 1}});
    let rules = json!({"or_match": {"rules": [others, range(8080), range(15006)]}});
    assert_eq!(strict.at(LDS, "virtualInbound", "/listener_filters/2/filter_disabled"), rules);
}

#[test]
fn a_gateway_of_both_families_opens_both_where_both_are_in_use() {
    let gateway = "
apiVersion: networking.istio.io/v1
kind: Gateway
metadata: {name: edge, namespace: shop}
spec: {selector: {app: web}, servers: [{port: {number: 8000, name: http, protocol: HTTP}, hosts: ['*']}]}
";
    let with = |dual_stack| Case {
        features: Features { dual_stack, ..Features::default() },
        metadata: json!({"INSTANCE_IPS": "10.1.0.1,fd00::1"}),
        router: true,
        ..Case::of(gateway)
    };
    let second = "/additional_addresses/0/address/socket_address/address";
    assert_eq!([with(false), with(true)].map(|case| case.at(LDS, "0.0.0.0_8000", second)), [Value::Null, json!("::")]);
}

const RULES: &str = "
apiVersion: v1
kind: Service
metadata: {name: api, namespace: shop, labels: {istio.io/persistent-session: kept}, annotations: {networking.istio.io/traffic-distribution: PreferClose}}
spec: {clusterIP: 10.0.0.3, selector: {app: api}, ports: [{name: http2, port: 82}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: api, namespace: shop}
spec:
  host: api
  trafficPolicy:
    outlierDetection: {minHealthPercent: 40}
    connectionPool: {tcp: {tcpKeepalive: {time: 0s}}, http: {useClientProtocol: true}}
  subsets: [{name: v1, labels: {version: v1}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec:
  host: web
  trafficPolicy: {loadBalancer: {simple: PASSTHROUGH}, outlierDetection: {minHealthPercent: 40}}
  subsets: [{name: v1, labels: {version: v1}, trafficPolicy: {loadBalancer: {simple: RANDOM}}}]
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: outside, namespace: shop}
spec: {hosts: [outside.example], location: MESH_EXTERNAL, resolution: STATIC, ports: [{number: 83, name: http, protocol: HTTP}], endpoints: [{address: 192.0.2.1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: outside, namespace: shop}
spec: {host: outside.example, subsets: [{name: v1, labels: {version: v1}}]}
---
apiVersion: networking.istio.io/v1
kind: ServiceEntry
metadata: {name: inside, namespace: shop}
spec: {hosts: [inside.example], resolution: STATIC, ports: [{number: 84, name: http, protocol: HTTP}], endpoints: [{address: 192.0.2.2, serviceAccount: vm}]}
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: inside, namespace: shop}
spec: {host: inside.example, trafficPolicy: {tls: {mode: SIMPLE, sni: inside.example, caCertificates: /roots.pem}}}
";

#[test]
fn what_a_subset_has_of_its_host() {
    let case = Case::of(RULES);
    let external = "/metadata/filter_metadata/istio/external";
    assert_eq!(case.at(CDS, "outbound|83||outside.example", external), true);
    assert_eq!(case.at(CDS, "outbound|83|v1|outside.example", external), Value::Null);
    let sessions = "/common_lb_config/override_host_status/statuses/0";
    assert_eq!(case.at(CDS, "outbound|82||api.shop.svc.cluster.local", sessions), "HEALTHY");
    assert_eq!(case.at(CDS, "outbound|82|v1|api.shop.svc.cluster.local", sessions), Value::Null);
    // What is passed through stays so.
    assert_eq!(case.at(CDS, "outbound|80|v1|web.shop.svc.cluster.local", "/type"), "ORIGINAL_DST");
    assert_eq!(case.at(EDS, "outbound|80|v1|web.shop.svc.cluster.local", ""), Value::Null);
}

/// Whether endpoints of a cluster are told to speak mesh mTLS.
fn told(case: &Case, port: u16, subset: &str) -> bool {
    let name = format!("outbound|{port}|{subset}|db.shop.svc.cluster.local");
    let mode = "/endpoints/0/lb_endpoints/0/metadata/filter_metadata/envoy.transport_socket_match/tlsMode";
    case.at(EDS, &name, mode) == "istio"
}

#[test]
fn endpoints_of_a_subset_are_told_by_its_own_policy() {
    let case = Case::of(
        "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.0.0.6, selector: {app: db}, ports: [{name: tcp, port: 1}, {name: tcp-2, port: 2}, {name: tcp-3, port: 3}]}
---
apiVersion: v1
kind: Pod
metadata: {name: db-1, namespace: shop, labels: {app: db, security.istio.io/tlsMode: istio}}
spec: {serviceAccountName: db}
status: {phase: Running, podIP: 10.1.0.6, podIPs: [{ip: 10.1.0.6}]}
---
apiVersion: discovery.k8s.io/v1
kind: EndpointSlice
metadata: {name: db-a, namespace: shop, labels: {kubernetes.io/service-name: db}}
addressType: IPv4
ports: [{name: tcp, port: 1}, {name: tcp-2, port: 2}, {name: tcp-3, port: 3}]
endpoints: [{addresses: [10.1.0.6], conditions: {ready: true}, targetRef: {kind: Pod, name: db-1, namespace: shop}}]
---
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: db, namespace: shop}
spec:
  host: db
  trafficPolicy:
    tls: {mode: DISABLE}
    portLevelSettings:
    - {port: {number: 2}, connectionPool: {tcp: {maxConnections: 1}}}
    - {port: {number: 3}, tls: {mode: ISTIO_MUTUAL}}
  subsets:
  - {name: own, trafficPolicy: {tls: {mode: SIMPLE}}}
  - {name: bare}
",
    );
    assert_eq!([1, 2, 3].map(|port| told(&case, port, "")), [false, false, true]);
    assert_eq!([1, 2, 3].map(|port| told(&case, port, "own")), [false, false, false]);
    assert_eq!([1, 2, 3].map(|port| told(&case, port, "bare")), [true, true, true]);
}

#[test]
fn listeners_that_a_sidecar_opens_log_and_wait_as_the_others() {
    let case = Case { mesh_config: "{accessLogFile: /dev/stdout, protocolDetectionTimeout: 5s}", ..Case::of(INGRESS) };
    for listener in ["virtualInbound", "10.1.0.1_9002"] {
        assert_eq!(case.at(LDS, listener, "/listener_filters_timeout"), "5s", "{listener}");
        assert_eq!(case.at(LDS, listener, "/access_log/0/name"), "envoy.access_loggers.file", "{listener}");
    }
    assert_eq!(case.at(LDS, "10.0.0.1_81", "/access_log"), Value::Null);
    let only = json!({"not_match": {"destination_port_range": {"start": 9004, "end": 9005}}});
    assert_eq!(case.at(LDS, "10.1.0.1_9004", "/listener_filters/0/filter_disabled"), only);
    let chain = json!({"destination_port": 9002, "transport_protocol": "raw_buffer"});
    assert_eq!(case.at(LDS, "10.1.0.1_9002", "/filter_chains/0/filter_chain_match"), chain);
}

#[test]
fn places_that_are_preferred_know_of_endpoints_that_are_not_ready() {
    let panics = |case: &Case, port: u16, service: &str| {
        case.at(CDS, &format!("outbound|{port}||{service}.shop.svc.cluster.local"), "/common_lb_config/healthy_panic_threshold")
    };
    let case = Case::of(RULES);
    assert_eq!([panics(&case, 82, "api"), panics(&case, 80, "web")], [json!({}), json!({"value": 40})]);
    let never = || Features { unready_endpoints: pilotfish_model::features::UnreadyEndpoints::Never, ..Features::default() };
    let never = Case { features: never(), ..Case::of("") };
    assert_eq!([panics(&Case::of(""), 80, "web"), panics(&never, 80, "web")], [json!({}), Value::Null]);
}

#[test]
fn pools_of_http2_ports() {
    let preserve = json!({"proxyHeaders": {"preserveHttp1HeaderCase": true}});
    let case = Case { metadata: json!({"PROXY_CONFIG": preserve}), ..Case::of(RULES) };
    let api = "outbound|82||api.shop.svc.cluster.local";
    let http1 = "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/use_downstream_protocol_config/http_protocol_options";
    assert_eq!(case.at(CDS, api, http1), json!({}));
    assert_eq!(case.at(CDS, api, "/upstream_connection_options/tcp_keepalive"), json!({"keepalive_time": 0}));
}

const TLS: &str = "/transport_socket/typed_config";
const SANS: &str =
    "/transport_socket/typed_config/common_tls_context/combined_validation_context/default_validation_context/match_subject_alt_names";
const AUTO: &str =
    "/typed_extension_protocol_options/envoy.extensions.upstreams.http.v3.HttpProtocolOptions/upstream_http_protocol_options";

#[test]
fn a_service_entry_knows_who_its_servers_are() {
    let accounts = json!([{"exact": "spiffe://cluster.local/ns/shop/sa/vm"}]);
    assert_eq!(Case::of(RULES).at(CDS, "outbound|84||inside.example", SANS), accounts);
}

#[test]
fn certificate_files_of_the_proxy_make_mesh_tls_the_users_own() {
    let metadata = json!({"TLS_CLIENT_CERT_CHAIN": "/own.pem", "TLS_CLIENT_KEY": "/own.key", "TLS_CLIENT_ROOT_CERT": "/roots.pem"});
    let rule = "
apiVersion: networking.istio.io/v1
kind: DestinationRule
metadata: {name: web, namespace: shop}
spec: {host: web, trafficPolicy: {tls: {mode: ISTIO_MUTUAL}}}
";
    let web = "outbound|80||web.shop.svc.cluster.local";
    let case = Case { metadata, mesh_config: "tlsDefaults: {ecdhCurves: [P-256]}", ..Case::of(rule) };
    assert_eq!(case.at(CDS, web, AUTO), json!({"auto_sni": true, "auto_san_validation": true}));
    assert_eq!(case.at(CDS, web, &format!("{TLS}/sni")), Value::Null);
    assert_eq!(case.at(CDS, web, &format!("{TLS}/common_tls_context/tls_params/ecdh_curves")), json!(["P-256"]));
    assert_eq!(case.at(CDS, web, "/metadata/filter_metadata/istio/alpn_override"), Value::Null);
    let certificate = format!("{TLS}/common_tls_context/tls_certificate_sds_secret_configs/0/name");
    assert_eq!(case.at(CDS, web, &certificate), "file-cert:/own.pem~/own.key");
}

#[test]
fn names_in_statistics_of_rules_are_those_of_the_port_that_they_are_about() {
    let rule = "
apiVersion: v1
kind: Service
metadata: {name: db, namespace: shop}
spec: {clusterIP: 10.0.0.4, ports: [{name: tcp-db, port: 3000}]}
---
apiVersion: v1
kind: Service
metadata: {name: other, namespace: shop}
spec: {clusterIP: 10.0.0.5, ports: [{name: tcp-other, port: 4000}]}
---
apiVersion: networking.istio.io/v1
kind: VirtualService
metadata: {name: db, namespace: shop}
spec: {hosts: [db], tcp: [{route: [{destination: {host: other, port: {number: 4000}}}]}]}
";
    let case = Case { mesh_config: "outboundClusterStatName: '%SERVICE_NAME%_%SERVICE_PORT_NAME%_%SERVICE_PORT%'", ..Case::of(rule) };
    let name = |listener: &str| case.at(LDS, listener, "/filter_chains/0/filters/0/typed_config/stat_prefix");
    assert_eq!([name("10.0.0.4_3000"), name("10.0.0.5_4000")], ["other_tcp-db_3000", "other__4000"]);
}

#[test]
fn names_in_statistics_say_0_for_a_port_that_nobody_knows() {
    let case = Case { mesh_config: "outboundClusterStatName: '%SERVICE_NAME%_%TARGET_PORT%'", ..Case::default() };
    assert_eq!(case.at(CDS, "outbound|80||web.shop.svc.cluster.local", "/alt_stat_name"), "web_0;");
}

#[test]
fn what_keeps_the_case_of_headers_says_nothing_else_of_http1() {
    let options = |proxy_config: Value| {
        let case = Case { metadata: json!({"HTTP10": "1", "PROXY_CONFIG": proxy_config}), ..Case::default() };
        case.at(LDS, "0.0.0.0_80", "/filter_chains/0/filters/0/typed_config/http_protocol_options")
    };
    assert_eq!(options(json!({})), json!({"accept_http_10": true}));
    let kept = options(json!({"proxyHeaders": {"preserveHttp1HeaderCase": true}}));
    assert_eq!(kept["header_key_format"]["stateful_formatter"]["name"], "preserve_case");
    assert_eq!(kept["accept_http_10"], Value::Null);
}
