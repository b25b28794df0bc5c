//! Arguments about identities. Environment variables are those of istiod.

use std::path::PathBuf;
use std::time::Duration;

use anyhow::Context;
use clap::{ArgAction, Args, ValueEnum};
use ipnet::IpNet;
use pilotfish_ca::auth::keys::Keys;
use pilotfish_ca::auth::tokens::Rule;
use pilotfish_ca::issue::Policy;
use pilotfish_ca::{root, tls};
use pilotfish_model::request_authentication::JwksSource;
use serde::Deserialize;

use super::issuers::Remote;
use crate::cli::duration;

/// The oldest version of TLS that is spoken.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum MinVersion {
    /// TLS 1.2.
    #[value(name = "1.2", alias = "TLSV1_2")]
    Tls12,
    /// TLS 1.3.
    #[value(name = "1.3", alias = "TLSV1_3")]
    Tls13,
}

/// Who callers are, and who vouches for workloads.
#[derive(Args, Clone, Debug)]
pub struct IdentityArgs {
    /// Vouch for workloads, and serve TLS.
    #[arg(long, env = "ENABLE_CA_SERVER", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub ca_server: bool,
    /// Folder with the key that signs (ca-cert.pem, ca-key.pem, cert-chain.pem, root-cert.pem, or tls.crt, tls.key, ca.crt),
    /// watched. Where there is none, the Secret istio-ca-secret has one; the leader makes it.
    #[arg(long, env = "ROOT_CA_DIR", default_value = "./etc/cacerts", value_name = "DIR")]
    pub ca_dir: PathBuf,
    /// How long certificates hold that ask for nothing.
    #[arg(long, env = "DEFAULT_WORKLOAD_CERT_TTL", default_value = "24h", value_parser = duration)]
    pub workload_cert_ttl: Duration,
    /// How long certificates hold at most.
    #[arg(long, env = "MAX_WORKLOAD_CERT_TTL", default_value = "2160h", value_parser = duration)]
    pub max_workload_cert_ttl: Duration,
    /// How long a root that is made here holds.
    #[arg(long, env = "CITADEL_SELF_SIGNED_CA_CERT_TTL", default_value = "87600h", value_parser = duration)]
    pub root_ttl: Duration,
    /// Bits of its RSA key.
    #[arg(long, env = "CITADEL_SELF_SIGNED_CA_RSA_KEY_SIZE", default_value = "2048", value_name = "BITS")]
    pub root_rsa_bits: u16,
    /// A root that is made here is followed by another when less than this part of its time is left, in percent.
    #[arg(long, env = "CITADEL_SELF_SIGNED_ROOT_CERT_GRACE_PERIOD_PERCENTILE", default_value = "20", value_name = "PERCENT")]
    pub root_grace_percent: u32,
    /// How often keys are looked for.
    #[arg(long, default_value = "10s", value_parser = duration)]
    pub ca_check_interval: Duration,
    /// How long roots that were handed out may take to be mounted everywhere. No key signs sooner.
    #[arg(long, default_value = "3m", value_parser = duration)]
    pub root_mount_time: Duration,
    /// Hand roots out in a ConfigMap of every namespace.
    #[arg(long, env = "PILOT_CA_CERT_CONFIGMAP_ENABLED", value_name = "BOOL", default_value = "true", action = ArgAction::Set)]
    pub root_config_maps: bool,
    /// What tokens of service accounts must be for; separated by commas.
    #[arg(long, env = "TOKEN_AUDIENCES", default_value = "istio-ca", value_delimiter = ',')]
    pub token_audiences: Vec<String>,
    /// Service accounts, NAMESPACE/NAME separated by commas, that may ask for the certificates of workloads on their node.
    #[arg(long, env = "CA_TRUSTED_NODE_ACCOUNTS", default_value = "", hide_default_value = true)]
    pub trusted_node_accounts: String,
    /// Addresses of gateways that say in x-forwarded-client-cert who their client is; CIDRs separated by commas.
    #[arg(long, env = "TRUSTED_GATEWAY_CIDR", value_delimiter = ',')]
    pub trusted_gateways: Vec<IpNet>,
    /// An issuer of tokens beside the cluster: JSON with issuer, audiences, and jwks or jwksUri. Without either, keys are where the
    /// issuer says (OpenID Connect Discovery). Addresses are checked as those of users' rules are.
    #[arg(long, env = "JWT_RULE", default_value = "", hide_default_value = true)]
    pub jwt_rule: String,
    /// The oldest version of TLS that is spoken.
    #[arg(long, value_enum, default_value = "1.2")]
    pub tls_min_version: MinVersion,
    /// Cipher suites of TLS 1.2 by their IANA names, separated by commas. Without it: those of the provider.
    #[arg(long = "tls-cipher-suites", alias = "tls_cipher_suites", value_delimiter = ',')]
    pub tls_cipher_suites: Vec<String>,
    /// Further names of this control plane, separated by commas.
    #[arg(long, env = "ISTIOD_CUSTOM_HOST", value_delimiter = ',')]
    pub custom_hosts: Vec<String>,
}

impl IdentityArgs {
    /// How long certificates hold.
    pub fn policy(&self) -> Policy {
        Policy { default_ttl: self.workload_cert_ttl, max_ttl: self.max_workload_cert_ttl }
    }

    /// What a root of our own is like.
    pub fn root(&self) -> root::Options {
        root::Options { ttl: self.root_ttl, key: root::Key::Rsa(self.root_rsa_bits) }
    }

    /// What connections may use.
    pub fn tls(&self) -> tls::Options {
        tls::Options { only_tls13: self.tls_min_version == MinVersion::Tls13, cipher_suites: self.tls_cipher_suites.clone() }
    }

    /// The issuer beside the cluster, if there is one, and where its keys are to be fetched.
    pub(super) fn rule(&self) -> anyhow::Result<Option<(Rule, Option<Remote>)>> {
        #[derive(Deserialize)]
        #[serde(deny_unknown_fields, rename_all = "camelCase")]
        struct Given {
            issuer: String,
            #[serde(default)]
            audiences: Vec<String>,
            jwks: Option<String>,
            #[serde(alias = "jwks_uri")]
            jwks_uri: Option<String>,
        }
        if self.jwt_rule.is_empty() {
            return Ok(None);
        }
        let Given { issuer, audiences, jwks, jwks_uri } = serde_json::from_str(&self.jwt_rule).context("JWT_RULE")?;
        anyhow::ensure!(!issuer.is_empty(), "JWT_RULE: it names no issuer");
        if let Some(jwks) = jwks.filter(|jwks| !jwks.is_empty()) {
            let keys = Keys::parse(jwks.as_bytes()).filter(|keys| !keys.is_empty()).context("JWT_RULE: jwks has no usable key")?;
            return Ok(Some((Rule { issuer, audiences, keys, remote: false }, None)));
        }
        let source = match jwks_uri.filter(|uri| !uri.is_empty()) {
            Some(uri) => JwksSource::Uri(uri.as_str().into()),
            None => JwksSource::Issuer(issuer.as_str().into()),
        };
        let remote = Remote { issuer: issuer.clone(), source };
        Ok(Some((Rule { issuer, audiences, keys: Keys::default(), remote: true }, Some(remote))))
    }

    /// Names that a client may know this control plane by.
    pub fn names(&self, namespace: &str, revision: &str) -> Vec<String> {
        let mut services = vec!["istiod".to_owned(), "istiod-remote".into(), "istio-pilot".into()];
        if !revision.is_empty() && revision != "default" {
            services.push(format!("istiod-{revision}"));
        }
        let own = services.iter().map(|service| format!("{service}.{namespace}.svc"));
        own.chain(self.custom_hosts.iter().filter(|h| !h.is_empty()).cloned()).collect()
    }
}
