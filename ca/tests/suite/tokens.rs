//! Whose tokens are believed, with and without an API server.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD as BASE64;
use http::{HeaderMap, HeaderValue};
use pilotfish_ca::auth::keys::Keys;
use pilotfish_ca::auth::tokens::{Refused, Reviewer, Rule, Subject, Tokens, service_account};
use pilotfish_ca::auth::{Authenticator, Connection, Options};
use pilotfish_ca::service::Boxed;
use pilotfish_model::Caller;
use pilotfish_model::identity::PodRef;
use pilotfish_testkit::token::Issuer;
use pretty_assertions::assert_eq;
use serde_json::{Value, json};
use tonic::Code;

use super::now;

pub(crate) fn keys(of: &[&Issuer]) -> Keys {
    let set = json!({"keys": of.iter().map(|i| i.jwk()).collect::<Value>()});
    Keys::parse(set.to_string().as_bytes()).unwrap()
}

fn seconds(at: SystemTime) -> u64 {
    at.duration_since(SystemTime::UNIX_EPOCH).unwrap().as_secs()
}

fn claims() -> Value {
    json!({
        "iss": "https://cluster", "sub": "system:serviceaccount:shop:web", "aud": ["istio-ca"],
        "exp": seconds(now()) + 3600, "nbf": seconds(now()), "iat": seconds(now()),
        "kubernetes.io": {"namespace": "shop", "serviceaccount": {"name": "web", "uid": "s"}, "pod": {"name": "web-0", "uid": "u"}},
    })
}

fn with(key: &str, value: Value) -> Value {
    let mut claims = claims();
    claims[key] = value;
    claims
}

/// An API server that answers, or not.
#[derive(Default)]
struct Server {
    keys: Option<(String, Keys)>,
    reviews: Option<Option<Subject>>,
    asked_keys: AtomicUsize,
    asked_reviews: AtomicUsize,
}

impl Reviewer for Server {
    fn keys(&self) -> Boxed<'_, Result<(String, Keys), String>> {
        self.asked_keys.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(self.keys.clone().ok_or_else(|| "down".to_owned())))
    }

    fn review<'a>(&'a self, _: &'a str, _: &'a [String]) -> Boxed<'a, Result<Option<Subject>, String>> {
        self.asked_reviews.fetch_add(1, Ordering::Relaxed);
        Box::pin(std::future::ready(self.reviews.clone().ok_or_else(|| "down".to_owned())))
    }
}

fn tokens(server: &Arc<Server>) -> Tokens {
    Tokens::new(vec!["istio-ca".into()], Vec::new(), Some(server.clone()))
}

fn web() -> Subject {
    let pod = Some(PodRef { name: "web-0".into(), uid: "u".into() });
    Subject { namespace: "shop".into(), account: "web".into(), pod }
}

#[tokio::test]
async fn the_clusters_keys_prove_tokens_without_asking_for_each() {
    let issuer = Issuer::new("k1");
    let server = Arc::new(Server { keys: Some(("https://cluster".into(), keys(&[&issuer]))), ..Server::default() });
    let tokens = tokens(&server);
    let token = issuer.sign(&claims());
    for _ in 0..100 {
        assert_eq!(tokens.verify(&token, now()).await, Ok(web()));
    }
    assert_eq!(tokens.verify(&issuer.sign(&with("aud", json!("istio-ca"))), now()).await, Ok(web()));
    assert_eq!((server.asked_keys.load(Ordering::Relaxed), server.asked_reviews.load(Ordering::Relaxed)), (1, 0));
    // A token ends while it is in the cache.
    assert_eq!(tokens.verify(&token, now() + Duration::from_secs(3600)).await, Err(Refused::Bad("its time is over")));
}

#[tokio::test]
async fn forgeries_are_refused() {
    let (issuer, forger) = (Issuer::new("k1"), Issuer::new("k1"));
    let server = Arc::new(Server { keys: Some(("https://cluster".into(), keys(&[&issuer]))), reviews: Some(None), ..Server::default() });
    let tokens = tokens(&server);
    let bad = Refused::Bad;
    let good = issuer.sign(&claims());
    let (head, signature) = good.rsplit_once('.').unwrap();
    let other_claims = BASE64.encode(with("sub", json!("system:serviceaccount:kube-system:admin")).to_string());
    let swapped = format!("{}.{other_claims}.{signature}", head.split('.').next().unwrap());
    let header = |header: Value| issuer.sign_with(&header, &claims());
    for (token, why) in [
        (forger.sign(&claims()), bad("not signed by the cluster")),
        (swapped, bad("not signed by the cluster")),
        (format!("{head}."), bad("not signed by the cluster")),
        (format!("{}.{}.", BASE64.encode(r#"{"alg":"none"}"#), head.split('.').nth(1).unwrap()), bad("refused by the API server")),
        // The public key as a shared secret, the classic of algorithm confusion.
        (header(json!({"alg": "HS256", "kid": "k1"})), bad("refused by the API server")),
        (header(json!({"alg": "ES256", "kid": "k1", "crit": ["exp"]})), bad("not a signed token")),
        (issuer.sign(&with("aud", json!(["https://cluster"]))), bad("for another audience")),
        (issuer.sign(&with("exp", json!(seconds(now())))), bad("its time is over")),
        (issuer.sign(&with("exp", Value::Null)), bad("it does not say when it ends")),
        (issuer.sign(&with("exp", json!(-1))), bad("it does not say when it ends")),
        (issuer.sign(&with("nbf", json!(seconds(now()) + 3600))), bad("its time has not come")),
        (issuer.sign(&with("sub", json!("system:node:a"))), bad("not of a service account")),
        (issuer.sign(&with("iss", json!("https://other"))), bad("refused by the API server")),
        ("a.b".into(), bad("not a signed token")),
        ("a.b.c.d".into(), bad("not a signed token")),
        ("x".repeat(20_000), bad("not a signed token")),
    ] {
        assert_eq!(tokens.verify(&token, now()).await, Err(why), "{token}");
    }
}

#[tokio::test]
async fn without_the_api_server_forgeries_stay_out_and_known_keys_go_on() {
    let (issuer, forger) = (Issuer::new("k1"), Issuer::new("k2"));
    let down = Arc::new(Server::default());
    let nothing_known = tokens(&down);
    for token in [issuer.sign(&claims()), forger.sign(&claims())] {
        assert_eq!(nothing_known.verify(&token, now()).await, Err(Refused::Unavailable("down".into())));
    }
    // Keys were known when the API server went away: here, one whose reviews fail.
    let server = Arc::new(Server { keys: Some(("https://cluster".into(), keys(&[&issuer]))), ..Server::default() });
    let tokens = tokens(&server);
    tokens.refresh(now()).await.unwrap();
    assert_eq!(tokens.verify(&issuer.sign(&claims()), now()).await, Ok(web()));
    assert_eq!(tokens.verify(&forger.sign(&claims()), now()).await, Err(Refused::Unavailable("down".into())));
}

#[tokio::test]
async fn the_api_server_is_asked_where_keys_do_not_tell_but_not_without_end() {
    let stranger = Issuer::new("k9");
    let server =
        Arc::new(Server { keys: Some(("https://cluster".into(), Keys::default())), reviews: Some(Some(web())), ..Server::default() });
    let tokens = tokens(&server);
    let token = stranger.sign(&claims());
    for _ in 0..10 {
        assert_eq!(tokens.verify(&token, now()).await, Ok(web()));
    }
    assert_eq!(server.asked_reviews.load(Ordering::Relaxed), 1);
    // Its word counts for ten minutes.
    tokens.verify(&token, now() + Duration::from_secs(601)).await.unwrap();
    assert_eq!(server.asked_reviews.load(Ordering::Relaxed), 2);
    let later = now() + Duration::from_secs(700);
    let mut refused = 0;
    for n in 0..100 {
        let outcome = tokens.verify(&stranger.sign(&with("jti", json!(n))), later).await;
        refused += usize::from(matches!(outcome, Err(Refused::Unavailable(_))));
    }
    assert_eq!((refused, server.asked_reviews.load(Ordering::Relaxed)), (80, 22));
}

#[tokio::test]
async fn a_withdrawn_key_proves_nothing_any_more() {
    let (old, new) = (Issuer::new("k1"), Issuer::new("k2"));
    let before = Arc::new(Server { keys: Some(("https://cluster".into(), keys(&[&old]))), reviews: Some(None), ..Server::default() });
    // The same cluster later; who answers is exchanged behind it.
    struct Swapping(std::sync::Mutex<Arc<Server>>);
    impl Reviewer for Swapping {
        fn keys(&self) -> Boxed<'_, Result<(String, Keys), String>> {
            let keys = self.0.lock().unwrap().keys.clone();
            Box::pin(std::future::ready(keys.ok_or_else(String::new)))
        }
        fn review<'a>(&'a self, _: &'a str, _: &'a [String]) -> Boxed<'a, Result<Option<Subject>, String>> {
            Box::pin(std::future::ready(Ok(None)))
        }
    }
    let cluster = Arc::new(Swapping(std::sync::Mutex::new(before)));
    let tokens = Tokens::new(vec!["istio-ca".into()], Vec::new(), Some(cluster.clone()));
    let token = old.sign(&claims());
    assert_eq!(tokens.verify(&token, now()).await, Ok(web()));
    *cluster.0.lock().unwrap() = Arc::new(Server { keys: Some(("https://cluster".into(), keys(&[&new]))), ..Server::default() });
    tokens.refresh(now()).await.unwrap();
    assert_eq!(tokens.verify(&token, now()).await, Err(Refused::Bad("refused by the API server")));
}

#[tokio::test]
async fn other_issuers_count_if_a_rule_says_so() {
    let idp = Issuer::new("i1");
    let rule = Rule { issuer: "https://idp".into(), audiences: vec!["mesh".into()], keys: keys(&[&idp]), remote: false };
    let tokens = Tokens::new(vec!["istio-ca".into()], vec![rule], None);
    let token = |issuer: &str, audience: &str| {
        let mut claims = with("iss", json!(issuer));
        claims["aud"] = json!(audience);
        claims
    };
    assert_eq!(tokens.verify(&idp.sign(&token("https://idp", "mesh")), now()).await, Ok(web()));
    assert_eq!(tokens.verify(&idp.sign(&token("https://idp", "istio-ca")), now()).await, Err(Refused::Bad("for another audience")));
    assert_eq!(tokens.verify(&idp.sign(&token("https://cluster", "istio-ca")), now()).await, Err(Refused::Bad("its issuer is not known")));
    assert_eq!(
        tokens.verify(&Issuer::new("i1").sign(&token("https://idp", "mesh")), now()).await,
        Err(Refused::Bad("not signed by its issuer"))
    );
}

#[tokio::test]
async fn keys_of_a_rule_may_come_later_and_change() {
    let (old, new) = (Issuer::new("old"), Issuer::new("new"));
    let rule = Rule { issuer: "https://cluster".into(), remote: true, ..Rule::default() };
    let tokens = Tokens::new(vec!["istio-ca".into()], vec![rule], None);
    let good = old.sign(&claims());
    let forged = [Issuer::new("old").sign(&claims()), old.sign_with(&json!({"alg": "none"}), &claims())];
    let unknown = Err(Refused::Unavailable("the keys of its issuer are not known".into()));
    assert_eq!(tokens.verify(&good, now()).await, unknown);
    assert_eq!(tokens.verify(&forged[0], now()).await, unknown);
    tokens.unknown_key().await;

    tokens.set_keys("https://cluster", keys(&[&old]));
    assert_eq!(tokens.verify(&good, now()).await, Ok(web()));
    for forged in &forged {
        assert_eq!(tokens.verify(forged, now()).await, Err(Refused::Bad("not signed by its issuer")));
    }
    // A token of a newer key: refused, and a reason to ask.
    assert_eq!(tokens.verify(&new.sign(&claims()), now()).await, Err(Refused::Bad("not signed by its issuer")));
    tokens.unknown_key().await;
    tokens.set_keys("https://somebody-else", keys(&[&new]));
    assert_eq!(tokens.verify(&good, now()).await, Ok(web()));
    tokens.set_keys("https://cluster", keys(&[&new]));
    assert_eq!(tokens.verify(&new.sign(&claims()), now()).await, Ok(web()));
    assert_eq!(tokens.verify(&good, now()).await, Err(Refused::Bad("not signed by its issuer")));
}

#[test]
fn users_of_kubernetes() {
    for (user, expected) in [
        ("system:serviceaccount:a:b", Some(("a", "b"))),
        ("system:serviceaccount:a:b:c", None),
        ("system:serviceaccount::b", None),
        ("system:serviceaccount:a:", None),
        ("system:serviceaccount:a/x:b", None),
        ("system:node:a", None),
    ] {
        assert_eq!(service_account(user), expected, "{user}");
    }
}

#[tokio::test]
async fn the_first_proof_decides() {
    let issuer = Issuer::new("k1");
    let server = Arc::new(Server { keys: Some(("https://cluster".into(), keys(&[&issuer]))), ..Server::default() });
    let options =
        Options { trust_domain: "cluster.local".into(), aliases: vec!["old".into()], gateways: vec!["10.0.0.0/8".parse().unwrap()] };
    let authenticator = Authenticator::new(options, tokens(&server));
    let certificate = |name: &str| {
        let material = super::material();
        let (request, _) = super::csr(&rcgen::PKCS_ECDSA_P256_SHA256, "spiffe://x/ns/x/sa/x");
        let issued = pilotfish_ca::issue::issue(&material, &Default::default(), &request, &[name.parse().unwrap()], 0, now()).unwrap();
        Some(Arc::from(super::der(&issued.chain[0]).as_ref()))
    };
    let headers = |pairs: &[(&'static str, &str)]| -> HeaderMap {
        pairs.iter().map(|(name, value)| (http::HeaderName::from_static(name), HeaderValue::from_str(value).unwrap())).collect()
    };
    let bearer = format!("Bearer {}", issuer.sign(&claims()));
    let xfcc = "URI=spiffe://cluster.local/ns/gw/sa/client";
    let gateway = "10.1.2.3".parse().ok();
    let who = async |address, certificate, headers: HeaderMap| {
        let outcome = authenticator.authenticate(&Connection { address, certificate }, &headers, now()).await;
        outcome.map(|caller: Caller| caller.identities.iter().map(ToString::to_string).collect::<Vec<_>>().join(" ")).map_err(|s| s.code())
    };
    let shop = "spiffe://cluster.local/ns/shop/sa/web";
    let a = "spiffe://old/ns/a/sa/b";
    let none = headers(&[]);
    assert_eq!(who(None, None, none.clone()).await, Ok(String::new()));
    assert_eq!(who(None, certificate(a), none.clone()).await, Ok(a.into()));
    assert_eq!(who(None, certificate("spiffe://stranger/ns/a/sa/b"), none).await, Err(Code::Unauthenticated));
    assert_eq!(who(None, None, headers(&[("authorization", &bearer)])).await, Ok(shop.into()));
    assert_eq!(who(None, certificate(a), headers(&[("authorization", &bearer)])).await, Ok(a.into()));
    assert_eq!(who(gateway, None, headers(&[("x-forwarded-client-cert", xfcc)])).await, Ok(xfcc[4..].into()));
    // Anybody else's word about its client is none.
    assert_eq!(who("11.1.2.3".parse().ok(), None, headers(&[("x-forwarded-client-cert", xfcc)])).await, Ok(String::new()));
    // A bad proof is not made up for by another.
    let both = [("authorization", "Bearer a.b.c"), ("x-forwarded-client-cert", xfcc)];
    assert_eq!(who(gateway, None, headers(&both)).await, Err(Code::Unauthenticated));
    for bad in ["Bearer", "Basic YTpi", "Bearer \u{7f}"] {
        let Ok(value) = HeaderValue::from_str(bad) else { continue };
        assert_eq!(who(None, None, [(http::header::AUTHORIZATION, value)].into_iter().collect()).await, Err(Code::Unauthenticated));
    }
}
