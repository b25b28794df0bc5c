//! Clusters of the services that a class sees, one per port and subset.

use std::collections::BTreeSet;

use pilotfish_model::destination_rule::{LbAlgorithm, Subset, TcpKeepalive, TrafficPolicy};
use pilotfish_model::name::{Kind, Str};
use pilotfish_model::peer_authentication::MtlsMode;
use pilotfish_model::service::{Protocol, Registry, Resolution, Service, ServicePort};
use pilotfish_model::tls::{ClientTls, ClientTlsMode};
use pilotfish_model::{Mesh, MeshConfig};

use super::input::{Balanced, ClusterInput, ClusterLabels, DNS_RESOLVER, Discovery};
use super::protocol::{HttpVersion, UpstreamHttp};
use super::security::{PROXY_PROTOCOL, Security, TlsChoice};
use super::special::{base, dns_family};
use crate::context::Context;
use crate::endpoint::{self, Locality};
use crate::naming::{self, Direction};
use crate::policy::MergedRule;
use crate::tls::UpstreamTls;

/// All outbound clusters. `by_sni`: those behind an AUTO_PASSTHROUGH gateway, which forwards TLS as it is.
pub(super) fn outbound(context: &Context<'_>, by_sni: bool, add: &mut impl FnMut(ClusterInput)) {
    for service in &context.scope.services {
        if service.resolution == Resolution::Alias || (by_sni && service.mesh_external) {
            continue;
        }
        let rule = context.rule(service);
        let peers = Peers::of(context, service);
        for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
            let subsets = rule.iter().flat_map(|r| r.subsets.iter().map(Some));
            for subset in std::iter::once(None).chain(subsets) {
                let one = One { context, service, port, subset, rule: rule.as_deref(), peers: &peers, by_sni };
                if let Some(input) = one.input() {
                    add(input);
                }
            }
        }
    }
}

/// What the servers of one service are to mesh mTLS.
struct Peers {
    names: Vec<Str>,
}

impl Peers {
    fn of(context: &Context<'_>, service: &Service) -> Peers {
        Peers { names: service_accounts(context.mesh, service) }
    }
}

/// Identities that a service's servers may have, in the mesh's trust domain and its aliases, sorted.
pub(crate) fn service_accounts(mesh: &Mesh, service: &Service) -> Vec<Str> {
    let endpoints = mesh.endpoints_of(service).iter().map(|e| &e.workload.service_account);
    let found: BTreeSet<&Str> = endpoints.filter(|a| !a.is_empty()).chain(&service.service_accounts).collect();
    let aliases = &mesh.config.trust_domain_aliases;
    if aliases.is_empty() {
        return found.into_iter().cloned().collect();
    }
    let mut all: BTreeSet<Str> = found.iter().map(|s| (*s).clone()).collect();
    for account in found {
        let Some((_, path)) = account.strip_prefix("spiffe://").and_then(|a| a.split_once('/')) else { continue };
        all.extend(aliases.iter().map(|domain| Str::from(format!("spiffe://{domain}/{path}"))));
    }
    all.into_iter().collect()
}

/// One cluster to be.
struct One<'a> {
    context: &'a Context<'a>,
    service: &'a Service,
    port: &'a ServicePort,
    subset: Option<&'a Subset>,
    rule: Option<&'a MergedRule>,
    peers: &'a Peers,
    by_sni: bool,
}

impl One<'_> {
    /// `None` where nothing could be sent: names to resolve, but not one given.
    fn input(&self) -> Option<ClusterInput> {
        let Self { context, service, port, .. } = self;
        let class = context.class;
        let subset = self.subset.map_or("", |s| &s.name);
        let policy = self.rule.map_or_else(TrafficPolicy::default, |r| r.policy_for(self.subset, port.port));
        let name: Str = match self.by_sni {
            false => naming::cluster(Direction::Outbound, port.port, subset, service.host.as_str()),
            true => naming::sni(Direction::Outbound, port.port, subset, service.host.as_str()),
        }
        .into();
        let locality = Locality::of(context, service, &policy);
        let discovery = self.discovery(&name, &policy, &locality)?;
        let user = user_tls(&policy);
        let pool = policy.connection_pool.as_ref();
        let security = if self.by_sni { Security::default() } else { self.security(&policy, user, &discovery) };
        let mesh = context.config().h2_upgrade_policy.into();
        let version = HttpVersion::of(port.protocol, pool, mesh, class.is_sidecar());
        Some(ClusterInput {
            stat_name: self.stat_name(subset).unwrap_or_else(|| name.clone()),
            pool: policy.connection_pool.clone(),
            http: UpstreamHttp {
                version,
                preserve_case: preserve_case(context) && !port.protocol.is_tcp() && version != HttpVersion::Http2,
                auto_sni: !self.by_sni && user.is_some_and(|t| t.sni.is_empty()),
                auto_san: !self.by_sni && user.is_some_and(|t| self.verifies_request_host(t)),
                idle_timeout: None,
            },
            security,
            labels: ClusterLabels { user_tls: user.is_some(), ..self.labels() },
            peer_exchange: class.is_istio(),
            balanced: Some(Balanced {
                balancer: policy.load_balancer.clone(),
                locality_weighted: locality.is_weighted(),
                outlier: policy.outlier_detection.clone(),
                retry_budget: policy.retry_budget,
                persistent_session: service.persistent_session,
                inbound: false,
            }),
            ..base(context, &name, discovery)
        })
    }

    fn discovery(&self, name: &Str, policy: &TrafficPolicy, locality: &Locality) -> Option<Discovery> {
        let Self { context, service, .. } = self;
        let algorithm = policy.load_balancer.as_ref().and_then(|b| b.algorithm.as_ref());
        if algorithm == Some(&LbAlgorithm::Passthrough) {
            return Some(Discovery::OriginalDst);
        }
        match service.resolution {
            Resolution::Static | Resolution::Alias => Some(Discovery::Eds),
            // The addresses that clients of a gateway ask for are the gateway's own.
            Resolution::Passthrough if context.class.is_router() => Some(Discovery::Eds),
            Resolution::Passthrough => Some(Discovery::OriginalDst),
            Resolution::DynamicDns => Some(Discovery::DynamicDns(dns_family(context))),
            Resolution::Dns | Resolution::DnsRoundRobin => {
                let endpoints = endpoint::input(context, service, self.port, self.subset, name.clone(), policy, locality);
                let one = endpoints.chosen().count() == 1;
                (!endpoints.is_empty()).then(|| Discovery::Dns {
                    endpoints: Box::new(endpoints),
                    family: dns_family(context),
                    refresh: context.config().dns_refresh_rate.0,
                    // Envoy refuses several names here.
                    one: service.resolution == Resolution::DnsRoundRobin && one,
                    resolver: context.class.has_extension(DNS_RESOLVER),
                })
            }
        }
    }

    fn security(&self, policy: &TrafficPolicy, user: Option<&ClientTls>, discovery: &Discovery) -> Security {
        let tls = match policy.tls.as_ref().map(|t| t.mode) {
            Some(ClientTlsMode::Disable) => TlsChoice::None,
            Some(ClientTlsMode::Simple | ClientTlsMode::Mutual) => self.user_security(policy, user),
            Some(ClientTlsMode::IstioMutual) => self.mesh_security(policy.tls.as_ref(), policy, None),
            None => self.mesh_security(None, policy, Some(discovery)),
        };
        let proxy_protocol = policy.proxy_protocol.filter(|_| self.context.class.has_extension(PROXY_PROTOCOL));
        Security { tls, proxy_protocol }
    }

    fn user_security(&self, policy: &TrafficPolicy, user: Option<&ClientTls>) -> TlsChoice {
        let class = self.context.class;
        let Some(tls) = user else { return TlsChoice::None };
        // A Secret that a rule for everybody names is for gateways; a sidecar must be singled out.
        let selected = self.rule.is_some_and(|r| !r.selector.is_empty()) || tls.credential_name.starts_with("configmap://");
        if !tls.credential_name.is_empty() && class.is_sidecar() && !selected {
            return TlsChoice::None;
        }
        let mut tls = tls.clone();
        if tls.subject_alt_names.is_empty() && self.service.mesh_external {
            tls.subject_alt_names = self.service.service_accounts.iter().cloned().collect();
        }
        let http2 = self.http2(policy);
        UpstreamTls::user(self.context.config(), class, &tls, http2).map_or(TlsChoice::None, |t| TlsChoice::Always(Box::new(t)))
    }

    fn http2(&self, policy: &TrafficPolicy) -> bool {
        let mesh = self.context.config().h2_upgrade_policy.into();
        HttpVersion::of(self.port.protocol, policy.connection_pool.as_ref(), mesh, self.context.class.is_sidecar()) == HttpVersion::Http2
    }

    /// Mesh mTLS, asked for by a rule (`tls`) or found out from what the servers accept (`auto`).
    fn mesh_security(&self, tls: Option<&ClientTls>, policy: &TrafficPolicy, auto: Option<&Discovery>) -> TlsChoice {
        let Self { context, service, port, .. } = self;
        if auto.is_some() && (!context.config().enable_auto_mtls || context.service_mtls(service, port.port) == MtlsMode::Disable) {
            return TlsChoice::None;
        }
        let subset = self.subset.map_or("", |s| &s.name);
        let own_sni = || naming::sni(Direction::Outbound, port.port, subset, service.host.as_str()).into();
        let sni: Str = tls.map(|t| t.sni.clone()).filter(|s| !s.is_empty()).unwrap_or_else(own_sni);
        let names = tls.map(|t| t.subject_alt_names.clone()).filter(|n| !n.is_empty()).unwrap_or_else(|| self.peers.names.clone());
        let Some(tls) = UpstreamTls::mesh(context.class, sni, names, self.http2(policy)) else {
            return TlsChoice::None;
        };
        // Addresses that clients choose carry no metadata to choose by, and own certificate files no agent that says which.
        let by_endpoint = auto.is_some_and(|d| *d != Discovery::OriginalDst) && tls.is_mesh();
        if by_endpoint { TlsChoice::ByEndpoint(Box::new(tls)) } else { TlsChoice::Always(Box::new(tls)) }
    }

    /// Nothing else says who the server must be: verify that it is the host of the request.
    fn verifies_request_host(&self, tls: &ClientTls) -> bool {
        let verified = !tls.insecure_skip_verify && self.context.config().verify_certificate_at_client.unwrap_or(true);
        verified && tls.sni.is_empty() && tls.subject_alt_names.is_empty()
    }

    fn labels(&self) -> ClusterLabels {
        let service = self.service;
        ClusterLabels {
            config: self.rule.map(rule_path),
            subset: self.subset.map(|s| s.name.clone()),
            services: vec![service_label(service)],
            external: service.mesh_external,
            user_tls: false,
        }
    }

    fn stat_name(&self, subset: &str) -> Option<Str> {
        let pattern = &self.context.config().outbound_cluster_stat_name;
        (!pattern.is_empty()).then(|| stat_name(pattern, self.service, self.port, subset, None))
    }
}

/// TLS of the user's own certificates, as opposed to the mesh's.
fn user_tls(policy: &TrafficPolicy) -> Option<&ClientTls> {
    policy.tls.as_ref().filter(|t| matches!(t.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual))
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

/// Fills in the mesh's pattern of names in statistics.
pub(super) fn stat_name(pattern: &str, service: &Service, port: &ServicePort, subset: &str, target: Option<u16>) -> Str {
    let short = match service.registry {
        Registry::Kubernetes => format!("{}.{}", service.name, service.namespace),
        Registry::External => service.host.to_string(),
    };
    let number = port.port.to_string();
    pattern
        .replace("%SERVICE%", &short)
        .replace("%SERVICE_NAME%", &service.name)
        .replace("%SERVICE_FQDN%", service.host.as_str())
        .replace("%SERVICE_PORT%", &number)
        .replace("%SERVICE_PORT_NAME%", &port.name)
        .replace("%TARGET_PORT%", &target.map(|t| t.to_string()).unwrap_or_default())
        .replace("%SUBSET_NAME%", subset)
        .into()
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
pub(crate) fn preserve_case(context: &Context<'_>) -> bool {
    let class = context.class;
    let wanted = class.proxy_config.proxy_headers.as_ref().and_then(|h| h.preserve_http1_header_case).unwrap_or(false);
    wanted && class.has_extension(super::protocol::PRESERVE_CASE)
}
