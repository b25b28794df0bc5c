//! The command line. Spellings of istiod's flags are accepted as aliases, so that its Deployment starts Pilotfish as well.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use clap::{ArgAction, Args, Parser, Subcommand};
use ipnet::IpNet;
use pilotfish_controller::addresses::{IPV4, IPV6};
use pilotfish_model::features::RemoteJwks;

use crate::identity::args::IdentityArgs;

/// A service-mesh control plane: a drop-in for istiod that also serves any plain Envoy.
#[derive(Parser)]
#[command(name = "pilotfish", version, disable_help_subcommand = true)]
pub struct Cli {
    /// What to do.
    #[command(subcommand)]
    pub command: Command,
}

/// What to do.
#[derive(Subcommand)]
pub enum Command {
    /// Serve a mesh to proxies.
    #[command(alias = "discovery")]
    Serve(Box<ServeArgs>),
    /// Write a bootstrap with which a stock Envoy connects.
    Bootstrap(BootstrapArgs),
    /// Write what proxies would get, without serving: for reviews and tests.
    Translate(TranslateArgs),
    /// Say what is wrong with a mesh out of files: mistakes, and what has no effect. Exits with 65 if something is not in force.
    Analyze(AnalyzeArgs),
    /// Write manifests with the sidecars that the webhook would give them.
    #[command(alias = "kube-inject")]
    Inject(InjectArgs),
    /// Say what is wrong with manifests. Exits with 65 if anything is.
    Validate(ValidateArgs),
    /// Print the version.
    Version,
}

/// Where the mesh is read from and what it is called.
#[derive(Args, Clone, Debug)]
pub struct MeshArgs {
    /// File or directory with objects of the mesh (YAML or JSON, watched). Repeatable.
    #[arg(long = "config-dir", alias = "configDir", value_name = "PATH")]
    pub config_dir: Vec<PathBuf>,
    /// Follow the cluster that this kubeconfig's current context names. What --config-dir has hides what the cluster has.
    /// With neither of them, inside a Pod: the cluster around it.
    #[arg(long, value_name = "FILE")]
    pub kubeconfig: Option<PathBuf>,
    /// How often what the watches of the cluster said is compared with what it has. 0s: never.
    #[arg(long, default_value = "5m", value_parser = duration)]
    pub audit_interval: Duration,
    /// File with the MeshConfig.
    #[arg(long = "mesh-config", alias = "meshConfig", value_name = "FILE")]
    pub mesh_config: Option<PathBuf>,
    /// DNS suffix of the cluster.
    #[arg(long, default_value = "cluster.local")]
    pub domain: String,
    /// Name of the cluster that the objects belong to.
    #[arg(long = "cluster-id", alias = "clusterID", env = "CLUSTER_ID", default_value = "Kubernetes")]
    pub cluster_id: String,
    /// Namespace of the control plane: its settings and its Lease are there.
    #[arg(long, short, env = "POD_NAMESPACE", default_value = "istio-system")]
    pub namespace: String,
    /// Revision of the control plane. Objects that are labelled with another one are not its own.
    #[arg(long, env = "REVISION", default_value = "", hide_default_value = true)]
    pub revision: String,
    /// A ConfigMap of the same namespace with settings that several meshes share; those of the mesh itself weigh more.
    #[arg(long, env = "SHARED_MESH_CONFIG", default_value = "", hide_default_value = true, value_name = "NAME")]
    pub shared_mesh_config: String,
    /// Switches.
    #[command(flatten)]
    pub features: FeatureArgs,
}

/// Switches, beside those of the environment: see docs/switches.md.
#[derive(Args, Clone, Debug, Default)]
pub struct FeatureArgs {
    /// Gateways answer HTTP/3 beside HTTPS, where their Service has the port for UDP as well [env: PILOT_ENABLE_QUIC_LISTENERS]
    #[arg(long, value_name = "BOOL")]
    pub http3: Option<bool>,
    /// Ingress listeners of Sidecars end the TLS that they ask for, where PeerAuthentication turns mesh mTLS off
    /// [env: ENABLE_TLS_ON_SIDECAR_INGRESS]
    #[arg(long, value_name = "BOOL")]
    pub sidecar_ingress_tls: Option<bool>,
    /// CUSTOM policies of one workload may ask several providers [env: PILOT_ENABLE_MULTIPLE_CUSTOM_AUTHZ_PROVIDERS]
    #[arg(long, value_name = "BOOL")]
    pub several_providers: Option<bool>,
    /// Who fetches the keys of tokens: this process (istiod), proxies where the mesh knows the server (hybrid), or proxies (envoy)
    /// [env: PILOT_JWT_ENABLE_REMOTE_JWKS]
    #[arg(long, value_name = "MODE")]
    pub remote_jwks: Option<RemoteJwks>,
    /// Compliance policy of proxies' TLS: fips-140-2, fips-140-3 or pqc.
    #[arg(long, env = "COMPLIANCE_POLICY", default_value = "", hide_default_value = true)]
    pub compliance_policy: String,
}

/// Arguments of `serve`.
#[derive(Args, Clone, Debug)]
pub struct ServeArgs {
    /// The mesh.
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// Address of /ready and /debug. Empty: off.
    #[arg(long = "http-addr", alias = "httpAddr", default_value = ":8080", value_name = "ADDR")]
    pub http_addr: Listen,
    /// Address of ADS in clear text. Empty: off.
    #[arg(long = "grpc-addr", alias = "grpcAddr", default_value = ":15010", value_name = "ADDR")]
    pub grpc_addr: Listen,
    /// Address of ADS and of the certificate authority over TLS. Empty: off. Without it: :15012, if there is a certificate
    /// authority.
    #[arg(long = "secure-grpc-addr", alias = "secureGRPCAddr", value_name = "ADDR")]
    pub secure_grpc_addr: Option<Listen>,
    /// Address of /metrics and /version. Empty: both move to the HTTP address.
    #[arg(long = "monitoring-addr", alias = "monitoringAddr", default_value = ":15014", value_name = "ADDR")]
    pub monitoring_addr: Listen,
    /// Address of the webhooks; :15017 in a Pod of a cluster, else off. Empty: their pages are on the HTTP address.
    #[arg(long = "https-addr", alias = "httpsAddr", value_name = "ADDR")]
    pub https_addr: Option<Listen>,
    /// The webhooks.
    #[command(flatten)]
    pub webhooks: WebhookArgs,
    /// How long streams may take to end after SIGTERM.
    #[arg(long = "shutdown-duration", alias = "shutdownDuration", default_value = "10s", value_parser = duration)]
    pub shutdown_duration: Duration,
    /// Quiet time that ends a batch of changes.
    #[arg(long, env = "PILOT_DEBOUNCE_AFTER", default_value = "100ms", value_parser = duration)]
    pub debounce_after: Duration,
    /// Longest time that a change waits in a batch.
    #[arg(long, env = "PILOT_DEBOUNCE_MAX", default_value = "10s", value_parser = duration)]
    pub debounce_max: Duration,
    /// Connecting streams that are let in per second; the others wait. 0, the default: as many as the machine can take.
    #[arg(long, env = "PILOT_MAX_REQUESTS_PER_SECOND", value_name = "N")]
    pub max_requests_per_second: Option<u32>,
    /// Scopes of proxies whose resources are made at a time. Without it: one per core.
    #[arg(long, env = "PILOT_PUSH_THROTTLE", value_name = "N")]
    pub push_throttle: Option<NonZeroUsize>,
    /// What is written back to the cluster.
    #[command(flatten)]
    pub status: StatusArgs,
    /// Tell by a metric whether patches of EnvoyFilters were applied.
    #[arg(long, env = "PILOT_ENVOY_FILTER_STATS", value_name = "BOOL", default_value = "false", action = ArgAction::Set, value_parser = clap::builder::BoolishValueParser::new())]
    pub envoy_filter_stats: bool,
    /// How keys of tokens are fetched.
    #[command(flatten)]
    pub jwks: JwksArgs,
    /// Who callers are, and who vouches for workloads.
    #[command(flatten)]
    pub identity: IdentityArgs,
    /// What to log, such as `info` or `pilotfish_xds_server=debug`.
    #[arg(long = "log", env = "RUST_LOG", default_value = "info", value_name = "FILTER")]
    pub log: String,
    /// Log as JSON.
    #[arg(long = "log-as-json", alias = "log_as_json")]
    pub log_as_json: bool,
    /// Flags of istiod that have no meaning here; accepted so that its command line works.
    #[command(flatten)]
    pub ignored: IgnoredArgs,
}

/// How keys of tokens are fetched. Users of the mesh write the URLs.
#[derive(Args, Clone, Debug, Default)]
pub struct JwksArgs {
    /// Addresses to fetch keys from that are forbidden otherwise (loopback, link-local, metadata services). Repeatable.
    #[arg(long, value_name = "CIDR", value_delimiter = ',')]
    pub jwks_allow: Vec<IpNet>,
    /// Addresses not to fetch keys from, beside those. Repeatable.
    #[arg(long, env = "BLOCKED_CIDRS_IN_JWKS_URIS", value_name = "CIDR", value_delimiter = ',')]
    pub jwks_deny: Vec<IpNet>,
    /// File with certificates of authorities to trust for keys, beside those of the system (PEM).
    #[arg(long, value_name = "FILE")]
    pub jwks_ca: Option<PathBuf>,
}

/// What is written back to the cluster, and who may do it.
#[derive(Args, Clone, Debug)]
pub struct StatusArgs {
    /// Write conditions into the status of users' objects: whether they were understood and what proxies say.
    #[arg(long, env = "PILOT_ENABLE_STATUS", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub status: bool,
    /// Give addresses to ServiceEntries that have none.
    #[arg(long, env = "PILOT_ENABLE_IP_AUTOALLOCATE", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub ip_autoallocate: bool,
    /// IPv4 addresses of ServiceEntries come from here.
    #[arg(long = "ip-autoallocate-ipv4", env = "PILOT_IP_AUTOALLOCATE_IPV4_PREFIX", value_name = "CIDR", default_value = IPV4)]
    pub ipv4_prefix: String,
    /// IPv6 addresses of ServiceEntries come from here.
    #[arg(long = "ip-autoallocate-ipv6", env = "PILOT_IP_AUTOALLOCATE_IPV6_PREFIX", value_name = "CIDR", default_value = IPV6)]
    pub ipv6_prefix: String,
    /// Let one replica of several do what only one may do. Without it, this one does it.
    #[arg(long, env = "ENABLE_LEADER_ELECTION", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub leader_election: bool,
    /// How long a leader that is gone is waited for.
    #[arg(long, default_value = "15s", value_parser = lease_duration)]
    pub lease_duration: Duration,
    /// Name of this replica.
    #[arg(long, env = "POD_NAME", default_value = "pilotfish")]
    pub pod_name: String,
}

/// What the webhooks are configured by.
#[derive(Args, Clone, Debug)]
pub struct WebhookArgs {
    /// Serve injection at all.
    #[arg(long, env = "INJECT_ENABLED", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub inject_enabled: bool,
    /// Folder with the files `config` and `values`; without them, a ConfigMap istio-sidecar-injector of the cluster.
    #[arg(long, value_name = "DIR", default_value = "/var/lib/istio/inject")]
    pub injection_dir: PathBuf,
    /// Empty: mutating webhook configurations are left alone.
    #[arg(long, env = "INJECTION_WEBHOOK_CONFIG_NAME", value_name = "NAME", default_value = "istio-sidecar-injector")]
    pub injection_webhook: String,
    /// Empty: validating webhook configurations are left alone.
    #[arg(long, env = "VALIDATION_WEBHOOK_CONFIG_NAME", value_name = "NAME", default_value = "istio-istio-system")]
    pub validation_webhook: String,
    /// Run proxies as init containers that stay: true, false, or auto for what the nodes can do.
    #[arg(long, env = "ENABLE_NATIVE_SIDECARS", value_name = "MODE", default_value = "auto")]
    pub native_sidecars: String,
    /// The platform, where it differs: openshift.
    #[arg(long, env = "PLATFORM", default_value = "", hide_default_value = true)]
    pub platform: String,
    /// Certificate of the webhooks. Without it: one of a root of this process' own.
    #[arg(long = "tls-cert-file", alias = "tlsCertFile", value_name = "FILE", requires = "tls_key_file")]
    pub tls_cert_file: Option<PathBuf>,
    /// Its private key.
    #[arg(long = "tls-key-file", alias = "tlsKeyFile", value_name = "FILE")]
    pub tls_key_file: Option<PathBuf>,
    /// The roots that it leads to.
    #[arg(long = "ca-cert-file", alias = "caCertFile", value_name = "FILE")]
    pub ca_cert_file: Option<PathBuf>,
    /// How long webhooks are answered after SIGTERM, so that nobody meets a closed port who has not heard of our end yet; not longer
    /// than --shutdown-duration. Without it: 5s in a Pod, else not at all.
    #[arg(long, value_name = "DURATION", value_parser = duration)]
    pub webhook_linger: Option<Duration>,
    /// Further host or address that the webhooks' own certificate is for. Repeatable.
    #[arg(long, value_name = "HOST")]
    pub webhook_host: Vec<String>,
}

/// Arguments of `inject`.
#[derive(Args, Clone, Debug)]
pub struct InjectArgs {
    /// File or folder with manifests; `-` for standard input. Repeatable.
    #[arg(long, short = 'f', required = true, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// File to write; standard output if not given.
    #[arg(long, short)]
    pub output: Option<PathBuf>,
    /// File with the key `config` of the injector's ConfigMap.
    #[arg(long = "inject-config-file", alias = "injectConfigFile", value_name = "FILE")]
    pub inject_config_file: Option<PathBuf>,
    /// File with Helm values.
    #[arg(long = "values-file", alias = "valuesFile", value_name = "FILE")]
    pub values_file: Option<PathBuf>,
    /// File with the MeshConfig.
    #[arg(long = "mesh-config-file", alias = "meshConfigFile", value_name = "FILE")]
    pub mesh_config_file: Option<PathBuf>,
    /// Revision of the control plane.
    #[arg(long, short, default_value = "", hide_default_value = true)]
    pub revision: String,
    /// Run the proxy as an init container that stays.
    #[arg(long, env = "ENABLE_NATIVE_SIDECARS", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub native_sidecars: bool,
}

/// Arguments of `validate`.
#[derive(Args, Clone, Debug)]
pub struct ValidateArgs {
    /// File or folder with manifests; `-` for standard input. Repeatable.
    #[arg(long, short = 'f', required = true, value_name = "PATH")]
    pub filename: Vec<PathBuf>,
    /// How to say it.
    #[arg(long, short, value_enum, default_value = "table")]
    pub output: Output,
}

/// A form of output.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// For people.
    Table,
    /// For programs.
    Json,
}

/// See [`ServeArgs::ignored`].
#[derive(Args, Clone, Debug, Default)]
#[allow(missing_docs)]
pub struct IgnoredArgs {
    #[arg(long = "registries", hide = true)]
    pub registries: Vec<String>,
    #[arg(long = "keepaliveInterval", hide = true)]
    pub keepalive_interval: Option<String>,
    #[arg(long = "keepaliveTimeout", hide = true)]
    pub keepalive_timeout: Option<String>,
    #[arg(long = "keepaliveMaxServerConnectionAge", hide = true)]
    pub keepalive_max_server_connection_age: Option<String>,
    #[arg(long = "log_output_level", hide = true)]
    pub log_output_level: Option<String>,
    #[arg(long = "log_target", hide = true)]
    pub log_target: Vec<String>,
    #[arg(long = "log_stacktrace_level", hide = true)]
    pub log_stacktrace_level: Option<String>,
    #[arg(long = "log_caller", hide = true)]
    pub log_caller: Option<String>,
    #[arg(long = "networksConfig", hide = true)]
    pub networks_config: Option<PathBuf>,
    #[arg(long = "ctrlz_port", hide = true)]
    pub ctrlz_port: Option<u16>,
    #[arg(long = "ctrlz_address", hide = true)]
    pub ctrlz_address: Option<String>,
    #[arg(long = "profile", hide = true, num_args = 0..=1, default_missing_value = "true")]
    pub profile: Option<String>,
}

/// Arguments of `bootstrap`.
#[derive(Args, Clone, Debug)]
pub struct BootstrapArgs {
    /// `host:port` of the control plane's plaintext ADS port.
    #[arg(long, default_value = "127.0.0.1:15010")]
    pub xds_addr: String,
    /// Node id. Any text names a gateway; `sidecar~IP~POD.NAMESPACE~NAMESPACE.svc.DOMAIN` a workload's proxy.
    #[arg(long, default_value = "gateway")]
    pub id: String,
    /// Node cluster; without labels, the value of the label `istio` that Gateways select.
    #[arg(long, default_value = "ingressgateway")]
    pub cluster: String,
    /// Namespace that the proxy belongs to.
    #[arg(long)]
    pub namespace: Option<String>,
    /// Labels of the workload, as `key=value`. Repeatable.
    #[arg(long = "label", value_name = "KEY=VALUE", value_parser = pair)]
    pub labels: Vec<(String, String)>,
    /// Further node metadata, as `KEY=VALUE`. Repeatable.
    #[arg(long = "metadata", value_name = "KEY=VALUE", value_parser = pair)]
    pub metadata: Vec<(String, String)>,
    /// Locality of the proxy, `region/zone/sub-zone`.
    #[arg(long)]
    pub locality: Option<String>,
    /// Address of Envoy's admin interface.
    #[arg(long, default_value = "127.0.0.1:15000")]
    pub admin_addr: SocketAddr,
    /// Use the state-of-the-world protocol instead of delta.
    #[arg(long)]
    pub sotw: bool,
    /// File to write; standard output if not given.
    #[arg(long, short)]
    pub output: Option<PathBuf>,
}

/// Arguments of `analyze`.
#[derive(Args, Clone, Debug)]
pub struct AnalyzeArgs {
    /// The mesh.
    #[command(flatten)]
    pub mesh: MeshArgs,
}

/// Arguments of `translate`.
#[derive(Args, Clone, Debug)]
pub struct TranslateArgs {
    /// The mesh.
    #[command(flatten)]
    pub mesh: MeshArgs,
    /// YAML list of proxies, each `name` and `node` (id, cluster, locality, metadata) as in a bootstrap.
    #[arg(long, value_name = "FILE")]
    pub proxies: PathBuf,
    /// Folder for one JSON file per proxy: resources by type and name.
    #[arg(long, value_name = "DIR")]
    pub out: PathBuf,
}

/// An address to listen on: `host:port`, `:port` for all addresses, or nothing for off.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub Option<SocketAddr>);

impl FromStr for Listen {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let full = match text {
            "" => return Ok(Listen(None)),
            t if t.starts_with(':') => format!("0.0.0.0{t}"),
            t => t.replace("localhost:", "127.0.0.1:"),
        };
        full.parse().map(|a| Listen(Some(a))).map_err(|_| format!("{text:?} is not host:port or :port"))
    }
}

pub(crate) fn duration(text: &str) -> Result<Duration, String> {
    pilotfish_model::time::parse_duration(text).map_err(|e| e.to_string())
}

/// Leases count in seconds.
fn lease_duration(text: &str) -> Result<Duration, String> {
    let duration = duration(text)?;
    if duration < Duration::from_secs(1) { Err("a lease lasts for a second at least".into()) } else { Ok(duration) }
}

fn pair(text: &str) -> Result<(String, String), String> {
    text.split_once('=').map(|(k, v)| (k.to_owned(), v.to_owned())).ok_or_else(|| format!("{text:?} is not key=value"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn serve(args: &[&str]) -> ServeArgs {
        match Cli::try_parse_from([&["pilotfish"], args].concat()).map(|c| c.command) {
            Ok(Command::Serve(args)) => *args,
            Ok(_) => panic!("not serve"),
            Err(e) => panic!("{e}"),
        }
    }

    #[test]
    fn istiods_spelling_means_the_same() {
        let ours = serve(&[
            "serve",
            "--http-addr",
            ":1",
            "--grpc-addr",
            "127.0.0.1:2",
            "--monitoring-addr",
            "",
            "--config-dir",
            "a",
            "--cluster-id",
            "c",
        ]);
        let istiods = serve(&[
            "discovery",
            "--httpAddr=:1",
            "--grpcAddr=127.0.0.1:2",
            "--monitoringAddr=",
            "--configDir=a",
            "--clusterID=c",
            "--keepaliveMaxServerConnectionAge",
            "30m",
            "--log_output_level=default:info",
        ]);
        let shape = |a: &ServeArgs| (a.http_addr, a.grpc_addr, a.monitoring_addr, a.mesh.config_dir.clone(), a.mesh.cluster_id.clone());
        assert_eq!(shape(&ours), shape(&istiods));
        assert_eq!(ours.monitoring_addr, Listen(None));
        assert_eq!(ours.http_addr.0, "0.0.0.0:1".parse().ok());
    }

    #[test]
    fn bad_addresses_and_durations_are_refused() {
        assert!(Cli::try_parse_from(["pilotfish", "serve", "--http-addr", "nowhere"]).is_err());
        assert!(Cli::try_parse_from(["pilotfish", "serve", "--debounce-after", "soon"]).is_err());
    }
}
