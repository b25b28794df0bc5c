//! Switches of this process, by which meshes change what the reference lets them change by environment variables: see
//! [`switches`] for their names there.

pub mod switches;

use std::time::Duration;

use crate::name::{Labels, Str};
use crate::time::Span;

/// What is on, and how much of it. The default is the reference's.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Features {
    /// Gateways answer HTTP/3 beside HTTPS, where their Service has the port for UDP as well.
    pub http3: bool,
    /// Ingress listeners of Sidecars end the TLS that they ask for.
    pub sidecar_ingress_tls: bool,
    /// CUSTOM policies of one workload may ask several providers.
    pub several_providers: bool,
    /// Who fetches the keys of tokens.
    pub remote_jwks: RemoteJwks,
    /// HTTP/1.0 is accepted, and told from bytes.
    pub http10: bool,
    /// Istio's proxies tell servers the HTTP version by ALPN.
    pub alpn_override: bool,
    /// Istio's proxies tell each other what they are.
    pub peer_exchange: bool,
    /// They agree on that by ALPN.
    pub peer_exchange_alpn: bool,
    /// Labels that they tell each other beside the usual ones.
    pub peer_exchange_labels: Vec<Str>,
    /// Clusters say which services they are of.
    pub telemetry_label: bool,
    /// Endpoints say which workload they are of.
    pub endpoint_telemetry_label: bool,
    /// Ports of MongoDB have statistics of it.
    pub mongo: bool,
    /// Ports of Redis are read as Redis, and keys are spread over the servers.
    pub redis: bool,
    /// Ports of MySQL have statistics of it.
    pub mysql: bool,
    /// What sidecars send is taken as from the address that it comes from.
    pub sidecar_remote_address: bool,
    /// Services may ask by label that a client stays with one of their servers.
    pub persistent_sessions: bool,
    /// That label, for a cookie. Empty: none.
    pub session_cookie_label: Str,
    /// That label, for a header. Empty: none.
    pub session_header_label: Str,
    /// Endpoints with this label take no new sessions. Empty: none.
    pub draining_label: Str,
    /// Hosts may be written with the dot at their end.
    pub absolute_domains: bool,
    /// Hosts of a gateway with the same routes are one virtual host.
    pub collapsed_hosts: bool,
    /// `100 Continue` is the server's.
    pub continue_from_server: bool,
    /// Localities count by their weights where nothing is said.
    pub locality_weights: bool,
    /// A Sidecar's ingress goes beside the ports of services, not in their place.
    pub ingress_beside_services: bool,
    /// Connections that a listener accepts at a time; `None`: all.
    pub accepts_at_a_time: Option<u32>,
    /// How long clients of a gateway may take for the TLS handshake.
    pub gateway_handshake: Span,
    /// DNS queries of a proxy before it opens a new socket.
    pub dns_queries_per_socket: u32,
    /// Spreads re-resolutions of one name over time.
    pub dns_jitter: Span,
    /// Names that a proxy keeps of those that requests brought.
    pub dynamic_dns_hosts: u32,
    /// Mirrored requests are told from others by their host.
    pub shadow_suffix: bool,
    /// Statistics of how far limits are used up.
    pub remaining_limits: bool,
    /// Proxies with certificate files use them towards servers outside of the mesh only where no rule says otherwise.
    pub rule_tls_outside: bool,
    /// Telemetry knows servers outside of the mesh by the labels of their ServiceEntry.
    pub canonical_outside: bool,
    /// Share of requests that are traced where nothing is said, in 1/100 of a percent.
    pub trace_sampling: u16,
    /// Gateways take Gateway objects of their own namespace only.
    pub gateways_of_namespace: bool,
    /// Gateways get clusters of those services alone that they lead to.
    pub gateways_know_what_they_reach: bool,
    /// Endpoints that are not ready are sent: always, never, or where no rule wants to count them.
    pub unready_endpoints: UnreadyEndpoints,
    /// Clients of headless services choose an endpoint by policy, not by address.
    pub headless_balancing: bool,
    /// Services of Kubernetes select WorkloadEntries.
    pub services_select_entries: bool,
    /// ServiceEntries select Pods.
    pub entries_select_pods: bool,
    /// Proxies that capture DNS need not ask for addresses that were allocated.
    pub allocated_addresses: bool,
    /// Proxies of both families use both: they listen on both, and know both of servers and services.
    pub dual_stack: bool,
    /// Proxies of IPv6 take connections that the host captured by IPv4 as well.
    pub ipv4_beside_ipv6: bool,
    /// Clients of any trust domain are accepted by mesh mTLS.
    pub any_trust_domain: bool,
    /// What TLS may look like.
    pub compliance: Compliance,
}

impl Default for Features {
    fn default() -> Self {
        Features {
            http3: false,
            sidecar_ingress_tls: false,
            several_providers: false,
            remote_jwks: RemoteJwks::Never,
            http10: false,
            alpn_override: true,
            peer_exchange: true,
            peer_exchange_alpn: true,
            peer_exchange_labels: Vec::new(),
            telemetry_label: true,
            endpoint_telemetry_label: true,
            mongo: true,
            redis: false,
            mysql: false,
            sidecar_remote_address: false,
            persistent_sessions: false,
            session_cookie_label: "istio.io/persistent-session".into(),
            session_header_label: "istio.io/persistent-session-header".into(),
            draining_label: "istio.io/draining".into(),
            absolute_domains: true,
            collapsed_hosts: true,
            continue_from_server: true,
            locality_weights: false,
            ingress_beside_services: false,
            accepts_at_a_time: Some(1),
            gateway_handshake: Span(Duration::from_secs(15)),
            dns_queries_per_socket: 100,
            dns_jitter: Span(Duration::from_millis(100)),
            dynamic_dns_hosts: 1024,
            shadow_suffix: false,
            remaining_limits: false,
            rule_tls_outside: true,
            canonical_outside: false,
            trace_sampling: 100,
            gateways_of_namespace: false,
            gateways_know_what_they_reach: false,
            unready_endpoints: UnreadyEndpoints::UnlessCounted,
            headless_balancing: false,
            services_select_entries: true,
            entries_select_pods: true,
            allocated_addresses: true,
            dual_stack: false,
            ipv4_beside_ipv6: false,
            any_trust_domain: false,
            compliance: Compliance::None,
        }
    }
}

impl Features {
    /// Whether labels of a service ask for persistent sessions.
    pub fn keeps_sessions(&self, labels: &Labels) -> bool {
        let asks = |label: &Str| labels.get(label).is_some_and(|v| !v.is_empty());
        !labels.is_empty() && (asks(&self.session_cookie_label) || asks(&self.session_header_label))
    }
}

/// Whether endpoints are sent that are not ready.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum UnreadyEndpoints {
    /// Where no rule wants a share of them to be well.
    #[default]
    UnlessCounted,
    /// In any case.
    Always,
    /// In no case.
    Never,
}

/// Rules that TLS of all proxies must keep, whatever objects say.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum Compliance {
    /// None.
    #[default]
    None,
    /// FIPS 140-2: TLS 1.2 only, with a few suites and the curve P-256.
    Fips140V2,
    /// FIPS 140-3: as 140-2, and TLS 1.3.
    Fips140V3,
    /// TLS 1.3 with key agreement that quantum computers do not break.
    PostQuantum,
}

/// Who fetches the keys of tokens.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash)]
pub enum RemoteJwks {
    /// This process.
    #[default]
    Never,
    /// Proxies, where the mesh knows the server that has them; else this process.
    Known,
    /// Proxies.
    Always,
}

/// A text that is none of the modes.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of false, istiod, true, hybrid and envoy")]
pub struct BadMode(String);

impl std::str::FromStr for RemoteJwks {
    type Err = BadMode;

    fn from_str(text: &str) -> Result<Self, BadMode> {
        match text {
            "false" | "istiod" => Ok(RemoteJwks::Never),
            "true" | "hybrid" => Ok(RemoteJwks::Known),
            "envoy" => Ok(RemoteJwks::Always),
            _ => Err(BadMode(text.to_owned())),
        }
    }
}
