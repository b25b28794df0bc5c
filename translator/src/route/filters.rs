//! Per-route settings of HTTP filters: faults and CORS.

use pilotfish_envoy::pb::envoy::config::core::v3::RuntimeFractionalPercent;
use pilotfish_envoy::pb::envoy::extensions::filters::common::fault::v3::{FaultDelay, fault_delay};
use pilotfish_envoy::pb::envoy::extensions::filters::http::cors::v3::CorsPolicy;
use pilotfish_envoy::pb::envoy::extensions::filters::http::fault::v3::{FaultAbort, HttpFault, fault_abort};
use pilotfish_envoy::pb::envoy::r#type::v3::FractionalPercent;
use pilotfish_envoy::pb::envoy::r#type::v3::fractional_percent::DenominatorType;
use pilotfish_model::name::Str;
use pilotfish_model::virtual_service::{self as vs, AbortStatus, Share};

use super::matching::string_matcher;
use super::proto_duration;

/// A share as Envoy takes it.
pub fn share(share: Share) -> FractionalPercent {
    match share {
        Share::PerMillion(numerator) => FractionalPercent { numerator, denominator: DenominatorType::Million.into() },
        Share::Percent(numerator) => FractionalPercent { numerator, denominator: DenominatorType::Hundred.into() },
    }
}

/// Everything.
pub fn all() -> FractionalPercent {
    FractionalPercent { numerator: 100, denominator: DenominatorType::Hundred.into() }
}

/// Delay and abort. What has no share set never happens: that is how Envoy reads it, and what existing meshes rely on.
pub fn fault(fault: &vs::HttpFault) -> HttpFault {
    let delay = fault.delay.as_ref().map(|d| FaultDelay {
        percentage: Some(d.percentage.map(share).unwrap_or_default()),
        fault_delay_secifier: Some(fault_delay::FaultDelaySecifier::FixedDelay(proto_duration(d.fixed))),
    });
    let abort = fault.abort.as_ref().map(|a| FaultAbort {
        percentage: a.percentage.map(share),
        error_type: Some(match a.status {
            AbortStatus::Http(status) => fault_abort::ErrorType::HttpStatus(status.into()),
            AbortStatus::Grpc(code) => fault_abort::ErrorType::GrpcStatus(code),
        }),
        ..Default::default()
    });
    HttpFault { delay, abort, ..Default::default() }
}

/// CORS.
pub fn cors(cors: &vs::CorsPolicy) -> CorsPolicy {
    let list = |names: &[Str]| names.join(",");
    CorsPolicy {
        allow_origin_string_match: cors.allow_origins.iter().map(string_matcher).collect(),
        allow_methods: list(&cors.allow_methods),
        allow_headers: list(&cors.allow_headers),
        expose_headers: list(&cors.expose_headers),
        max_age: cors.max_age.map(|age| age.as_secs().to_string()).unwrap_or_default(),
        allow_credentials: cors.allow_credentials,
        filter_enabled: Some(RuntimeFractionalPercent { default_value: Some(all()), ..Default::default() }),
        forward_not_matching_preflights: Some(cors.forward_unmatched_preflights.unwrap_or(true)),
        ..Default::default()
    }
}
