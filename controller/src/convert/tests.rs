//! Bad inputs: each is refused with the field named. Good inputs: whole values.

use std::time::Duration;

use pilotfish_model::diagnostic::Severity;
use pilotfish_model::name::Visibility;
use pilotfish_model::service::{Address, Resolution};
use pilotfish_model::virtual_service::{GatewayRef, Share};
use pilotfish_model::{Host, Protocol};
use pretty_assertions::assert_eq;

use super::*;
use crate::index::testing::yaml_objects;

fn context() -> Context {
    Context { domain: "cluster.local".into(), strings: Strings::default(), revision: "".into(), config_maps: [].into() }
}

/// Converts `spec` as an object of a kind, in namespace `ns` with name `x`.
pub(super) fn converted(kind: &str, spec: &str) -> Converted {
    let group = match kind {
        "PeerAuthentication" | "AuthorizationPolicy" | "RequestAuthentication" => "security.istio.io",
        "Telemetry" => "telemetry.istio.io",
        "WasmPlugin" | "TrafficExtension" => "extensions.istio.io",
        _ => "networking.istio.io",
    };
    let text = format!("apiVersion: {group}/v1\nkind: {kind}\nmetadata: {{name: x, namespace: ns}}\nspec: {spec}\n");
    convert(&yaml_objects(&text)[0], &context())
}

/// Fields with errors.
pub(super) fn errors(kind: &str, spec: &str) -> Vec<String> {
    let c = converted(kind, spec);
    let errors: Vec<_> = c.diagnostics.into_iter().filter(|d| d.severity == Severity::Error).map(|d| d.field).collect();
    assert_eq!(c.fact.is_some(), errors.is_empty(), "a fact goes with no errors: {spec}");
    errors
}

#[test]
fn rules_that_are_never_reached_are_found() {
    let warned = |http: &[&str]| {
        let http: Vec<String> = http.iter().map(|m| format!("{{{m} route: [{{destination: {{host: a}}}}]}}")).collect();
        let c = converted("VirtualService", &format!("{{hosts: [a], http: [{}]}}", http.join(", ")));
        assert!(c.fact.is_some());
        c.diagnostics.into_iter().map(|d| (d.field, d.message)).collect::<Vec<_>>()
    };
    let (a, b, slash) = ("match: [{uri: {exact: /a}}],", "match: [{uri: {exact: /b}, name: x}],", "match: [{uri: {prefix: /}}],");
    assert_eq!(warned(&[a, b, slash]), []);
    let never =
        |rule: usize, by: usize| (format!("spec.http[{rule}]"), format!("is never reached: spec.http[{by}] takes all that it matches"));
    assert_eq!(warned(&[slash, a, ""]), [never(1, 0), never(2, 0)]);
    assert_eq!(warned(&[a, b, "match: [{uri: {exact: /b}}, {uri: {exact: /a}}],", "", ""]), [never(2, 1), never(4, 3)]);
}

#[test]
fn mistakes_name_their_field() {
    let route = "route: [{destination: {host: a}}]";
    let vs = |http: &str| format!("{{hosts: [a], http: [{http}]}}");
    let cases: Vec<(&str, String, &[&str])> = vec![
        ("VirtualService", vs(&format!("{{{route}}}")), &[]),
        ("VirtualService", "{hosts: [a]}".into(), &["spec.http"]),
        ("VirtualService", vs("{}"), &["spec.http[0]"]),
        ("VirtualService", vs(&format!("{{{route}, redirect: {{uri: /}}}}")), &["spec.http[0]"]),
        ("VirtualService", vs(&format!("{{{route}, timeout: soon}}")), &["spec.http[0].timeout"]),
        (
            "VirtualService",
            vs(&format!("{{{route}}}, {{match: [{{}}, {{headers: {{x: {{regex: '('}}}}}}], {route}}}")),
            &["spec.http[1].match[1].headers[\"x\"].regex"],
        ),
        ("VirtualService", vs(&format!("{{match: [{{uri: {{exact: /, prefix: /}}}}], {route}}}")), &["spec.http[0].match[0].uri"]),
        ("VirtualService", vs("{route: [{weight: 1}]}"), &["spec.http[0].route[0].destination"]),
        ("VirtualService", vs("{route: [{destination: {host: a}, weight: 0}, {destination: {host: b}}]}"), &["spec.http[0].route"]),
        (
            "VirtualService",
            vs(&format!("{{{route}, fault: {{abort: {{httpStatus: 9, percentage: {{value: 101}}}}}}}}")),
            &["spec.http[0].fault.abort.percentage.value", "spec.http[0].fault.abort.httpStatus"],
        ),
        ("VirtualService", vs("{directResponse: {status: 99}}"), &["spec.http[0].directResponse.status"]),
        ("VirtualService", vs("{redirect: {redirectCode: 200}}"), &["spec.http[0].redirect.redirectCode"]),
        ("VirtualService", format!("{{hosts: ['*'], http: [{{{route}}}]}}"), &["spec.hosts"]),
        ("VirtualService", format!("{{hosts: ['a.*.b'], http: [{{{route}}}]}}"), &["spec.hosts[0]"]),
        ("VirtualService", format!("{{hosts: [a], exportTo: ['a b'], http: [{{{route}}}]}}"), &["spec.exportTo[0]"]),
        ("VirtualService", "{hosts: [a], tls: [{route: []}]}".into(), &["spec.tls[0].match", "spec.tls[0].route"]),
        (
            "VirtualService",
            format!("{{hosts: [a], tcp: [{{match: [{{destinationSubnets: [x]}}], {route}}}]}}"),
            &["spec.tcp[0].match[0].destinationSubnets[0]"],
        ),
        ("DestinationRule", "{}".into(), &["spec.host"]),
        ("DestinationRule", "{host: a, subsets: [{name: v}, {name: v}]}".into(), &["spec.subsets[1].name"]),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {connectionPool: {tcp: {maxConnections: -1, connectTimeout: 1x}}}}".into(),
            &["spec.trafficPolicy.connectionPool.tcp.maxConnections", "spec.trafficPolicy.connectionPool.tcp.connectTimeout"],
        ),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {portLevelSettings: [{tls: {mode: MUTUAL}}]}}".into(),
            &[
                "spec.trafficPolicy.portLevelSettings[0].port.number",
                "spec.trafficPolicy.portLevelSettings[0].tls.clientCertificate",
                "spec.trafficPolicy.portLevelSettings[0].tls.privateKey",
            ],
        ),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {loadBalancer: {simple: RANDOM, consistentHash: {useSourceIp: true}}}}".into(),
            &["spec.trafficPolicy.loadBalancer"],
        ),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {loadBalancer: {localityLbSetting: {distribute: [{from: r, to: {a: 50}}]}}}}".into(),
            &["spec.trafficPolicy.loadBalancer.localityLbSetting.distribute[0].to"],
        ),
        (
            "DestinationRule",
            "{host: a, trafficPolicy: {outlierDetection: {maxEjectionPercent: 101}}}".into(),
            &["spec.trafficPolicy.outlierDetection.maxEjectionPercent"],
        ),
        ("Gateway", "{}".into(), &["spec.servers"]),
        (
            "Gateway",
            "{servers: [{port: {number: 0, protocol: X}}]}".into(),
            &["spec.servers[0].port.number", "spec.servers[0].port.protocol", "spec.servers[0].hosts"],
        ),
        (
            "Gateway",
            "{servers: [{port: {number: 1, protocol: HTTPS}, hosts: ['a/b/c']}]}".into(),
            &["spec.servers[0].tls", "spec.servers[0].hosts[0]"],
        ),
        (
            "Gateway",
            "{servers: [{port: {number: 1, protocol: HTTPS}, hosts: [a], tls: {mode: SIMPLE, minProtocolVersion: TLSV1_3, \
             maxProtocolVersion: TLSV1_2}}]}"
                .into(),
            &["spec.servers[0].tls.serverCertificate", "spec.servers[0].tls.privateKey", "spec.servers[0].tls.minProtocolVersion"],
        ),
        ("ServiceEntry", "{hosts: ['*'], addresses: [x]}".into(), &["spec.hosts[0]", "spec.addresses[0]"]),
        (
            "ServiceEntry",
            "{hosts: [a.b], resolution: STATIC, ports: [{number: 1, name: p}, {number: 1, name: p}], endpoints: [{address: b.c}]}".into(),
            &["spec.ports[1].number", "spec.ports[1].name", "spec.endpoints[0].address"],
        ),
        ("ServiceEntry", "{hosts: [a.b], endpoints: [{address: 1.1.1.1}]}".into(), &["spec.endpoints"]),
        ("WorkloadEntry", "{}".into(), &["spec.address"]),
        ("WorkloadEntry", "{address: 'unix://x'}".into(), &["spec.address"]),
        ("Sidecar", "{egress: [{hosts: [a]}, {hosts: []}]}".into(), &["spec.egress[0].hosts[0]", "spec.egress[1].hosts"]),
        ("Sidecar", "{ingress: [{defaultEndpoint: 'x:1'}]}".into(), &["spec.ingress[0].port", "spec.ingress[0].defaultEndpoint"]),
        ("PeerAuthentication", "{portLevelMtls: {80: {mode: STRICT}}}".into(), &["spec.portLevelMtls"]),
    ];
    for (kind, spec, fields) in cases {
        assert_eq!(errors(kind, &spec), fields, "{kind} {spec}");
    }
}

#[test]
fn a_virtual_service_is_resolved() {
    let spec = "{hosts: [web, '*.org'], gateways: [mesh, gw, other/gw], exportTo: ['.'], http: [{timeout: 1.5s, route: [{destination: \
                {host: web, port: {number: '80'}}, weight: 90}], mirror: {host: copy.other}, mirrorPercentage: {value: 0.5}}]}";
    let Some(Fact::VirtualService(vs)) = converted("VirtualService", spec).fact else { panic!() };
    let gateway = |ns: &str| GatewayRef::Gateway { namespace: ns.into(), name: "gw".into() };
    assert_eq!(vs.hosts, ["web.ns.svc.cluster.local", "*.org"].map(Host::new));
    assert_eq!(vs.gateways, [GatewayRef::Mesh, gateway("ns"), gateway("other")]);
    assert_eq!(vs.visibility, Some(Visibility::Private));
    let route = &vs.http[0];
    assert_eq!((route.timeout, route.route[0].weight, route.route[0].destination.port), (Some(Duration::from_millis(1500)), 90, Some(80)));
    assert_eq!(route.mirrors[0].destination.host, Host::new("copy.other"));
    assert_eq!(route.mirrors[0].percentage, Some(Share::PerMillion(5_000)));
}

#[test]
fn a_service_entry_is_a_service_per_host() {
    let spec = "{hosts: [A.example, b.example], addresses: [1.1.1.1, 2.0.0.0/8], resolution: DNS, ports: [{number: 443, name: tls, \
                protocol: TLS, targetPort: 8443}]}";
    let Some(Fact::ServiceEntry(e)) = converted("ServiceEntry", spec).fact else { panic!() };
    let s = &e.services[1];
    assert_eq!((s.host.as_str(), &*s.name, s.resolution, s.mesh_external), ("b.example", "b.example", Resolution::Dns, true));
    assert_eq!(s.addresses, [Address::Ip([1, 1, 1, 1].into()), Address::Net("2.0.0.0/8".parse().unwrap())]);
    assert_eq!((s.ports[0].protocol, s.ports[0].target_port), (Protocol::Tls, Some(8443)));
    assert_eq!(e.services[0].host.as_str(), "a.example");
}

#[test]
fn a_service_reads_its_annotations() {
    let text = r"
apiVersion: v1
kind: Service
metadata:
  name: web
  namespace: ns
  labels: {istio.io/persistent-session: cookie}
  annotations:
    networking.istio.io/exportTo: '., other'
    alpha.istio.io/kubernetes-serviceaccounts: web
    alpha.istio.io/canonical-serviceaccounts: 'td/ns/x/sa/y'
spec:
  clusterIP: 10.0.0.1
  clusterIPs: [10.0.0.1, 'fd00::1']
  internalTrafficPolicy: Local
  trafficDistribution: PreferClose
  ports: [{name: a, port: 53}, {name: http-b, port: 80, targetPort: web}]
";
    let Some(Fact::Service(f)) = convert(&yaml_objects(text)[0], &context()).fact else { panic!() };
    let s = &f.service;
    assert_eq!(s.ports.iter().map(|p| p.protocol).collect::<Vec<_>>(), [Protocol::Tcp, Protocol::Http]);
    assert_eq!(f.targets, [TargetPort::Number(53), TargetPort::Name("web".into())]);
    assert_eq!(f.visibility, Some(Visibility::Namespaces(["ns".into(), "other".into()].into())));
    assert_eq!(f.traffic_distribution, Some(pilotfish_model::service::TrafficDistribution::PreferSameZone));
    assert_eq!(s.service_accounts.iter().map(|a| &**a).collect::<Vec<_>>(), ["spiffe://td/ns/x/sa/y"]);
    assert_eq!(f.accounts, [Str::from("web")]);
    assert_eq!((s.addresses.len(), s.node_local), (2, true));
}

/// The fact in spite of errors, and the fields with errors.
fn in_spite(kind: &str, spec: &str) -> (Fact, Vec<String>) {
    let c = converted(kind, spec);
    let errors = c.diagnostics.into_iter().filter(|d| d.severity == Severity::Error).map(|d| d.field);
    (c.fact.unwrap_or_else(|| panic!("no fact: {spec}")), errors.collect())
}

#[test]
fn a_policy_with_mistakes_is_a_policy() {
    let rule = |rule: &str| format!("{{rules: [{{{rule}}}]}}");
    for (spec, fields) in [
        ("{}".to_owned(), vec![]),
        (rule("from: [{source: {ipBlocks: [10.0.0.0/8, 1.2.3.4, '::1']}}]"), vec![]),
        (rule("from: [{source: {ipBlocks: [10.0.0.0/8, 1.2.3]}}]"), vec!["spec.rules[0].from[0].source.ipBlocks[1]"]),
        (rule("from: [{source: {notRemoteIpBlocks: [a]}}]"), vec!["spec.rules[0].from[0].source.notRemoteIpBlocks[0]"]),
        (rule("from: [{source: {serviceAccounts: [a/b/c]}}]"), vec!["spec.rules[0].from[0].source.serviceAccounts[0]"]),
        (
            rule("to: [{operation: {ports: ['80', '0', http]}}]"),
            vec!["spec.rules[0].to[0].operation.ports[1]", "spec.rules[0].to[0].operation.ports[2]"],
        ),
        (rule("to: [{operation: {paths: ['/a/{*}/b', 'a/{*}']}}]"), vec!["spec.rules[0].to[0].operation.paths[1]"]),
        (rule("when: [{key: source.port, values: ['1']}]"), vec!["spec.rules[0].when[0].key"]),
        (rule("when: [{key: source.ip}]"), vec!["spec.rules[0].when[0]"]),
        (rule("when: [{key: destination.port, notValues: [x]}]"), vec!["spec.rules[0].when[0].notValues[0]"]),
        ("{action: CUSTOM}".to_owned(), vec!["spec.provider.name"]),
    ] {
        let (fact, errors) = in_spite("AuthorizationPolicy", &spec);
        assert!(matches!(fact, Fact::AuthorizationPolicy(_)));
        assert_eq!(errors, fields, "{spec}");
    }
}

#[test]
fn a_rule_that_multiplies_is_none() {
    use pilotfish_model::authorization_policy::{Attribute, Value};
    let from = vec!["{}"; 500].join(", ");
    let values = (0..500).map(|i| format!("'{i}'")).collect::<Vec<_>>().join(", ");
    let spec = format!("{{action: DENY, rules: [{{from: [{from}], when: [{{key: 'request.headers[a]', values: [{values}]}}]}}]}}");
    let (fact, errors) = in_spite("AuthorizationPolicy", &spec);
    let Fact::AuthorizationPolicy(policy) = fact else { panic!("another fact") };
    assert_eq!(errors, ["spec.rules[0]"]);
    let [rule] = &policy.rules[..] else { panic!("another number of rules") };
    assert!(rule.from.is_empty() && rule.to.is_empty());
    assert_eq!((&rule.when[0].attribute, &rule.when[0].values[..]), (&Attribute::Unknown, &[Value::Invalid][..]));
}

#[test]
fn a_rule_without_keys_accepts_no_token() {
    use pilotfish_model::request_authentication::{JwksSource, Keys};
    let keys = r#"jwks: '{"keys":[{"kty":"oct","k":"b25l"}]}'"#;
    for (rule, fields, expected) in [
        (format!("issuer: a, {keys}"), vec![], Keys::Inline(r#"{"keys":[{"kty":"oct","k":"b25l"}]}"#.into())),
        ("issuer: a, jwksUri: 'https://a.example/keys'".to_owned(), vec![], Keys::Remote(JwksSource::Uri("https://a.example/keys".into()))),
        ("issuer: 'https://a.example'".to_owned(), vec![], Keys::Remote(JwksSource::Issuer("https://a.example".into()))),
        ("issuer: a".to_owned(), vec!["spec.jwtRules[0]"], Keys::Invalid),
        ("issuer: a, jwksUri: 'ftp://a'".to_owned(), vec!["spec.jwtRules[0].jwksUri"], Keys::Invalid),
        ("issuer: a, jwks: nonsense".to_owned(), vec!["spec.jwtRules[0].jwks"], Keys::Invalid),
        (r#"issuer: a, jwks: '{"keys":[]}'"#.to_owned(), vec![], Keys::Invalid),
        (format!("issuer: '', {keys}"), vec!["spec.jwtRules[0].issuer"], Keys::Invalid),
        ("jwksUri: 'https://a.example/keys'".to_owned(), vec![], Keys::Remote(JwksSource::Uri("https://a.example/keys".into()))),
    ] {
        let (fact, errors) = in_spite("RequestAuthentication", &format!("{{jwtRules: [{{{rule}}}]}}"));
        let Fact::RequestAuthentication(authentication) = fact else { panic!("another fact") };
        assert_eq!(errors, fields, "{rule}");
        assert_eq!(authentication.rules[0].keys, expected, "{rule}");
    }
    let (_, errors) = in_spite("RequestAuthentication", &format!("{{jwtRules: [{{issuer: a, {keys}, fromHeaders: [{{name: 'a b'}}]}}]}}"));
    assert_eq!(errors, ["spec.jwtRules[0].fromHeaders[0].name"]);
}

#[test]
fn patches_without_effect_are_left_out_with_a_warning() {
    use pilotfish_model::envoy_filter::{ApplyTo, ChainMatch, ListenerMatch, Matching, Operation, Patch, PatchContext, ProxyMatch};
    let good = "{applyTo: HTTP_FILTER, match: {context: GATEWAY, proxy: {proxyVersion: '1', metadata: {A: b}}, listener: {portNumber: 80, \
        filterChain: {sni: s, applicationProtocols: 'a,b', filter: {name: f, subFilter: {name: g}}}}}, \
        patch: {operation: INSERT_FIRST, value: {name: x, b: 1, a: 2}}}";
    let patches = [
        "{applyTo: BOOTSTRAP, patch: {operation: MERGE, value: {}}}",
        "{patch: {operation: MERGE, value: {}}}",
        "{applyTo: CLUSTER}",
        "{applyTo: CLUSTER, patch: {operation: MERGE}}",
        "{applyTo: CLUSTER, patch: {value: {}}}",
        "{applyTo: CLUSTER, patch: {operation: REPLACE, value: {}}}",
        "{applyTo: ROUTE_CONFIGURATION, patch: {operation: REMOVE}}",
        "{applyTo: CLUSTER, match: {listener: {}}, patch: {operation: REMOVE}}",
        "{applyTo: CLUSTER, match: {proxy: {proxyVersion: '('}}, patch: {operation: REMOVE}}",
        "{applyTo: CLUSTER, match: {context: WAYPOINT}, patch: {operation: REMOVE}}",
        "{applyTo: CLUSTER, patch: {operation: INSERT_BEFORE, value: {name: c}}}",
        good,
    ];
    let c = converted("EnvoyFilter", &format!("{{priority: -5, configPatches: [{}]}}", patches.join(", ")));
    let warned: Vec<&str> = c.diagnostics.iter().map(|d| d.field.strip_prefix("spec.configPatches").unwrap()).collect();
    assert_eq!(
        warned,
        [
            "[0].applyTo",
            "[1].applyTo",
            "[2].patch",
            "[3].patch.value",
            "[4].patch.operation",
            "[5].patch.operation",
            "[6].patch.operation",
            "[7].match.listener",
            "[8].match.proxy.proxyVersion",
            "[9].match.context",
        ]
    );
    let Some(Fact::EnvoyFilter(filter)) = c.fact else { panic!("no fact") };
    let added = Patch {
        index: 10,
        apply_to: ApplyTo::Cluster,
        operation: Operation::Add,
        context: None,
        proxy: ProxyMatch::default(),
        matching: None,
        value: Some("{\"name\":\"c\"}".into()),
    };
    let chain = ChainMatch {
        sni: "s".into(),
        alpn: vec!["a".into(), "b".into()],
        filter: Some("f".into()),
        sub_filter: Some("g".into()),
        ..ChainMatch::default()
    };
    let inserted = Patch {
        index: 11,
        apply_to: ApplyTo::HttpFilter,
        operation: Operation::InsertFirst,
        context: Some(PatchContext::Gateway),
        proxy: ProxyMatch {
            version: Some(pilotfish_model::matching::Pattern::new("1").unwrap()),
            metadata: [("A".into(), "b".into())].into(),
        },
        matching: Some(Matching::Listener(ListenerMatch { port: 80, chain: Some(chain), ..ListenerMatch::default() })),
        value: Some("{\"a\":2,\"b\":1,\"name\":\"x\"}".into()),
    };
    assert_eq!((filter.priority, &filter.patches), (-5, &vec![added, inserted]));
}
