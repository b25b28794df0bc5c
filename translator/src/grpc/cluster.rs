//! Clusters as gRPC reads them: endpoints from this server, hashing, mesh mTLS where a rule asks for it.

use pilotfish_envoy::Resource;
use pilotfish_envoy::pb::envoy::config::cluster::v3::Cluster;
use pilotfish_envoy::pb::envoy::config::cluster::v3::cluster::{ClusterDiscoveryType, DiscoveryType, EdsClusterConfig};
use pilotfish_envoy::pb::envoy::config::core::v3::TransportSocket;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::common_tls_context::{
    CertificateProviderInstance, CombinedCertificateValidationContext, ValidationContextType,
};
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{
    CertificateProviderPluginInstance, CertificateValidationContext, CommonTlsContext, DownstreamTlsContext, UpstreamTlsContext,
};
use pilotfish_model::destination_rule::{ConsistentHash, LbAlgorithm};
use pilotfish_model::name::Str;
use pilotfish_model::service::{Protocol, Resolution};
use pilotfish_model::tls::ClientTlsMode;

use crate::cluster::hash_table;
use crate::config_source;
use crate::naming::{self, Direction};
use crate::tls;
use crate::unit::UnitInput;

/// Instance of gRPC's bootstrap that holds the workload's certificate and the mesh's roots.
const PROVIDER: &str = "default";
const OWN_CERTIFICATE: &str = "default";
const MESH_ROOTS: &str = "ROOTCA";

/// What a cluster depends on.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct GrpcCluster {
    name: Str,
    /// Names one of which the server must present; `None`: clear text.
    mesh_tls: Option<Vec<Str>>,
    hash: Option<ConsistentHash>,
}

/// Of one service.
pub(crate) fn of_service(unit: &UnitInput<'_>, add: &mut impl FnMut(Resource)) {
    let service = unit.service;
    if service.resolution == Resolution::Alias {
        return;
    }
    for port in service.ports.iter().filter(|p| p.protocol != Protocol::Udp) {
        let subsets = unit.rule.iter().flat_map(|r| r.subsets.iter().map(Some));
        for subset in std::iter::once(None).chain(subsets) {
            let policy = unit.policy(subset, port.port);
            let mesh_tls = policy.tls.as_ref().filter(|t| t.mode == ClientTlsMode::IstioMutual);
            let names = |own: &[Str]| if own.is_empty() { unit.accounts.to_vec() } else { own.to_vec() };
            let hash = match policy.load_balancer.and_then(|b| b.algorithm) {
                Some(LbAlgorithm::ConsistentHash(hash)) => Some(hash),
                _ => None,
            };
            let subset = subset.map_or("", |s| &s.name);
            let input = GrpcCluster {
                name: naming::cluster(Direction::Outbound, port.port, subset, service.host.as_str()).into(),
                mesh_tls: mesh_tls.map(|t| names(&t.subject_alt_names)),
                hash,
            };
            add(Resource::new(input.name.clone(), &build(&input)));
        }
    }
}

fn build(input: &GrpcCluster) -> Cluster {
    let (policy, config) = input.hash.as_ref().map(hash_table).unwrap_or_default();
    Cluster {
        name: input.name.to_string(),
        alt_stat_name: format!("{};", input.name),
        cluster_discovery_type: Some(ClusterDiscoveryType::Type(DiscoveryType::Eds.into())),
        eds_cluster_config: Some(EdsClusterConfig {
            service_name: input.name.to_string(),
            eds_config: Some(config_source::GRPC_STREAM.clone()),
        }),
        transport_socket: input.mesh_tls.as_ref().map(|names| upstream(names)),
        lb_policy: policy.into(),
        lb_config: config,
        ..Default::default()
    }
}

fn upstream(names: &[Str]) -> TransportSocket {
    tls::tls_socket(&UpstreamTlsContext { common_tls_context: Some(provided(names)), ..Default::default() })
}

/// Mesh mTLS of a server.
pub(super) fn downstream() -> TransportSocket {
    tls::tls_socket(&DownstreamTlsContext {
        common_tls_context: Some(provided(&[])),
        require_client_certificate: Some(true),
        ..Default::default()
    })
}

// Old clients read the deprecated fields, new ones the others.
#[allow(deprecated)]
fn provided(names: &[Str]) -> CommonTlsContext {
    let plugin = |certificate: &str| CertificateProviderPluginInstance {
        instance_name: PROVIDER.to_owned(),
        certificate_name: certificate.to_owned(),
    };
    let instance =
        |certificate: &str| CertificateProviderInstance { instance_name: PROVIDER.to_owned(), certificate_name: certificate.to_owned() };
    let checks = CertificateValidationContext {
        ca_certificate_provider_instance: Some(plugin(MESH_ROOTS)),
        match_subject_alt_names: tls::exact(names),
        ..Default::default()
    };
    CommonTlsContext {
        tls_certificate_provider_instance: Some(plugin(OWN_CERTIFICATE)),
        tls_certificate_certificate_provider_instance: Some(instance(OWN_CERTIFICATE)),
        validation_context_type: Some(ValidationContextType::CombinedValidationContext(CombinedCertificateValidationContext {
            default_validation_context: Some(checks),
            validation_context_certificate_provider_instance: Some(instance(MESH_ROOTS)),
            ..Default::default()
        })),
        ..Default::default()
    }
}
