//! Key material for one proxy: [`secrets`], the only way by which a Kubernetes Secret becomes a resource.
//!
//! Nothing is cached here. Whether the peer may have any is the caller's question; that a proxy gets the Secrets of its own
//! namespace and no others is answered here.

use std::sync::Arc;

use pilotfish_envoy::Resource;
use pilotfish_model::mesh::ObjectKey;
use pilotfish_model::secret::Secret;
use pilotfish_model::{Mesh, Proxy};

use crate::tls::secret_resource;
use crate::tls::source::{KUBERNETES, ROOTS_SUFFIX};

/// Start of a name that says the namespace too.
const KUBERNETES_GATEWAY: &str = "kubernetes-gateway://";

/// Of the names those that stand for a usable Secret of the proxy's namespace.
pub fn secrets(mesh: &Mesh, proxy: &Proxy, names: &[Arc<str>]) -> Vec<Resource> {
    names.iter().filter_map(|name| Some(secret_resource(find(mesh, proxy, name)?, name))).collect()
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
    use super::*;
    use pilotfish_model::proxy::Node;

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
        assert_eq!(found[4], secret_resource(&secret("c", "k", ""), "kubernetes://split"));
        assert_eq!(found[5], secret_resource(&secret("", "", "r"), "kubernetes://split-cacert"));
    }
}
