//! Tracing of requests, from Telemetry objects, mesh config and the proxy's own config.

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_envoy::pb::envoy::extensions::filters::network::http_connection_manager::v3::http_connection_manager;
use pilotfish_envoy::pb::envoy::r#type::metadata::v3::metadata_key::{PathSegment, path_segment};
use pilotfish_envoy::pb::envoy::r#type::metadata::v3::{MetadataKey, MetadataKind, metadata_kind};
use pilotfish_envoy::pb::envoy::r#type::tracing::v3::{CustomTag as Tag, custom_tag};
use pilotfish_envoy::pb::envoy::r#type::v3::Percent as Percentage;
use pilotfish_model::Telemetry;
use pilotfish_model::name::Str;
use pilotfish_model::proxy::ProxyVersion;
use pilotfish_model::proxy_config::{CustomTag, Percent};

use super::settings::Side;
use super::trace_provider::{self, Provider};
use crate::context::Context;
use crate::extensions;
use crate::facts::OwnFacts;

/// First version of Istio's proxy with tags by format.
const FORMATTER_TAGS: ProxyVersion = ProxyVersion(1, 29, 0);
/// First version of Istio's proxy that need not pass the trace on.
const CONTEXT_PROPAGATION_SWITCH: ProxyVersion = ProxyVersion(1, 30, 0);

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
    /// Percent.
    pub sampling: Percent,
    /// Longest path in a span.
    pub max_path_tag_length: Option<u32>,
    /// Tags with fixed values that tell the workload's cluster and namespace; `None`: no tags.
    pub tags: Option<(Str, Str)>,
    /// Tags of the user's own.
    pub custom_tags: BTreeMap<Str, CustomTag>,
    /// Where spans go; `None`: the tracer of the client's bootstrap.
    pub provider: Option<Provider>,
    /// The headers that say which trace a request belongs to are not passed on.
    pub no_context_propagation: bool,
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

/// What Telemetry objects and the mesh's default say of one direction.
#[derive(Default)]
struct Wanted<'a> {
    provider: Option<&'a Str>,
    disabled: bool,
    sampling: Option<&'a Percent>,
    custom_tags: Option<&'a BTreeMap<Str, CustomTag>>,
    ignore_request_id: bool,
    no_istio_tags: bool,
    no_context_propagation: bool,
}

/// `None`: nobody says anything.
fn wanted<'a>(defaults: &'a [Str], applicable: &'a [Arc<Telemetry>], server: bool) -> Option<Wanted<'a>> {
    let mut entries = applicable.iter().flat_map(|t| &t.tracing).peekable();
    if entries.peek().is_none() && defaults.is_empty() {
        return None;
    }
    let mut wanted = Wanted { provider: defaults.first(), ..Wanted::default() };
    for entry in entries.filter(|e| e.mode.covers(server)) {
        wanted.provider = entry.providers.first().or(wanted.provider);
        wanted.disabled = entry.disabled.unwrap_or(wanted.disabled);
        wanted.sampling = entry.sampling.as_ref().or(wanted.sampling);
        wanted.custom_tags = Some(&entry.custom_tags).filter(|t| !t.is_empty()).or(wanted.custom_tags);
        wanted.ignore_request_id = entry.use_request_id.map_or(wanted.ignore_request_id, |used| !used);
        wanted.no_istio_tags = entry.istio_tags.map_or(wanted.no_istio_tags, |on| !on);
        wanted.no_context_propagation = entry.no_context_propagation.unwrap_or(wanted.no_context_propagation);
    }
    Some(wanted)
}

impl Tracing {
    /// `None` where nothing is traced: switched off, no server for spans, or a plain client without a provider, whose
    /// bootstrap has no tracer of ours. Also whether sampling ignores the request's id.
    pub(super) fn of(context: &Context<'_>, applicable: &[Arc<Telemetry>], server: bool) -> (Option<Self>, bool) {
        let (class, config) = (context.class, context.config());
        let own = class.proxy_config.tracing.clone().unwrap_or_default();
        let usual = f64::from(config.features.trace_sampling) / 100.0;
        let own_sampling = own.sampling.filter(|p| p.get() != 0.0).map_or(usual, |p| p.get());
        // More than everything is a mistake, for which there is another default.
        let own_sampling = if own_sampling > 100.0 { 1.0 } else { own_sampling };
        let tags = || (class.cluster_id.clone(), class.namespace.clone());
        let by_proxy = Tracing {
            sampling: Percent(own_sampling.to_string().into()),
            max_path_tag_length: own.max_path_tag_length.filter(|n| *n > 0),
            tags: (own.enable_istio_tags != Some(false)).then(tags),
            custom_tags: own.custom_tags,
            provider: None,
            no_context_propagation: false,
            workload: class.own.as_ref().map(Workload::of),
        };
        let Some(wanted) = wanted(&config.default_providers.tracing, applicable, server) else {
            return ((config.enable_tracing && class.is_istio()).then_some(by_proxy), false);
        };
        let provider = wanted.provider.filter(|_| !wanted.disabled).and_then(|name| Provider::of(context, name));
        let Some(provider) = provider else { return (None, false) };
        let known = |tag: &CustomTag| !matches!(tag, CustomTag::Formatter(_)) || knows_formatter_tags(context);
        let custom_tags =
            |tags: &BTreeMap<Str, CustomTag>| tags.iter().filter(|(_, t)| known(t)).map(|(k, t)| (k.clone(), t.clone())).collect();
        let sampled = wanted.sampling.cloned().unwrap_or(by_proxy.sampling);
        let tracing = Tracing {
            // Who decides for each request must see each.
            sampling: if provider.decides_sampling() { Percent("100".into()) } else { sampled },
            max_path_tag_length: provider.max_tag_length.or(by_proxy.max_path_tag_length),
            tags: (!wanted.no_istio_tags).then(tags),
            custom_tags: wanted.custom_tags.map_or(by_proxy.custom_tags, custom_tags),
            no_context_propagation: wanted.no_context_propagation && class.version >= CONTEXT_PROPAGATION_SWITCH,
            provider: Some(provider),
            workload: by_proxy.workload,
        };
        (Some(tracing), wanted.ignore_request_id)
    }

    /// Something of it is the workload's own.
    pub(super) fn names_workload(&self) -> bool {
        self.tags.is_some() || self.provider.as_ref().is_some_and(Provider::names_workload)
    }
}

impl Workload {
    pub(super) fn of(own: &OwnFacts) -> Self {
        let label = |key: &str, default: &str| own.labels.get(key).filter(|v| !v.is_empty()).cloned().unwrap_or_else(|| default.into());
        Workload {
            canonical_revision: label("service.istio.io/canonical-revision", "latest"),
            canonical_service: label("service.istio.io/canonical-name", "unknown"),
            mesh_id: own.mesh_id.clone(),
            service_cluster: own.service_cluster.clone(),
        }
    }
}

/// Without knowing it a client would refuse the listener. A plain one does not say its version, so what came at the same
/// time stands for it.
fn knows_formatter_tags(context: &Context<'_>) -> bool {
    let class = context.class;
    if class.is_istio() { class.version >= FORMATTER_TAGS } else { class.has_extension(extensions::ACCESS_LOG_STATS) }
}

fn workload_tags(input: &Tracing) -> Vec<Tag> {
    let (Some((cluster_id, namespace)), Some(workload)) = (&input.tags, &input.workload) else { return Vec::new() };
    let tags = [
        ("istio.canonical_revision", &workload.canonical_revision),
        ("istio.canonical_service", &workload.canonical_service),
        ("istio.cluster_id", cluster_id),
        ("istio.mesh_id", &workload.mesh_id),
        ("istio.namespace", namespace),
    ];
    // Envoy takes no tag without a value.
    tags.into_iter().filter(|(_, value)| !value.is_empty()).map(|(name, value)| tag(name, literal(value))).collect()
}

/// The connection manager's part.
pub(super) fn config(input: &Tracing, side: Side) -> http_connection_manager::Tracing {
    let percent = |value: f64| Some(Percentage { value });
    let trials = if input.tags.is_none() { &[][..] } else { &TRIAL_TAGS[..] };
    let service_name = input.workload.as_ref().map_or("", |w| &w.service_cluster);
    let mut custom_tags = workload_tags(input);
    custom_tags.extend(trials.iter().map(|(name, key)| tag(name, trial(key))));
    custom_tags.extend(input.custom_tags.iter().map(|(name, value)| tag(name, own_tag(value))));
    custom_tags.sort_by(|a, b| a.tag.cmp(&b.tag));
    let spawns = |p: &Provider| side == Side::Gateway || p.spawns_upstream_span();
    http_connection_manager::Tracing {
        client_sampling: percent(100.0),
        random_sampling: percent(input.sampling.get()),
        overall_sampling: percent(100.0),
        max_path_tag_length: input.max_path_tag_length,
        provider: input.provider.as_ref().map(|p| trace_provider::config(p, service_name)),
        // A gateway is no part of a workload, so its own work is a span of its own.
        spawn_upstream_span: input.provider.as_ref().is_some_and(spawns).then_some(true),
        no_context_propagation: input.no_context_propagation,
        custom_tags,
        ..Default::default()
    }
}

fn tag(name: &str, value: custom_tag::Type) -> Tag {
    Tag { tag: name.to_owned(), r#type: Some(value) }
}

fn own_tag(tag: &CustomTag) -> custom_tag::Type {
    match tag {
        CustomTag::Literal(text) => literal(text),
        CustomTag::Formatter(text) => custom_tag::Type::Value(text.to_string()),
        CustomTag::Environment(s) => {
            let (name, default_value) = (s.name.to_string(), s.default_value.to_string());
            custom_tag::Type::Environment(custom_tag::Environment { name, default_value })
        }
        CustomTag::Header(s) => {
            let (name, default_value) = (s.name.to_string(), s.default_value.to_string());
            custom_tag::Type::RequestHeader(custom_tag::Header { name, default_value })
        }
    }
}

fn literal(value: &str) -> custom_tag::Type {
    custom_tag::Type::Literal(custom_tag::Literal { value: value.to_owned() })
}

fn trial(key: &str) -> custom_tag::Type {
    custom_tag::Type::Metadata(custom_tag::Metadata {
        kind: Some(MetadataKind { kind: Some(metadata_kind::Kind::Request(metadata_kind::Request {})) }),
        metadata_key: Some(MetadataKey {
            key: "envoy.filters.http.rbac".to_owned(),
            path: vec![PathSegment { segment: Some(path_segment::Segment::Key(key.to_owned())) }],
        }),
        ..Default::default()
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_model::telemetry;
    use pilotfish_model::telemetry::WorkloadMode;

    #[test]
    fn later_entries_refine_earlier_ones_for_their_direction() {
        let defaults = [Str::from("d")];
        let entry = || telemetry::Tracing::default();
        let telemetry = |tracing| [Arc::new(Telemetry { tracing, ..Telemetry::default() })];
        assert!(wanted(&[], &[], false).is_none());
        assert!(wanted(&[], &telemetry(vec![entry()]), true).is_some_and(|w| w.provider.is_none()));
        let applicable = telemetry(vec![
            telemetry::Tracing { providers: vec!["a".into(), "b".into()], sampling: Some(Percent("5".into())), ..entry() },
            telemetry::Tracing { mode: WorkloadMode::Server, disabled: Some(true), use_request_id: Some(false), ..entry() },
            telemetry::Tracing { mode: WorkloadMode::Client, istio_tags: Some(false), no_context_propagation: Some(true), ..entry() },
            telemetry::Tracing { custom_tags: [("t".into(), CustomTag::Literal("v".into()))].into(), ..entry() },
            entry(),
        ]);
        let seen = |server| {
            let w = wanted(&defaults, &applicable, server)?;
            let tags = w.custom_tags.map_or(0, BTreeMap::len);
            let on = [w.disabled, w.ignore_request_id, w.no_istio_tags, w.no_context_propagation];
            Some((w.provider?.to_string(), w.sampling?.get(), tags, on))
        };
        assert_eq!(seen(false), Some(("a".to_owned(), 5.0, 1, [false, false, true, true])));
        assert_eq!(seen(true), Some(("a".to_owned(), 5.0, 1, [true, true, false, false])));
    }
}
