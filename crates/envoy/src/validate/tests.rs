use prost_types::Duration;

use super::*;
use crate::any::any;
use crate::pb::envoy::config::cluster::v3::{CircuitBreakers, Cluster, OutlierDetection, circuit_breakers::Thresholds};
use crate::pb::envoy::config::core::v3::{HeaderValue, HeaderValueOption, TypedExtensionConfig};
use crate::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter::ConfigType};
use crate::pb::envoy::config::route::v3::{RouteConfiguration, VirtualHost};
use crate::pb::envoy::extensions::filters::network::http_connection_manager::v3::{
    HttpConnectionManager, http_connection_manager::RouteSpecifier,
};

fn broken<M: Message + Name>(message: &M) -> Vec<String> {
    validate_message(message).err().unwrap_or_default().iter().map(Violation::to_string).collect()
}

fn cluster() -> Cluster {
    Cluster {
        name: "a".into(),
        connect_timeout: Some(Duration { seconds: 1, nanos: 0 }),
        metadata: Some(crate::Metadata::default()),
        ..Default::default()
    }
}

#[test]
fn every_rule_in_the_descriptors_is_implemented() {
    assert_eq!(Plans::get().unknown, Vec::<String>::new());
}

#[test]
fn a_good_cluster_passes() {
    assert_eq!(validate_any(&any(&cluster())), Ok(()));
}

#[test]
fn scalars_are_checked_when_unset() {
    assert_eq!(broken(&Cluster { name: String::new(), ..cluster() }), ["name: must have at least 1 character"]);
}

#[test]
fn enums_must_be_defined() {
    assert_eq!(broken(&Cluster { lb_policy: 99, ..cluster() }), ["lb_policy: must be a defined value, not 99"]);
}

#[test]
fn durations_have_bounds_and_absent_ones_have_none() {
    let zero = Cluster { connect_timeout: Some(Duration::default()), ..cluster() };
    assert_eq!(broken(&zero), ["connect_timeout: must be greater than 0s"]);
    assert_eq!(broken(&Cluster { connect_timeout: None, ..cluster() }), [""; 0]);
    let outlier = OutlierDetection { interval: Some(Duration { seconds: -1, nanos: 0 }), ..Default::default() };
    assert_eq!(broken(&Cluster { outlier_detection: Some(outlier), ..cluster() }), ["outlier_detection.interval: must be greater than 0s"]);
}

#[test]
fn wrapped_scalars_are_checked_when_set() {
    let outlier = OutlierDetection { max_ejection_percent: Some(101), ..Default::default() };
    assert_eq!(
        broken(&Cluster { outlier_detection: Some(outlier), ..cluster() }),
        ["outlier_detection.max_ejection_percent: must be at most 100"]
    );
}

#[test]
fn items_of_lists_are_checked() {
    let thresholds = vec![Thresholds::default(), Thresholds { priority: 7, ..Default::default() }];
    let breakers = CircuitBreakers { thresholds, ..Default::default() };
    let expected = ["circuit_breakers.thresholds[1].priority: must be a defined value, not 7"];
    assert_eq!(broken(&Cluster { circuit_breakers: Some(breakers), ..cluster() }), expected);
}

fn virtual_host() -> VirtualHost {
    VirtualHost { name: "h".into(), domains: vec!["*".into()], ..Default::default() }
}

#[test]
fn lists_have_limits() {
    let expected = ["domains: must have at least 1 item"];
    assert_eq!(broken(&VirtualHost { domains: vec![], ..virtual_host() }), expected);
}

#[test]
fn headers_keep_to_their_alphabet() {
    let header = |key: &str, value: &str| VirtualHost {
        request_headers_to_add: vec![HeaderValueOption {
            header: Some(HeaderValue { key: key.into(), value: value.into(), ..Default::default() }),
            ..Default::default()
        }],
        ..virtual_host()
    };
    assert_eq!(broken(&header("x-a", "tab\tand ünicode")), [""; 0]);
    assert_eq!(broken(&header("x-a", "two\nlines")), ["request_headers_to_add[0].header.value: must be without line breaks and NUL"]);
    assert_eq!(broken(&header("a\r", "v")), ["request_headers_to_add[0].header.key: must be without line breaks and NUL"]);
    let absent = VirtualHost { request_headers_to_add: vec![HeaderValueOption::default()], ..virtual_host() };
    assert_eq!(broken(&absent), ["request_headers_to_add[0].header: is required"]);
}

#[test]
fn any_is_looked_into_at_every_depth() {
    let hcm = HttpConnectionManager {
        route_specifier: Some(RouteSpecifier::RouteConfig(RouteConfiguration {
            virtual_hosts: vec![VirtualHost { name: String::new(), ..virtual_host() }],
            ..Default::default()
        })),
        ..Default::default()
    };
    let filter = |config| Filter { name: "f".into(), config_type: Some(ConfigType::TypedConfig(config)) };
    let wrapped = TypedExtensionConfig { name: "x".into(), typed_config: Some(any(&Cluster { name: String::new(), ..cluster() })) };
    let unknown = Any { type_url: "type.googleapis.com/acme.Thing".into(), value: vec![0xff].into() };
    let filters = vec![filter(any(&hcm)), filter(any(&wrapped)), filter(unknown)];
    let listener = Listener { name: "l".into(), filter_chains: vec![FilterChain { filters, ..Default::default() }], ..Default::default() };
    assert_eq!(
        broken(&listener),
        [
            "filter_chains[0].filters[0].typed_config<HttpConnectionManager>.route_config.virtual_hosts[0].name: must have at least 1 character",
            "filter_chains[0].filters[0].typed_config<HttpConnectionManager>.stat_prefix: must have at least 1 character",
            "filter_chains[0].filters[1].typed_config<TypedExtensionConfig>.typed_config<Cluster>.name: must have at least 1 character",
        ]
    );
}

#[test]
fn a_required_oneof_must_be_set() {
    let hcm = HttpConnectionManager { stat_prefix: "s".into(), ..Default::default() };
    assert_eq!(broken(&hcm), ["route_specifier: is required: one of its fields must be set"]);
}

/// Through JSON, for rules that no type of the generated set has in a handy place.
fn broken_json(name: &str, json: serde_json::Value) -> Vec<String> {
    let bytes = crate::json::from_json(name, &json).unwrap();
    validate(name, &bytes).err().unwrap_or_default().iter().map(Violation::to_string).collect()
}

#[test]
fn maps_patterns_numbers_and_uniqueness() {
    use serde_json::json;
    let cases = [
        ("envoy.config.core.v3.Metadata", json!({"filter_metadata": {"": {}}}), "filter_metadata[\"\"]: must have at least 1 character"),
        (
            "envoy.config.metrics.v3.HistogramBucketSettings",
            json!({"match": {"exact": "a"}, "buckets": [1.0, 0.0]}),
            "buckets[1]: must be greater than 0",
        ),
        (
            "envoy.config.metrics.v3.HistogramBucketSettings",
            json!({"match": {"exact": "a"}, "buckets": [1.0, 1.0]}),
            "buckets: must not hold an item twice",
        ),
        ("envoy.config.core.v3.SocketAddress", json!({"address": "a", "port_value": 70000}), "port_value: must be at most 65535"),
        (
            "envoy.extensions.http.original_ip_detection.custom_header.v3.CustomHeaderConfig",
            json!({"header_name": "two words"}),
            "header_name: must be an HTTP header name",
        ),
        ("envoy.extensions.path.match.uri_template.v3.UriTemplateMatchConfig", json!({}), "path_template: must have at least 1 character"),
    ];
    for (name, json, expected) in cases {
        assert_eq!(broken_json(name, json), [expected], "{name}");
    }
}

#[test]
fn bytes_that_do_not_decode_break_a_rule() {
    let name = "envoy.config.cluster.v3.Cluster";
    let expected = vec![Violation { path: String::new(), rule: format!("does not decode as {name}") }];
    assert_eq!(validate(name, &[0x0a, 0xff]), Err(expected));
    let expected = vec![Violation { path: String::new(), rule: "has the unknown type \"acme.Thing\"".into() }];
    assert_eq!(validate("t/acme.Thing", &[]), Err(expected));
}

#[test]
fn any_bytes_of_any_type_end_in_a_verdict() {
    // Not random: every short byte string of a small alphabet of tags and lengths, for each message.
    let alphabet = [0x0a, 0x12, 0x02, 0x08, 0xff];
    for message in descriptors::pool().all_messages().filter(|m| !m.is_map_entry()) {
        let _ = validate(message.full_name(), &[]);
        for a in alphabet {
            for b in alphabet {
                let _ = validate(message.full_name(), &[a, b, a, b]);
            }
        }
    }
}

/// What most clusters hold.
fn usual_cluster() -> Cluster {
    let thresholds = vec![Thresholds { max_connections: Some(u32::MAX), track_remaining: true, ..Default::default() }];
    Cluster {
        circuit_breakers: Some(CircuitBreakers { thresholds, ..Default::default() }),
        outlier_detection: Some(OutlierDetection { max_ejection_percent: Some(10), ..Default::default() }),
        typed_extension_protocol_options: [("x".to_owned(), any(&virtual_host()))].into(),
        lb_policy: 1,
        ..cluster()
    }
}

#[test]
fn most_messages_are_seen_to_be_sound_without_a_walk() {
    let plans = Plans::get();
    let sure = |name: String, bytes: Vec<u8>| plans.is_surely_sound(plans.by_name(&name).unwrap(), &bytes);
    assert!(sure(Cluster::full_name(), usual_cluster().encode_to_vec()));
    assert!(sure(VirtualHost::full_name(), virtual_host().encode_to_vec()));
    assert!(!sure(VirtualHost::full_name(), VirtualHost { domains: Vec::new(), ..virtual_host() }.encode_to_vec()));
    assert!(!sure(Cluster::full_name(), Cluster { lb_policy: 99, ..usual_cluster() }.encode_to_vec()));
}

#[test]
fn a_first_look_never_passes_what_the_walk_does_not() {
    // Each byte, in turn, is something else. `validate` itself compares the two in builds with assertions.
    let good = usual_cluster().encode_to_vec();
    let (mut sound, mut broken) = (0, 0);
    for at in 0..good.len() {
        for other in [0, 1, 2, 8, 0x0a, 0x12, 0x7f, 0x80, 0xff, good[at].wrapping_add(1)] {
            let mut bytes = good.clone();
            bytes[at] = other;
            match validate(&Cluster::full_name(), &bytes) {
                Ok(()) => sound += 1,
                Err(_) => broken += 1,
            }
        }
    }
    assert!(sound > 100 && broken > 100, "{sound} sound, {broken} broken");
}
