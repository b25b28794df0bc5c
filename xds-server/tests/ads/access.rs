//! Who may have what, over real connections: every type, every method, every caller.

use std::future::ready;
use std::sync::Arc;

use bytes::Bytes;
use http::HeaderMap;
use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::pb::envoy::config::core::v3::TypedExtensionConfig;
use pilotfish_envoy::pb::envoy::service::discovery::v3::DeltaDiscoveryResponse;
use pilotfish_model::{Caller, Identity};
use pilotfish_testkit::Authority;
use pilotfish_testkit::ads::{Delta, channel, said, sidecar, tls_channel};
use pilotfish_testkit::tls::TlsClient;
use pilotfish_xds_server::access::{Asset, Way, Who, allows};
use pilotfish_xds_server::guard::{Boxed, Peer};
use pilotfish_xds_server::{ADS_METHODS, Config, Guard, Port};
use pretty_assertions::assert_eq;
use prost::Message as _;
use tokio::net::TcpListener;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::PrivatePkcs8KeyDer;
use tonic::{Code, Status};

use crate::fake::{Change, Running, World, start};

const CALL: &str = "/test.Service/Call";

/// Believes every bearer token, which is `namespace/account`. Everybody but `shop/blind` may read Secrets.
struct Trusting;

impl Guard for Trusting {
    fn authenticate<'a>(&'a self, _: &'a Peer, headers: &'a HeaderMap) -> Boxed<'a, Result<Caller, Status>> {
        let token = headers.get("authorization").and_then(|v| v.to_str().ok()?.strip_prefix("Bearer "));
        let caller = match token.map(|t| t.split_once('/')) {
            None => Ok(Caller::anonymous()),
            Some(Some((namespace, account))) => {
                let trust_domain = "cluster.local".into();
                Ok(Caller::of(Identity { trust_domain, namespace: namespace.into(), account: account.into() }))
            }
            Some(None) => Err(Status::unauthenticated("no")),
        };
        Box::pin(ready(caller))
    }

    fn may_read_secrets<'a>(&'a self, identity: &'a Identity) -> Boxed<'a, Result<bool, String>> {
        Box::pin(ready(Ok(&*identity.account != "blind")))
    }

    fn methods(&self) -> &[&'static str] {
        &[CALL]
    }

    fn call<'a>(&'a self, path: &'a str, caller: &'a Caller, request: Bytes) -> Boxed<'a, Result<Bytes, Status>> {
        assert_eq!(path, CALL);
        let answer = format!("{} {}", caller.identities[0], String::from_utf8_lossy(&request));
        Box::pin(ready(Ok(answer.into())))
    }
}

/// The ports of one server.
struct Ports {
    running: Running,
    clear: String,
    tls: std::net::SocketAddr,
    authority: Authority,
}

impl Ports {
    async fn start() -> Ports {
        let running = start(Config::default()).await;
        let authority = Authority::new("root");
        let server = authority.issue("server", &["server"]);
        let config = ServerConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider())).with_safe_default_protocol_versions();
        let key = PrivatePkcs8KeyDer::from(server.key.clone()).into();
        let mut config = config.unwrap().with_no_client_auth().with_single_cert(vec![server.der.clone()], key).unwrap();
        config.alpn_protocols = vec![b"h2".to_vec()];
        let mut addresses = Vec::new();
        for port in [Port::clear(Arc::new(Trusting)), Port::tls(Arc::new(config), Arc::new(Trusting))] {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            addresses.push(listener.local_addr().unwrap());
            let (server, drain) = (running.server.clone(), running.drain.clone());
            tokio::spawn(async move { server.serve_port(listener, port, drain).await });
        }
        Ports { running, clear: format!("http://{}", addresses[0]), tls: addresses[1], authority }
    }

    async fn channel(&self, way: Way) -> tonic::transport::Channel {
        match way {
            Way::Tls => tls_channel(self.tls, "server", &TlsClient::new(self.authority.root())).await.unwrap(),
            _ => channel(&self.clear).await,
        }
    }

    /// A stream of a proxy of `shop` with service account `web`.
    async fn open(&self, way: Way, token: Option<&str>) -> Result<Delta, Status> {
        let mut node = sidecar("shop");
        node.metadata = Some(pilotfish_envoy::Struct::new([("SERVICE_ACCOUNT", pilotfish_envoy::Value::text("web"))]));
        Delta::on_as(self.channel(way).await, node, token).await
    }
}

fn world() -> World {
    World::default().with(TypeUrl::Cluster, &[("c", "1")]).with_key("shop", "kubernetes://ours", "k")
}

#[tokio::test]
async fn every_type_goes_to_whom_the_table_says_and_to_nobody_else() {
    let ports = Ports::start().await;
    ports.running.publish(&world()).await;
    let callers = [
        (Who::Anonymous, None),
        (Who::OtherNamespace, Some("bank/web")),
        (Who::OtherNamespace, Some("shop/thief")),
        (Who::SameNamespace, Some("shop/web")),
        (Who::ControlPlane, Some("root/istiod")),
    ];
    for way in [Way::Local, Way::Tls] {
        for (who, token) in callers {
            for type_url in TypeUrl::ALL {
                let name = if type_url == TypeUrl::Secret { "kubernetes://ours" } else { "*" };
                let outcome = async {
                    let mut stream = ports.open(way, token).await?;
                    stream.subscribe(type_url, &[name]).await;
                    // Clusters come last: what was asked for before has been judged by then.
                    stream.subscribe(TypeUrl::Cluster, &["*"]).await;
                    let mut got_keys = false;
                    loop {
                        let response = stream.receive().await?.expect("a response");
                        let (answered, names, _) = said(&response);
                        got_keys |= answered == TypeUrl::Secret && names == ["kubernetes://ours"];
                        if type_url == TypeUrl::Secret && !got_keys {
                            stream.ack(&response).await;
                            continue;
                        }
                        return Ok::<bool, Status>(got_keys);
                    }
                };
                let outcome = outcome.await;
                let expected = allows(Asset::Type(type_url), way, who);
                assert_eq!(outcome.is_ok(), expected, "{way:?} {token:?} {type_url:?}: {outcome:?}");
                if let Err(status) = outcome {
                    let code = if who == Who::Anonymous { Code::Unauthenticated } else { Code::PermissionDenied };
                    assert_eq!(status.code(), code, "{way:?} {token:?} {type_url:?}");
                }
            }
        }
    }
    crate::streams::until("all streams gone", || ports.running.server.work().live_streams == 0).await;
}

#[tokio::test]
async fn keys_need_the_right_to_read_them_and_a_bad_proof_reaches_nothing() {
    let ports = Ports::start().await;
    let roots = world().with_key("shop", "kubernetes://ours-cacert", "roots");
    ports.running.publish(&roots).await;
    let channel = ports.channel(Way::Tls).await;
    // Its node says nothing of a service account.
    let mut blind = Delta::on_as(channel.clone(), sidecar("shop"), Some("shop/blind")).await.unwrap();
    blind.subscribe(TypeUrl::Secret, &["kubernetes://ours", "kubernetes://ours-cacert"]).await;
    assert_eq!(said(&blind.take().await), (TypeUrl::Secret, vec!["kubernetes://ours-cacert"], vec![]));
    let mut seeing = Delta::on_as(channel.clone(), sidecar("shop"), Some("shop/web")).await.unwrap();
    seeing.subscribe(TypeUrl::Secret, &["kubernetes://ours", "kubernetes://theirs"]).await;
    assert_eq!(said(&seeing.take().await), (TypeUrl::Secret, vec!["kubernetes://ours"], vec![]));
    let refused = Delta::on_as(channel, sidecar("shop"), Some("nonsense")).await.map(|_| ()).unwrap_err();
    assert_eq!(refused.code(), Code::Unauthenticated);
}

#[tokio::test]
async fn a_plain_envoy_is_of_the_namespace_that_it_proves() {
    let ports = Ports::start().await;
    ports.running.publish(&world()).await;
    let node = pilotfish_testkit::ads::node("edge-1");
    let mut stream = Delta::on_as(ports.channel(Way::Tls).await, node, Some("shop/web")).await.unwrap();
    stream.subscribe(TypeUrl::Secret, &["kubernetes://ours"]).await;
    assert_eq!(said(&stream.take().await).1, ["kubernetes://ours"]);
}

#[tokio::test]
async fn no_other_method_is_reached_and_those_that_are_need_a_caller() {
    let ports = Ports::start().await;
    ports.running.publish(&world()).await;
    let all = ADS_METHODS.into_iter().chain([CALL, "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", "/", "/x/y"]);
    for path in all {
        for token in [None, Some("shop/web"), Some("nonsense")] {
            let mut grpc = tonic::client::Grpc::new(ports.channel(Way::Tls).await);
            grpc.ready().await.unwrap();
            let mut request = tonic::Request::new("hello".to_owned());
            if let Some(token) = token {
                request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
            }
            let codec = tonic_prost::ProstCodec::<String, String>::default();
            let outcome = grpc.unary(request, path.parse().unwrap(), codec).await;
            let code = outcome.err().map(|status| status.code());
            let expected = match (path, token) {
                (path, None | Some("nonsense")) if path == CALL => vec![Code::Unauthenticated],
                (path, Some("nonsense")) if ADS_METHODS.contains(&path) => vec![Code::Unauthenticated],
                // A stream is known by its node; this one names none.
                (path, _) if ADS_METHODS.contains(&path) => vec![Code::InvalidArgument, Code::Unauthenticated],
                // The answer is no message that this client reads.
                (path, _) if path == CALL => vec![Code::Internal, Code::InvalidArgument],
                _ => vec![Code::Unimplemented],
            };
            assert!(code.is_some_and(|code| expected.contains(&code)), "{path} {token:?}: {code:?}");
        }
    }
}

/// What the settings of an extension say that a response holds.
fn told(response: &DeltaDiscoveryResponse) -> Vec<(String, String)> {
    let content = |r: &pilotfish_envoy::pb::envoy::service::discovery::v3::Resource| {
        let message = TypedExtensionConfig::decode(&*r.resource.as_ref().unwrap().value).unwrap();
        (r.name.clone(), message.typed_config.unwrap().type_url)
    };
    response.resources.iter().map(content).collect()
}

#[tokio::test]
async fn credentials_of_modules_reach_only_who_has_proved_to_be_a_proxy_that_has_the_module() {
    let ports = Ports::start().await;
    let modules = |version: &str| {
        let content = format!("module {version} of {{ns}}");
        world().with(TypeUrl::ExtensionConfig, &[("m", &*content), ("other", "x")])
    };
    let first = modules("1").with_credentials("module 1 of shop", "hush 1");
    ports.running.publish(&first).await;
    let said = |content: &str| vec![("m".to_owned(), content.to_owned())];

    let mut known = ports.open(Way::Tls, Some("shop/web")).await.unwrap();
    let mut anonymous = ports.open(Way::Local, None).await.unwrap();
    let mut elsewhere = Delta::on_as(ports.channel(Way::Tls).await, sidecar("bank"), Some("bank/web")).await.unwrap();
    for (stream, content) in [(&mut known, "hush 1"), (&mut anonymous, "module 1 of shop"), (&mut elsewhere, "module 1 of bank")] {
        stream.subscribe(TypeUrl::ExtensionConfig, &["m"]).await;
        assert_eq!(told(&stream.take().await), said(content));
    }
    let debug = ports.running.server.debug();
    let is_hidden = || {
        for page in [debug.config_dump(Some("web-0.shop-1"), true), debug.ecdsz(Some("web-0.shop-1"))] {
            let page = page.unwrap().to_string();
            assert!(page.contains("of shop") && !page.contains("hush"), "{page}");
        }
    };
    is_hidden();
    let applied = || debug.applied("Thing/ns/m")["summary"].clone();
    crate::streams::until("all have confirmed it", || applied() == "3 of 3 proxies have it; 0 missing, 0 rejected it").await;

    // Only who has them is told that they changed, and of nothing else.
    let responses = ports.running.server.work().responses;
    ports
        .running
        .change(&modules("1").with_credentials("module 1 of shop", "hush 2"), Change { only: Some([].into()), classes: false })
        .await;
    assert_eq!(told(&known.take().await), said("hush 2"));
    anonymous.expect_silence().await;
    elsewhere.expect_silence().await;
    assert_eq!(ports.running.server.work().responses, responses + 1);
    is_hidden();

    // A module that changes takes its credentials along; gone ones are missed at once. Streams look them up as soon as a Secret may
    // have changed, be it for the module that they still have.
    let second = modules("2").with_credentials("module 1 of shop", "hush 2").with_credentials("module 2 of shop", "hush 2");
    ports.running.publish(&second).await;
    anonymous.take().await;
    known.expect_silence().await;
    let third = modules("3").with_credentials("module 2 of shop", "hush 2").with_credentials("module 3 of shop", "hush 3");
    ports.running.publish(&third).await;
    assert_eq!(told(&known.take().await), said("hush 3"));
    ports.running.publish(&modules("3")).await;
    assert_eq!(told(&known.take().await), said("module 3 of shop"));
}
