//! Bundles of certificates that must load, and those that must not.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use pilotfish_ca::chain::{self, Untrusted};
use pilotfish_ca::material::{Files, MaterialError, check, key_pair};
use pilotfish_ca::root::Key;
use pilotfish_ca::{Material, pem};
use pretty_assertions::assert_eq;
use serde_json::Value;

use super::{now, root};

/// Cases of others, where they are at hand.
fn peer_data() -> Option<PathBuf> {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../shared/peer-data/pki");
    dir.is_dir().then_some(dir)
}

/// A time at which a certificate holds.
fn within(certificate: &[u8]) -> SystemTime {
    let der = pem::certificates(certificate).unwrap().remove(0);
    let parsed = chain::parse(&der).unwrap();
    SystemTime::UNIX_EPOCH + Duration::from_secs(parsed.validity().not_before.timestamp() as u64 + 60)
}

#[test]
fn bundles_load_or_not() {
    let Some(dir) = peer_data() else { return };
    let cases: Value = yaml_serde::from_str(&fs::read_to_string(dir.join("cases.yaml")).unwrap()).unwrap();
    let data = |name: &Value| fs::read(dir.join("data").join(name.as_str().unwrap())).unwrap();
    let mut wrong = Vec::new();
    for case in cases["cases"].as_array().unwrap() {
        let (certificate, roots) = (data(&case["cert"]), data(&case["root"]));
        let load = || -> Result<(), MaterialError> {
            let bad = |source| MaterialError::Pem { file: "ca-cert.pem", source };
            let leaf = pem::certificates(&certificate).map_err(bad)?.remove(0);
            let key = key_pair(&data(&case["key"])).ok_or(MaterialError::Key("ca-key.pem"))?;
            let between =
                case["chain"].as_array().unwrap().iter().flat_map(|file| pem::certificates(&data(file)).unwrap()).collect::<Vec<_>>();
            check(&leaf, &key, &between, &pem::certificates(&roots).map_err(bad)?, within(&certificate))
        };
        let outcome = load();
        let should_fail = !case["error"].as_str().unwrap().is_empty();
        if outcome.is_err() != should_fail {
            wrong.push(format!("{}: {outcome:?}", case["name"]));
        }
    }
    assert_eq!(wrong, Vec::<String>::new());
}

#[test]
fn single_files_are_what_they_are() {
    let Some(dir) = peer_data().map(|d| d.join("data")) else { return };
    let file = |name: &str| fs::read(dir.join(name)).unwrap();
    let certificates = |name: &str| pem::certificates(&file(name)).unwrap();
    let one = |name: &str| certificates(name).remove(0);
    // The clock decides, also of a root.
    let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1_735_689_600);
    let alone = |name: &str| chain::verify(&one(name), &[], &[one(name)], at);
    assert_eq!((alone("expired-cert.pem"), alone("notexpired-cert.pem")), (Err(Untrusted::Time), Ok(())));
    // A blank line is no certificate.
    assert_eq!(certificates("cert-chain-trailing-line.pem"), certificates("cert-chain.pem"));
    // A key that belongs to nobody here.
    let stranger = key_pair(&file("key-mismatch.pem")).unwrap();
    let cert = file("cert.pem");
    let chain = certificates("cert-chain.pem");
    let pair = check(&one("cert.pem"), &stranger, &chain, &[one("cert.pem")], within(&cert));
    assert_eq!(pair, Err(MaterialError::Mismatch));
    // It names a workload.
    let workload = one("spiffe-workload-cert.pem");
    let names: Vec<String> = chain::identities(&chain::parse(&workload).unwrap()).iter().map(ToString::to_string).collect();
    assert_eq!(names, ["spiffe://foo.domain.com/ns/foo/sa/default"]);
    assert!(key_pair(&file("spiffe-workload-key.pem")).is_some());
    for root in ["spiffe-root-cert-1.pem", "spiffe-root-cert-2.pem"] {
        assert_eq!(chain::verify(&one(root), &[], &[one(root)], at), Ok(()), "{root}");
    }
}

fn plugged(dir: &Path, names: [&str; 4]) -> Files {
    let kinds = ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"];
    kinds.into_iter().zip(names).map(|(kind, name)| (kind.to_owned(), fs::read(dir.join(name)).unwrap())).collect()
}

#[test]
fn plugged_in_keys_load() {
    let Some(dir) = peer_data().map(|d| d.join("plugin-ca")) else { return };
    let files = plugged(&dir, ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"]);
    let at = within(&files["ca-cert.pem"]);
    let loaded = Material::load(&files, at).unwrap();
    assert_eq!((loaded.chain().len(), loaded.roots().len()), (1, 1));
    let files = plugged(&dir, ["ca-cert-alt.pem", "ca-key-alt.pem", "cert-chain-alt.pem", "root-cert-alt.pem"]);
    let loaded = Material::load(&files, within(&files["ca-cert.pem"])).unwrap();
    assert_eq!((loaded.chain().len(), loaded.roots().len()), (1, 1));
    let files = plugged(&dir, ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert-combined.pem"]);
    assert_eq!(Material::load(&files, at).unwrap().roots().len(), 2);
    // The root of somebody else.
    let files = plugged(&dir, ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert-alt.pem"]);
    assert_eq!(Material::load(&files, at).unwrap_err(), MaterialError::Untrusted(Untrusted::Unknown));
}

#[test]
fn revocation_lists_are_of_the_chain() {
    let Some(dir) = peer_data().map(|d| d.join("data/crl")) else { return };
    let mut files = plugged(&dir, ["ca-cert.pem", "ca-key.pem", "cert-chain.pem", "root-cert.pem"]);
    let at = within(&files["ca-cert.pem"]);
    files.insert("ca-crl.pem".into(), fs::read(dir.join("ca-crl.pem")).unwrap());
    assert_eq!(Material::load(&files, at).unwrap().revocation_lists().len(), 2);
    files.insert("ca-crl.pem".into(), fs::read(dir.join("bad-ca-crl.pem")).unwrap());
    assert!(Material::load(&files, at).is_err());
}

#[test]
fn what_is_not_whole_is_refused() {
    let good = root(Key::P256);
    let change = |name: &str, file: &[u8]| {
        let mut files = good.clone();
        files.insert(name.into(), file.to_vec());
        Material::load(&files, now()).unwrap_err()
    };
    let other = root(Key::P256);
    assert_eq!(change("ca-cert.pem", b""), MaterialError::Missing("ca-cert.pem"));
    assert_eq!(change("ca-key.pem", b""), MaterialError::Missing("ca-key.pem"));
    assert_eq!(change("root-cert.pem", b""), MaterialError::Missing("root-cert.pem"));
    assert_eq!(change("ca-key.pem", b"nothing"), MaterialError::Key("ca-key.pem"));
    assert_eq!(change("ca-key.pem", &other["ca-key.pem"]), MaterialError::Mismatch);
    assert_eq!(change("root-cert.pem", &other["root-cert.pem"]), MaterialError::Untrusted(Untrusted::Unknown));
    let years = |n: u64| Duration::from_secs(n * 365 * 24 * 3600);
    assert_eq!(Material::load(&good, now() + years(11)).unwrap_err(), MaterialError::Untrusted(Untrusted::Time));
    assert_eq!(Material::load(&good, now() - years(1)).unwrap_err(), MaterialError::Untrusted(Untrusted::Time));
}

#[test]
fn both_layouts_and_all_kinds_of_keys_load() {
    for key in [Key::Rsa(2048), Key::P256, Key::P384] {
        let files = root(key);
        Material::load(&files, now()).unwrap();
        let tls: Files = [("tls.crt", "ca-cert.pem"), ("tls.key", "ca-key.pem"), ("ca.crt", "root-cert.pem")]
            .into_iter()
            .map(|(name, from)| (name.to_owned(), files[from].clone()))
            .collect();
        assert_eq!(Material::load(&tls, now()).unwrap().roots().len(), 1);
    }
}

#[test]
fn keys_are_not_shown() {
    let material = super::material();
    assert_eq!(format!("{material:?}"), format!("Material {{ not_after: {:?}, roots: 1, .. }}", material.not_after()));
}
