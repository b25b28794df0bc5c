//! Key material of random meshes for random proxies: with everything that is cached and without, the same bytes, and nobody else's.

#![allow(missing_docs, clippy::unwrap_used, clippy::panic)]

use std::collections::BTreeMap;
use std::sync::Arc;

use pilotfish_controller::object::{Decoded, decode};
use pilotfish_controller::{Index, Settings};
use pilotfish_envoy::pb::envoy::config::core::v3::data_source::Specifier;
use pilotfish_envoy::pb::envoy::extensions::transport_sockets::tls::v3::{Secret as Message, secret::Type};
use pilotfish_envoy::{Resource, Snapshot, TypeUrl};
use pilotfish_model::Proxy;
use pilotfish_model::name::Labels;
use pilotfish_model::proxy::{Metadata, Node};
use pilotfish_testkit::Random;
use pilotfish_translator::secret::secrets;
use pilotfish_translator::{Translator, World, snapshot};
use pretty_assertions::assert_eq;
use prost::Message as _;
use serde_json::{Value, json};

const NAMESPACES: [&str; 3] = ["shop", "bank", "edge"];
const NAMES: [&str; 4] = ["a", "b", "c", "a-cacert"];

/// What a Secret holds, and who may have it.
#[derive(Clone, Debug, Default, PartialEq)]
struct Held {
    certificate: String,
    key: String,
    roots: String,
    crl: String,
    staple: String,
}

fn text(source: Option<&pilotfish_envoy::pb::envoy::config::core::v3::DataSource>) -> String {
    match source.and_then(|s| s.specifier.as_ref()) {
        Some(Specifier::InlineBytes(bytes)) => String::from_utf8(bytes.to_vec()).unwrap(),
        None => String::new(),
        other => panic!("{other:?}"),
    }
}

fn held(resource: &Resource) -> Held {
    match Message::decode(&*resource.to_any().value).unwrap().r#type.unwrap() {
        Type::TlsCertificate(t) => Held {
            certificate: text(t.certificate_chain.as_ref()),
            key: text(t.private_key.as_ref()),
            staple: text(t.ocsp_staple.as_ref()),
            ..Held::default()
        },
        Type::ValidationContext(c) => Held { roots: text(c.trusted_ca.as_ref()), crl: text(c.crl.as_ref()), ..Held::default() },
        other => panic!("{other:?}"),
    }
}

/// What a proxy of a namespace is to get for a name: said once more, in words of rules.
fn expected(all: &BTreeMap<(&str, &str), Held>, namespace: &str, name: &str) -> Option<Held> {
    let path = ["kubernetes://", "kubernetes-gateway://"].iter().find_map(|start| name.strip_prefix(start))?;
    let object = match path.split_once('/') {
        Some((of, _)) if of != namespace => return None,
        Some((_, object)) => object,
        None => path,
    };
    let of = |object: &str| all.get(&(namespace, object)).cloned();
    if let Some(base) = object.strip_suffix("-cacert") {
        let found = [of(object), of(base)].into_iter().flatten().find(|h| !h.roots.is_empty())?;
        return Some(Held { roots: found.roots, crl: found.crl, ..Held::default() });
    }
    of(object).filter(|h| !h.key.is_empty()).map(|h| Held { roots: String::new(), crl: String::new(), ..h })
}

fn apply(index: &mut Index, object: Value) {
    let Decoded::Object(object) = decode(object).unwrap() else { panic!("not ours") };
    index.apply((*object).into());
}

/// A Secret in one of the two layouts, with or without each of its parts.
fn secret(random: &mut Random, namespace: &str, name: &str, pair: &(String, String)) -> (Value, Held) {
    let generic = random.below(2) == 0;
    let layout = if generic { ["cert", "key", "cacert", "crl"] } else { ["tls.crt", "tls.key", "ca.crt", "ca.crl"] };
    let mut some = |text: String| if random.below(3) > 0 { text } else { String::new() };
    let whole = !some("x".into()).is_empty();
    let part = |text: &String| if whole { text.clone() } else { String::new() };
    let held = Held {
        certificate: part(&pair.0),
        key: part(&pair.1),
        roots: some(format!("roots of {namespace}/{name}")),
        crl: some(format!("list of {namespace}/{name}")),
        staple: some(format!("staple of {namespace}/{name}")),
    };
    let mut data = serde_json::Map::new();
    let parts = [&held.certificate, &held.key, &held.roots, &held.crl];
    for (key, text) in layout.into_iter().zip(parts).chain([("tls.ocsp-staple", &held.staple)]).filter(|(_, text)| !text.is_empty()) {
        data.insert(key.into(), json!(text));
    }
    (json!({"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}, "stringData": data}), held)
}

fn proxy(namespace: &str, app: &str, istio: bool) -> Proxy {
    let labels: Labels = [("istio".into(), app.into())].into_iter().collect();
    let version = istio.then(|| "1.30.0".to_owned());
    let metadata = Metadata { istio_version: version, namespace: Some(namespace.into()), labels, ..Metadata::default() };
    let node = Node { id: format!("router~10.9.9.9~{app}.{namespace}~{namespace}.svc.cluster.local"), metadata, ..Node::default() };
    Proxy::parse(node, "istio-system", "cluster.local").unwrap()
}

#[test]
fn nobody_gets_what_is_not_its_own_however_it_was_made() {
    // A key pair of each namespace's own: which of its Secrets has it makes no difference here.
    let pairs = NAMESPACES.map(|namespace| {
        let key = rcgen::KeyPair::generate().unwrap();
        let certificate = rcgen::CertificateParams::new(vec![format!("{namespace}.example")]).unwrap().self_signed(&key).unwrap();
        (certificate.pem(), key.serialize_pem())
    });
    let (mut served, mut refused) = (0, 0);
    for seed in 0..60 {
        let mut random = Random(seed);
        let (mut index, mut all) = (Index::new(Settings::default()), BTreeMap::new());
        for (namespace, pair) in NAMESPACES.into_iter().zip(&pairs) {
            for name in NAMES.into_iter().filter(|_| random.below(4) > 0).collect::<Vec<_>>() {
                let (object, held) = secret(&mut random, namespace, name, pair);
                apply(&mut index, object);
                all.insert((namespace, name), held);
            }
            let server = |(i, name): (usize, &str)| {
                let port = json!({"number": 443, "name": format!("https-{i}"), "protocol": "HTTPS"});
                let mode = ["SIMPLE", "MUTUAL"][i % 2];
                json!({"port": port, "hosts": [format!("{i}.example")], "tls": {"mode": mode, "credentialName": name}})
            };
            let servers: Vec<Value> = NAMES.into_iter().enumerate().map(server).collect();
            apply(
                &mut index,
                json!({
                    "apiVersion": "networking.istio.io/v1", "kind": "Gateway", "metadata": {"name": "gw", "namespace": namespace},
                    "spec": {"selector": {"istio": "gw"}, "servers": servers}
                }),
            );
        }
        let (mesh, _) = index.publish().unwrap();
        let (world, cached) = (World::new(mesh.clone()), Translator::default());
        for _ in 0..12 {
            let namespace = NAMESPACES[random.below(3)];
            let proxy = proxy(namespace, ["gw", "other"][random.below(2)], random.below(2) == 0);
            let class = cached.classify(&world, &proxy);
            let view = cached.view(&world, class.scope(), None);
            let (endpoints, own) = (cached.endpoints(&world, &view, None, None), cached.own(&world, &class, &view, None));
            let with_cache = Snapshot::from_layers(view.layers(), endpoints.layer(), own.layers());
            let without = snapshot(&world, &class);
            for type_url in TypeUrl::ALL {
                assert_eq!(with_cache.get(type_url).version(), without.get(type_url).version(), "seed {seed}: {type_url:?} of {namespace}");
                for resource in with_cache.get(type_url).iter() {
                    let bytes = resource.to_any().value;
                    assert!(!bytes.windows(11).any(|w| w == b"PRIVATE KEY"), "seed {seed}: {} has a key in it", resource.name());
                }
            }
            let starts = ["kubernetes://", "kubernetes-gateway://"];
            let names: Vec<Arc<str>> = (0..10)
                .map(|_| {
                    let (start, name) = (starts[random.below(2)], NAMES[random.below(4)]);
                    let within = if random.below(2) == 0 { String::new() } else { format!("{}/", NAMESPACES[random.below(3)]) };
                    format!("{start}{within}{name}{}", ["", "-cacert"][random.below(2)]).into()
                })
                .collect();
            let got = secrets(&mesh, &proxy, &names);
            let again = secrets(&mesh, &proxy, &names);
            assert_eq!(got, again);
            let got: Vec<(Arc<str>, Held)> = got.iter().map(|r| (r.name().clone(), held(r))).collect();
            let wanted: Vec<(Arc<str>, Held)> = names.iter().filter_map(|n| Some((n.clone(), expected(&all, namespace, n)?))).collect();
            assert_eq!(got, wanted, "seed {seed}: {namespace}");
            served += got.len();
            refused += names.len() - got.len();
        }
    }
    assert!(served > 500 && refused > 500, "{served} served, {refused} refused: the meshes are too alike");
}
