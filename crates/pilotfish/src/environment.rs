//! Environment variables: those of the reference that change what proxies get, and which of the others that somebody sets do
//! nothing here. Everything that is said is said once, at the start.

use std::collections::BTreeMap;

use clap::CommandFactory;
use pilotfish_model::Features;
use pilotfish_model::features::switches::SWITCHES;

use crate::cli::{Cli, FeatureArgs};

/// A variable of the reference that does nothing here.
pub(crate) struct Unused {
    name: &'static str,
    /// Its value in the reference where nobody sets it; who writes just that asks for nothing.
    default: &'static str,
    why: &'static str,
}

const fn unused(name: &'static str, default: &'static str, why: &'static str) -> Unused {
    Unused { name, default, why }
}

const ALWAYS: &str = "it cannot be turned off";
const NEVER: &str = "an old behaviour that is not offered";
const SCHEDULED: &str = "this process adapts to what the machine can take";
const NO_CACHE: &str = "there is no cache to configure: what is the same is shared";
const OTHER_METRICS: &str = "metrics and profiles are other ones here";
const AMBIENT: &str = "ambient mode is not built";
const GATEWAY_API: &str = "the Gateway API is not built";
const CLUSTERS: &str = "remote clusters are not built";
const NETWORKS: &str = "several networks are not built";
const VIRTUAL_MACHINES: &str = "registration of virtual machines is not built";
const AUTHORITY: &str = "the certificate authority is configured by its flags";
const NOT_BUILT: &str = "not built";

/// All that are known. Those of the first column that change what proxies get are explained in docs/switches.md.
#[rustfmt::skip]
pub(crate) static UNUSED: &[Unused] = &[
    unused("PILOT_ENABLE_EDS_DEBOUNCE", "true", "endpoints never wait for configuration"),
    unused("ISTIO_DELTA_XDS", "true", ALWAYS),
    unused("PILOT_ENABLE_XDS_CACHE", "true", NO_CACHE),
    unused("PILOT_ENABLE_CDS_CACHE", "true", NO_CACHE),
    unused("PILOT_ENABLE_RDS_CACHE", "true", NO_CACHE),
    unused("PILOT_XDS_CACHE_SIZE", "60000", NO_CACHE),
    unused("PILOT_XDS_CACHE_INDEX_CLEAR_INTERVAL", "5s", NO_CACHE),
    unused("PILOT_XDS_CACHE_STATS", "false", NO_CACHE),
    unused("ISTIO_GPRC_MAXSTREAMS", "100000", SCHEDULED),
    unused("ISTIO_GPRC_MAXRECVMSGSIZE", "4194304", SCHEDULED),
    unused("XDS_AUTH", "true", ALWAYS),
    unused("XDS_AUTH_PLAINTEXT", "false", "clear text gets keys for this machine only"),
    unused("PILOT_ENABLE_XDS_IDENTITY_CHECK", "true", ALWAYS),
    unused("ENABLE_XDS_API_GENERATOR_AUTH", "true", ALWAYS),
    unused("ENABLE_DEBUG_ON_HTTP", "true", "who may see debug pages is decided per caller"),
    unused("ENABLE_DEBUG_ENDPOINT_AUTH", "true", ALWAYS),
    unused("DEBUG_ENDPOINT_AUTH_ALLOWED_NAMESPACES", "", "who may see debug pages is decided per caller"),
    unused("UNSAFE_ENABLE_ADMIN_ENDPOINTS", "false", NOT_BUILT),
    unused("UNSAFE_PILOT_ENABLE_RUNTIME_ASSERTIONS", "false", NOT_BUILT),
    unused("UNSAFE_PILOT_ENABLE_DELTA_TEST", "false", NOT_BUILT),
    unused("MUTEX_PROFILE_FRACTION", "1000", OTHER_METRICS),
    unused("METRICS_LOCALHOST_ACCESS_ONLY", "false", "--monitoring-addr says who can reach them"),
    unused("ISTIO_ENABLE_CONTROLLER_QUEUE_METRICS", "false", OTHER_METRICS),
    unused("PILOT_ENABLE_STRICT_GATEWAY_MERGING", "true", GATEWAY_API),
    unused("ENABLE_LAZY_SIDECAR_EVALUATION", "true", "what a Sidecar imports is looked up when it is needed"),
    unused("PILOT_UNIFIED_SIDECAR_SCOPE", "true", NEVER),
    unused("PILOT_SIDECAR_PICK_BEST_SERVICE_NAMESPACE", "true", NEVER),
    unused("PILOT_CONVERT_SIDECAR_SCOPE_CONCURRENCY", "1", SCHEDULED),
    unused("ENABLE_ENHANCED_DESTINATIONRULE_MERGE", "true", NEVER),
    unused("PILOT_ENABLE_VIRTUAL_SERVICE_CONTROLLER", "true", NEVER),
    unused("ISTIO_WATCH_NAMESPACE", "", NOT_BUILT),
    unused("PILOT_IGNORE_RESOURCES", "", NOT_BUILT),
    unused("PILOT_INCLUDE_RESOURCES", "", NOT_BUILT),
    unused("ISTIO_KUBE_CLIENT_CONTENT_TYPE", "protobuf", "what each kind is best read as is used"),
    unused("PILOT_ENABLE_CROSS_CLUSTER_WORKLOAD_ENTRY", "true", CLUSTERS),
    unused("PILOT_ENABLE_WORKLOAD_ENTRY_AUTOREGISTRATION", "true", VIRTUAL_MACHINES),
    unused("PILOT_ENABLE_WORKLOAD_ENTRY_HEALTHCHECKS", "true", VIRTUAL_MACHINES),
    unused("PILOT_WORKLOAD_ENTRY_GRACE_PERIOD", "10s", VIRTUAL_MACHINES),
    unused("ISTIO_WORKLOAD_ENTRY_VALIDATE_IDENTITY", "true", VIRTUAL_MACHINES),
    unused("ENABLE_MULTICLUSTER_HEADLESS", "true", CLUSTERS),
    unused("PILOT_REMOTE_CLUSTER_TIMEOUT", "30s", CLUSTERS),
    unused("PILOT_INSECURE_MULTICLUSTER_KUBECONFIG_OPTIONS", "", CLUSTERS),
    unused("PILOT_MULTICLUSTER_KUBECONFIG_PATH", "", CLUSTERS),
    unused("LOCAL_CLUSTER_SECRET_WATCHER", "false", CLUSTERS),
    unused("EXTERNAL_ISTIOD", "false", CLUSTERS),
    unused("PILOT_ENABLE_REMOTE_CREDENTIALS_CONTROLLER", "true", CLUSTERS),
    unused("RESOLVE_HOSTNAME_GATEWAYS", "true", NETWORKS),
    unused("PILOT_MULTI_NETWORK_DISCOVER_GATEWAY_API", "true", NETWORKS),
    unused("ENABLE_HCM_INTERNAL_NETWORKS", "false", NETWORKS),
    unused("ENABLE_MCS_AUTO_EXPORT", "false", CLUSTERS),
    unused("ENABLE_MCS_SERVICE_DISCOVERY", "false", CLUSTERS),
    unused("ENABLE_MCS_HOST", "false", CLUSTERS),
    unused("ENABLE_MCS_CLUSTER_LOCAL", "false", CLUSTERS),
    unused("MCS_API_GROUP", "multicluster.x-k8s.io", CLUSTERS),
    unused("MCS_API_VERSION", "v1alpha1", CLUSTERS),
    unused("ENABLE_PROXY_FIND_POD_BY_IP", "false", "Pods are found by name, and by address where a node gives no name"),
    unused("PILOT_ENABLE_HEADLESS_FILTER_CHAIN_LISTENER", "false", "each endpoint of a headless service has a listener"),
    unused("ENABLE_WILDCARD_HOST_SERVICE_ENTRIES_FOR_TLS", "false", NOT_BUILT),
    unused("PILOT_SPAWN_UPSTREAM_SPAN_FOR_GATEWAY", "true", "gateways always have a span of their own"),
    unused("METRIC_ROTATION_INTERVAL", "0s", NOT_BUILT),
    unused("METRIC_GRACEFUL_DELETION_INTERVAL", "5m0s", NOT_BUILT),
    unused("USE_REMOTE_CERTS", "false", AUTHORITY),
    unused("USE_CACERTS_FOR_SELF_SIGNED_CA", "false", AUTHORITY),
    unused("PILOT_CERT_PROVIDER", "istiod", AUTHORITY),
    unused("CITADEL_SELF_SIGNED_ROOT_CERT_CHECK_INTERVAL", "1h0m0s", AUTHORITY),
    unused("CITADEL_ENABLE_JITTER_FOR_ROOT_CERT_ROTATOR", "true", AUTHORITY),
    unused("EXTERNAL_CA", "", "external signers are not built"),
    unused("K8S_SIGNER", "", "external signers are not built"),
    unused("CERT_SIGNER_DOMAIN", "", "external signers are not built"),
    unused("TOKEN_ISSUER", "", "tokens are verified by --jwt-rule and by the cluster's own keys"),
    unused("AUDIENCE", "", "tokens are verified by --jwt-rule and by the cluster's own keys"),
    unused("ISTIO_MULTIROOT_MESH", "false", "several trust bundles are not built"),
    unused("PILOT_ENABLE_CA_CRL", "true", NOT_BUILT),
    unused("PILOT_CRL_CONFIGMAP", "istio-ca-crl", NOT_BUILT),
    unused("PILOT_CA_CERT_CONFIGMAP", "istio-ca-root-cert", "the name is fixed"),
    unused("ENABLE_CLUSTER_TRUST_BUNDLE_API", "false", NOT_BUILT),
    unused("PILOT_JWT_PUB_KEY_REFRESH_INTERVAL", "20m0s", "keys are fetched again as their answers say"),
    unused("JWKS_RESOLVER_INSECURE_SKIP_VERIFY", "false", "servers of keys are always verified; --jwks-ca adds authorities"),
    unused("BLOCKED_CIDRS_IN_WASM_FETCH", "", "modules are fetched by agents"),
    unused("ISTIO_AGENT_ENABLE_WASM_REMOTE_LOAD_CONVERSION", "true", "an agent's own setting"),
    unused("PILOT_ENABLE_GATEWAY_API", "true", GATEWAY_API),
    unused("PILOT_ENABLE_ALPHA_GATEWAY_API", "false", GATEWAY_API),
    unused("PILOT_ENABLE_GATEWAY_API_STATUS", "true", GATEWAY_API),
    unused("PILOT_ENABLE_GATEWAY_API_DEPLOYMENT_CONTROLLER", "true", GATEWAY_API),
    unused("PILOT_ENABLE_GATEWAY_API_GATEWAYCLASS_CONTROLLER", "true", GATEWAY_API),
    unused("PILOT_ENABLE_GATEWAY_API_COPY_LABELS_ANNOTATIONS", "true", GATEWAY_API),
    unused("PILOT_GATEWAY_API_CONTROLLER_NAME", "istio.io/gateway-controller", GATEWAY_API),
    unused("PILOT_GATEWAY_API_DEFAULT_GATEWAYCLASS_NAME", "istio", GATEWAY_API),
    unused("ENABLE_GATEWAY_API_MANUAL_DEPLOYMENT", "true", GATEWAY_API),
    unused("ENABLE_GATEWAY_API_INFERENCE_EXTENSION", "false", GATEWAY_API),
    unused("ENABLE_SELECTOR_BASED_K8S_GATEWAY_POLICY", "true", GATEWAY_API),
    unused("PILOT_ENABLE_AGENTGATEWAY", "false", GATEWAY_API),
    unused("PILOT_ENABLE_ANALYSIS", "false", "findings are always in conditions"),
    unused("PILOT_ANALYSIS_INTERVAL", "10s", "findings are looked for at rest"),
    unused("PILOT_STATUS_MAX_WORKERS", "100", SCHEDULED),
    unused("PILOT_ENABLE_NODE_UNTAINT_CONTROLLERS", "false", NOT_BUILT),
    unused("PILOT_ENABLE_AMBIENT", "false", AMBIENT),
    unused("PILOT_ENABLE_SENDING_HBONE", "false", AMBIENT),
    unused("PILOT_ENABLE_SIDECAR_LISTENING_HBONE", "false", AMBIENT),
    unused("ENVOY_STATUS_PORT_ENABLE_PROXY_PROTOCOL", "false", "an agent's own setting"),
];

/// Starts of names that only the reference gives.
const FAMILIES: [&str; 5] = ["PILOT_", "ISTIO_", "CITADEL_", "UNSAFE_PILOT_", "AMBIENT_"];

/// What is set, as far as anybody may ask.
pub type Environment = BTreeMap<String, String>;

/// What the process was started with. What is no text cannot be meant for it.
pub fn of_process() -> Environment {
    std::env::vars_os().filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?))).collect()
}

/// The switches: of flags, else of the environment. What only this process reads makes no error of the reference's values, but a
/// policy of compliance that nobody knows cannot be kept.
pub fn features(args: &FeatureArgs, environment: &Environment) -> anyhow::Result<(Features, Vec<String>)> {
    let (mut features, bad) = Features::of(|name| match name {
        COMPLIANCE if !args.compliance_policy.is_empty() => Some(args.compliance_policy.clone()),
        name => environment.get(name).cloned(),
    });
    if let Some((_, e)) = bad.iter().find(|(name, _)| *name == COMPLIANCE) {
        anyhow::bail!("{COMPLIANCE}: {e}");
    }
    features.http3 = args.http3.unwrap_or(features.http3);
    features.sidecar_ingress_tls = args.sidecar_ingress_tls.unwrap_or(features.sidecar_ingress_tls);
    features.several_providers = args.several_providers.unwrap_or(features.several_providers);
    features.remote_jwks = args.remote_jwks.unwrap_or(features.remote_jwks);
    Ok((features, bad.iter().map(|(name, e)| format!("{name} is ignored: {e}")).collect()))
}

const COMPLIANCE: &str = "COMPLIANCE_POLICY";

/// What is set and does nothing, with the reason.
pub fn unheeded(environment: &Environment) -> Vec<String> {
    let own = own_names();
    let mut said = Vec::new();
    for (name, value) in environment.iter().filter(|(_, value)| !value.is_empty()) {
        if let Some(unused) = UNUSED.iter().find(|u| u.name == name) {
            if unused.default != value {
                said.push(format!("{name} has no effect: {}", unused.why));
            }
        } else if !own.contains(name) && FAMILIES.iter().any(|f| name.starts_with(f)) && !is_of_service(name) {
            said.push(format!("{name} has no effect: no such switch is known"));
        }
    }
    said
}

/// What this process reads.
fn own_names() -> Vec<String> {
    let command = Cli::command();
    let of_flags = command.get_subcommands().flat_map(|c| c.get_arguments()).filter_map(|a| a.get_env()?.to_str());
    SWITCHES.iter().map(|s| s.name).chain(of_flags).map(str::to_owned).collect()
}

/// Kubernetes tells each Pod of the services around it.
fn is_of_service(name: &str) -> bool {
    ["_SERVICE_HOST", "_PORT"].iter().any(|end| name.ends_with(end)) || ["_SERVICE_PORT", "_PORT_"].iter().any(|part| name.contains(part))
}

#[cfg(test)]
mod tests {
    use pilotfish_model::features::{Compliance, RemoteJwks};

    use super::*;

    fn environment(pairs: &[(&str, &str)]) -> Environment {
        pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn what_does_nothing_is_said_and_what_is_usual_is_not() {
        let said = unheeded(&environment(&[
            ("PILOT_HTTP10", "true"),
            ("PILOT_DEBOUNCE_AFTER", "1s"),
            ("PILOT_ENABLE_AMBIENT", "false"),
            ("PILOT_XDS_CACHE_SIZE", "1"),
            ("PILOT_UNHEARD_OF", "true"),
            ("PILOT_EMPTY", ""),
            ("ISTIO_INGRESSGATEWAY_SERVICE_HOST", "10.0.0.1"),
            ("ISTIO_INGRESSGATEWAY_PORT_80_TCP_ADDR", "10.0.0.1"),
            ("PATH", "/bin"),
        ]));
        assert_eq!(
            said,
            [
                "PILOT_UNHEARD_OF has no effect: no such switch is known".to_owned(),
                format!("PILOT_XDS_CACHE_SIZE has no effect: {NO_CACHE}")
            ]
        );
    }

    #[test]
    fn a_name_is_in_one_list_and_in_the_documentation() {
        let text = include_str!("../../../docs/switches.md");
        let own = own_names();
        for unused in UNUSED {
            assert!(!own.contains(&unused.name.to_owned()), "{}", unused.name);
        }
        let names = SWITCHES.iter().map(|s| s.name).chain(UNUSED.iter().map(|u| u.name));
        let missing: Vec<_> = names.filter(|name| !text.contains(&format!("`{name}`"))).collect();
        assert_eq!(missing, Vec::<&str>::new());
    }

    #[test]
    fn flags_outweigh_the_environment_and_an_unknown_policy_is_refused() {
        let said = environment(&[("PILOT_ENABLE_QUIC_LISTENERS", "true"), ("PILOT_HTTP10", "perhaps"), ("COMPLIANCE_POLICY", "pqc")]);
        let (features_of, bad) = features(&FeatureArgs::default(), &said).unwrap();
        assert_eq!((features_of.http3, features_of.compliance, bad.len()), (true, Compliance::PostQuantum, 1));
        let flags = FeatureArgs { http3: Some(false), remote_jwks: Some(RemoteJwks::Always), ..FeatureArgs::default() };
        let (features_of, _) = features(&flags, &said).unwrap();
        assert_eq!((features_of.http3, features_of.remote_jwks), (false, RemoteJwks::Always));
        assert!(features(&FeatureArgs { compliance_policy: "fips".into(), ..FeatureArgs::default() }, &said).is_err());
    }
}
