//! Clusters of the services that a class sees, one per port and subset.

use std::borrow::Cow;

use pilotfish_model::MeshConfig;
use pilotfish_model::destination_rule::{Subset, TcpKeepalive, TrafficPolicy};
use pilotfish_model::name::{Kind, Str};
use pilotfish_model::peer_authentication::MtlsMode;
use pilotfish_model::service::{Protocol, Registry, Resolution, Service, ServicePort};
use pilotfish_model::tls::{ClientTls, ClientTlsMode};

use super::input::{Balanced, ClusterInput, ClusterLabels, DNS_RESOLVER, Discovery, DnsFamily};
use super::protocol::{HttpVersion, UpstreamHttp, keeps_case};
use super::security::{PROXY_PROTOCOL, Security, TlsChoice};
use super::special::{base, cache_of, dns_family, peer_exchange};
use crate::context::Common;
use crate::endpoint::{self, AssignmentInput, Locality, Plan, RuledMtls};
use crate::listener::network_filters::reads_redis;
use crate::naming::{self, Direction, StatLabels};
use crate::policy::{MergedRule, passes_through};
use crate::tls::UpstreamTls;
use crate::unit::UnitInput;

/// Clusters of one service. `by_sni`: those behind an AUTO_PASSTHROUGH gateway, which forwards TLS as it is.
pub(super) fn outbound(unit: &UnitInput<'_>, by_sni: bool, add: &mut impl FnMut(ClusterInput)) {
    let service = unit.service;
    if service.resolution == Resolution::Alias || (by_sni && service.mesh_external) {
        return;
    }
    for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
        let subsets = unit.rule.iter().flat_map(|r| r.subsets.iter().map(Some));
        for subset in std::iter::once(None).chain(subsets) {
            if let Some(input) = (One { unit, port, subset, by_sni }).input() {
                add(input);
            }
        }
    }
}

/// One cluster to be.
struct One<'a> {
    unit: &'a UnitInput<'a>,
    port: &'a ServicePort,
    subset: Option<&'a Subset>,
    by_sni: bool,
}

impl One<'_> {
    /// `None` where nothing could be sent: names to resolve, but not one given.
    fn input(&self) -> Option<ClusterInput> {
        let Self { unit, port, .. } = self;
        let (common, service) = (unit.common, unit.service);
        let class = common.class;
        let subset = self.subset.map_or("", |s| &s.name);
        let policy = unit.policy(self.subset, port.port);
        let name: Str = match self.by_sni {
            false => naming::cluster(Direction::Outbound, port.port, subset, service.host.as_str()),
            true => naming::sni(Direction::Outbound, port.port, subset, service.host.as_str()),
        }
        .into();
        let locality = Locality::of(common, service, &policy);
        let discovery = self.discovery(&name, &policy, &locality)?;
        let user = self.user_tls(&policy);
        let user = user.as_deref();
        let pool = policy.connection_pool.as_ref();
        let security = if self.by_sni { Security::default() } else { self.security(&policy, user, &discovery) };
        let mesh = common.config.h2_upgrade_policy.into();
        let version = HttpVersion::of(port.protocol, pool, mesh, class.is_sidecar());
        Some(ClusterInput {
            stat_name: self.stat_name(subset).unwrap_or_else(|| name.clone()),
            pool: policy.connection_pool.clone(),
            http: UpstreamHttp {
                version,
                preserve_case: preserve_case(common) && keeps_case(port.protocol, version),
                auto_sni: !self.by_sni && user.is_some_and(|t| t.sni.is_empty()),
                auto_san: !self.by_sni && user.is_some_and(|t| verifies_request_host(common.config, t)),
                idle_timeout: None,
            },
            security,
            labels: ClusterLabels { user_tls: policy.tls.as_ref().is_some_and(is_users), ..self.labels() },
            peer_exchange: peer_exchange(common),
            balanced: Some(Balanced {
                balancer: policy.load_balancer.clone(),
                localities: locality.kind(),
                outlier: policy.outlier_detection.clone(),
                retry_budget: policy.retry_budget,
                unready: endpoint::sends_unready(common, service, &policy),
                // As in the reference: subsets lose sessions with the endpoints that go.
                persistent_session: service.persistent_session && self.subset.is_none() && !self.by_sni,
                redis: port.protocol == Protocol::Redis && reads_redis(common.config.features.redis, &class.extensions),
                inbound: false,
            }),
            ..base(common, &name, discovery)
        })
    }

    fn discovery(&self, name: &Str, policy: &TrafficPolicy, locality: &Locality) -> Option<Discovery> {
        let (common, service) = (self.unit.common, self.unit.service);
        if endpoint::is_passed_through(self.unit, self.subset, self.port.port, policy) {
            return Some(Discovery::OriginalDst { port: self.server_port() });
        }
        match service.resolution {
            Resolution::Static | Resolution::Alias => Some(Discovery::Eds),
            // The addresses that clients of a gateway ask for are the gateway's own.
            Resolution::Passthrough if common.class.is_router() => Some(Discovery::Eds),
            Resolution::Passthrough if endpoint::is_balanced(common, service) => Some(Discovery::Eds),
            Resolution::Passthrough => Some(Discovery::OriginalDst { port: self.server_port() }),
            // Only requests and TLS bring a name.
            Resolution::DynamicDns if !(self.port.protocol.is_http() || self.port.protocol == Protocol::Tls) => None,
            Resolution::DynamicDns => Some(Discovery::DynamicDns { cache: cache_of(common, &service.host), insecure: true }),
            Resolution::Dns | Resolution::DnsRoundRobin => {
                let plan = endpoint::plan(common, service, self.port, self.subset, name.clone(), policy, locality).without_labels();
                let mtls = RuledMtls::of(self.unit, self.subset, self.port.port);
                let plan = Plan { passed_on: self.by_sni, mtls, resolved: Some(self.port.port), ..plan };
                let (endpoints, plaintext) = (self.unit.endpoints.cloned().unwrap_or_default(), self.unit.plaintext.clone());
                let endpoints = AssignmentInput { plan, endpoints, plaintext };
                let one = endpoints.chosen().count() == 1;
                let features = &common.config.features;
                // Envoy refuses several names here.
                let races = service.races_addresses && one;
                (!endpoints.is_empty()).then(|| Discovery::Dns {
                    endpoints: Box::new(endpoints),
                    family: if races { DnsFamily::All } else { dns_family(common) },
                    refresh: common.config.dns_refresh_rate.0,
                    one: races || (service.resolution == Resolution::DnsRoundRobin && one),
                    jitter: features.dns_jitter.into(),
                    queries_per_socket: common.class.has_extension(DNS_RESOLVER).then_some(features.dns_queries_per_socket),
                })
            }
        }
    }

    /// The port of servers whose address the client knows, if a ServiceEntry says another than the one that the client asks for.
    fn server_port(&self) -> Option<u16> {
        let service = self.unit.service;
        let by_address = service.resolution == Resolution::Passthrough && service.registry == Registry::External;
        self.port.target_port.filter(|_| by_address && !self.unit.common.class.is_router())
    }

    fn security(&self, policy: &TrafficPolicy, user: Option<&ClientTls>, discovery: &Discovery) -> Security {
        let tls = match (user, policy.tls.as_ref()) {
            (Some(user), _) => self.user_security(policy, user),
            (None, Some(tls)) if tls.mode == ClientTlsMode::IstioMutual => self.mesh_security(Some(tls), policy, None),
            (None, Some(_)) => TlsChoice::None,
            (None, None) => self.mesh_security(None, policy, Some(discovery)),
        };
        let proxy_protocol = policy.proxy_protocol.filter(|_| self.unit.common.class.has_extension(PROXY_PROTOCOL));
        Security { tls, proxy_protocol }
    }

    fn user_security(&self, policy: &TrafficPolicy, tls: &ClientTls) -> TlsChoice {
        let class = self.unit.common.class;
        // A Secret that a rule for everybody names is for gateways; a sidecar must be singled out.
        let selected = self.unit.rule.is_some_and(|r| !r.selector.is_empty()) || tls.credential_name.starts_with("configmap://");
        if !tls.credential_name.is_empty() && class.is_sidecar() && !selected {
            return TlsChoice::None;
        }
        let mut tls = tls.clone();
        // A ServiceEntry knows who its servers are.
        if tls.subject_alt_names.is_empty() && self.unit.service.registry == Registry::External {
            tls.subject_alt_names = self.unit.accounts.to_vec();
        }
        let http2 = self.http2(policy);
        UpstreamTls::user(self.unit.common.config, class, &tls, http2).map_or(TlsChoice::None, |t| TlsChoice::Always(Box::new(t)))
    }

    /// TLS of the user's own certificates, as opposed to the mesh's: as a rule says, or with certificate files of the proxy. These
    /// outweigh a rule's for mutual TLS, if the rule is not about somebody else's servers.
    fn user_tls<'p>(&self, policy: &'p TrafficPolicy) -> Option<Cow<'p, ClientTls>> {
        let tls = policy.tls.as_ref()?;
        let Common { config, class } = self.unit.common;
        let outside = config.features.rule_tls_outside && self.unit.service.mesh_external;
        let own = class.settings.client_certificate.as_ref().filter(|_| class.is_istio() && !outside);
        match (tls.mode, own) {
            (ClientTlsMode::Mutual | ClientTlsMode::IstioMutual, Some(own)) => Some(Cow::Owned(ClientTls {
                client_certificate: own.chain.clone(),
                private_key: own.key.clone(),
                ca_certificates: own.roots.clone(),
                subject_alt_names: tls.subject_alt_names.clone(),
                sni: tls.sni.clone(),
                ..ClientTls::of_mode(ClientTlsMode::Mutual)
            })),
            _ => is_users(tls).then_some(Cow::Borrowed(tls)),
        }
    }

    fn http2(&self, policy: &TrafficPolicy) -> bool {
        let Common { config, class } = self.unit.common;
        let mesh = config.h2_upgrade_policy.into();
        HttpVersion::of(self.port.protocol, policy.connection_pool.as_ref(), mesh, class.is_sidecar()) == HttpVersion::Http2
    }

    /// Mesh mTLS, asked for by a rule (`tls`) or found out from what the servers accept (`auto`).
    fn mesh_security(&self, tls: Option<&ClientTls>, policy: &TrafficPolicy, auto: Option<&Discovery>) -> TlsChoice {
        let Self { unit, port, .. } = self;
        let (common, service) = (unit.common, unit.service);
        let level = self.subset.map(|s| &s.policy).or(unit.rule.map(|r| &r.policy));
        let mixed = !unit.all_speak_mtls && level.is_some_and(passes_through);
        if auto.is_some() && (!common.config.enable_auto_mtls || unit.mtls == MtlsMode::Disable || mixed) {
            return TlsChoice::None;
        }
        let subset = self.subset.map_or("", |s| &s.name);
        let own_sni = || naming::sni(Direction::Outbound, port.port, subset, service.host.as_str()).into();
        let sni: Str = tls.map(|t| t.sni.clone()).filter(|s| !s.is_empty()).unwrap_or_else(own_sni);
        let names = tls.map(|t| t.subject_alt_names.clone()).filter(|n| !n.is_empty()).unwrap_or_else(|| unit.accounts.to_vec());
        let Some(tls) = UpstreamTls::mesh(common.config, common.class, sni, names, self.http2(policy)) else {
            return TlsChoice::None;
        };
        // Addresses that clients choose carry no metadata to choose by, and own certificate files no agent that says which.
        let by_endpoint = auto.is_some_and(|d| !matches!(d, Discovery::OriginalDst { .. })) && tls.is_mesh();
        if by_endpoint { TlsChoice::ByEndpoint(Box::new(tls)) } else { TlsChoice::Always(Box::new(tls)) }
    }

    fn labels(&self) -> ClusterLabels {
        let service = self.unit.service;
        ClusterLabels {
            config: self.unit.rule.map(rule_path),
            subset: self.subset.map(|s| s.name.clone()),
            services: if self.unit.common.config.features.telemetry_label { vec![service_label(service)] } else { Vec::new() },
            external: service.mesh_external && self.subset.is_none(),
            user_tls: false,
        }
    }

    fn stat_name(&self, subset: &str) -> Option<Str> {
        let pattern = &self.unit.common.config.outbound_cluster_stat_name;
        (!pattern.is_empty()).then(|| stat_name(pattern, self.unit.service, self.port, subset, 0))
    }
}

/// Nothing else says who the server must be: verify that it is the host of the request.
pub(super) fn verifies_request_host(config: &MeshConfig, tls: &ClientTls) -> bool {
    let verified = !tls.insecure_skip_verify && config.verify_certificate_at_client.unwrap_or(true);
    verified && tls.sni.is_empty() && tls.subject_alt_names.is_empty()
}

/// A rule asks for TLS with certificates of the user's own.
fn is_users(tls: &ClientTls) -> bool {
    matches!(tls.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual)
}

/// What telemetry shows of a service.
pub(super) fn service_label(service: &Service) -> (Str, Str, Str) {
    (service.host.as_str().into(), service.name.clone(), service.namespace.clone())
}

/// API path of a rule.
pub(super) fn rule_path(rule: &MergedRule) -> Str {
    let source = &rule.sources[0];
    naming::config_path(Kind::DestinationRule.group(), "destination-rule", &source.namespace, &source.name).into()
}

/// Fills in the mesh's pattern of names in statistics. `target`: where the workload listens; 0 where nobody knows.
pub(super) fn stat_name(pattern: &str, service: &Service, port: &ServicePort, subset: &str, target: u16) -> Str {
    let short = match service.registry {
        Registry::Kubernetes => format!("{}.{}", service.name, service.namespace),
        Registry::External => service.host.as_str().to_owned(),
    };
    let (name, host) = (&*service.name, service.host.as_str());
    StatLabels { short: &short, name, host, port: port.port, port_name: &port.name }.fill(pattern, subset, target).into()
}

/// The mesh's TCP keepalive.
pub(super) fn keepalive(config: &MeshConfig) -> Option<TcpKeepalive> {
    config.tcp_keepalive.as_ref().map(|k| TcpKeepalive {
        probes: k.probes,
        time: k.time.map(Into::into),
        interval: k.interval.map(Into::into),
    })
}

/// Whether the proxy's configuration keeps the case of HTTP/1.1 header names.
pub(crate) fn preserve_case(common: Common<'_>) -> bool {
    let class = common.class;
    let wanted = class.proxy_config.proxy_headers.as_ref().and_then(|h| h.preserve_http1_header_case).unwrap_or(false);
    wanted && class.has_extension(super::protocol::PRESERVE_CASE)
}
