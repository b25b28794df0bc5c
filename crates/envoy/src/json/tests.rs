use std::collections::BTreeMap;

use prost::Message;
use serde_json::json;

use super::*;
use crate::any::any;
use crate::pb::envoy::config::cluster::v3::Cluster;
use crate::pb::envoy::config::core::v3::TypedExtensionConfig;
use crate::pb::envoy::config::listener::v3::{Filter, FilterChain, Listener, filter::ConfigType};
use crate::{Metadata, Struct};

const CLUSTER: &str = "envoy.config.cluster.v3.Cluster";

fn cluster() -> Cluster {
    Cluster {
        name: "a".into(),
        connect_timeout: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
        per_connection_buffer_limit_bytes: Some(0),
        lb_policy: 2,
        metadata: Some(Metadata::new([("istio", Struct::new([("n", crate::Value::number(3.0))]))])),
        typed_extension_protocol_options: BTreeMap::from([
            ("known".to_owned(), any(&Filter { name: "f".into(), ..Default::default() })),
            ("unknown".to_owned(), Any { type_url: "type.googleapis.com/acme.Thing".into(), value: vec![1, 2].into() }),
        ]),
        ..Default::default()
    }
}

fn cluster_json() -> Value {
    json!({
        "@type": "type.googleapis.com/envoy.config.cluster.v3.Cluster",
        "name": "a",
        "connect_timeout": "1.500s",
        "per_connection_buffer_limit_bytes": 0,
        "lb_policy": "RING_HASH",
        "metadata": {"filter_metadata": {"istio": {"n": 3}}},
        "typed_extension_protocol_options": {
            "known": {"@type": "type.googleapis.com/envoy.config.listener.v3.Filter", "name": "f"},
            "unknown": {"@type": "type.googleapis.com/acme.Thing", "value_base64": "AQI="},
        },
    })
}

#[test]
fn a_message_shows_original_names_set_fields_and_expanded_any() {
    assert_eq!(to_json(&any(&cluster())), cluster_json());
}

#[test]
fn what_was_shown_reads_back_to_the_same_bytes() {
    assert_eq!(any_from_json(&cluster_json()), Ok(any(&cluster())));
}

#[test]
fn both_spellings_and_numbers_as_text_are_read() {
    let read =
        from_json(CLUSTER, &json!({"connectTimeout": "1.5s", "per_connection_buffer_limit_bytes": "7", "lbPolicy": 1, "name": null}))
            .unwrap();
    let expected = Cluster {
        connect_timeout: Some(prost_types::Duration { seconds: 1, nanos: 500_000_000 }),
        per_connection_buffer_limit_bytes: Some(7),
        lb_policy: 1,
        ..Default::default()
    };
    assert_eq!(read, expected.encode_to_vec());
}

#[test]
fn an_any_inside_an_any_is_expanded() {
    let inner = TypedExtensionConfig { name: "x".into(), typed_config: Some(any(&prost_types::Duration { seconds: 2, nanos: 0 })) };
    let filter = Filter { name: "f".into(), config_type: Some(ConfigType::TypedConfig(any(&inner))) };
    let listener =
        any(&Listener { filter_chains: vec![FilterChain { filters: vec![filter], ..Default::default() }], ..Default::default() });
    let shown = json!({
        "@type": "type.googleapis.com/envoy.config.listener.v3.Listener",
        "filter_chains": [{"filters": [{"name": "f", "typed_config": {
            "@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig",
            "name": "x",
            "typed_config": {"@type": "type.googleapis.com/google.protobuf.Duration", "value": "2s"},
        }}]}],
    });
    assert_eq!(to_json(&listener), shown);
    assert_eq!(any_from_json(&shown), Ok(listener));
}

#[test]
fn a_typed_struct_stays_as_it_is() {
    let shown =
        json!({"@type": "type.googleapis.com/udpa.type.v1.TypedStruct", "type_url": "t/acme.Thing", "value": {"a": [null, true, 1.5]}});
    assert_eq!(to_json(&any_from_json(&shown).unwrap()), shown);
}

#[test]
fn bytes_that_do_not_decode_are_shown_not_lost() {
    let broken = Any { type_url: format!("t/{CLUSTER}"), value: vec![0xff].into() };
    assert_eq!(to_json(&broken), json!({"@type": format!("t/{CLUSTER}"), "value_base64": "/w==", "@error": "does not decode"}));
}

#[test]
fn faults_name_their_place() {
    let hcm = "type.googleapis.com/envoy.extensions.filters.network.http_connection_manager.v3.HttpConnectionManager";
    let cases = [
        ("envoy.Nope", json!({}), r#"unknown message type "envoy.Nope""#),
        (CLUSTER, json!({"nam": "x"}), r#"unknown field "nam" of envoy.config.cluster.v3.Cluster"#),
        (CLUSTER, json!({"connectTimeout": "5"}), r#"connect_timeout: expected a duration such as "1.5s", found "5""#),
        (CLUSTER, json!({"lb_policy": "BEST"}), r#"lb_policy: expected a value of envoy.config.cluster.v3.Cluster.LbPolicy, found "BEST""#),
        (CLUSTER, json!({"type": "EDS", "cluster_type": {}}), "type and cluster_type exclude each other"),
        (CLUSTER, json!({"altStatName": "a", "alt_stat_name": "b"}), "alt_stat_name and alt_stat_name exclude each other"),
        (
            "envoy.config.listener.v3.Listener",
            json!({"filterChains": [{"filters": [{"typed_config": {"@type": hcm, "routeConfig": {"virtual_hosts": [{"domain": []}]}}}]}]}),
            "filter_chains[0].filters[0].typed_config<HttpConnectionManager>.route_config.virtual_hosts[0]: \
             unknown field \"domain\" of envoy.config.route.v3.VirtualHost",
        ),
    ];
    for (name, json, expected) in cases {
        assert_eq!(from_json(name, &json).unwrap_err().to_string(), expected);
    }
}

#[test]
fn nesting_without_end_is_refused() {
    let mut json = json!({});
    for _ in 0..200 {
        json = json!({"@type": "type.googleapis.com/envoy.config.core.v3.TypedExtensionConfig", "typed_config": json});
    }
    assert_eq!(any_from_json(&json).unwrap_err().problem, Problem::TooDeep);
}

#[test]
fn the_empty_form_of_every_message_is_shown_and_read() {
    for descriptor in crate::descriptors::pool().all_messages().filter(|m| !m.is_map_entry() && m.package_name().starts_with("envoy")) {
        assert_eq!(message_to_json(descriptor.full_name(), &[]), json!({}));
        assert_eq!(from_json(descriptor.full_name(), &json!({})), Ok(Default::default()));
    }
}

#[test]
fn fields_of_other_versions_may_be_left_out() {
    let cluster = "envoy.config.cluster.v3.Cluster";
    let typed = |more: Value| {
        let mut typed =
            json!({"@type": "type.googleapis.com/envoy.extensions.filters.http.router.v3.Router", "suppress_envoy_headers": true});
        typed.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
        json!({"name": "a", "filters": [{"name": "f", "typed_config": typed}]})
    };
    let mut odd = typed(json!({"of_old": [1]}));
    odd.as_object_mut().unwrap().insert("new".into(), json!({}));
    let (bytes, left_out) = from_json_lenient(cluster, &odd).unwrap();
    assert_eq!(bytes, from_json(cluster, &typed(json!({}))).unwrap());
    let left_out: Vec<String> = left_out.iter().map(ToString::to_string).collect();
    assert_eq!(
        left_out,
        [
            r#"unknown field "new" of envoy.config.cluster.v3.Cluster"#,
            r#"filters[0].typed_config<Router>: unknown field "of_old" of envoy.extensions.filters.http.router.v3.Router"#,
        ]
    );
    assert!(from_json_lenient(cluster, &json!({"name": 1})).is_err());
}
