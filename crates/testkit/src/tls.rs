//! Both ends of TLS: a server that tells what it saw of its client, and a client that tells what it saw of its server.

use std::net::SocketAddr;
use std::sync::Arc;

use anyhow::Context;
use serde::{Deserialize, Serialize};
use tokio::net::TcpStream;
use tokio_rustls::rustls::client::WebPkiServerVerifier;
use tokio_rustls::rustls::crypto::{CryptoProvider, aws_lc_rs};
pub use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};
use tokio_rustls::rustls::server::WebPkiClientVerifier;
use tokio_rustls::rustls::{ClientConfig, CommonState, RootCertStore, ServerConfig, SupportedProtocolVersion, version};
use tokio_rustls::{TlsAcceptor, TlsConnector};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::authority::Identity;
use crate::http::{Ask, Response};

/// What one end saw of the connection.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// Common name of the other end's certificate, if it showed one.
    pub peer: Option<String>,
    /// The server name that the client asked for.
    pub sni: Option<String>,
    /// The protocol that was agreed on.
    pub alpn: Option<String>,
    /// `TLSv1_2` or `TLSv1_3`.
    pub version: String,
}

/// How a server speaks TLS.
#[derive(Clone)]
pub struct TlsServer(TlsAcceptor);

impl TlsServer {
    /// With this certificate. Asks for one of the same authority, and takes connections without, unless `demand`.
    pub fn new(identity: &Identity, alpn: &[&str], demand: bool) -> Self {
        let roots = Arc::new(roots(std::slice::from_ref(&identity.root)));
        let verifier = WebPkiClientVerifier::builder_with_provider(roots, provider());
        let verifier = if demand { verifier } else { verifier.allow_unauthenticated() };
        let config = ServerConfig::builder_with_provider(provider()).with_safe_default_protocol_versions().unwrap();
        let config = config.with_client_cert_verifier(verifier.build().unwrap());
        let mut config = config.with_single_cert(vec![identity.der.clone()], key(identity)).unwrap();
        config.alpn_protocols = protocols(alpn);
        TlsServer(TlsAcceptor::from(Arc::new(config)))
    }

    /// The server's side of a handshake.
    pub async fn accept(&self, stream: TcpStream) -> anyhow::Result<(tokio_rustls::server::TlsStream<TcpStream>, Seen)> {
        let stream = self.0.accept(stream).await?;
        let connection = stream.get_ref().1;
        let seen = Seen { sni: connection.server_name().map(str::to_owned), ..seen(connection) };
        Ok((stream, seen))
    }
}

/// How a client speaks TLS: `TlsClient::new(&root).certificate(&me)`.
#[derive(Clone)]
pub struct TlsClient<'a> {
    roots: Vec<CertificateDer<'static>>,
    identity: Option<&'a Identity>,
    alpn: Vec<Vec<u8>>,
    versions: Vec<&'static SupportedProtocolVersion>,
}

impl<'a> TlsClient<'a> {
    /// Trusts one authority.
    pub fn new(root: CertificateDer<'static>) -> Self {
        TlsClient { roots: vec![root], identity: None, alpn: Vec::new(), versions: vec![&version::TLS12, &version::TLS13] }
    }

    /// Trusts another authority too.
    #[must_use]
    pub fn also(mut self, root: CertificateDer<'static>) -> Self {
        self.roots.push(root);
        self
    }

    /// Shows this certificate if it is asked to.
    #[must_use]
    pub fn certificate(mut self, identity: &'a Identity) -> Self {
        self.identity = Some(identity);
        self
    }

    /// Speaks no version above 1.2.
    #[must_use]
    pub fn at_most_1_2(mut self) -> Self {
        self.versions = vec![&version::TLS12];
        self
    }

    /// Offers these protocols.
    #[must_use]
    pub fn alpn(mut self, alpn: &[&str]) -> Self {
        self.alpn = protocols(alpn);
        self
    }

    /// Connects, asks for `name`, and verifies that it is there.
    pub async fn connect(&self, addr: SocketAddr, name: &str) -> anyhow::Result<(tokio_rustls::client::TlsStream<TcpStream>, Seen)> {
        let roots = WebPkiServerVerifier::builder_with_provider(Arc::new(roots(&self.roots)), provider()).build()?;
        let config = ClientConfig::builder_with_provider(provider()).with_protocol_versions(&self.versions)?.with_webpki_verifier(roots);
        let mut config = match self.identity {
            Some(identity) => config.with_client_auth_cert(vec![identity.der.clone()], key(identity))?,
            None => config.with_no_client_auth(),
        };
        config.alpn_protocols.clone_from(&self.alpn);
        let stream = TcpStream::connect(addr).await.with_context(|| format!("connect to {addr}"))?;
        let stream = TlsConnector::from(Arc::new(config)).connect(ServerName::try_from(name.to_owned())?, stream).await?;
        let seen = seen(stream.get_ref().1);
        Ok((stream, seen))
    }

    /// One request on a connection of its own to `name`.
    pub async fn send(&self, addr: SocketAddr, name: &str, ask: &Ask) -> anyhow::Result<(Response, Seen)> {
        let (stream, seen) = self.connect(addr, name).await?;
        Ok((ask.clone().default_host(name).exchange(stream).await?, seen))
    }
}

fn provider() -> Arc<CryptoProvider> {
    Arc::new(aws_lc_rs::default_provider())
}

fn roots(roots: &[CertificateDer<'static>]) -> RootCertStore {
    let mut store = RootCertStore::empty();
    roots.iter().for_each(|root| store.add(root.clone()).unwrap());
    store
}

fn key(identity: &Identity) -> PrivateKeyDer<'static> {
    PrivatePkcs8KeyDer::from(identity.key.clone()).into()
}

fn protocols(alpn: &[&str]) -> Vec<Vec<u8>> {
    alpn.iter().map(|p| p.as_bytes().to_vec()).collect()
}

fn seen(connection: &CommonState) -> Seen {
    Seen {
        peer: connection.peer_certificates().and_then(|chain| common_name(chain.first()?)),
        sni: None,
        alpn: connection.alpn_protocol().map(|p| String::from_utf8_lossy(p).into_owned()),
        version: connection.protocol_version().map(|v| format!("{v:?}")).unwrap_or_default(),
    }
}

fn common_name(der: &CertificateDer<'_>) -> Option<String> {
    let (_, certificate) = X509Certificate::from_der(der).ok()?;
    let name = certificate.subject().iter_common_name().next()?;
    name.as_str().ok().map(str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::authority::Authority;
    use crate::http::Backend;

    #[tokio::test]
    async fn both_ends_tell_what_they_saw() {
        let (ours, theirs) = (Authority::new("ours"), Authority::new("theirs"));
        let (server, me) = (ours.issue("server", &["a.example", "spiffe://td/ns/a"]), ours.issue("me", &[]));
        let backend = Backend::start_tls("b", &TlsServer::new(&server, &["http/1.1"], false)).await;
        let ask = Ask::get("/hello");
        let client = TlsClient::new(ours.root()).alpn(&["http/1.1"]);
        let (response, seen) = client.clone().certificate(&me).send(backend.addr(), "a.example", &ask).await.unwrap();
        let text = |text: &str| Some(text.to_owned());
        let expected = Seen { peer: text("server"), sni: None, alpn: text("http/1.1"), version: "TLSv1_3".into() };
        assert_eq!(seen, expected);
        assert_eq!(response.echo().tls.unwrap(), Seen { peer: text("me"), sni: text("a.example"), ..expected });
        let (response, _) = client.clone().at_most_1_2().send(backend.addr(), "a.example", &ask).await.unwrap();
        assert_eq!(response.echo().tls.map(|t| (t.peer, t.version)), Some((None, "TLSv1_2".to_owned())));
        assert!(client.send(backend.addr(), "b.example", &ask).await.is_err());
        assert!(TlsClient::new(theirs.root()).send(backend.addr(), "a.example", &ask).await.is_err());
    }
}
