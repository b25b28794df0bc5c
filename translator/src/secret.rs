//! Key material for one proxy: [`secrets`] and [`with_credentials`], the only ways by which a Kubernetes Secret becomes a part of
//! a resource.
//!
//! Nothing is cached here. Whether the peer may have any is the caller's question; that a proxy gets the Secrets of its own
//! namespace, credentials of modules that are meant for it, and no others is answered here.

use std::sync::Arc;

use pilotfish_envoy::{Resource, ResourceSet};
use pilotfish_model::mesh::ObjectKey;
use pilotfish_model::name::Kind;
use pilotfish_model::proxy::Flavour;
use pilotfish_model::proxy_config::PrivateKeyProvider;
use pilotfish_model::secret::{Registry, Secret};
use pilotfish_model::{Extension, Mesh, Proxy};

use crate::listener::extension_config;
use crate::tls::source::{KUBERNETES, ROOTS_SUFFIX};
use crate::tls::{key_provider, secret_resource};

/// Start of a name that says the namespace too.
const KUBERNETES_GATEWAY: &str = "kubernetes-gateway://";

/// Of the names those that stand for a usable Secret of the proxy's namespace.
pub fn secrets(mesh: &Mesh, proxy: &Proxy, names: &[Arc<str>]) -> Vec<Resource> {
    let provider = key_provider(mesh, proxy);
    names.iter().filter_map(|name| Some(secret_resource(find(mesh, proxy, name)?, name, provider))).collect()
}

/// Of the settings of extensions that a class gets those of modules that are pulled with credentials, which these hold.
///
/// A module's Secret is of its object's namespace, which may be the root namespace. It is for all proxies that the object is
/// for, and so for whose class the translator made the resource of that object; one that a patch brings along gets nothing.
pub fn with_credentials(mesh: &Mesh, extensions: &ResourceSet) -> Vec<Resource> {
    if mesh.wasm_plugins.is_empty() && mesh.traffic_extensions.is_empty() {
        return Vec::new();
    }
    let of = |resource: &Resource| {
        let mut sources = resource.sources();
        let extension = extension(mesh, sources.next()?).filter(|_| sources.next().is_none())?;
        let config = pull_config(mesh, extension).ok()??;
        extension_config::with_credentials(resource, config)
    };
    extensions.iter().filter_map(of).collect()
}

/// By its name among the sources of resources.
fn extension<'a>(mesh: &'a Mesh, source: &str) -> Option<&'a Extension> {
    let mut parts = source.split('/');
    let (kind, key) = (parts.next()?, ObjectKey { namespace: parts.next()?.into(), name: parts.next()?.into() });
    let objects = [(Kind::WasmPlugin, &mesh.wasm_plugins), (Kind::TrafficExtension, &mesh.traffic_extensions)];
    let (_, objects) = objects.into_iter().find(|(k, _)| k.as_str() == kind)?;
    objects.get(&key).map(|e| &**e)
}

/// The credentials by which an extension's module is pulled, if it needs any, or why there are none.
pub(crate) fn pull_config<'a>(mesh: &'a Mesh, extension: &Extension) -> Result<Option<&'a str>, String> {
    let Some(name) = extension.pull_secret() else { return Ok(None) };
    let namespace = &extension.meta.namespace;
    match mesh.secrets.get(&ObjectKey { namespace: namespace.clone(), name: name.clone() }).map(|s| &s.registry) {
        Some(Registry::Config(config)) => Ok(Some(config)),
        Some(Registry::None(why)) => Err(format!("Secret {namespace}/{name} has no credentials for registries: {why}")),
        None => Err(format!("namespace {namespace} has no Secret {name:?}")),
    }
}

/// What the proxy signs with, if it is able to. Istio's does not list what it has.
fn key_provider(mesh: &Mesh, proxy: &Proxy) -> Option<PrivateKeyProvider> {
    let own = proxy.metadata.proxy_config.as_ref().and_then(|c| c.private_key_provider);
    let provider = own.or(mesh.config.default_config.private_key_provider)?;
    let listed = || proxy.extensions.iter().any(|e| &**e == key_provider::extension(provider));
    (proxy.flavour == Flavour::Istio || listed()).then_some(provider)
}

fn find<'a>(mesh: &'a Mesh, proxy: &Proxy, name: &str) -> Option<&'a Arc<Secret>> {
    let path = name.strip_prefix(KUBERNETES).or_else(|| name.strip_prefix(KUBERNETES_GATEWAY))?;
    let object = match path.split_once('/') {
        Some((namespace, object)) if *namespace == *proxy.namespace => object,
        Some(_) => return None,
        None => path,
    };
    let get = |object: &str| mesh.secrets.get(&ObjectKey { namespace: proxy.namespace.clone(), name: object.into() });
    match object.strip_suffix(ROOTS_SUFFIX) {
        // Roots stand in a Secret of their own, or beside the certificate.
        Some(base) => [get(object), get(base)].into_iter().flatten().find(|s| !s.ca_certificate.is_empty()),
        None => get(object).filter(|s| !s.certificate.is_empty() && !s.private_key.is_empty() && s.mistake.is_none()),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use pilotfish_envoy::any;
    use pilotfish_envoy::pb::envoy::extensions::private_key_providers::cryptomb::v3alpha::{
        self as cryptomb, CryptoMbPrivateKeyMethodConfig,
    };
    use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{Secret as SecretMessage, private_key_provider, secret};
    use pilotfish_model::ProxyConfig;
    use pilotfish_model::proxy::Node;
    use pilotfish_model::proxy_config::KeyProviderSettings;
    use pilotfish_model::time::Span;
    use prost::Message;

    fn secret(certificate: &str, private_key: &str, ca_certificate: &str) -> Arc<Secret> {
        let bytes = |text: &str| Arc::from(text.as_bytes());
        Arc::new(Secret {
            certificate: bytes(certificate),
            private_key: bytes(private_key),
            ca_certificate: bytes(ca_certificate),
            ..Default::default()
        })
    }

    #[test]
    fn a_proxy_gets_usable_secrets_of_its_own_namespace() {
        let whole = secret("c", "k", "r");
        let mut mesh = Mesh::default();
        for (namespace, name, secret) in [
            ("shop", "whole", &whole),
            ("shop", "keyless", &secret("c", "", "")),
            ("shop", "split", &secret("c", "k", "")),
            ("shop", "split-cacert", &secret("", "", "r")),
            ("shop", "odd", &Arc::new(Secret { mistake: Some("no pair"), ..Secret::clone(&whole) })),
            ("bank", "vault", &whole),
        ] {
            mesh.secrets.insert(ObjectKey { namespace: namespace.into(), name: name.into() }, secret.clone());
        }
        let mut node = Node { id: "edge-1".into(), ..Default::default() };
        node.metadata.namespace = Some("shop".into());
        let proxy = Proxy::parse(node, "root", "cluster.local").unwrap();
        let rows = [
            ("kubernetes://whole", true),
            ("kubernetes://whole-cacert", true),
            ("kubernetes://shop/whole", true),
            ("kubernetes-gateway://shop/whole", true),
            ("kubernetes://split", true),
            ("kubernetes://split-cacert", true),
            ("kubernetes://odd", false),
            ("kubernetes://odd-cacert", true),
            ("kubernetes://keyless", false),
            ("kubernetes://keyless-cacert", false),
            ("kubernetes://none", false),
            ("kubernetes://vault", false),
            ("kubernetes://bank/vault", false),
            ("kubernetes-gateway://bank/vault", false),
            ("kubernetes://", false),
            ("whole", false),
            ("file-cert:/whole~/key", false),
            ("default", false),
        ];
        let names: Vec<Arc<str>> = rows.iter().map(|(name, _)| Arc::from(*name)).collect();
        let found = secrets(&mesh, &proxy, &names);
        let expected: Vec<&str> = rows.iter().filter(|(_, served)| *served).map(|(name, _)| *name).collect();
        assert_eq!(found.iter().map(|r| &**r.name()).collect::<Vec<_>>(), expected);
        assert_eq!(found[4], secret_resource(&secret("c", "k", ""), "kubernetes://split", None));
        assert_eq!(found[5], secret_resource(&secret("", "", "r"), "kubernetes://split-cacert", None));
    }

    #[test]
    fn keys_go_to_the_hardware_of_proxies_that_have_it() {
        let mut mesh = Mesh::default();
        mesh.secrets.insert(ObjectKey { namespace: "shop".into(), name: "whole".into() }, secret("c", "k", "r"));
        let settings = KeyProviderSettings { poll_delay: Some(Span(Duration::from_millis(10))), fallback: Some(true) };
        let mut config = pilotfish_model::MeshConfig::default();
        config.default_config.private_key_provider = Some(PrivateKeyProvider::Cryptomb(settings));
        mesh.config = Arc::new(config);
        let qat = PrivateKeyProvider::Qat(KeyProviderSettings::default());
        let of = |istio: bool, extensions: &[&str], own: Option<PrivateKeyProvider>| {
            let mut node = Node { id: "edge-1".into(), ..Default::default() };
            node.metadata.namespace = Some("shop".into());
            node.metadata.istio_version = istio.then(|| "1.30.0".into());
            node.metadata.proxy_config = own.map(|p| ProxyConfig { private_key_provider: Some(p), ..ProxyConfig::default() });
            let mut proxy = Proxy::parse(node, "root", "cluster.local").unwrap();
            proxy.extensions = extensions.iter().map(|e| (*e).into()).collect();
            let found = secrets(&mesh, &proxy, &["kubernetes://whole".into()]).remove(0);
            let message = SecretMessage::decode(found.to_any().value).unwrap();
            let Some(secret::Type::TlsCertificate(certificate)) = message.r#type else { panic!("no certificate") };
            let provider = certificate.private_key_provider.map(|p| (p.provider_name, p.fallback, p.config_type));
            assert_eq!(provider.is_some(), certificate.private_key.is_none(), "the key is in one place");
            provider
        };
        let cryptomb = CryptoMbPrivateKeyMethodConfig {
            private_key: Some(cryptomb::InlineBytes { inline_bytes: b"k"[..].into() }),
            poll_delay: Some(prost_types::Duration { seconds: 0, nanos: 10_000_000 }),
        };
        let config = private_key_provider::ConfigType::TypedConfig(any(&cryptomb));
        let expected = Some(("cryptomb".to_owned(), true, Some(config)));
        assert_eq!(of(true, &[], None), expected);
        assert_eq!(of(false, &["envoy.tls.key_providers.cryptomb"], None), expected);
        assert_eq!(of(false, &["envoy.tls.key_providers.qat"], None), None);
        assert_eq!(of(false, &[], None), None);
        assert_eq!(of(true, &[], Some(qat)).map(|(name, fallback, _)| (name, fallback)), Some(("qat".to_owned(), false)));
    }
}
