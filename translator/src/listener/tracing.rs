//! Tracing of requests, from mesh config and the proxy's own config.

use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager;
use pilotfish_envoy::pb::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};
use pilotfish_envoy::pb::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind, metadata_kind};
use pilotfish_envoy::pb::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use pilotfish_envoy::pb::envoy::r#type::v3::Percent;
use pilotfish_model::name::Str;

use super::settings::Side;
use super::trace_provider::{self, Provider};
use crate::class::ClassFacts;
use crate::context::Context;

/// Share of requests that are sampled where nobody says otherwise, in percent.
const DEFAULT_SAMPLING: &str = "1";

/// Verdicts of policies on trial, as the RBAC filter leaves them in the request's metadata.
const TRIAL_TAGS: [(&str, &str); 4] = [
    ("istio.authorization.dry_run.allow_policy.name", "istio_dry_run_allow_shadow_effective_policy_id"),
    ("istio.authorization.dry_run.allow_policy.result", "istio_dry_run_allow_shadow_engine_result"),
    ("istio.authorization.dry_run.deny_policy.name", "istio_dry_run_deny_shadow_effective_policy_id"),
    ("istio.authorization.dry_run.deny_policy.result", "istio_dry_run_deny_shadow_engine_result"),
];

/// What tracing depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Tracing {
    /// Percent, as written.
    pub sampling: Str,
    /// Longest path in a span.
    pub max_path_tag_length: Option<u32>,
    /// Tags with fixed values that tell the workload; empty if switched off.
    pub tags: Vec<(&'static str, Str)>,
    /// Where spans go; `None`: the tracer of the client's bootstrap.
    pub provider: Option<Provider>,
}

impl Tracing {
    /// `None` where nothing is traced: switched off, no server for spans, or a plain client without a provider, whose
    /// bootstrap has no tracer of ours.
    pub fn of(context: &Context<'_>) -> Option<Self> {
        let (class, config) = (context.class, context.config());
        let provider = match config.default_providers.tracing.first() {
            Some(name) => Some(Provider::of(context, name)?),
            None if config.enable_tracing && class.is_istio() => None,
            None => return None,
        };
        let own = class.proxy_config.tracing.clone().unwrap_or_default();
        let tags = if own.enable_istio_tags == Some(false) { Vec::new() } else { workload_tags(class) };
        Some(Tracing {
            sampling: own.sampling.map_or_else(|| DEFAULT_SAMPLING.into(), |p| p.0),
            max_path_tag_length: provider.as_ref().map_or(own.max_path_tag_length, |p| p.max_tag_length).filter(|n| *n > 0),
            tags,
            provider,
        })
    }
}

fn workload_tags(class: &ClassFacts) -> Vec<(&'static str, Str)> {
    let label = |key: &str, default: &str| class.labels.get(key).cloned().unwrap_or_else(|| default.into());
    vec![
        ("istio.canonical_revision", label("service.istio.io/canonical-revision", "latest")),
        ("istio.canonical_service", label("service.istio.io/canonical-name", "unknown")),
        ("istio.cluster_id", class.cluster_id.clone()),
        ("istio.mesh_id", class.mesh_id.clone()),
        ("istio.namespace", class.namespace.clone()),
    ]
}

/// The connection manager's part.
pub(super) fn config(input: &Tracing, side: Side) -> http_connection_manager::Tracing {
    let percent = |value: f64| Some(Percent { value });
    let trials = if input.tags.is_empty() { &[][..] } else { &TRIAL_TAGS[..] };
    // Envoy takes no tag without a value.
    let literals = input.tags.iter().filter(|(_, value)| !value.is_empty()).map(|(tag, value)| literal(tag, value));
    http_connection_manager::Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(input.sampling.parse().unwrap_or_default()),
        overall_sampling: percent(100.0),
        max_path_tag_length: input.max_path_tag_length,
        provider: input.provider.as_ref().map(trace_provider::config),
        // A gateway is no part of a workload, so its own work is a span of its own.
        spawn_upstream_span: (side == Side::Gateway && input.provider.is_some()).then_some(true),
        custom_tags: trials.iter().map(|(tag, key)| trial(tag, key)).chain(literals).collect(),
        ..Default::default()
    }
}

fn literal(tag: &str, value: &str) -> CustomTag {
    let literal = custom_tag::Literal { value: value.to_owned() };
    CustomTag { tag: tag.to_owned(), r#type: Some(custom_tag::Type::Literal(literal)) }
}

fn trial(tag: &str, key: &str) -> CustomTag {
    let metadata = custom_tag::Metadata {
        kind: Some(MetadataKind { kind: Some(metadata_kind::Kind::Request(metadata_kind::Request {})) }),
        metadata_key: Some(MetadataKey {
            key: "envoy.filters.http.rbac".to_owned(),
            path: vec![PathSegment { segment: Some(path_segment::Segment::Key(key.to_owned())) }],
        }),
        ..Default::default()
    };
    CustomTag { tag: tag.to_owned(), r#type: Some(custom_tag::Type::Metadata(metadata)) }
}
