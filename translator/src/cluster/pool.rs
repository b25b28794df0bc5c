//! Limits and TCP options of a cluster's connections.

use std::time::Duration;

use pilotfish_envoy::pb::envoy::config::cluster::v3::circuit_breakers::{Thresholds, thresholds};
use pilotfish_envoy::pb::envoy::config::cluster::v3::{CircuitBreakers, UpstreamConnectionOptions};
use pilotfish_envoy::pb::envoy::config::core::v3::TcpKeepalive as KeepaliveMessage;
use pilotfish_envoy::pb::envoy::r#type::v3::Percent;
use pilotfish_model::destination_rule::RetryBudget;

use super::input::ClusterInput;

/// Envoy's own limits (1024 connections and requests, 3 retries) are far too low for a mesh.
const NO_LIMIT: u32 = u32::MAX;

pub(super) fn connect_timeout(input: &ClusterInput) -> Duration {
    input.pool.as_ref().and_then(|p| p.connect_timeout).unwrap_or(input.connect_timeout)
}

pub(super) fn circuit_breakers(input: &ClusterInput) -> CircuitBreakers {
    let pool = input.pool.as_ref();
    let limit = |own: Option<u32>| Some(own.filter(|n| *n > 0).unwrap_or(NO_LIMIT));
    let thresholds = Thresholds {
        max_connections: limit(pool.and_then(|p| p.max_connections)),
        max_pending_requests: limit(pool.and_then(|p| p.http1_max_pending_requests)),
        max_requests: limit(pool.and_then(|p| p.http2_max_requests)),
        max_retries: limit(pool.and_then(|p| p.max_retries)),
        track_remaining: input.remaining_limits,
        retry_budget: input.balanced.as_ref().and_then(|b| b.retry_budget).map(retry_budget),
        ..Default::default()
    };
    CircuitBreakers { thresholds: vec![thresholds], ..Default::default() }
}

fn retry_budget(budget: RetryBudget) -> thresholds::RetryBudget {
    thresholds::RetryBudget {
        budget_percent: Some(Percent { value: budget.percent.map_or(20.0, |p| p.get()) }),
        min_retry_concurrency: Some(budget.min_retry_concurrency.unwrap_or(3)),
        budget_interval: budget.interval.map(super::duration),
    }
}

pub(super) fn connection_options(input: &ClusterInput) -> Option<UpstreamConnectionOptions> {
    let own = input.pool.as_ref().and_then(|p| p.tcp_keepalive);
    if own.is_none() && input.keepalive.is_none() {
        return None;
    }
    // A rule says some of it, the mesh the rest.
    let (own, mesh) = (own.unwrap_or_default(), input.keepalive.unwrap_or_default());
    let probes = own.probes.filter(|n| *n > 0).or(mesh.probes);
    let (time, interval) = (own.time.or(mesh.time), own.interval.or(mesh.interval));
    let seconds = |d: Duration| u32::try_from(d.as_secs()).unwrap_or(u32::MAX);
    Some(UpstreamConnectionOptions {
        tcp_keepalive: Some(KeepaliveMessage {
            keepalive_probes: probes.filter(|n| *n > 0),
            keepalive_time: time.map(seconds),
            keepalive_interval: interval.map(seconds),
        }),
        ..Default::default()
    })
}
