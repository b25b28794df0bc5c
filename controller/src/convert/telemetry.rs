//! Telemetry.

use std::collections::BTreeMap;

use pilotfish_crds::policy::WorkloadMode as ApiMode;
use pilotfish_crds::telemetry as api;
use pilotfish_model::cel;
use pilotfish_model::name::Str;
use pilotfish_model::proxy_config::{CustomTag, Percent, TagSource};
use pilotfish_model::telemetry::{AccessLogging, Metric, MetricOverride, Metrics, StandardMetric, Telemetry, Tracing, WorkloadMode};

use super::attachment::attachment;
use super::fields::{Path, Scope};

pub(super) fn convert(scope: &mut Scope<'_>, spec: &api::TelemetrySpec) -> Telemetry {
    let root = Path::SPEC;
    let (traced, counted, logged) = (root.field("tracing"), root.field("metrics"), root.field("accessLogging"));
    Telemetry {
        meta: scope.meta_without_labels(),
        attachment: attachment(spec.selector.as_ref(), spec.target_ref.as_ref(), &spec.target_refs),
        tracing: spec.tracing.iter().enumerate().map(|(i, t)| tracing(scope, &traced.index(i), t)).collect(),
        metrics: spec.metrics.iter().enumerate().map(|(i, m)| metrics(scope, &counted.index(i), m)).collect(),
        access_logging: spec.access_logging.iter().enumerate().map(|(i, l)| access_logging(scope, &logged.index(i), l)).collect(),
    }
}

pub(super) fn mode(mode: ApiMode) -> WorkloadMode {
    match mode {
        ApiMode::Undefined => WorkloadMode::Undefined,
        ApiMode::Client => WorkloadMode::Client,
        ApiMode::Server => WorkloadMode::Server,
        ApiMode::ClientAndServer => WorkloadMode::ClientAndServer,
    }
}

fn providers(scope: &mut Scope<'_>, path: &Path<'_>, refs: &[api::ProviderRef]) -> Vec<Str> {
    let path = path.field("providers");
    for (i, _) in refs.iter().enumerate().filter(|(_, p)| p.name.is_empty()) {
        scope.error(&path.index(i).field("name"), "must not be empty");
    }
    refs.iter().map(|p| p.name.as_str().into()).collect()
}

fn tracing(scope: &mut Scope<'_>, path: &Path<'_>, t: &api::Tracing) -> Tracing {
    let tags = path.field("customTags");
    let providers = providers(scope, path, &t.providers);
    if providers.len() > 1 {
        scope.warning(&path.field("providers"), "only the first provider is used");
    }
    if let Some(p) = t.random_sampling_percentage.filter(|p| !(0.0..=100.0).contains(&p.0)) {
        scope.error(&path.field("randomSamplingPercentage"), format!("{} is not a percentage between 0 and 100", p.0));
    }
    Tracing {
        mode: t.matches.as_ref().map(|m| mode(m.mode)).unwrap_or_default(),
        providers,
        sampling: t.random_sampling_percentage.map(|p| Percent(p.0.to_string().into())),
        disabled: t.disable_span_reporting,
        custom_tags: t.custom_tags.iter().filter_map(|(k, v)| Some((k.as_str().into(), custom_tag(scope, &tags.key(k), k, v)?))).collect(),
        use_request_id: t.use_request_id_for_trace_sampling,
        istio_tags: t.enable_istio_tags,
        no_context_propagation: t.disable_context_propagation,
    }
}

fn custom_tag(scope: &mut Scope<'_>, path: &Path<'_>, name: &str, t: &api::CustomTag) -> Option<CustomTag> {
    if name.is_empty() {
        scope.error(path, "a tag needs a name");
    }
    let found: Vec<(&str, &str, CustomTag)> = [
        t.literal.as_ref().map(|l| ("literal", l.value.as_str(), CustomTag::Literal(l.value.as_str().into()))),
        t.environment.as_ref().map(|s| ("environment", s.name.as_str(), CustomTag::Environment(source(s)))),
        t.header.as_ref().map(|s| ("header", s.name.as_str(), CustomTag::Header(source(s)))),
        t.formatter.as_ref().map(|f| ("formatter", f.value.as_str(), CustomTag::Formatter(f.value.as_str().into()))),
    ]
    .into_iter()
    .flatten()
    .collect();
    let mut found = found.into_iter();
    let (field, text, tag) = found.next().or_else(|| {
        scope.warning(path, "has no value: literal, environment, header or formatter");
        None
    })?;
    if found.next().is_some() {
        scope.error(path, "literal, environment, header and formatter exclude each other");
    }
    if text.is_empty() {
        scope.error(&path.field(field), "must not be empty");
    }
    if field == "header" && text.bytes().any(|b| b.is_ascii_control() || b == b' ') {
        scope.error(&path.field(field), format!("{text:?} is not the name of a header"));
    }
    Some(tag)
}

fn source(s: &api::TagSource) -> TagSource {
    TagSource { name: s.name.as_str().into(), default_value: s.default_value.as_str().into() }
}

fn metrics(scope: &mut Scope<'_>, path: &Path<'_>, m: &api::Metrics) -> Metrics {
    let overrides = path.field("overrides");
    Metrics {
        providers: providers(scope, path, &m.providers),
        overrides: m.overrides.iter().enumerate().map(|(i, o)| metric_override(scope, &overrides.index(i), o)).collect(),
        reporting_interval: scope.positive_duration(&path.field("reportingInterval"), &m.reporting_interval),
    }
}

fn metric_override(scope: &mut Scope<'_>, path: &Path<'_>, o: &api::MetricsOverrides) -> MetricOverride {
    let matching = o.matches.clone().unwrap_or_default();
    let metric = match (&matching.custom_metric, matching.metric) {
        (Some(_), Some(_)) => {
            scope.error(&path.field("match"), "metric and customMetric exclude each other");
            Metric::All
        }
        (Some(name), None) => Metric::Custom(name.as_str().into()),
        (None, Some(metric)) => standard(metric).map_or(Metric::All, Metric::Standard),
        (None, None) => Metric::All,
    };
    let tags = path.field("tagOverrides");
    let mut changes = BTreeMap::new();
    for (name, tag) in &o.tag_overrides {
        let path = tags.key(name);
        let value = match tag.operation {
            api::TagOperation::Remove => None,
            api::TagOperation::Upsert => {
                expression(scope, &path.field("value"), &tag.value);
                if tag.value.contains('%') {
                    scope.warning(&path.field("value"), "proxies without Istio's filter leave out a tag with a percent sign");
                }
                Some(Str::from(tag.value.as_str()))
            }
        };
        changes.insert(Str::from(name.as_str()), value);
    }
    MetricOverride { metric, mode: mode(matching.mode), disabled: o.disabled, tags: changes }
}

fn standard(metric: api::IstioMetric) -> Option<StandardMetric> {
    Some(match metric {
        api::IstioMetric::AllMetrics => return None,
        api::IstioMetric::RequestCount => StandardMetric::RequestCount,
        api::IstioMetric::RequestDuration => StandardMetric::RequestDuration,
        api::IstioMetric::RequestSize => StandardMetric::RequestSize,
        api::IstioMetric::ResponseSize => StandardMetric::ResponseSize,
        api::IstioMetric::TcpOpenedConnections => StandardMetric::TcpOpenedConnections,
        api::IstioMetric::TcpClosedConnections => StandardMetric::TcpClosedConnections,
        api::IstioMetric::TcpSentBytes => StandardMetric::TcpSentBytes,
        api::IstioMetric::TcpReceivedBytes => StandardMetric::TcpReceivedBytes,
        api::IstioMetric::GrpcRequestMessages => StandardMetric::GrpcRequestMessages,
        api::IstioMetric::GrpcResponseMessages => StandardMetric::GrpcResponseMessages,
    })
}

/// Without its filter a log would say more than it is meant to, so one with a broken filter has no effect at all.
fn access_logging(scope: &mut Scope<'_>, path: &Path<'_>, l: &api::AccessLogging) -> AccessLogging {
    if let Some(filter) = &l.filter {
        expression(scope, &path.field("filter").field("expression"), &filter.expression);
    }
    if l.matches.as_ref().is_some_and(|m| m.mode == ApiMode::Undefined) {
        scope.warning(&path.field("match"), "has no effect: an access log needs the mode CLIENT, SERVER or CLIENT_AND_SERVER");
    }
    AccessLogging {
        mode: l.matches.as_ref().map(|m| mode(m.mode)),
        providers: providers(scope, path, &l.providers),
        disabled: l.disabled == Some(true),
        filter: l.filter.as_ref().map(|f| f.expression.as_str().into()),
    }
}

fn expression(scope: &mut Scope<'_>, path: &Path<'_>, text: &str) {
    if let Err(e) = cel::check(text) {
        scope.error(path, e.to_string());
    }
}
