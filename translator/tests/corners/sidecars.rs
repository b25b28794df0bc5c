//! What a Sidecar lets through, and who comes first where several speak of the same.

use pretty_assertions::assert_eq;

use super::seen::{SIDECAR, seen};

fn service(name: &str, namespace: &str, ip: &str, ports: &str) -> String {
    format!(
        "---\napiVersion: v1\nkind: Service\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {{clusterIP: {ip}, ports: [{ports}]}}\n"
    )
}

fn istio(kind: &str, name: &str, namespace: &str, spec: &str) -> String {
    format!("---\napiVersion: networking.istio.io/v1\nkind: {kind}\nmetadata: {{name: {name}, namespace: {namespace}}}\nspec: {spec}\n")
}

fn sidecar(egress: &str) -> String {
    istio("Sidecar", "default", "shop", &format!("{{egress: [{egress}]}}"))
}

#[test]
fn a_proxy_takes_requests_for_all_ports() {
    let objects = [
        service("web", "shop", "10.0.0.1", "{name: http, port: 80}, {name: http-more, port: 90}"),
        sidecar("{port: {number: 3128, name: proxy, protocol: HTTP_PROXY}, hosts: [./*]}"),
    ];
    let seen = seen(SIDECAR, &objects.concat());
    assert_eq!(seen.clusters(), ["|80||web.shop.svc.cluster.local EDS", "|90||web.shop.svc.cluster.local EDS"]);
    let names: Vec<String> = seen.routes("3128").iter().map(|r| r.split(' ').next().unwrap().to_owned()).collect();
    assert_eq!(names, ["web.shop.svc.cluster.local:80", "web.shop.svc.cluster.local:90"]);
}

#[test]
fn bytes_for_a_port_of_an_egress_listener_are_told_by_the_address_of_the_service() {
    let objects = [
        service("a", "shop", "10.0.0.1", "{name: tcp, port: 9000}, {name: tcp-more, port: 9001}"),
        service("b", "shop", "10.0.0.2", "{name: tcp, port: 9000}"),
        service("c", "shop", "10.0.0.3", "{name: tcp, port: 9001}"),
        sidecar("{port: {number: 9000, name: tcp, protocol: TCP}, hosts: [./*]}"),
    ];
    let seen = seen(SIDECAR, &objects.concat());
    assert_eq!(
        seen.listeners(),
        ["10.0.0.1_9000: > outbound|9000||a.shop.svc.cluster.local", "10.0.0.2_9000: > outbound|9000||b.shop.svc.cluster.local"]
    );
    assert_eq!(seen.clusters(), ["|9000||a.shop.svc.cluster.local EDS", "|9000||b.shop.svc.cluster.local EDS"]);
}

#[test]
fn rules_add_the_ports_that_they_lead_to() {
    let objects = [
        service("a", "shop", "10.0.0.1", "{name: http, port: 80}, {name: http-more, port: 90}, {name: http-last, port: 91}"),
        service("b", "shop", "10.0.0.2", "{name: http, port: 81}"),
        service("far", "far", "10.0.0.3", "{name: http, port: 80}, {name: http-more, port: 90}"),
        sidecar(
            "{port: {number: 80, name: http, protocol: HTTP}, hosts: [./a.shop.svc.cluster.local]}, {hosts: [./b.shop.svc.cluster.local]}",
        ),
        istio(
            "VirtualService",
            "b",
            "shop",
            "{hosts: [b], http: [{route: [{destination: {host: a, port: {number: 90}}, weight: 1}, {destination: {host: far.far.svc.cluster.local, port: {number: 90}}, weight: 1}]}]}",
        ),
    ];
    assert_eq!(
        seen(SIDECAR, &objects.concat()).clusters(),
        [
            "|80||a.shop.svc.cluster.local EDS",
            "|81||b.shop.svc.cluster.local EDS",
            "|90||a.shop.svc.cluster.local EDS",
            "|90||far.far.svc.cluster.local EDS"
        ]
    );
}

#[test]
fn of_two_for_the_same_connections_what_is_for_the_namespace_comes_before_what_is_for_all() {
    let entry = |name: &str, namespace: &str, more: &str| {
        let spec = format!("{{hosts: [{name}.example], ports: [{{number: 9000, name: tcp, protocol: TCP}}], resolution: NONE{more}}}");
        istio("ServiceEntry", name, namespace, &spec)
    };
    let (all, named, own) = (entry("all", "far", ""), entry("named", "far", ", exportTo: [shop]"), entry("own", "shop", ", exportTo: [.]"));
    for (objects, first) in [(vec![&all], "all"), (vec![&all, &named], "named"), (vec![&all, &named, &own], "own")] {
        let text: String = objects.iter().map(|o| o.as_str()).collect();
        assert_eq!(seen(SIDECAR, &text).listeners(), [format!("0.0.0.0_9000: > outbound|9000||{first}.example")]);
    }
    let rules = |name: &str, namespace: &str, more: &str| {
        let spec = format!("{{hosts: [web.shop.svc.cluster.local], http: [{{route: [{{destination: {{host: {name}.example}}}}]}}]{more}}}");
        istio("VirtualService", name, namespace, &spec)
    };
    let web = service("web", "shop", "10.0.0.1", "{name: http, port: 80}");
    let (all, named, own) = (rules("all", "far", ""), rules("named", "far", ", exportTo: [shop]"), rules("own", "shop", ", exportTo: [.]"));
    for (objects, first) in [(vec![&all], "all"), (vec![&all, &named], "named"), (vec![&all, &named, &own], "own")] {
        let text: String = std::iter::once(&web).chain(objects).map(String::as_str).collect();
        let routes = seen(SIDECAR, &text).routes("80");
        assert_eq!(routes.iter().map(|r| r.rsplit_once("> ").unwrap().1).collect::<Vec<_>>(), [format!("outbound|80||{first}.example")]);
    }
}

#[test]
fn of_rules_that_are_exported_differently_the_last_counts() {
    let rule = |name: &str, more: &str| {
        istio("DestinationRule", name, "far", &format!("{{host: web, subsets: [{{name: {name}, labels: {{v: {name}}}}}]{more}}}"))
    };
    let web = service("web", "far", "10.0.0.1", "{name: http, port: 80}");
    let subsets = |rules: &[String]| seen(SIDECAR, &[&web, &*rules.concat()].concat()).clusters();
    let cluster = |subset: &str| format!("|80|{subset}|web.far.svc.cluster.local EDS");
    let all = rule("all", "");
    assert_eq!(subsets(&[all.clone(), rule("more", "")]), [cluster("all"), cluster("more"), cluster("")]);
    assert_eq!(subsets(&[all.clone(), rule("shop", ", exportTo: [shop]")]), [cluster("shop"), cluster("")]);
    assert_eq!(subsets(&[all, rule("other", ", exportTo: [other]")]), [cluster("all"), cluster("")]);
}

#[test]
fn names_lead_to_what_entries_without_address_select() {
    let pod = "---\napiVersion: v1\nkind: Pod\nmetadata: {name: p, namespace: shop, labels: {app: web}}\nspec: {serviceAccountName: a}\n\
               status: {phase: Running, podIP: 10.1.0.4, conditions: [{type: Ready, status: 'True'}]}\n";
    let vm = istio("WorkloadEntry", "vm", "shop", "{address: 192.0.2.1, labels: {app: web}}");
    let entry = istio(
        "ServiceEntry",
        "web",
        "shop",
        "{hosts: [web.example], resolution: NONE, ports: [{number: 9000, name: tcp, protocol: TCP}], workloadSelector: {labels: {app: web}}}",
    );
    let node = SIDECAR.replace("LABELS", "DNS_CAPTURE: 'true', LABELS");
    let seen = seen(&node, &[pod, &vm, &entry].concat());
    // Nobody watches over the machine.
    assert_eq!(seen.names(), ["web.example External 10.1.0.4"]);
}

#[test]
fn a_sidecar_of_the_root_namespace_stands_in_each_namespace_as_its_own() {
    let ingress =
        "{ingress: [{port: {number: 8080, name: http, protocol: HTTP}, defaultEndpoint: '127.0.0.1:8081'}], egress: [{hosts: ['~/*']}]}";
    let seen = seen(SIDECAR, &istio("Sidecar", "default", "istio-system", ingress));
    let inbound = seen.listener("virtualInbound").to_string();
    assert!(inbound.contains("namespaces/shop/sidecar/default"), "{inbound}");
    assert!(inbound.contains("default.shop:8080/*"), "{inbound}");
}
