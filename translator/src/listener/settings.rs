//! [`Settings`]: what all listeners of a class have in common, resolved once.

use std::collections::BTreeSet;
use std::sync::Arc;
use std::time::Duration;

use pilotfish_model::mesh_config::PathNormalization;
use pilotfish_model::name::{Kind, ObjectId, Str};
use pilotfish_model::proxy_config::{ConnectionSettings, GatewayTopology, ProxyHeaders};
use pilotfish_model::sidecar::OutboundMode;
use pilotfish_model::{Extension, Features, Telemetry};

use super::extension::Plugins;
use super::telemetry::{Observed, Telemetries};
use super::tracing::{Tracing, Workload};
use crate::context::Context;
use crate::facts::OwnFacts;

/// Where a filter chain stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Side {
    /// Connections to the workload.
    Inbound,
    /// Connections of the workload.
    Outbound,
    /// Connections through a gateway.
    Gateway,
}

/// See the module.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Settings {
    /// Istio's own filters exist.
    pub istio: bool,
    /// Extensions the client says it has; empty if it does not say.
    pub extensions: BTreeSet<Str>,
    /// What is logged, traced and counted.
    pub telemetry: Telemetries,
    /// Code of users that runs in it.
    pub plugins: Plugins,
    /// The objects behind both.
    pub sources: Vec<ObjectId>,
    /// Headers that the proxy writes.
    pub headers: ProxyHeaders,
    /// What stands before a gateway.
    pub topology: GatewayTopology,
    /// Limits of connections, and how requests are read.
    pub connections: ConnectionSettings,
    /// Idle connections are closed after this.
    pub idle_timeout: Option<Duration>,
    /// HTTP/1.0 is accepted.
    pub http10: bool,
    /// Switches of the mesh.
    pub features: Features,
    /// How paths are normalised.
    pub path_normalization: PathNormalization,
    /// Unknown hosts are resolved by the proxy, to IPv6 if it has nothing else.
    pub dynamic_dns: Option<DnsFamily>,
    /// How long to wait for a first byte that tells the protocol.
    pub detection_timeout: Duration,
}

fn telemetry_id(telemetry: &Telemetry) -> ObjectId {
    telemetry.meta.id(Kind::Telemetry)
}

/// Which addresses the proxy can reach.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[allow(missing_docs)]
pub enum DnsFamily {
    V4,
    V6,
    Both,
}

impl Settings {
    /// Resolves them. The objects are those that apply, in order.
    pub fn of(context: &Context<'_>, telemetries: &[Arc<Telemetry>], extensions: &[Arc<Extension>]) -> Self {
        let (class, config) = (context.class, context.config());
        let istio = class.is_istio();
        let mode = super::outbound::traffic_mode(context);
        Settings {
            istio,
            extensions: class.extensions.clone(),
            telemetry: Telemetries::of(context, telemetries),
            plugins: Plugins::of(&class.unit, extensions),
            sources: telemetries.iter().map(|t| telemetry_id(t)).chain(extensions.iter().map(|e| e.id())).collect(),
            headers: class.proxy_config.proxy_headers.clone().unwrap_or_default(),
            topology: class.proxy_config.gateway_topology.clone().unwrap_or_default(),
            connections: class.proxy_config.connection_settings.clone().unwrap_or_default(),
            idle_timeout: class.settings.idle_timeout,
            http10: class.settings.http10 || config.features.http10,
            features: config.features.clone(),
            path_normalization: config.path_normalization.normalization,
            dynamic_dns: (class.is_sidecar() && mode == OutboundMode::AllowAnyDynamicDns).then_some(match (class.ipv4, class.ipv6) {
                (true, true) => DnsFamily::Both,
                (false, true) => DnsFamily::V6,
                _ => DnsFamily::V4,
            }),
            detection_timeout: config.protocol_detection_timeout.into(),
        }
    }

    /// Listeners that read HTTP depend on what the workload is called: they are not for a whole scope.
    pub fn names_workload(&self) -> bool {
        self.telemetry.directions().any(|o| o.tracing.as_ref().is_some_and(Tracing::names_workload))
    }

    /// Those of one workload.
    pub fn of_workload(&self, own: &OwnFacts) -> Self {
        let mut settings = self.clone();
        for observed in settings.telemetry.directions_mut() {
            if let Some(tracing) = &mut observed.tracing {
                tracing.workload = Some(Workload::of(own));
            }
        }
        settings
    }

    /// The same with nothing traced.
    pub(super) fn untraced(&self) -> Self {
        let mut settings = self.clone();
        settings.telemetry.directions_mut().for_each(|o| o.tracing = None);
        settings
    }

    /// What is logged, traced and counted of a side.
    pub(super) fn observed(&self, side: Side) -> &Observed {
        self.telemetry.of_side(side)
    }

    /// True if the client has an extension, or does not say what it has.
    pub fn has(&self, extension: &str) -> bool {
        self.extensions.is_empty() || self.extensions.contains(extension)
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    /// Settings of a stock client with nothing special.
    pub(in crate::listener) fn plain() -> Settings {
        Settings {
            istio: false,
            extensions: BTreeSet::new(),
            telemetry: Telemetries::default(),
            plugins: Plugins::default(),
            sources: Vec::new(),
            headers: ProxyHeaders::default(),
            topology: GatewayTopology::default(),
            connections: ConnectionSettings::default(),
            idle_timeout: None,
            http10: false,
            features: Features::default(),
            path_normalization: PathNormalization::Default,
            dynamic_dns: None,
            detection_timeout: Duration::ZERO,
        }
    }
}
