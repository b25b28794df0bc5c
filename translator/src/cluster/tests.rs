use pilotfish_envoy::pb::envoy::config::cluster::v3::OutlierDetection as OutlierMessage;
use pilotfish_model::destination_rule::{ConnectionPool, H2Upgrade, OutlierDetection};
use pilotfish_model::service::Protocol;

use super::input::{Balanced, ClusterInput, ClusterLabels, Discovery};
use super::protocol::{HttpVersion, UpstreamHttp};
use super::security::Security;
use super::*;

fn cluster() -> ClusterInput {
    ClusterInput {
        name: "outbound|80||web".into(),
        stat_name: "web".into(),
        terminated: true,
        discovery: Discovery::Eds,
        connect_timeout: std::time::Duration::from_secs(10),
        keepalive: None,
        pool: None,
        balanced: Some(Balanced::default()),
        inert: false,
        http: UpstreamHttp::default(),
        security: Security::default(),
        labels: ClusterLabels::default(),
        bind: Vec::new(),
        no_cleanup: false,
        peer_exchange: None,
        remaining_limits: false,
        buffer: None,
    }
}

#[test]
fn which_http_is_spoken() {
    let pool = |h2_upgrade, use_client_protocol| ConnectionPool { h2_upgrade, use_client_protocol, ..ConnectionPool::default() };
    let (off, on) = (H2Upgrade::DoNotUpgrade, H2Upgrade::Upgrade);
    use HttpVersion::{AsClient, Http1, Http2};
    for (case, protocol, pool, mesh, sniffs, version) in [
        ("plain", Protocol::Http, None, off, true, Http1),
        ("by protocol", Protocol::Grpc, None, off, false, Http2),
        ("the mesh upgrades what says that it is HTTP", Protocol::Http, None, on, true, Http2),
        ("and nothing else", Protocol::Tcp, None, on, true, Http1),
        ("a rule upgrades whatever it is for", Protocol::Tcp, Some(pool(Some(on), false)), off, true, Http2),
        ("a rule may refuse", Protocol::Http, Some(pool(Some(off), false)), on, true, Http1),
        ("a rule may leave it to the mesh", Protocol::Http, Some(pool(Some(H2Upgrade::Default), false)), on, true, Http2),
        ("the client's choice beats an upgrade", Protocol::Http, Some(pool(Some(on), true)), on, true, AsClient),
        ("sidecars look", Protocol::Auto, None, on, true, AsClient),
        ("gateways do not", Protocol::Auto, None, off, false, Http1),
    ] {
        assert_eq!(HttpVersion::of(protocol, pool.as_ref(), mesh, sniffs), version, "{case}");
    }
}

#[test]
fn zero_is_no_limit() {
    let pool = ConnectionPool { max_connections: Some(0), max_retries: Some(7), ..ConnectionPool::default() };
    let made = build(&ClusterInput { pool: Some(pool), ..cluster() });
    let threshold = &made.circuit_breakers.unwrap().thresholds[0];
    assert_eq!((threshold.max_connections, threshold.max_requests, threshold.max_retries), (Some(u32::MAX), Some(u32::MAX), Some(7)));
}

#[test]
fn only_what_is_counted_ejects() {
    let outlier = OutlierDetection {
        consecutive_5xx_errors: Some(0),
        consecutive_gateway_errors: Some(4),
        consecutive_local_origin_failures: Some(6),
        min_health_percent: 40,
        ..OutlierDetection::default()
    };
    let made = build(&ClusterInput { balanced: Some(Balanced { outlier: Some(outlier), ..Balanced::default() }), ..cluster() });
    let expected = OutlierMessage {
        consecutive_5xx: Some(0),
        enforcing_consecutive_5xx: Some(0),
        consecutive_gateway_failure: Some(4),
        enforcing_consecutive_gateway_failure: Some(100),
        enforcing_success_rate: Some(0),
        ..OutlierMessage::default()
    };
    assert_eq!(made.outlier_detection, Some(expected), "local failures count where they are told apart");
    assert_eq!(made.common_lb_config.unwrap().healthy_panic_threshold.unwrap().value, 40.0);
}

#[test]
fn valid_as_envoy_says() {
    assert_eq!(pilotfish_envoy::validate::validate_message(&build(&cluster())), Ok(()));
}
