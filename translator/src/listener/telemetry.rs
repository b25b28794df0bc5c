//! [`Observed`]: what is logged, traced and counted of one direction, from the Telemetry objects that apply.
//!
//! At most one object is for the whole mesh (of the root namespace) and one for a namespace; those that select a workload are
//! for it alone. Later levels weigh more, field by field.

use std::sync::Arc;

use pilotfish_model::attachment::Attached;
use pilotfish_model::name::Labels;
use pilotfish_model::proxy::Flavour;
use pilotfish_model::{Mesh, Telemetry};

use super::access_log::AccessLogs;
use super::settings::Side;
use super::stats::{self, Stats};
use super::tracing::Tracing;
use crate::context::Context;
use crate::extensions::ACCESS_LOG_STATS;

/// Of one direction.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Observed {
    /// Logs.
    pub access_logs: AccessLogs,
    /// Spans; `None`: none.
    pub tracing: Option<Tracing>,
    /// The request's id does not say whether it is sampled.
    pub ignore_request_id: bool,
    /// Istio's metrics, once per provider: by Istio's filter, or by a log of stock Envoy that counts.
    pub stats: Vec<Stats>,
}

/// Of both. Gateways are clients throughout.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Telemetries {
    /// What the workload sends.
    pub client: Observed,
    /// What it receives.
    pub server: Observed,
}

impl Telemetries {
    /// Resolves the objects that apply.
    pub fn of(context: &Context<'_>, applicable: &[Arc<Telemetry>]) -> Self {
        let metrics = stats::merged(context.config(), applicable);
        let class = &context.class.unit;
        let counts = class.is_istio() || (class.flavour == Flavour::Plain && class.has_extension(ACCESS_LOG_STATS));
        let of = |server| {
            let (tracing, ignore_request_id) = Tracing::of(context, applicable, server);
            Observed {
                access_logs: AccessLogs::of(context, applicable, server),
                tracing,
                ignore_request_id,
                stats: if counts { metrics.iter().filter_map(|m| m.of(server)).collect() } else { Vec::new() },
            }
        };
        let client = of(false);
        Telemetries { server: if context.class.is_sidecar() { of(true) } else { client.clone() }, client }
    }

    pub(super) fn directions(&self) -> impl Iterator<Item = &Observed> {
        [&self.client, &self.server].into_iter()
    }

    pub(super) fn directions_mut(&mut self) -> impl Iterator<Item = &mut Observed> {
        [&mut self.client, &mut self.server].into_iter()
    }

    /// That of a side.
    pub fn of_side(&self, side: Side) -> &Observed {
        if side == Side::Inbound { &self.server } else { &self.client }
    }
}

/// The objects for a workload, the weakest first.
pub(crate) fn applicable(mesh: &Mesh, namespace: &str, labels: &Labels) -> Vec<Arc<Telemetry>> {
    if mesh.telemetries.is_empty() {
        return Vec::new();
    }
    let root = &*mesh.config.root_namespace;
    let in_order = |namespace| {
        let mut all: Vec<&Arc<Telemetry>> = Mesh::in_namespace(&mesh.telemetries, namespace).collect();
        all.sort_by(|a, b| a.meta.age_order().cmp(&b.meta.age_order()));
        all
    };
    let own = in_order(namespace);
    let general = |all: &[&Arc<Telemetry>]| all.iter().find(|t| is_general(t)).map(|t| Arc::clone(t));
    let mut found: Vec<Arc<Telemetry>> = if namespace == root { None } else { general(&in_order(root)) }.into_iter().collect();
    found.extend(general(&own));
    found.extend(own.into_iter().filter(|t| !is_general(t) && t.attachment.covers(labels)).cloned());
    found
}

/// For all workloads of its namespace, or of the mesh.
pub(crate) fn is_general(telemetry: &Telemetry) -> bool {
    let attachment = telemetry.attachment();
    attachment.selector.is_empty() && attachment.targets.is_empty()
}

#[cfg(test)]
mod tests {
    use super::*;
    use pilotfish_model::attachment::{Attachment, TargetRef};
    use pilotfish_model::mesh::ObjectKey;
    use pilotfish_model::name::{Meta, Str};
    use pilotfish_model::time::Timestamp;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(k, v)| (Str::from(*k), Str::from(*v))).collect()
    }

    #[test]
    fn the_mesh_is_followed_by_the_namespace_and_the_workload() {
        let gateway = TargetRef { group: "gateway.networking.k8s.io".into(), kind: "Gateway".into(), name: "edge".into() };
        let web = || Attachment { selector: labels(&[("app", "web")]), ..Attachment::default() };
        let rows = [
            ("istio-system", "late", 2, Attachment::default()),
            ("istio-system", "mesh", 1, Attachment::default()),
            ("istio-system", "elsewhere", 1, web()),
            ("shop", "web-b", 2, web()),
            ("shop", "web-a", 3, web()),
            ("shop", "zone", 3, Attachment::default()),
            ("shop", "edge", 1, Attachment { targets: vec![gateway], ..Attachment::default() }),
            ("bank", "vault", 1, Attachment::default()),
        ];
        let mut mesh = Mesh::default();
        for (namespace, name, created, attachment) in rows {
            let meta = Meta { namespace: namespace.into(), name: name.into(), created: Timestamp(created), ..Meta::default() };
            let key = ObjectKey { namespace: namespace.into(), name: name.into() };
            mesh.telemetries.insert(key, Arc::new(Telemetry { meta, attachment, ..Telemetry::default() }));
        }
        let names = |namespace: &str, pairs: &[(&str, &str)]| {
            applicable(&mesh, namespace, &labels(pairs)).iter().map(|t| t.meta.name.to_string()).collect::<Vec<_>>()
        };
        assert_eq!(names("shop", &[("app", "web")]), ["mesh", "zone", "web-b", "web-a"]);
        assert_eq!(names("shop", &[("gateway.networking.k8s.io/gateway-name", "edge")]), ["mesh", "zone", "edge"]);
        assert_eq!(names("istio-system", &[("app", "web")]), ["mesh", "elsewhere"]);
        assert_eq!(names("none", &[]), ["mesh"]);
    }
}
