//! Telemetry and extensions: bad inputs are refused with the field named, good ones give whole values.

use pilotfish_model::attachment::Attachment;
use pilotfish_model::diagnostic::Severity;
use pilotfish_model::extension::{Code, Extension, FailStrategy, Phase, PullPolicy, Traffic, Wasm};
use pilotfish_model::proxy_config::{CustomTag, Percent, TagSource};
use pilotfish_model::telemetry::{Metric, MetricOverride, Metrics, StandardMetric, Tracing, WorkloadMode};
use pilotfish_model::{Meta, Telemetry};
use pretty_assertions::assert_eq;

use super::tests::{converted, errors};
use super::*;

#[test]
fn mistakes_name_their_field() {
    let cases: Vec<(&str, &str, &[&str])> = vec![
        ("Telemetry", "{}", &[]),
        ("Telemetry", "{tracing: [{}, {providers: [{name: ''}]}]}", &["spec.tracing[1].providers[0].name"]),
        ("Telemetry", "{tracing: [{randomSamplingPercentage: 101}]}", &["spec.tracing[0].randomSamplingPercentage"]),
        (
            "Telemetry",
            "{tracing: [{customTags: {a: {literal: {value: ''}}, b: {header: {name: 'a b'}}}}]}",
            &["spec.tracing[0].customTags[\"a\"].literal", "spec.tracing[0].customTags[\"b\"].header"],
        ),
        (
            "Telemetry",
            "{tracing: [{customTags: {a: {literal: {value: x}, formatter: {value: y}}}}]}",
            &["spec.tracing[0].customTags[\"a\"]"],
        ),
        ("Telemetry", "{metrics: [{reportingInterval: 0s}]}", &["spec.metrics[0].reportingInterval"]),
        (
            "Telemetry",
            "{metrics: [{overrides: [{tagOverrides: {a: {value: ''}, b: {operation: REMOVE}, c: {value: 'f('}}}]}]}",
            &["spec.metrics[0].overrides[0].tagOverrides[\"a\"].value", "spec.metrics[0].overrides[0].tagOverrides[\"c\"].value"],
        ),
        (
            "Telemetry",
            "{metrics: [{overrides: [{match: {metric: REQUEST_COUNT, customMetric: x}}]}]}",
            &["spec.metrics[0].overrides[0].match"],
        ),
        ("Telemetry", "{accessLogging: [{filter: {expression: 'response.code ='}}]}", &["spec.accessLogging[0].filter.expression"]),
        ("Telemetry", "{accessLogging: [{filter: {}}]}", &["spec.accessLogging[0].filter.expression"]),
        ("WasmPlugin", "{}", &["spec.url"]),
        ("WasmPlugin", "{url: 'registry.example:5000/x:v1'}", &[]),
        ("WasmPlugin", "{url: 'ftp://x'}", &["spec.url"]),
        ("WasmPlugin", "{url: 'file://'}", &["spec.url"]),
        ("WasmPlugin", "{url: 'a b'}", &["spec.url"]),
        ("WasmPlugin", "{url: x, sha256: abc}", &["spec.sha256"]),
        ("WasmPlugin", "{url: x, match: [{ports: [{number: 0}]}]}", &["spec.match[0].ports[0].number"]),
        (
            "WasmPlugin",
            "{url: x, vmConfig: {env: [{name: A}, {name: '', value: x}, {name: A, valueFrom: HOST}]}}",
            &["spec.vmConfig.env[1].name", "spec.vmConfig.env[2].name"],
        ),
        ("TrafficExtension", "{}", &["spec"]),
        ("TrafficExtension", "{lua: {inlineCode: x}, wasm: {url: x}}", &["spec"]),
        ("TrafficExtension", "{lua: {inlineCode: ' '}}", &["spec.lua.inlineCode"]),
        ("TrafficExtension", "{wasm: {url: ''}}", &["spec.wasm.url"]),
    ];
    for (kind, spec, expected) in cases {
        assert_eq!(errors(kind, spec), expected, "{kind} {spec}");
    }
}

#[test]
fn what_has_no_effect_is_said() {
    for (kind, spec, field) in [
        ("Telemetry", "{tracing: [{providers: [{name: a}, {name: b}]}]}", "spec.tracing[0].providers"),
        ("Telemetry", "{tracing: [{customTags: {a: {}}}]}", "spec.tracing[0].customTags[\"a\"]"),
        ("Telemetry", "{accessLogging: [{match: {}}]}", "spec.accessLogging[0].match"),
        ("WasmPlugin", "{url: x, verificationKey: k}", "spec.verificationKey"),
        ("ProxyConfig", "{concurrency: 2}", "spec"),
    ] {
        let found: Vec<_> = converted(kind, spec).diagnostics.into_iter().map(|d| (d.severity, d.field)).collect();
        assert_eq!(found, [(Severity::Warning, field.to_owned())], "{kind} {spec}");
    }
}

fn meta() -> Meta {
    Meta { namespace: "ns".into(), name: "x".into(), ..Meta::default() }
}

#[test]
fn telemetry_is_read_whole() {
    let spec = "{selector: {matchLabels: {app: a}}, \
        tracing: [{match: {mode: CLIENT}, providers: [{name: p}], randomSamplingPercentage: 33.3, disableSpanReporting: false, \
            useRequestIdForTraceSampling: false, enableIstioTags: true, disableContextPropagation: true, \
            customTags: {h: {header: {name: x-h, defaultValue: d}}, f: {formatter: {value: '%PROTOCOL%'}}}}], \
        metrics: [{reportingInterval: 5s, overrides: [{match: {metric: REQUEST_SIZE, mode: SERVER}, disabled: true, \
            tagOverrides: {a: {value: '1'}, b: {operation: REMOVE}}}, {match: {metric: ALL_METRICS}}, {match: {customMetric: m}}]}], \
        accessLogging: [{match: {mode: SERVER}, disabled: true}]}";
    let Some(Fact::Telemetry(actual)) = converted("Telemetry", spec).fact else { panic!("no fact") };
    let header = CustomTag::Header(TagSource { name: "x-h".into(), default_value: "d".into() });
    let expected = Telemetry {
        meta: meta(),
        attachment: Attachment { selector: [("app".into(), "a".into())].into(), targets: Vec::new() },
        tracing: vec![Tracing {
            mode: WorkloadMode::Client,
            providers: vec!["p".into()],
            sampling: Some(Percent("33.3".into())),
            disabled: Some(false),
            custom_tags: [("h".into(), header), ("f".into(), CustomTag::Formatter("%PROTOCOL%".into()))].into(),
            use_request_id: Some(false),
            istio_tags: Some(true),
            no_context_propagation: Some(true),
        }],
        metrics: vec![Metrics {
            providers: Vec::new(),
            reporting_interval: Some(std::time::Duration::from_secs(5)),
            overrides: vec![
                MetricOverride {
                    metric: Metric::Standard(StandardMetric::RequestSize),
                    mode: WorkloadMode::Server,
                    disabled: Some(true),
                    tags: [("a".into(), Some("1".into())), ("b".into(), None)].into(),
                },
                MetricOverride::default(),
                MetricOverride { metric: Metric::Custom("m".into()), ..MetricOverride::default() },
            ],
        }],
        access_logging: vec![pilotfish_model::telemetry::AccessLogging {
            mode: Some(WorkloadMode::Server),
            providers: Vec::new(),
            disabled: true,
            filter: None,
        }],
    };
    assert_eq!(*actual, expected);
}

#[test]
fn both_kinds_of_extensions_are_one() {
    let module = "url: 'registry.example/x:v1', imagePullPolicy: Always, imagePullSecret: 'kubernetes://other/s', pluginName: r, failStrategy: FAIL_OPEN, type: NETWORK, \
        pluginConfig: {z: 1, a: [2.0, 1.5, true, null, 'q\"']}, vmConfig: {env: [{name: K, value: v}, {name: H, valueFrom: HOST}]}";
    let common = "phase: AUTHZ, priority: -3, match: [{mode: SERVER, ports: [{number: 80}]}]";
    let expected = Extension {
        kind: Kind::WasmPlugin,
        meta: meta(),
        attachment: Attachment::default(),
        phase: Phase::Authz,
        priority: Some(-3),
        traffic: vec![Traffic { mode: WorkloadMode::Server, ports: vec![80] }],
        code: Code::Wasm(Wasm {
            url: "oci://registry.example/x:v1".into(),
            sha256: "".into(),
            pull_policy: Some(PullPolicy::Always),
            pull_secret: Some("s".into()),
            configuration: r#"{"a":[2,1.5,true,null,"q\""],"z":1}"#.into(),
            plugin_name: "r".into(),
            fail_strategy: FailStrategy::Open,
            env: [("K".into(), "v".into())].into(),
            host_env: vec!["H".into()],
            network: true,
        }),
    };
    let Some(Fact::WasmPlugin(plugin)) = converted("WasmPlugin", &format!("{{{common}, {module}}}")).fact else { panic!("no fact") };
    assert_eq!(*plugin, expected);
    let Some(Fact::TrafficExtension(extension)) = converted("TrafficExtension", &format!("{{{common}, wasm: {{{module}}}}}")).fact else {
        panic!("no fact")
    };
    assert_eq!(*extension, Extension { kind: Kind::TrafficExtension, ..expected });
}
