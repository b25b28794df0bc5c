//! What certificates say, judged by OpenSSL where it is there.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use pilotfish_ca::issue::{IssueError, Policy, issue};
use pilotfish_ca::root::Key;
use pilotfish_ca::service::{Boxed, NoPods, Pods};
use pilotfish_ca::wire::{CertificateRequest, CertificateResponse};
use pilotfish_ca::{Authority, Material, Service, chain};
use pilotfish_model::identity::PodRef;
use pilotfish_model::{Caller, Identity};
use pretty_assertions::assert_eq;
use prost::Message as _;
use rcgen::{PKCS_ECDSA_P256_SHA256, PKCS_ECDSA_P384_SHA384, PKCS_ED25519, PKCS_RSA_SHA256};
use rustls::pki_types::pem::PemObject as _;
use tonic::Code;

use super::{csr, der, identity, material, now, root};

/// Text that OpenSSL prints; `None` where it is not installed.
fn openssl(args: &[&str]) -> Option<String> {
    let output = Command::new("openssl").args(args).output().ok()?;
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    Some(String::from_utf8_lossy(&output.stdout).into_owned())
}

#[test]
fn openssl_trusts_what_every_kind_of_key_signs_for_every_kind_of_key() {
    let at = SystemTime::now();
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
    for ca in [Key::Rsa(2048), Key::P256, Key::P384] {
        let files =
            pilotfish_ca::root::generate("cluster.local", &pilotfish_ca::root::Options { key: ca, ..Default::default() }, at).unwrap();
        let material = Material::load(&files, at).unwrap();
        fs::write(path("root.pem"), &files["root-cert.pem"]).unwrap();
        for algorithm in [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
            // The request asks for somebody else's name.
            let (request, _) = csr(algorithm, "spiffe://cluster.local/ns/kube-system/sa/admin");
            let issued = issue(&material, &Policy::default(), &request, &[identity("shop", "web")], 3600, at).unwrap();
            assert_eq!(issued.chain.len(), 1);
            fs::write(path("leaf.pem"), &issued.chain[0]).unwrap();
            for purpose in ["sslclient", "sslserver"] {
                if openssl(&["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &path("root.pem"), &path("leaf.pem")]).is_none() {
                    return;
                }
            }
            let text = openssl(&["x509", "-in", &path("leaf.pem"), "-noout", "-text", "-certopt", "no_sigdump,no_pubkey"]).unwrap();
            for expected in [
                "X509v3 Subject Alternative Name: critical\n                URI:spiffe://cluster.local/ns/shop/sa/web\n",
                "X509v3 Key Usage: critical\n                Digital Signature, Key Encipherment\n",
                "TLS Web Server Authentication, TLS Web Client Authentication",
                "CA:FALSE",
                "Subject: \n",
            ] {
                assert!(text.contains(expected), "{expected} is missing in {text}");
            }
            assert!(!text.contains("kube-system"));
        }
    }
}

/// Below an intermediate, as somebody plugs it in: what agents get, and what our own port shows.
#[test]
fn openssl_trusts_what_an_intermediate_signs() {
    let at = SystemTime::now();
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        fs::write(dir.path().join(name), text).unwrap();
        dir.path().join(name).to_str().unwrap().to_owned()
    };
    for algorithm in [&PKCS_RSA_SHA256, &PKCS_ECDSA_P256_SHA256, &PKCS_ECDSA_P384_SHA384] {
        let authority = |name: &str, depth: u8| {
            let mut params = rcgen::CertificateParams::default();
            params.distinguished_name.push(rcgen::DnType::CommonName, name);
            params.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Constrained(depth));
            params.key_usages = vec![rcgen::KeyUsagePurpose::KeyCertSign, rcgen::KeyUsagePurpose::CrlSign];
            params.use_authority_key_identifier_extension = true;
            params
        };
        let root = rcgen::CertifiedIssuer::self_signed(authority("root", 1), rcgen::KeyPair::generate_for(algorithm).unwrap()).unwrap();
        let key = rcgen::KeyPair::generate_for(algorithm).unwrap();
        let between = authority("between", 0).signed_by(&key, &root).unwrap();
        let files = [
            ("ca-cert.pem", between.pem()),
            ("ca-key.pem", key.serialize_pem()),
            ("cert-chain.pem", between.pem()),
            ("root-cert.pem", root.pem()),
        ];
        let files = files.map(|(name, text)| (name.to_owned(), text.into_bytes())).into();
        let material = Material::load(&files, at).unwrap();
        let (request, _) = csr(&PKCS_ECDSA_P256_SHA256, "spiffe://x/ns/y/sa/z");
        let issued = issue(&material, &Policy::default(), &request, &[identity("shop", "web")], 3600, at).unwrap();
        assert_eq!(issued.chain.len(), 2);
        let names = ["istiod.istio-system.svc".to_owned(), "10.0.0.1".to_owned()];
        let (served, _) = pilotfish_ca::tls::serving_certificate(&material, &names, Duration::from_secs(3600), at).unwrap();
        let served: Vec<String> = served.iter().map(|der| pilotfish_ca::pem::certificate(der)).collect();
        let roots = write("root.pem", &root.pem());
        let cases = [
            (&issued.chain, "sslclient", None),
            (&issued.chain, "sslserver", None),
            (&served, "sslserver", Some("istiod.istio-system.svc")),
        ];
        for (chain, purpose, host) in cases {
            let (leaf, others) = (write("leaf.pem", &chain[0]), write("others.pem", &chain[1..].concat()));
            let mut args = vec!["verify", "-x509_strict", "-purpose", purpose, "-CAfile", &roots, "-untrusted", &others];
            args.extend(host.iter().flat_map(|host| ["-verify_hostname", host]));
            args.push(&leaf);
            if openssl(&args).is_none() {
                return;
            }
        }
    }
}

#[test]
fn certificates_say_what_was_proved_and_how_long_it_holds() {
    let material = material();
    let policy = Policy { default_ttl: Duration::from_secs(3600), max_ttl: Duration::from_secs(7200) };
    let (request, key) = csr(&PKCS_ECDSA_P256_SHA256, "spiffe://cluster.local/ns/a/sa/b");
    let ask = |seconds, at| issue(&material, &policy, &request, &[identity("shop", "web")], seconds, at);
    for (seconds, ttl) in [(0, 3600), (-5, 3600), (60, 60), (7200, 7200)] {
        let issued = ask(seconds, now()).unwrap();
        assert_eq!(issued.not_after, now() + Duration::from_secs(ttl));
        let leaf = der(&issued.chain[0]);
        let parsed = chain::parse(&leaf).unwrap();
        assert_eq!(parsed.validity().not_after.timestamp(), 1_767_225_600 + ttl as i64);
        assert_eq!(parsed.validity().not_before.timestamp(), 1_767_225_600 - 120);
        assert_eq!(chain::identities(&parsed), [identity("shop", "web")]);
        assert_eq!(parsed.public_key().subject_public_key.data.as_ref(), rcgen::PublicKeyData::der_bytes(&key));
        chain::verify(&leaf, &[], material.roots(), now()).unwrap();
    }
    assert_eq!(ask(7201, now()), Err(IssueError::Ttl { requested: Duration::from_secs(7201), max: Duration::from_secs(7200) }));
    // Never longer than the signer.
    let last_hour = material.not_after() - Duration::from_secs(1800);
    assert_eq!(ask(3600, last_hour).unwrap().not_after, material.not_after());
    assert_eq!(ask(3600, material.not_after()), Err(IssueError::SignerExpired));
}

#[test]
fn numbers_never_come_twice_and_chains_lead_to_the_root() {
    let material = material();
    let (request, _) = csr(&PKCS_ECDSA_P256_SHA256, "spiffe://x/ns/a/sa/b");
    let mut seen = std::collections::BTreeSet::new();
    for _ in 0..50 {
        let issued = issue(&material, &Policy::default(), &request, &[identity("a", "b")], 0, now()).unwrap();
        let leaf = der(&issued.chain[0]);
        assert!(seen.insert(chain::parse(&leaf).unwrap().raw_serial().to_vec()));
    }
}

#[test]
fn bad_requests_are_refused() {
    let material = material();
    let ask = |request: &str| issue(&material, &Policy::default(), request, &[identity("a", "b")], 0, now());
    let (good, _) = csr(&PKCS_ECDSA_P256_SHA256, "spiffe://x/ns/a/sa/b");
    let (edwards, _) = csr(&PKCS_ED25519, "spiffe://x/ns/a/sa/b");
    // One bit of the signature, which is at the end.
    let block = rustls::pki_types::CertificateSigningRequestDer::from_pem_slice(good.as_bytes()).unwrap();
    let mut bytes = block.to_vec();
    *bytes.last_mut().unwrap() ^= 1;
    let tampered = pilotfish_ca::pem::certificate(&bytes).replace("CERTIFICATE", "CERTIFICATE REQUEST");
    for (request, why) in [
        ("", "not a PEM encoded request"),
        ("-----BEGIN CERTIFICATE REQUEST-----\n!!\n-----END CERTIFICATE REQUEST-----\n", "not a PEM encoded request"),
        ("-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n", "not a PKCS#10 request"),
        (&"x".repeat(40_000), "the request is too long"),
        (&edwards, "unsupported kind of key"),
        (&tampered, "the request is not signed by its key"),
    ] {
        assert_eq!(ask(request), Err(IssueError::Csr(why)), "{why}");
    }
    assert_eq!(issue(&material, &Policy::default(), &good, &[], 0, now()), Err(IssueError::NoIdentity));
}
/// A service whose node proxies are `istio-system/ztunnel`.
fn service(pods: Arc<dyn Pods>) -> Service {
    let authority = Arc::new(Authority::default());
    let material = Arc::new(Material::load(&root(Key::P256), now()).unwrap());
    let roots = material.roots().to_vec();
    authority.set(material, roots);
    Service::new(authority, Policy::default(), "istio-system/ztunnel", pods)
}

fn request(impersonated: Option<&str>) -> Vec<u8> {
    let (csr, _) = csr(&PKCS_ECDSA_P256_SHA256, "spiffe://cluster.local/ns/x/sa/y");
    let metadata = impersonated.map(|name| {
        let kind = Some(prost_types::value::Kind::StringValue(name.to_owned()));
        prost_types::Struct { fields: [("ImpersonatedIdentity".to_owned(), prost_types::Value { kind })].into() }
    });
    CertificateRequest { csr, validity_duration: 60, metadata }.encode_to_vec()
}

/// Whom the answer names.
fn named(answer: &[u8]) -> Vec<Identity> {
    let answer = CertificateResponse::decode(answer).unwrap();
    assert_eq!(answer.cert_chain.len(), 2);
    chain::identities(&chain::parse(&der(&answer.cert_chain[0])).unwrap())
}

#[tokio::test]
async fn callers_get_their_own_name() {
    let service = service(Arc::new(NoPods));
    let answer = service.create(&Caller::of(identity("shop", "web")), &request(None), now()).await.unwrap();
    assert_eq!(named(&answer), [identity("shop", "web")]);
    let refused = service.create(&Caller::anonymous(), &request(None), now()).await.unwrap_err();
    assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "request authenticate failure"));
    let refused = service.create(&Caller::of(identity("shop", "web")), b"\xff\xff", now()).await.unwrap_err();
    assert_eq!(refused.code(), Code::InvalidArgument);
    let counted = service.metrics().counters().map(|(_, _, n)| n);
    assert_eq!(counted, [3, 1, 1, 1, 0]);
}

#[tokio::test]
async fn nothing_is_signed_before_there_is_a_key() {
    let service = Service::new(Arc::default(), Policy::default(), "", Arc::new(NoPods));
    let refused = service.create(&Caller::of(identity("shop", "web")), &request(None), now()).await.unwrap_err();
    assert_eq!(refused.code(), Code::Internal);
    assert_eq!(service.metrics().sign_errors().next(), Some(("CA_NOT_READY", 1)));
}

/// A node with a Pod of `shop/web`, and ztunnel's `zt-1`.
struct OneNode;

impl Pods for OneNode {
    fn beside<'a>(&'a self, caller: &'a Identity, pod: &'a PodRef, wanted: &'a Identity) -> Boxed<'a, Result<bool, String>> {
        let is = *caller == identity("istio-system", "ztunnel") && &*pod.uid == "u1" && *wanted == identity("shop", "web");
        Box::pin(std::future::ready(Ok(is)))
    }
}

#[tokio::test]
async fn only_node_proxies_ask_for_others_and_only_on_their_node() {
    let service = service(Arc::new(OneNode));
    let caller = |namespace: &str, account: &str, uid: Option<&str>| Caller {
        identities: Arc::from([identity(namespace, account)]),
        pod: uid.map(|uid| PodRef { name: "zt-1".into(), uid: uid.into() }),
    };
    let ztunnel = caller("istio-system", "ztunnel", Some("u1"));
    let wanted = "spiffe://cluster.local/ns/shop/sa/web";
    let answer = service.create(&ztunnel, &request(Some(wanted)), now()).await.unwrap();
    assert_eq!(named(&answer), [identity("shop", "web")]);
    for (caller, wanted) in [
        (caller("shop", "web", Some("u1")), wanted),
        (caller("shop", "ztunnel", Some("u1")), wanted),
        (caller("istio-system", "ztunnel", None), wanted),
        (caller("istio-system", "ztunnel", Some("u2")), wanted),
        (ztunnel.clone(), "spiffe://cluster.local/ns/bank/sa/vault"),
        (ztunnel.clone(), "spiffe://other/ns/shop/sa/web"),
        (ztunnel.clone(), "shop/web"),
    ] {
        let refused = service.create(&caller, &request(Some(wanted)), now()).await.unwrap_err();
        assert_eq!((refused.code(), refused.message()), (Code::Unauthenticated, "request impersonation authentication failure"));
    }
}

/// Two thousand requests within ten seconds, none slower than one: on one core, in a build that is not optimized.
#[tokio::test]
async fn many_requests_are_signed_fast_enough() {
    let service = service(Arc::new(NoPods));
    let request = request(None);
    let caller = Caller::of(identity("shop", "web"));
    let began = std::time::Instant::now();
    let mut times = Vec::new();
    for _ in 0..2000 {
        let one = std::time::Instant::now();
        service.create(&caller, &request, now()).await.unwrap();
        times.push(one.elapsed());
    }
    let whole = began.elapsed();
    times.sort();
    println!("2000 certificates in {whole:?}, {:.0} per second, p99 {:?}", 2000.0 / whole.as_secs_f64(), times[1980]);
    assert!(whole < Duration::from_secs(10) && times[1980] < Duration::from_secs(1), "{whole:?}");
    assert_eq!(service.metrics().counters()[1].2, 2000);
}
