//! TLS of our own ports, by real handshakes in memory.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pilotfish_ca::material::Files;
use pilotfish_ca::root::{Key, Options as RootOptions, generate};
use pilotfish_ca::tls::{Options, Serving, serving_certificate};
use pilotfish_ca::{Material, issue::issue};
use pretty_assertions::assert_eq;
use rcgen::PKCS_ECDSA_P256_SHA256;
use rustls::pki_types::{CertificateDer, PrivateKeyDer, PrivatePkcs8KeyDer};
use rustls::{ClientConfig, ClientConnection, ProtocolVersion, RootCertStore, ServerConfig, ServerConnection};

use super::{csr, der, identity};

fn fresh() -> Material {
    let options = RootOptions { key: Key::P256, ..RootOptions::default() };
    let files: Files = generate("cluster.local", &options, SystemTime::now()).unwrap();
    Material::load(&files, SystemTime::now()).unwrap()
}

fn serve(serving: &Serving, material: &Material) {
    let names = ["istiod.istio-system.svc".to_owned(), "127.0.0.1".to_owned()];
    let (chain, key) = serving_certificate(material, &names, Duration::from_secs(3600), SystemTime::now()).unwrap();
    serving.set_certificate(chain, key).unwrap();
}

type Own = (Vec<CertificateDer<'static>>, PrivateKeyDer<'static>);

/// A workload's certificate.
fn workload(material: &Material) -> Own {
    let (request, key) = csr(&PKCS_ECDSA_P256_SHA256, "spiffe://x/ns/a/sa/b");
    let issued = issue(material, &Default::default(), &request, &[identity("shop", "web")], 0, SystemTime::now()).unwrap();
    (vec![der(&issued.chain[0])], PrivatePkcs8KeyDer::from(key.serialize_der()).into())
}

fn client(roots: &Material, versions: &[&'static rustls::SupportedProtocolVersion], own: Option<Own>) -> ClientConfig {
    let mut store = RootCertStore::empty();
    store.add_parsable_certificates(roots.roots().iter().cloned());
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let builder = ClientConfig::builder_with_provider(provider).with_protocol_versions(versions).unwrap().with_root_certificates(store);
    let mut config = match own {
        Some((chain, key)) => builder.with_client_auth_cert(chain, key).unwrap(),
        None => builder.with_no_client_auth(),
    };
    config.alpn_protocols = vec![b"h2".to_vec()];
    config
}

/// Which version came about, and the client's certificate as the server sees it.
fn shake(server: &Arc<ServerConfig>, client: ClientConfig, name: &'static str) -> Result<(ProtocolVersion, bool), String> {
    let mut server = ServerConnection::new(server.clone()).unwrap();
    let mut client = ClientConnection::new(Arc::new(client), name.try_into().unwrap()).unwrap();
    let mut buffer = Vec::new();
    for _ in 0..10 {
        buffer.clear();
        client.write_tls(&mut buffer).unwrap();
        server.read_tls(&mut buffer.as_slice()).unwrap();
        server.process_new_packets().map_err(|e| format!("server: {e}"))?;
        buffer.clear();
        server.write_tls(&mut buffer).unwrap();
        client.read_tls(&mut buffer.as_slice()).unwrap();
        client.process_new_packets().map_err(|e| format!("client: {e}"))?;
    }
    assert!(!client.is_handshaking() && !server.is_handshaking());
    assert_eq!(server.alpn_protocol(), Some(&b"h2"[..]));
    Ok((server.protocol_version().unwrap(), server.peer_certificates().is_some()))
}

const BOTH: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12, &rustls::version::TLS13];
const TLS12: &[&rustls::SupportedProtocolVersion] = &[&rustls::version::TLS12];
const NAME: &str = "istiod.istio-system.svc";

#[test]
fn versions_and_certificates_of_clients() {
    let material = fresh();
    let serving = Serving::default();
    let config = serving.for_proxies(&Options::default()).unwrap();
    assert!(shake(&config, client(&material, BOTH, None), NAME).is_err());
    serve(&serving, &material);
    serving.set_clients(material.roots(), Vec::new()).unwrap();
    assert_eq!(shake(&config, client(&material, BOTH, None), NAME), Ok((ProtocolVersion::TLSv1_3, false)));
    assert_eq!(shake(&config, client(&material, BOTH, None), "127.0.0.1"), Ok((ProtocolVersion::TLSv1_3, false)));
    assert_eq!(shake(&config, client(&material, TLS12, Some(workload(&material))), NAME), Ok((ProtocolVersion::TLSv1_2, true)));
    let strict = serving.for_proxies(&Options { only_tls13: true, ..Options::default() }).unwrap();
    assert!(shake(&strict, client(&material, TLS12, None), NAME).is_err());
    assert_eq!(shake(&strict, client(&material, BOTH, Some(workload(&material))), NAME), Ok((ProtocolVersion::TLSv1_3, true)));
    // Neither a name that is not ours nor a stranger's certificate.
    assert!(shake(&config, client(&material, BOTH, None), "kubernetes.default.svc").is_err());
    let refused = shake(&config, client(&material, BOTH, Some(workload(&fresh()))), NAME).unwrap_err();
    assert!(refused.starts_with("server: invalid peer certificate"), "{refused}");
}

#[test]
fn a_server_takes_new_roots_and_certificates_while_it_runs() {
    let (old, new) = (fresh(), fresh());
    let serving = Serving::default();
    let config = serving.for_proxies(&Options::default()).unwrap();
    serve(&serving, &old);
    serving.set_clients(old.roots(), Vec::new()).unwrap();
    assert!(shake(&config, client(&old, BOTH, Some(workload(&old))), NAME).is_ok());
    assert!(shake(&config, client(&old, BOTH, Some(workload(&new))), NAME).is_err());
    serving.set_clients(&[old.roots(), new.roots()].concat(), Vec::new()).unwrap();
    assert!(shake(&config, client(&old, BOTH, Some(workload(&new))), NAME).is_ok());
    serve(&serving, &new);
    assert!(shake(&config, client(&old, BOTH, None), NAME).is_err());
    assert!(shake(&config, client(&new, BOTH, Some(workload(&old))), NAME).is_ok());
}

#[test]
fn suites_are_chosen_by_name() {
    let options = |suite: &str| Options { cipher_suites: vec![suite.to_owned()], ..Options::default() };
    let serving = Serving::default();
    let material = fresh();
    serve(&serving, &material);
    let config = serving.for_anyone(&options("TLS_ECDHE_ECDSA_WITH_AES_256_GCM_SHA384")).unwrap();
    assert_eq!(shake(&config, client(&material, TLS12, None), NAME), Ok((ProtocolVersion::TLSv1_2, false)));
    let config = serving.for_anyone(&options("TLS_ECDHE_RSA_WITH_AES_256_GCM_SHA384")).unwrap();
    assert!(shake(&config, client(&material, TLS12, None), NAME).is_err());
    assert!(serving.for_anyone(&options("TLS_RSA_WITH_RC4_128_SHA")).is_err());
    assert!(serving.for_anyone(&options("TLS_AES_256_GCM_SHA384")).is_ok());
}
