//! What of Telemetry objects has no effect, as far as only the mesh as a whole shows it: providers that nobody declares or that are
//! for something else, servers that do not exist, and objects behind older ones.

use std::sync::Arc;

use pilotfish_model::mesh_config::ProviderKind;
use pilotfish_model::name::{Host, Str};
use pilotfish_model::{Kind, Mesh, Telemetry};

use super::{Report, full_name, id};
use crate::listener::telemetry::is_general;
use crate::naming;
use crate::world::World;

/// What a provider is asked for.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Use {
    Tracing,
    Metrics,
    AccessLogging,
}

pub(super) fn look(world: &World, report: &mut Report) {
    for telemetry in world.mesh.telemetries.values() {
        let id = id(Kind::Telemetry, &telemetry.meta);
        if let Some(older) = older_twin(&world.mesh, telemetry) {
            report.warn(&id, "", format!("has no effect: the older {} is for the same workloads", full_name(&older.meta)));
            continue;
        }
        for (field, wanted, lists) in providers(telemetry) {
            let names = lists.iter().enumerate().flat_map(|(i, list)| list.iter().enumerate().map(move |(j, name)| (i, j, name)));
            for (i, j, name) in names {
                if let Some(why) = unusable(world, wanted, name) {
                    report.warn(&id, format!("spec.{field}[{i}].providers[{j}].name"), why);
                }
            }
        }
    }
}

/// The lists of providers by field.
fn providers(telemetry: &Telemetry) -> [(&'static str, Use, Vec<&Vec<Str>>); 3] {
    [
        ("tracing", Use::Tracing, telemetry.tracing.iter().map(|t| &t.providers).collect()),
        ("metrics", Use::Metrics, telemetry.metrics.iter().map(|m| &m.providers).collect()),
        ("accessLogging", Use::AccessLogging, telemetry.access_logging.iter().map(|l| &l.providers).collect()),
    ]
}

fn older_twin<'a>(mesh: &'a Mesh, telemetry: &'a Telemetry) -> Option<&'a Arc<Telemetry>> {
    let mut rivals = Mesh::in_namespace(&mesh.telemetries, &telemetry.meta.namespace).filter(|t| is_general(t));
    rivals.find(|t| is_general(telemetry) && t.meta.age_order() < telemetry.meta.age_order())
}

/// Why a provider has no effect.
fn unusable(world: &World, wanted: Use, name: &Str) -> Option<String> {
    let Some(provider) = world.mesh_config().provider(name) else {
        return Some(format!("has no effect: no provider {name:?} is declared among the extensionProviders of the mesh"));
    };
    let (is_for, server) = match &provider.kind {
        ProviderKind::Prometheus(_) => (Some(Use::Metrics), None),
        ProviderKind::EnvoyFileAccessLog(_) => (Some(Use::AccessLogging), None),
        ProviderKind::EnvoyHttpAls(p) | ProviderKind::EnvoyTcpAls(p) => (Some(Use::AccessLogging), Some((&p.service, p.port))),
        ProviderKind::EnvoyOtelAls(p) => (Some(Use::AccessLogging), Some((&p.service, p.port))),
        ProviderKind::Zipkin(p) => (Some(Use::Tracing), Some((&p.service, p.port))),
        ProviderKind::Datadog(p) => (Some(Use::Tracing), Some((&p.service, p.port))),
        ProviderKind::Skywalking(p) => (Some(Use::Tracing), Some((&p.service, p.port))),
        ProviderKind::Opentelemetry(p) => (Some(Use::Tracing), Some((&p.service, p.port))),
        ProviderKind::Lightstep(_) | ProviderKind::Stackdriver(_) | ProviderKind::Opencensus(_) => {
            return Some(format!("has no effect: the kind of provider that {name:?} is has been given up; use OpenTelemetry"));
        }
        _ => (None, None),
    };
    if is_for != Some(wanted) {
        return Some(format!("has no effect: provider {name:?} is not for this"));
    }
    let (service, port) = server?;
    let (namespace, host) = naming::namespaced(service);
    let mut services = world.services_of(&Host::new(host)).iter().filter(|s| namespace.is_none_or(|ns| ns == &*s.namespace));
    let exists = services.any(|s| s.port(port).is_some());
    (!exists).then(|| format!("has no effect: no service {service} with port {port} exists, where provider {name:?} sends to"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_model::attachment::Attachment;
    use pilotfish_model::mesh::ObjectKey;
    use pilotfish_model::mesh_config::{ExtensionProvider, ZipkinProvider};
    use pilotfish_model::name::Meta;
    use pilotfish_model::telemetry::{AccessLogging, Metrics, Tracing};

    #[test]
    fn what_no_provider_can_do_is_said() {
        let mut mesh = Mesh::default();
        let zipkin = ZipkinProvider { service: "zipkin.obs.svc.cluster.local".into(), port: 9411, ..ZipkinProvider::default() };
        let provider = ExtensionProvider { name: "zip".into(), kind: ProviderKind::Zipkin(zipkin) };
        mesh.config = Arc::new(pilotfish_model::MeshConfig { extension_providers: vec![provider], ..Default::default() });
        let names = |names: &[&str]| names.iter().map(|n| Str::from(*n)).collect::<Vec<_>>();
        for (name, selector) in [("a", ""), ("b", ""), ("c", "app")] {
            let meta = Meta { namespace: "shop".into(), name: name.into(), ..Meta::default() };
            let selector = if selector.is_empty() { [].into() } else { [(selector.into(), "x".into())].into() };
            let telemetry = Telemetry {
                meta,
                attachment: Attachment { selector, targets: Vec::new() },
                tracing: vec![Tracing { providers: names(if name == "a" { &["zip", "envoy"] } else { &[] }), ..Tracing::default() }],
                metrics: vec![Metrics { providers: names(&["Prometheus"]), ..Metrics::default() }],
                access_logging: vec![AccessLogging {
                    providers: names(if name == "c" { &["no", "envoy"] } else { &[] }),
                    ..Default::default()
                }],
            };
            mesh.telemetries.insert(ObjectKey { namespace: "shop".into(), name: name.into() }, Arc::new(telemetry));
        }
        let mut report = Report::default();
        look(&World::new(Arc::new(mesh)), &mut report);
        let shown = |d: &pilotfish_model::Diagnostic| format!("{} {} {}", d.object.name, d.field, d.message);
        let found: Vec<String> = report.0.values().flatten().map(shown).collect();
        let expected = [
            "a spec.tracing[0].providers[0].name has no effect: no service zipkin.obs.svc.cluster.local with port 9411 exists, where provider \"zip\" sends to",
            "a spec.tracing[0].providers[1].name has no effect: provider \"envoy\" is not for this",
            "b  has no effect: the older shop/a is for the same workloads",
            "c spec.accessLogging[0].providers[0].name has no effect: no provider \"no\" is declared among the extensionProviders of the mesh",
        ];
        assert_eq!(found, expected);
    }
}
