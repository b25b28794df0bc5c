use std::sync::Arc;

use pilotfish_envoy::pb::envoy::config::endpoint::v3::LocalityLbEndpoints;
use pilotfish_model::endpoint::{Endpoint, EndpointAddress, Health, Locality as Place, Workload};
use pilotfish_model::name::Str;
use prost::Message;

use super::*;

/// `zone`: `region/zone/sub-zone`; the last number of the address tells endpoints apart.
fn endpoint(last: u8, zone: &str, labels: &[(&str, &str)]) -> Endpoint {
    Endpoint {
        address: EndpointAddress::Ip([10, 0, 0, last].into()),
        additional_addresses: Box::default(),
        port: 8080,
        service_port: "http".into(),
        service_port_number: 0,
        weight: 1,
        health: Health::Healthy,
        workload: Arc::new(Workload {
            locality: Place::parse(zone),
            labels: labels.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(),
            mtls: true,
            ..Workload::default()
        }),
    }
}

fn four_zones() -> Vec<Endpoint> {
    vec![
        endpoint(1, "r1/a", &[("v", "1")]),
        endpoint(2, "r1/b", &[("v", "2")]),
        endpoint(3, "r1/b", &[("v", "1")]),
        endpoint(4, "r2/c", &[]),
    ]
}

fn of(endpoints: Vec<Endpoint>, spread: Spread) -> AssignmentInput {
    let (cluster, port, subset) = ("c".into(), "http".into(), Default::default());
    let plan = Plan {
        cluster,
        port,
        resolved: None,
        subset,
        unresolved: false,
        passed_on: false,
        node: None,
        healthy: false,
        described: true,
        mtls: RuledMtls::Unsaid,
        spread,
    };
    AssignmentInput { plan, endpoints: Arc::new(endpoints), plaintext: Arc::default() }
}

/// Zone, priority, weight and number of endpoints of each group.
fn groups(input: &AssignmentInput) -> Vec<(String, u32, u32, usize)> {
    let group = |g: LocalityLbEndpoints| (g.locality.unwrap().zone, g.priority, g.load_balancing_weight.unwrap(), g.lb_endpoints.len());
    localities(input).map(group).collect()
}

fn localities(input: &AssignmentInput) -> impl Iterator<Item = LocalityLbEndpoints> {
    assignment(input).into_message().endpoints.into_iter().map(|encoded| LocalityLbEndpoints::decode(encoded).unwrap())
}

fn expect(spread: Spread, expected: &[(&str, u32, u32, usize)]) {
    let expected: Vec<_> = expected.iter().map(|(z, p, w, n)| ((*z).to_owned(), *p, *w, *n)).collect();
    assert_eq!(groups(&of(four_zones(), spread.clone())), expected, "{spread:?}");
}

#[test]
fn without_preference_weights_count_endpoints() {
    expect(Spread::Even, &[("a", 0, 1, 1), ("b", 0, 2, 2), ("c", 0, 1, 1)]);
}

#[test]
fn shares_leave_out_what_they_do_not_name() {
    let share = |place: &str, percent| (Str::from(place), percent);
    expect(Spread::Shares(vec![share("r1/a/*", 80), share("r1/b/*", 20)]), &[("a", 0, 80, 1), ("b", 0, 20, 2), ("c", 0, 1, 0)]);
    // A wildcard share is split by weight, after what is named more closely: 60 * 2/2 and the rest.
    expect(
        Spread::Shares(vec![share("r1/*", 60), share("r1/a/*", 40), share("*", 5)]),
        &[("a", 0, 40, 1), ("b", 0, 60, 2), ("c", 0, 5, 1)],
    );
}

#[test]
fn the_nearest_first() {
    let near = |from: &str, next: Option<&str>| Near { from: Place::parse(from), next_region: next.map(Str::from), by_region: false };
    let nearest = |from: &str, next: Option<&str>| Spread::Nearest(near(from, next));
    expect(nearest("r1/a", None), &[("a", 0, 1, 1), ("b", 1, 2, 2), ("c", 2, 1, 1)]);
    // Nothing is as near as the first ranks: they close up.
    expect(nearest("r3/x", None), &[("a", 0, 1, 1), ("b", 0, 2, 2), ("c", 0, 1, 1)]);
    expect(nearest("r3/x", Some("r2")), &[("c", 0, 1, 1), ("a", 1, 1, 1), ("b", 1, 2, 2)]);
    // A balancer that looks at zones itself must find those of its region together.
    let zones = Spread::Nearest(Near { by_region: true, ..near("r1/a", None) });
    expect(zones, &[("a", 0, 1, 1), ("b", 0, 2, 2), ("c", 1, 1, 1)]);
}

#[test]
fn labels_in_order() {
    let labels =
        |list: &[(&str, &str)]| Spread::Labels { labels: list.iter().map(|(k, v)| ((*k).into(), (*v).into())).collect(), then: None };
    expect(labels(&[("v", "1")]), &[("a", 0, 1, 1), ("b", 0, 1, 1), ("b", 1, 1, 1), ("c", 1, 1, 1)]);
    // Who has no such label is equal to a client without one.
    expect(labels(&[("v", "")]), &[("c", 0, 1, 1), ("a", 1, 1, 1), ("b", 1, 2, 2)]);
    // Regions decide between those that have as many.
    let then = Some(Near { from: Place::parse("r1/a"), next_region: Some("r2".into()), by_region: false });
    let both = Spread::Labels { labels: vec![("v".into(), "1".into())], then };
    expect(both, &[("a", 0, 1, 1), ("b", 1, 1, 1), ("b", 2, 1, 1), ("c", 3, 1, 1)]);
}

#[test]
fn who_counts() {
    let mut endpoints = four_zones();
    endpoints[3].health = Health::Unhealthy;
    let all = of(endpoints, Spread::Even);
    let ips = |plan: Plan| plan.chosen(&all.endpoints).map(|(i, _)| i).collect::<Vec<_>>();
    let plan = || all.plan.clone();
    let version = [(Str::from("v"), Str::from("1"))].into_iter().collect();
    assert_eq!(ips(plan()), [0, 1, 2, 3]);
    assert_eq!(ips(Plan { healthy: true, ..plan() }), [0, 1, 2]);
    assert_eq!(ips(Plan { subset: version, ..plan() }), [0, 2]);
    assert_eq!(ips(Plan { port: "tcp".into(), ..plan() }), [0usize; 0]);
    assert_eq!(ips(Plan { node: Some("n".into()), ..plan() }), [0usize; 0]);
}

#[test]
fn mesh_mtls_is_told_of_endpoints_that_accept_it() {
    let says = |input: &AssignmentInput| {
        let endpoints = localities(input).flat_map(|g| g.lb_endpoints);
        let has = |bytes: &[u8], text: &str| bytes.windows(text.len()).any(|w| w == text.as_bytes());
        endpoints.map(|e| has(&e.encode_to_vec(), "envoy.transport_socket_match")).collect::<Vec<_>>()
    };
    let all = of(four_zones(), Spread::Even);
    assert_eq!(says(&all), [true, true, true, true]);
    assert_eq!(says(&AssignmentInput { plaintext: [1].into(), ..all.clone() }), [true, false, true, true]);
    assert_eq!(says(&AssignmentInput { plan: Plan { mtls: RuledMtls::Off, ..all.plan.clone() }, ..all }), [false; 4]);
}

#[test]
fn a_locality_of_which_nobody_is_reached_is_empty() {
    let mut endpoints = four_zones();
    endpoints[0].workload = Arc::new(Workload { mtls: false, ..(*endpoints[0].workload).clone() });
    let mut input = of(endpoints, Spread::Even);
    input.plan.passed_on = true;
    let shown = |g: LocalityLbEndpoints| (g.locality.unwrap().zone, g.load_balancing_weight, g.lb_endpoints.len());
    let shown: Vec<_> = localities(&input).map(shown).collect();
    let row = |zone: &str, weight, count| (zone.to_owned(), weight, count);
    assert_eq!(shown, [row("a", None, 0), row("b", Some(2), 2), row("c", Some(1), 1)]);
    assert!(!input.is_empty());
}
