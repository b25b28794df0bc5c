//! What became of EnvoyFilters, as the reference's metric: for each object and what it patches, whether it was applied to anything
//! that connected proxies get, and whether it failed somewhere. Off unless it is asked for: each look goes through all scopes.

use std::collections::BTreeMap;

use pilotfish_model::Mesh;
use pilotfish_model::envoy_filter::ApplyTo;
use pilotfish_model::mesh::ObjectKey;
use pilotfish_translator::Applied;
use pilotfish_xds_server::debug::{Debug, Made};
use prometheus_client::collector::Collector;
use prometheus_client::encoding::{DescriptorEncoder, EncodeMetric};
use prometheus_client::metrics::MetricType;
use prometheus_client::metrics::gauge::ConstGauge;

use crate::pipeline::MeshTranslator;

const NAME: &str = "pilot_envoy_filter_status";
const HELP: &str = "Whether patches were applied, and whether they failed";

/// Asks with every look at the page.
pub struct Patches(pub Debug<MeshTranslator>);

impl std::fmt::Debug for Patches {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Patches")
    }
}

impl Collector for Patches {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> Result<(), std::fmt::Error> {
        let Some(world) = self.0.world() else { return Ok(()) };
        if world.mesh.envoy_filters.is_empty() {
            return Ok(());
        }
        let Made { views, owns } = self.0.made();
        let applied = views.iter().flat_map(|v| v.applied()).chain(owns.iter().flat_map(|o| o.applied()));
        let mut family = encoder.encode_descriptor(NAME, HELP, None, MetricType::Gauge)?;
        for ((name, patch), status) in status(&world.mesh, applied) {
            let mut one = |result, on: bool| {
                let labels = [("name", name.as_str()), ("patch", patch), ("result", result)];
                ConstGauge::new(i64::from(on)).encode(family.encode_family(&labels)?)
            };
            one("applied", status.applied)?;
            if status.failed {
                one("error", true)?;
            }
        }
        Ok(())
    }
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Status {
    applied: bool,
    failed: bool,
}

/// By `namespace/name` of the object and what is patched.
fn status(mesh: &Mesh, all: impl Iterator<Item = Applied>) -> BTreeMap<(String, &'static str), Status> {
    let mut found: BTreeMap<(String, &'static str), Status> = BTreeMap::new();
    for applied in all {
        let key = ObjectKey { namespace: applied.object.namespace.clone(), name: applied.object.name.clone() };
        let filter = mesh.envoy_filters.get(&key);
        // One that is gone has no metric any more, though it is in force until its scopes are made again.
        let Some(patch) = filter.and_then(|f| f.patches.iter().find(|p| p.index == applied.index)) else { continue };
        let of = found.entry((format!("{}/{}", key.namespace, key.name), patch_name(patch.apply_to))).or_default();
        of.applied |= applied.times > 0;
        of.failed |= applied.error.is_some();
    }
    found
}

/// As the reference calls it.
fn patch_name(apply_to: ApplyTo) -> &'static str {
    match apply_to {
        ApplyTo::Listener => "listener",
        ApplyTo::ListenerFilter => "listenerfilter",
        ApplyTo::FilterChain => "filterchain",
        ApplyTo::NetworkFilter => "networkfilter",
        ApplyTo::HttpFilter => "httpfilter",
        ApplyTo::RouteConfiguration | ApplyTo::HttpRoute => "route",
        ApplyTo::VirtualHost => "vhost",
        ApplyTo::Cluster => "cluster",
        ApplyTo::ExtensionConfig => "extensionconfig",
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use pilotfish_controller::object::{Decoded, decode};
    use pilotfish_controller::source::yaml;
    use pilotfish_controller::{Index, Settings};
    use pilotfish_model::{Kind, ObjectId};

    use super::*;

    #[test]
    fn what_is_applied_somewhere_is_applied_and_a_failure_is_said_beside() {
        let filter = "apiVersion: networking.istio.io/v1alpha3\nkind: EnvoyFilter\nmetadata: {name: f, namespace: ns}\nspec:\n  configPatches:\n\
                      \x20 - {applyTo: CLUSTER, match: {context: ANY}, patch: {operation: MERGE, value: {alt_stat_name: x}}}\n\
                      \x20 - {applyTo: CLUSTER, match: {context: ANY}, patch: {operation: MERGE, value: {alt_stat_name: y}}}\n\
                      \x20 - {applyTo: HTTP_ROUTE, match: {context: ANY}, patch: {operation: MERGE, value: {name: z}}}\n";
        let Decoded::Object(object) = decode(yaml::parse(filter).unwrap()).unwrap() else { panic!() };
        let mut index = Index::new(Settings::default());
        index.apply(Arc::from(object));
        let (mesh, _) = index.publish().unwrap();
        let id = |name: &str| ObjectId::new(Kind::EnvoyFilter, "ns", name);
        let of = |name, index, times, error: Option<&str>| Applied { object: id(name), index, times, error: error.map(Arc::from) };
        let all = [of("f", 0, 0, None), of("f", 1, 0, Some("no")), of("f", 0, 2, None), of("f", 2, 0, None), of("gone", 0, 1, None)];
        let expected =
            [(("ns/f".to_owned(), "cluster"), Status { applied: true, failed: true }), (("ns/f".to_owned(), "route"), Status::default())];
        assert_eq!(status(&mesh, all.into_iter()), expected.into());
    }
}
