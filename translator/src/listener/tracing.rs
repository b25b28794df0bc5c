//! Tracing of requests, from mesh config and the proxy's own config.

use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager;
use pilotfish_envoy::pb::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};
use pilotfish_envoy::pb::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind, metadata_kind};
use pilotfish_envoy::pb::envoy::r#type::tracing::v3::{CustomTag, custom_tag};
use pilotfish_envoy::pb::envoy::r#type::v3::Percent;
use pilotfish_model::name::Str;

use super::settings::Side;
use super::trace_provider::{self, Provider};
use crate::context::Context;
use crate::facts::OwnFacts;

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
    /// Tags with fixed values that tell the workload's cluster and namespace; `None`: no tags.
    pub tags: Option<(Str, Str)>,
    /// Where spans go; `None`: the tracer of the client's bootstrap.
    pub provider: Option<Provider>,
    /// What is called by its own name in spans and tags, once that is known.
    pub workload: Option<Workload>,
}

/// Names of a workload.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub struct Workload {
    pub canonical_revision: Str,
    pub canonical_service: Str,
    pub mesh_id: Str,
    pub service_cluster: Str,
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
        Some(Tracing {
            sampling: own.sampling.map_or_else(|| DEFAULT_SAMPLING.into(), |p| p.0),
            max_path_tag_length: provider.as_ref().map_or(own.max_path_tag_length, |p| p.max_tag_length).filter(|n| *n > 0),
            tags: (own.enable_istio_tags != Some(false)).then(|| (class.cluster_id.clone(), class.namespace.clone())),
            provider,
            workload: class.own.as_ref().map(Workload::of),
        })
    }

    /// Something of it is the workload's own.
    pub(super) fn names_workload(&self) -> bool {
        self.tags.is_some() || self.provider.as_ref().is_some_and(Provider::names_workload)
    }
}

impl Workload {
    pub(super) fn of(own: &OwnFacts) -> Self {
        let label = |key: &str, default: &str| own.labels.get(key).cloned().unwrap_or_else(|| default.into());
        Workload {
            canonical_revision: label("service.istio.io/canonical-revision", "latest"),
            canonical_service: label("service.istio.io/canonical-name", "unknown"),
            mesh_id: own.mesh_id.clone(),
            service_cluster: own.service_cluster.clone(),
        }
    }
}

fn workload_tags(input: &Tracing) -> Vec<(&'static str, &str)> {
    let (Some((cluster_id, namespace)), Some(workload)) = (&input.tags, &input.workload) else { return Vec::new() };
    vec![
        ("istio.canonical_revision", &workload.canonical_revision),
        ("istio.canonical_service", &workload.canonical_service),
        ("istio.cluster_id", cluster_id),
        ("istio.mesh_id", &workload.mesh_id),
        ("istio.namespace", namespace),
    ]
}

/// The connection manager's part.
pub(super) fn config(input: &Tracing, side: Side) -> http_connection_manager::Tracing {
    let percent = |value: f64| Some(Percent { value });
    let trials = if input.tags.is_none() { &[][..] } else { &TRIAL_TAGS[..] };
    let service_name = input.workload.as_ref().map_or("", |w| &w.service_cluster);
    // Envoy takes no tag without a value.
    let literals = workload_tags(input).into_iter().filter(|(_, value)| !value.is_empty()).map(|(tag, value)| literal(tag, value));
    http_connection_manager::Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(input.sampling.parse().unwrap_or_default()),
        overall_sampling: percent(100.0),
        max_path_tag_length: input.max_path_tag_length,
        provider: input.provider.as_ref().map(|p| trace_provider::config(p, service_name)),
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
