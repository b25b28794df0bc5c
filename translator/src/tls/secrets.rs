//! Which secrets a class asks this server for (SDS over ADS).
//!
//! Secrets that hold no more than paths are resources like all others: [`file_secrets`]. Key material never is: of it only
//! the references are known here, [`credentials`], for a delivery that knows who asks.

use std::collections::{BTreeMap, BTreeSet};

use pilotfish_envoy::Resource;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{CertificateValidationContext, Secret, TlsCertificate, secret};
use pilotfish_model::mesh::ObjectKey;
use pilotfish_model::name::Str;
use pilotfish_model::proxy::Flavour;
use pilotfish_model::service::Service;
use pilotfish_model::tls::{ClientTls, ClientTlsMode, ServerTls, ServerTlsMode};

use super::file;
use super::source::{
    KUBERNETES, ROOTS_SUFFIX, SYSTEM_ROOTS, certificate_file_name, credential_name, credential_roots_name, root_file_name,
};
use crate::context::Context;
use crate::gateway;

/// A secret that a class may be given, and the object that holds it.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Credential {
    /// The name that the proxy asks for.
    pub name: Str,
    /// Objects that may hold it, the first that exists counts: roots may stand in a Secret of their own.
    pub objects: Vec<ObjectKey>,
}

/// Where a class's files are.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
enum FileSecret {
    Certificate { chain: Str, key: Str },
    Roots(Str),
}

/// Secrets by path, for clients that read files themselves.
pub fn file_secrets(context: &Context<'_>) -> Vec<Resource> {
    if context.class.flavour != Flavour::Plain || !context.class.settings.reads_files {
        return Vec::new();
    }
    let mut files = BTreeSet::new();
    let mut certificate = |chain: &Str, key: &Str, roots: &Str| {
        if !chain.is_empty() && !key.is_empty() {
            files.insert(FileSecret::Certificate { chain: chain.clone(), key: key.clone() });
        }
        if !roots.is_empty() && &**roots != SYSTEM_ROOTS {
            files.insert(FileSecret::Roots(roots.clone()));
        }
    };
    let settings = &context.class.settings;
    for own in settings.server_certificate.iter().chain(&settings.client_certificate) {
        certificate(&own.chain, &own.key, &own.roots);
    }
    for tls in servers(context) {
        certificate(&tls.server_certificate, &tls.private_key, &tls.ca_certificates);
        tls.tls_certificates.iter().for_each(|c| certificate(&c.server_certificate, &c.private_key, &c.ca_certificates));
    }
    let unknown_hosts = context.config().outbound_traffic_policy.tls.iter().filter(|_| context.class.is_sidecar()).cloned();
    for tls in clients(context).chain(unknown_hosts) {
        certificate(&tls.client_certificate, &tls.private_key, &tls.ca_certificates);
    }
    files.iter().map(resource).collect()
}

fn resource(file_secret: &FileSecret) -> Resource {
    let (name, kind) = match file_secret {
        FileSecret::Certificate { chain, key } => (
            certificate_file_name(chain, key),
            secret::Type::TlsCertificate(TlsCertificate { certificate_chain: file(chain), private_key: file(key), ..Default::default() }),
        ),
        FileSecret::Roots(path) => (
            root_file_name(path),
            secret::Type::ValidationContext(CertificateValidationContext { trusted_ca: file(path), ..Default::default() }),
        ),
    };
    Resource::new(name.clone(), &Secret { name: str::to_owned(&name), r#type: Some(kind) })
}

/// Secrets out of objects of the class's own namespace.
pub fn credentials(context: &Context<'_>) -> Vec<Credential> {
    let mut found: BTreeMap<Str, Credential> = BTreeMap::new();
    let namespace = &context.class.namespace;
    let mut add = |name: Str| {
        let Some(object) = name.strip_prefix(KUBERNETES) else { return };
        let key = |name: &str| ObjectKey { namespace: namespace.clone(), name: name.into() };
        let base = object.strip_suffix(ROOTS_SUFFIX).map(key);
        let objects = std::iter::once(key(object)).chain(base).collect();
        found.entry(name.clone()).or_insert(Credential { name, objects });
    };
    for tls in servers(context) {
        tls.credential_names.iter().for_each(|n| add(credential_name(n)));
        let asks = matches!(tls.mode, ServerTlsMode::Mutual | ServerTlsMode::OptionalMutual);
        match (tls.credential_names.first(), &*tls.ca_cert_credential_name) {
            (Some(first), "") if asks => add(credential_roots_name(first)),
            (Some(_), roots) if asks => add(credential_name(roots)),
            _ => {}
        }
    }
    for tls in clients(context).filter(|t| !t.credential_name.is_empty()) {
        if tls.mode == ClientTlsMode::Mutual {
            add(credential_name(&tls.credential_name));
        }
        add(credential_roots_name(&tls.credential_name));
    }
    found.into_values().collect()
}

/// TLS of the servers of a gateway.
fn servers(context: &Context<'_>) -> Vec<ServerTls> {
    let merged = gateway::merged(context);
    merged.ports.iter().flat_map(|p| &p.servers).filter_map(|s| s.server().tls.clone()).collect()
}

/// TLS of the rules that a class uses.
fn clients<'a>(context: &'a Context<'_>) -> impl Iterator<Item = ClientTls> + 'a {
    let of_service = move |service: &Service| {
        let rule = context.rule(service)?;
        let subsets = rule.subsets.iter().map(|s| &s.policy);
        let policies = std::iter::once(&rule.policy).chain(subsets);
        let selected = !context.class.is_sidecar() || !rule.selector.is_empty();
        let tls = policies.flat_map(|p| p.tls.iter().chain(p.ports.values().filter_map(|p| p.tls.as_ref())));
        let users = |t: &&ClientTls| matches!(t.mode, ClientTlsMode::Simple | ClientTlsMode::Mutual);
        // A Secret that a rule for everybody names is for gateways.
        Some(tls.filter(users).filter(|t| selected || t.credential_name.is_empty()).cloned().collect::<Vec<_>>())
    };
    context.scope.services.iter().filter_map(move |s| of_service(s)).flatten()
}
