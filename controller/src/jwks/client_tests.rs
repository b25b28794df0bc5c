//! The client against real servers on loopback, which the guard lets through where a test says so.

use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::pki_types::PrivateKeyDer;

use super::*;

const KEYS: &str = r#"{"keys":[{"kty":"oct","k":"c2VjcmV0"}]}"#;
const LIMIT: Duration = Duration::from_secs(10);

/// Answers requests by their path. The answer is all that follows the request.
pub(crate) async fn server(answer: impl Fn(&str) -> String + Send + Sync + 'static) -> SocketAddr {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    let answer = Arc::new(answer);
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let answer = answer.clone();
            tokio::spawn(async move {
                let mut request = Vec::new();
                while !request.ends_with(b"\r\n\r\n") {
                    let mut byte = [0];
                    if stream.read(&mut byte).await.unwrap_or(0) == 0 {
                        return;
                    }
                    request.push(byte[0]);
                }
                let request = String::from_utf8(request).unwrap();
                let path = request.split(' ').nth(1).unwrap();
                // The client may have seen enough before all is written.
                let _ = stream.write_all(answer(path).as_bytes()).await;
            });
        }
    });
    address
}

pub(crate) fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn redirect(to: &str) -> String {
    format!("HTTP/1.1 302 Found\r\nlocation: {to}\r\ncontent-length: 0\r\n\r\n")
}

fn client() -> Client {
    Client::new(Guard { allow: vec!["127.0.0.0/8".parse().unwrap()], deny: Vec::new() }, None)
}

async fn fetch(client: &Client, url: String) -> Result<String, FetchError> {
    client.fetch(&JwksSource::Uri(url.as_str().into()), LIMIT).await.map(|keys| keys.to_string())
}

#[tokio::test]
async fn keys_come_from_a_url_or_from_where_the_issuer_says() {
    let address = server(|path| match path {
        "/keys?a=b" => ok(KEYS),
        "/issuer/.well-known/openid-configuration" => ok(r#"{"jwks_uri": "/keys?a=b"}"#),
        "/silent/.well-known/openid-configuration" => ok("{}"),
        _ => panic!("{path}"),
    })
    .await;
    let client = client();
    assert_eq!(fetch(&client, format!("http://{address}/keys?a=b")).await.unwrap(), KEYS);
    for issuer in ["issuer", "issuer/"] {
        let source = JwksSource::Issuer(format!("http://{address}/{issuer}").into());
        assert_eq!(&*client.fetch(&source, LIMIT).await.unwrap(), KEYS);
    }
    let silent = JwksSource::Issuer(format!("http://{address}/silent").into());
    assert!(matches!(client.fetch(&silent, LIMIT).await, Err(FetchError::Discovery)));
}

#[tokio::test]
async fn nobody_is_asked_who_is_forbidden() {
    static ASKED: AtomicUsize = AtomicUsize::new(0);
    let address = server(|_| {
        ASKED.fetch_add(1, Ordering::Relaxed);
        ok(KEYS)
    })
    .await;
    let strict = Client::new(Guard::default(), None);
    for host in ["127.0.0.1", "localhost", "[::ffff:127.0.0.1]", "2130706433"] {
        let url = format!("http://{host}:{}/", address.port());
        let outcome = fetch(&strict, url.clone()).await;
        assert!(matches!(outcome, Err(FetchError::Forbidden { .. } | FetchError::Resolve { .. })), "{url}: {outcome:?}");
    }
    assert_eq!(ASKED.load(Ordering::Relaxed), 0);
}

#[tokio::test]
async fn redirects_are_followed_and_looked_at() {
    let address = server(|path| match path {
        "/a" => redirect("/b"),
        "/b" => ok(KEYS),
        "/metadata" => redirect("http://169.254.169.254/latest/meta-data"),
        "/other" => redirect("//127.0.0.1/"),
        "/file" => redirect("file:///etc/passwd"),
        "/user" => redirect("http://user:password@127.0.0.1/"),
        "/nowhere" => redirect(""),
        _ => redirect("/again"),
    })
    .await;
    let client = client();
    let outcome = |path: &str| fetch(&client, format!("http://{address}{path}"));
    assert_eq!(outcome("/a").await.unwrap(), KEYS);
    assert!(matches!(outcome("/metadata").await, Err(FetchError::Forbidden { .. })));
    assert!(matches!(outcome("/again").await, Err(FetchError::Redirects)));
    for path in ["/other", "/file", "/user", "/nowhere"] {
        assert!(matches!(outcome(path).await, Err(FetchError::Redirect(_))), "{path}");
    }
    let tls = Target::parse("https://issuer.example/a").unwrap();
    assert!(tls.next("http://issuer.example/b").is_err(), "never out of TLS");
    assert_eq!(tls.next("/b?c").unwrap(), Target::parse("https://issuer.example/b?c").unwrap());
}

#[tokio::test]
async fn size_and_sense_are_limited() {
    let address = server(|path| match path {
        "/large" => ok(&"x".repeat(MAX_BYTES + 1)),
        "/endless" => {
            format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{}", format!("10000\r\n{}\r\n", "x".repeat(1 << 16)).repeat(20))
        }
        "/short" => "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n{".to_owned(),
        "/nonsense" => ok("<html>"),
        "/empty" => ok(r#"{"keys":[]}"#),
        "/gone" => "HTTP/1.1 404 Not Found\r\ncontent-length: 0\r\n\r\n".to_owned(),
        _ => "EHLO\r\n\r\n".to_owned(),
    })
    .await;
    let client = client();
    let outcome = |path: &str| fetch(&client, format!("http://{address}{path}"));
    assert!(matches!(outcome("/large").await, Err(FetchError::TooLarge)));
    assert!(matches!(outcome("/endless").await, Err(FetchError::TooLarge)));
    assert!(matches!(outcome("/short").await, Err(FetchError::Body(_))));
    assert!(matches!(outcome("/nonsense").await, Err(FetchError::Keys(BadKeys::NoSet))));
    assert!(matches!(outcome("/empty").await, Err(FetchError::Keys(BadKeys::Empty))));
    assert!(matches!(outcome("/gone").await, Err(FetchError::Status(StatusCode::NOT_FOUND))));
    assert!(matches!(outcome("/").await, Err(FetchError::Http(_))));
}

#[tokio::test]
async fn who_does_not_answer_is_given_up() {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let source = JwksSource::Uri(format!("http://{}/", listener.local_addr().unwrap()).into());
    let limit = Duration::from_millis(20);
    assert!(matches!(client().fetch(&source, limit).await, Err(FetchError::Timeout(l)) if l == limit));
}

/// A server that is 127.0.0.1, if one trusts its certificate, which is returned.
async fn tls_server() -> (SocketAddr, String) {
    let made = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()]).unwrap();
    let key = PrivateKeyDer::try_from(made.signing_key.serialize_der()).unwrap();
    let provider = Arc::new(aws_lc_rs::default_provider());
    let config = ServerConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    let config = config.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(config));
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            // Who does not trust us hangs up.
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut request = [0; 1024];
            let _ = stream.read(&mut request).await;
            let _ = stream.write_all(ok(KEYS).as_bytes()).await;
        }
    });
    (address, made.cert.pem())
}

#[tokio::test]
async fn certificates_are_looked_at() {
    let (address, certificate) = tls_server().await;
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), certificate).unwrap();
    let trusting = Client { extra: Some(file.path().to_owned()), ..client() };
    assert_eq!(fetch(&trusting, format!("https://{address}/")).await.unwrap(), KEYS);
    // Depending on the machine nobody is trusted, or others are.
    let outcome = fetch(&client(), format!("https://{address}/")).await;
    assert!(matches!(outcome, Err(FetchError::Tls(..) | FetchError::Trust(TrustError::Tls(_)))), "{outcome:?}");
    let missing = Client { extra: Some("/nowhere".into()), ..client() };
    let outcome = fetch(&missing, format!("https://{address}/")).await;
    assert!(matches!(outcome, Err(FetchError::Trust(TrustError::File { .. }))), "{outcome:?}");
}

#[test]
fn urls_that_are_none() {
    for url in ["", "/keys", "ftp://a/", "http://", "http://a:0/", "http://user@a/", "issuer", "http://a b/"] {
        assert!(matches!(Target::parse(url), Err(FetchError::Url(_))), "{url}");
    }
    let target = Target::parse("https://[2001:db8::1]:8443").unwrap();
    assert_eq!((target.host.as_str(), target.port, target.path.as_str(), target.tls), ("2001:db8::1", 8443, "/", true));
}
