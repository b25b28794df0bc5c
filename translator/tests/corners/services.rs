//! Several objects that speak of one host.

use pretty_assertions::assert_eq;

use super::seen::{GATEWAY, SIDECAR, seen};

fn entry(name: &str, namespace: &str, spec: &str) -> String {
    format!(
        "---\napiVersion: networking.istio.io/v1\nkind: ServiceEntry\nmetadata: {{name: {name}, namespace: {namespace}}}\n\
         spec: {{hosts: [one.example], location: MESH_INTERNAL, {spec}}}\n"
    )
}

#[test]
fn a_later_entry_that_is_like_the_first_adds_its_ports_and_is_found_at_its_own_addresses() {
    let objects = [
        entry(
            "first",
            "shop",
            "resolution: STATIC, addresses: [198.51.100.1], ports: [{number: 90, name: tcp, protocol: TCP}], endpoints: [{address: 192.0.2.1}]",
        ),
        entry(
            "second",
            "shop",
            "resolution: STATIC, addresses: [198.51.100.2], ports: [{number: 91, name: tcp, protocol: TCP}], endpoints: [{address: 192.0.2.2}]",
        ),
    ];
    let seen = seen(SIDECAR, &objects.concat());
    assert_eq!(seen.clusters(), ["|90||one.example EDS", "|91||one.example EDS"]);
    assert_eq!(seen.listeners(), ["198.51.100.1_90: > outbound|90||one.example", "198.51.100.2_91: > outbound|91||one.example"]);
    // Endpoints are of the port that they name.
    assert_eq!(seen.assignment("outbound|90||one.example"), ["192.0.2.1:90", "192.0.2.2:91"]);
    assert_eq!(seen.assignment("outbound|91||one.example"), ["192.0.2.1:90", "192.0.2.2:91"]);
}

#[test]
fn a_later_entry_of_another_resolution_adds_listeners_routes_and_endpoints_but_no_cluster() {
    let first = "resolution: STATIC, addresses: [198.51.100.1], ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 192.0.2.1}]";
    let second = "resolution: DNS, addresses: [198.51.100.2], ports: [{number: 80, name: http, protocol: HTTP}, {number: 91, name: tcp, protocol: TCP}], \
                  endpoints: [{address: a.example}, {address: 192.0.2.2}]";
    let one = seen(SIDECAR, &[entry("first", "shop", first), entry("second", "shop", second)].concat());
    assert_eq!(one.clusters(), ["|80||one.example EDS"]);
    assert_eq!(one.assignment("outbound|80||one.example"), ["192.0.2.1:80", "192.0.2.2:80"]);
    assert_eq!(one.listeners(), ["0.0.0.0_80: http/1.1 h2c > rds 80", "198.51.100.2_91: > outbound|91||one.example"]);
    assert_eq!(one.routes("80"), ["one.example:80 [\"one.example\",\"one.example.\",\"198.51.100.2\"] > outbound|80||one.example"]);
    // The other way round names are resolved, and everybody who says that it is on that port answers.
    let other = seen(SIDECAR, &[entry("first", "shop", second), entry("second", "shop", first)].concat());
    assert_eq!(
        other.clusters(),
        ["|80||one.example STRICT_DNS 192.0.2.1:80 192.0.2.2:80 a.example:80", "|91||one.example STRICT_DNS 192.0.2.2:91 a.example:91"]
    );
    assert_eq!(other.routes("80"), ["one.example:80 [\"one.example\",\"one.example.\",\"198.51.100.1\"] > outbound|80||one.example"]);
}

#[test]
fn names_of_ports_do_not_mix_the_endpoints_of_clusters_that_resolve() {
    let objects = [
        entry("first", "shop", "resolution: DNS, ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: a.example}]"),
        entry("second", "shop", "resolution: DNS, ports: [{number: 81, name: http, protocol: HTTP}], endpoints: [{address: b.example}]"),
        entry("third", "shop", "resolution: DNS, ports: [{number: 80, name: web, protocol: HTTP}], endpoints: [{address: c.example}]"),
    ];
    let expected = ["|80||one.example STRICT_DNS a.example:80 c.example:80", "|81||one.example STRICT_DNS b.example:81"];
    assert_eq!(seen(SIDECAR, &objects.concat()).clusters(), expected);
}

#[test]
fn who_sees_only_the_later_entry_gets_that_one() {
    let tcp = |address: &str, port: u16, more: &str| {
        format!(
            "resolution: STATIC, addresses: [{address}], ports: [{{number: {port}, name: tcp-{port}, protocol: TCP}}], endpoints: [{{address: 192.0.2.1}}]{more}"
        )
    };
    let objects = [
        entry("hidden", "far", &tcp("198.51.100.1", 90, ", exportTo: [.]")),
        entry("shown", "far", &tcp("198.51.100.2", 91, "")),
        entry("third", "near", &tcp("198.51.100.3", 92, "")),
    ];
    let seen = seen(SIDECAR, &objects.concat());
    assert_eq!(seen.clusters(), ["|91||one.example EDS"]);
    // One namespace has the host: others of that name are not found.
    assert_eq!(seen.listeners(), ["198.51.100.2_91: > outbound|91||one.example"]);
}

#[test]
fn a_service_of_kubernetes_outweighs_entries_but_takes_their_endpoints() {
    let service = "---\napiVersion: v1\nkind: Service\nmetadata: {name: web, namespace: shop}\nspec: {clusterIP: 10.0.0.1, ports: [{name: tcp, port: 90}]}\n";
    let entry = entry("vm", "shop", "resolution: STATIC, addresses: [198.51.100.1], ports: [{number: 90, name: tcp, protocol: TCP}, {number: 91, name: more, protocol: TCP}], endpoints: [{address: 192.0.2.1}]")
        .replace("one.example", "web.shop.svc.cluster.local");
    for objects in [[&*entry, service].concat(), [service, &entry].concat()] {
        let seen = seen(SIDECAR, &objects);
        assert_eq!(seen.clusters(), ["|90||web.shop.svc.cluster.local EDS"]);
        assert_eq!(seen.assignment("outbound|90||web.shop.svc.cluster.local"), ["192.0.2.1:90"]);
        let to = |port: u16| format!("_{port}: > outbound|{port}||web.shop.svc.cluster.local");
        let mut listeners = seen.listeners();
        listeners.sort();
        assert_eq!(listeners, [format!("10.0.0.1{}", to(90)), format!("198.51.100.1{}", to(90)), format!("198.51.100.1{}", to(91))]);
    }
}

#[test]
fn of_entries_of_several_namespaces_a_sidecar_takes_its_own_and_a_gateway_the_first() {
    let tcp = |address: &str| {
        format!(
            "resolution: STATIC, addresses: [{address}], ports: [{{number: 90, name: tcp, protocol: TCP}}], endpoints: [{{address: {address}}}]"
        )
    };
    let objects =
        [entry("a", "far", &tcp("198.51.100.1")), entry("b", "shop", &tcp("198.51.100.2")), entry("c", "edge", &tcp("198.51.100.3"))]
            .concat();
    assert_eq!(seen(SIDECAR, &objects).listeners(), ["198.51.100.2_90: > outbound|90||one.example"]);
    assert_eq!(seen(SIDECAR, &objects).assignment("outbound|90||one.example"), ["198.51.100.2:90"]);
    assert_eq!(seen(GATEWAY, &objects).assignment("outbound|90||one.example"), ["198.51.100.1:90"]);
}

#[test]
fn requests_name_an_entry_by_the_last_of_its_addresses() {
    let http = "resolution: STATIC, addresses: [198.51.100.1, 198.51.100.2], ports: [{number: 80, name: http, protocol: HTTP}], endpoints: [{address: 192.0.2.1}]";
    let routes = seen(SIDECAR, &entry("one", "shop", http)).routes("80");
    assert_eq!(routes, ["one.example:80 [\"one.example\",\"one.example.\",\"198.51.100.2\"] > outbound|80||one.example"]);
}
