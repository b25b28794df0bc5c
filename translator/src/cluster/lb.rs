//! Load balancing and outlier detection.

use pilotfish_envoy::pb::envoy::config::cluster::v3::cluster::common_lb_config::{
    LocalityConfigSpecifier, LocalityWeightedLbConfig, ZoneAwareLbConfig,
};
use pilotfish_envoy::pb::envoy::config::cluster::v3::cluster::{
    CommonLbConfig, LbConfig, LbPolicy, LeastRequestLbConfig, MaglevLbConfig, RingHashLbConfig, RoundRobinLbConfig, SlowStartConfig,
};
use pilotfish_envoy::pb::envoy::config::cluster::v3::{Cluster, OutlierDetection as OutlierMessage};
use pilotfish_envoy::pb::envoy::config::core::v3::{HealthStatus, HealthStatusSet, RuntimeDouble};
use pilotfish_envoy::pb::envoy::r#type::v3::Percent;
use pilotfish_model::destination_rule::{ConsistentHash, HashTable, LbAlgorithm, OutlierDetection, Warmup};

use super::duration;
use super::input::Balanced;
use crate::endpoint::Localities;

/// Envoy wants a runtime key beside the aggression. Nobody sets it, so that the default value holds.
const AGGRESSION_KEY: &str = "(";

pub(super) fn apply(balanced: &Balanced, cluster: &mut Cluster) {
    cluster.outlier_detection = balanced.outlier.as_ref().map(outlier);
    cluster.common_lb_config = Some(common(balanced));
    if cluster.lb_policy == i32::from(LbPolicy::ClusterProvided) || balanced.inbound {
        return;
    }
    if balanced.redis {
        // Every proxy must find the same server for a key.
        cluster.lb_policy = LbPolicy::Maglev.into();
        return;
    }
    let algorithm = balanced.balancer.as_ref().and_then(|b| b.algorithm.as_ref());
    let warmup = balanced.balancer.as_ref().and_then(|b| b.warmup).map(slow_start);
    let (policy, config) = match algorithm {
        None | Some(LbAlgorithm::Unspecified | LbAlgorithm::LeastRequest | LbAlgorithm::Passthrough) => (
            LbPolicy::LeastRequest,
            warmup.map(|w| LbConfig::LeastRequestLbConfig(LeastRequestLbConfig { slow_start_config: Some(w), ..Default::default() })),
        ),
        Some(LbAlgorithm::RoundRobin) => {
            (LbPolicy::RoundRobin, warmup.map(|w| LbConfig::RoundRobinLbConfig(RoundRobinLbConfig { slow_start_config: Some(w) })))
        }
        Some(LbAlgorithm::Random) => (LbPolicy::Random, None),
        Some(LbAlgorithm::ConsistentHash(hash)) => table(hash),
    };
    cluster.lb_policy = policy.into();
    cluster.lb_config = config;
}

/// The table that consistent hashing uses.
pub(crate) fn table(hash: &ConsistentHash) -> (LbPolicy, Option<LbConfig>) {
    match hash.table {
        HashTable::Ring(size) => {
            let config = |size| LbConfig::RingHashLbConfig(RingHashLbConfig { minimum_ring_size: Some(size), ..Default::default() });
            (LbPolicy::RingHash, size.map(config))
        }
        HashTable::Maglev(size) => {
            let config = |size| LbConfig::MaglevLbConfig(MaglevLbConfig { table_size: Some(size) });
            (LbPolicy::Maglev, size.filter(|s| *s > 0).map(config))
        }
    }
}

fn slow_start(warmup: Warmup) -> SlowStartConfig {
    SlowStartConfig {
        slow_start_window: Some(duration(warmup.duration)),
        aggression: warmup
            .minimum_percent
            .map(|_| RuntimeDouble { default_value: warmup.aggression.map_or(1.0, |a| a.get()), runtime_key: AGGRESSION_KEY.to_owned() }),
        min_weight_percent: warmup.minimum_percent.map(|p| Percent { value: p.get() }),
    }
}

fn common(balanced: &Balanced) -> CommonLbConfig {
    if balanced.inbound {
        return CommonLbConfig::default();
    }
    // Envoy's default of 50 % sends to endpoints that are known to be down.
    let minimum = match &balanced.outlier {
        _ if balanced.unready => Some(0),
        outlier => outlier.as_ref().map(|o| o.min_health_percent),
    };
    let kept = [HealthStatus::Healthy, HealthStatus::Draining, HealthStatus::Unknown, HealthStatus::Degraded];
    CommonLbConfig {
        healthy_panic_threshold: minimum.map(|value| Percent { value: f64::from(value) }),
        locality_config_specifier: match balanced.localities {
            Localities::Even => None,
            Localities::Weighted => Some(LocalityConfigSpecifier::LocalityWeightedLbConfig(LocalityWeightedLbConfig {})),
            Localities::Zones { min_cluster_size } => Some(LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig {
                min_cluster_size: min_cluster_size.map(u64::from),
                ..Default::default()
            })),
            // Left out it would mean all requests, where the client knows its own zone.
            Localities::NoZones => Some(LocalityConfigSpecifier::ZoneAwareLbConfig(ZoneAwareLbConfig {
                routing_enabled: Some(Percent { value: 0.0 }),
                ..Default::default()
            })),
        },
        override_host_status: balanced.persistent_session.then(|| HealthStatusSet { statuses: kept.map(i32::from).to_vec() }),
        ..Default::default()
    }
}

/// What is counted is enforced, what is not counted is not; ejection by success rate is never used.
fn outlier(o: &OutlierDetection) -> OutlierMessage {
    let enforced = |count: Option<u32>| count.map(|n| if n > 0 { 100 } else { 0 });
    let local = o.consecutive_local_origin_failures.filter(|n| *n > 0 && o.split_external_local_origin_errors);
    OutlierMessage {
        consecutive_5xx: o.consecutive_5xx_errors,
        enforcing_consecutive_5xx: enforced(o.consecutive_5xx_errors),
        consecutive_gateway_failure: o.consecutive_gateway_errors,
        enforcing_consecutive_gateway_failure: enforced(o.consecutive_gateway_errors),
        split_external_local_origin_errors: o.split_external_local_origin_errors,
        consecutive_local_origin_failure: local,
        enforcing_consecutive_local_origin_failure: enforced(local),
        enforcing_local_origin_success_rate: o.split_external_local_origin_errors.then_some(0),
        enforcing_success_rate: Some(0),
        interval: o.interval.map(duration),
        base_ejection_time: o.base_ejection_time.map(duration),
        max_ejection_percent: Some(o.max_ejection_percent).filter(|n| *n > 0),
        ..Default::default()
    }
}
