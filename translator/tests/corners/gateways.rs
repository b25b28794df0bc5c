//! Servers of gateways that meet on a port.

use pilotfish_model::Features;
use pretty_assertions::assert_eq;

use super::seen::{GATEWAY, Given, seen};

const WEB: &str = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: edge}\nspec: {clusterIP: 10.0.0.1, ports: [{name: http, port: 80}]}\n";

fn istio(kind: &str, name: &str, spec: &str) -> String {
    format!("---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: edge}}\nspec: {spec}\n")
}

#[test]
fn clear_text_stands_beside_tls_that_was_first() {
    let servers = "{selector: {istio: gw}, servers: [\
        {port: {number: 443, name: a, protocol: HTTPS}, hosts: [a.example], tls: {mode: SIMPLE, credentialName: cert}}, \
        {port: {number: 443, name: b, protocol: HTTP}, hosts: [b.example]}, \
        {port: {number: 443, name: c, protocol: TCP}, hosts: ['*']}, \
        {port: {number: 443, name: d, protocol: HTTP}, hosts: [d.example], tls: {httpsRedirect: true}}]}";
    let rules = "{hosts: [b.example], gateways: [gw], http: [{route: [{destination: {host: web}}]}]}";
    let seen = seen(GATEWAY, &[WEB, &istio("Gateway", "gw", servers), &istio("VirtualService", "b", rules)].concat());
    assert_eq!(seen.listeners(), ["0.0.0.0_443: a.example > rds https.443.a.gw.edge, > rds http.443"]);
    assert_eq!(seen.routes("http.443"), ["b.example:443 [\"b.example\"] > outbound|80||web.edge.svc.cluster.local"]);
}

#[test]
fn tls_stands_beside_clear_text_on_another_address_only() {
    let servers = "{selector: {istio: gw}, servers: [\
        {port: {number: 443, name: a, protocol: HTTP}, hosts: [a.example]}, \
        {port: {number: 443, name: b, protocol: HTTPS}, hosts: [b.example], tls: {mode: SIMPLE, credentialName: cert}}, \
        {port: {number: 443, name: c, protocol: HTTPS}, hosts: [c.example], bind: 1.1.1.1, tls: {mode: SIMPLE, credentialName: cert}}, \
        {port: {number: 443, name: d, protocol: HTTP}, hosts: [d.example], bind: 1.1.1.1}]}";
    assert_eq!(
        seen(GATEWAY, &istio("Gateway", "gw", servers)).listeners(),
        ["0.0.0.0_443: > rds http.443", "1.1.1.1_443: c.example > rds https.443.c.gw.edge.1.1.1.1, > rds http.443.1.1.1.1"]
    );
}

#[test]
fn a_gateway_may_know_what_it_leads_to_alone() {
    let service = |name: &str| WEB.replace("name: web", &format!("name: {name}"));
    let objects = [
        &*["web", "mirrored", "bytes", "tracer", "other", "far"].map(service).concat(),
        &istio("Gateway", "gw", "{selector: {istio: gw}, servers: [{port: {number: 80, name: http, protocol: HTTP}, hosts: ['*']}]}"),
        &istio(
            "VirtualService",
            "a",
            "{hosts: [a.example], gateways: [gw], http: [{route: [{destination: {host: web}}], mirrors: [{destination: {host: mirrored}}]}]}",
        ),
        &istio("VirtualService", "b", "{hosts: [b.example], gateways: [gw], tcp: [{route: [{destination: {host: bytes}}]}]}"),
        &istio("VirtualService", "c", "{hosts: [other], http: [{route: [{destination: {host: far}}]}]}"),
    ];
    let features = Features { gateways_know_what_they_reach: true, ..Features::default() };
    let mesh_config = "extensionProviders: [{name: t, zipkin: {service: edge/tracer.edge.svc.cluster.local, port: 80}}]";
    let seen = Given { node: GATEWAY, mesh_config, features, objects: &objects.concat() }.seen();
    let expected = ["bytes", "mirrored", "tracer", "web"].map(|name| format!("|80||{name}.edge.svc.cluster.local EDS"));
    assert_eq!(seen.clusters(), expected);
}
