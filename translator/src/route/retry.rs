//! Retry policies of outbound routes.

use std::sync::LazyLock;

use bytes::Bytes;
use pilotfish_envoy::any;
use pilotfish_envoy::pb::envoy::config::route::v3::RetryPolicy;
use pilotfish_envoy::pb::envoy::config::route::v3::retry_policy::{
    RetryBackOff, RetryHostPredicate, RetryPriority, retry_host_predicate, retry_priority,
};
use pilotfish_envoy::pb::envoy::extensions::retry::host::previous_hosts::v3::PreviousHostsPredicate;
use pilotfish_envoy::pb::envoy::extensions::retry::priority::previous_priorities::v3::PreviousPrioritiesConfig;
use pilotfish_model::virtual_service::HttpRetry;
use prost::Message;

use super::proto_duration;
use crate::extensions::{RETRY_PREVIOUS_HOSTS, RETRY_PREVIOUS_PRIORITIES};

const RETRY_ON: &str = "connect-failure,refused-stream,unavailable,cancelled,retriable-status-codes";
const RETRIABLE_STATUS_CODES: &str = "retriable-status-codes";
const ATTEMPTS: u32 = 2;
/// How often another host is drawn where the first one was tried already.
const HOST_SELECTIONS: i64 = 5;

/// What of retrying a client can do.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct RetryExtensions {
    /// Prefer hosts that were not tried.
    pub previous_hosts: bool,
    /// Prefer localities that were not tried.
    pub previous_priorities: bool,
}

/// The encoded policy of a route; empty if there is none.
pub fn encoded(retry: Option<&HttpRetry>, hashed: bool, extensions: RetryExtensions) -> Bytes {
    if retry.is_none() && !hashed && extensions.previous_hosts {
        return USUAL.clone();
    }
    encode(policy(retry, hashed, extensions))
}

fn encode(policy: Option<RetryPolicy>) -> Bytes {
    policy.map(|policy| policy.encode_to_vec().into()).unwrap_or_default()
}

/// Encoded once: nearly every route has it.
static USUAL: LazyLock<Bytes> = LazyLock::new(|| {
    let extensions = RetryExtensions { previous_hosts: true, previous_priorities: false };
    encode(policy(None, false, extensions))
});

/// The policy of a route: the user's on top of the default. `None` if retries are switched off. Where a hash of the
/// request chooses the host (`hashed`), a retry goes to the same host again.
fn policy(retry: Option<&HttpRetry>, hashed: bool, extensions: RetryExtensions) -> Option<RetryPolicy> {
    let mut policy = RetryPolicy {
        retry_on: RETRY_ON.to_owned(),
        num_retries: Some(ATTEMPTS),
        host_selection_retry_max_attempts: HOST_SELECTIONS,
        ..Default::default()
    };
    let mut other_hosts = !hashed;
    if let Some(retry) = retry {
        if retry.attempts == 0 {
            return None;
        }
        policy.num_retries = Some(retry.attempts);
        if !retry.retry_on.is_empty() {
            (policy.retry_on, policy.retriable_status_codes) = conditions(&retry.retry_on);
        }
        policy.per_try_timeout = retry.per_try_timeout.map(proto_duration);
        policy.retry_back_off = retry.backoff.map(|b| RetryBackOff { base_interval: Some(proto_duration(b)), max_interval: None });
        if retry.retry_remote_localities == Some(true) && extensions.previous_priorities {
            policy.retry_priority = Some(previous_priorities());
        }
        other_hosts = retry.retry_ignore_previous_hosts.unwrap_or(other_hosts);
    }
    if other_hosts && extensions.previous_hosts {
        policy.retry_host_predicate = vec![PREVIOUS_HOSTS.clone()];
    }
    Some(policy)
}

/// Numbers of the list that are status codes are a condition of their own, which is put behind the others.
fn conditions(retry_on: &str) -> (String, Vec<u32>) {
    let mut names = Vec::new();
    let mut codes = Vec::new();
    for part in retry_on.split(',').map(str::trim).filter(|p| !p.is_empty()) {
        match part.parse::<u32>() {
            Ok(code) if is_registered(code) => codes.push(code),
            _ => names.push(part),
        }
    }
    let mut names = names.join(",");
    if !codes.is_empty() && !names.contains(RETRIABLE_STATUS_CODES) {
        // With nothing before it the comma stays: Envoy reads over it, and the text is what others compare.
        names.push(',');
        names.push_str(RETRIABLE_STATUS_CODES);
    }
    (names, codes)
}

/// Status codes that have a meaning (RFC 9110 and its extensions).
fn is_registered(code: u32) -> bool {
    matches!(code, 100..=103 | 200..=208 | 226 | 300..=305 | 307 | 308 | 400..=418 | 421..=426 | 428 | 429 | 431 | 451 | 500..=508 | 510 | 511)
}

/// Packed once: nearly every route has it.
static PREVIOUS_HOSTS: LazyLock<RetryHostPredicate> = LazyLock::new(|| RetryHostPredicate {
    name: RETRY_PREVIOUS_HOSTS.to_owned(),
    config_type: Some(retry_host_predicate::ConfigType::TypedConfig(any(&PreviousHostsPredicate {}))),
});

fn previous_priorities() -> RetryPriority {
    RetryPriority {
        name: RETRY_PREVIOUS_PRIORITIES.to_owned(),
        config_type: Some(retry_priority::ConfigType::TypedConfig(any(&PreviousPrioritiesConfig { update_frequency: 2 }))),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ALL: RetryExtensions = RetryExtensions { previous_hosts: true, previous_priorities: true };

    #[test]
    fn status_numbers_become_a_condition() {
        assert_eq!(conditions("5xx,429,503"), ("5xx,retriable-status-codes".to_owned(), vec![429, 503]));
        assert_eq!(conditions("503, retriable-status-codes"), ("retriable-status-codes".to_owned(), vec![503]));
        assert_eq!(conditions("503"), (",retriable-status-codes".to_owned(), vec![503]));
        assert_eq!(conditions("gateway-error,599"), ("gateway-error,599".to_owned(), vec![]));
    }

    #[test]
    fn hashed_requests_stay_on_their_host() {
        assert_eq!(policy(None, true, ALL).unwrap().retry_host_predicate, vec![]);
        assert_eq!(policy(None, false, ALL).unwrap().retry_host_predicate.len(), 1);
        assert_eq!(policy(Some(&HttpRetry::default()), false, ALL), None);
    }
}
