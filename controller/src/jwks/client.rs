//! [`Client`]: fetches key sets. A name is resolved here, each of its addresses is put before the [`Guard`], and the
//! connection goes to the very address that passed, at each redirect anew. Size and time are bounded.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

use bytes::Bytes;
use http::header::{ACCEPT, HOST, LOCATION, USER_AGENT};
use http::{Request, Response, StatusCode, Uri};
use http_body_util::{BodyExt, Empty, LengthLimitError, Limited};
use hyper::body::Incoming;
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use pilotfish_model::name::Str;
use pilotfish_model::request_authentication::JwksSource;
use rustls_platform_verifier::Verifier;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio::net::{TcpStream, lookup_host};
use tokio::task::AbortHandle;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::rustls::ClientConfig;
use tokio_rustls::rustls::crypto::aws_lc_rs;
use tokio_rustls::rustls::pki_types::pem::{self, PemObject};
use tokio_rustls::rustls::pki_types::{CertificateDer, ServerName};

use super::guard::Guard;
use super::keys::{self, BadKeys};

/// The longest answer that is read, in bytes.
const MAX_BYTES: usize = 1 << 20;
/// How many redirects are followed.
const MAX_REDIRECTS: usize = 5;
/// Where an issuer says where its keys are (OpenID Connect Discovery 1.0, section 4).
const DISCOVERY: &str = "/.well-known/openid-configuration";

/// Why there are no keys.
#[derive(Debug, thiserror::Error)]
pub enum FetchError {
    /// Nothing that could be fetched.
    #[error("{0:?} is not a URL of http or https, or has a user in it")]
    Url(String),
    /// The name has no address.
    #[error("{host} cannot be resolved")]
    Resolve {
        /// The name.
        host: String,
        /// Why.
        source: io::Error,
    },
    /// All addresses are forbidden.
    #[error("{host} is at {ip}, which may not be asked")]
    Forbidden {
        /// The name.
        host: String,
        /// One of its addresses.
        ip: IpAddr,
    },
    /// Nobody listens there.
    #[error("no connection to {0}")]
    Connect(SocketAddr, #[source] io::Error),
    /// It is not who it says.
    #[error("no TLS with {0}")]
    Tls(String, #[source] io::Error),
    /// Nobody is trusted.
    #[error(transparent)]
    Trust(#[from] TrustError),
    /// It does not speak HTTP.
    #[error("HTTP")]
    Http(#[from] hyper::Error),
    /// It has something else to say.
    #[error("status {0}")]
    Status(StatusCode),
    /// A redirect leads nowhere, or out of TLS.
    #[error("a redirect to {0:?} is not followed")]
    Redirect(String),
    /// Too many of them.
    #[error("more than {MAX_REDIRECTS} redirects")]
    Redirects,
    /// More than any key set.
    #[error("more than {MAX_BYTES} bytes")]
    TooLarge,
    /// It was cut off.
    #[error("the answer ended early: {0}")]
    Body(String),
    /// It takes too long.
    #[error("no answer within {0:?}")]
    Timeout(Duration),
    /// The issuer does not say where its keys are.
    #[error("the issuer names no jwks_uri")]
    Discovery,
    /// They are no keys.
    #[error("what was fetched {0}")]
    Keys(#[from] BadKeys),
}

impl FetchError {
    /// True if it is the answer that is wrong, and not the way to it.
    pub fn is_content(&self) -> bool {
        matches!(self, FetchError::TooLarge | FetchError::Discovery | FetchError::Keys(_))
    }
}

/// Why nobody is trusted.
#[derive(Debug, thiserror::Error)]
pub enum TrustError {
    /// The file is not there, or no PEM.
    #[error("cannot read certificates of {}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// Why.
        source: pem::Error,
    },
    /// The system trusts nobody, or a certificate of the file is none.
    #[error(transparent)]
    Tls(#[from] tokio_rustls::rustls::Error),
    /// A defect: reading them panicked.
    #[error("reading certificates failed")]
    Defect,
}

/// See the module.
#[derive(Clone)]
pub struct Client {
    guard: Guard,
    /// A PEM file with more authorities than the system's.
    extra: Option<PathBuf>,
    /// Made when it is first needed: most meshes fetch nothing, and not every machine has authorities.
    tls: Arc<OnceLock<Arc<ClientConfig>>>,
}

impl Client {
    /// Trusts the authorities of the system, and those of a PEM file.
    pub fn new(guard: Guard, extra: Option<PathBuf>) -> Self {
        Client { guard, extra, tls: Arc::default() }
    }

    async fn tls(&self) -> Result<TlsConnector, TrustError> {
        if let Some(config) = self.tls.get() {
            return Ok(config.clone().into());
        }
        let extra = self.extra.clone();
        let made = tokio::task::spawn_blocking(move || tls(extra.as_deref())).await;
        let config = Arc::new(made.map_err(|_| TrustError::Defect)??);
        Ok(self.tls.get_or_init(|| config).clone().into())
    }

    /// The keys of a source, as JSON.
    pub async fn fetch(&self, source: &JwksSource, limit: Duration) -> Result<Str, FetchError> {
        match timeout(limit, self.keys(source)).await {
            Ok(result) => result,
            Err(_) => Err(FetchError::Timeout(limit)),
        }
    }

    async fn keys(&self, source: &JwksSource) -> Result<Str, FetchError> {
        let uri = match source {
            JwksSource::Uri(uri) => Target::parse(uri)?,
            JwksSource::Issuer(issuer) => {
                let at = Target::parse(&format!("{}{DISCOVERY}", issuer.trim_end_matches('/')))?;
                let document: serde_json::Value =
                    serde_json::from_slice(&self.get(at.clone()).await?).map_err(|_| FetchError::Discovery)?;
                let uri = document.get("jwks_uri").and_then(serde_json::Value::as_str).ok_or(FetchError::Discovery)?;
                at.next(uri)?
            }
        };
        let body = self.get(uri).await?;
        let text = std::str::from_utf8(&body).map_err(|_| BadKeys::NoSet)?;
        for bad in keys::check(text)? {
            tracing::debug!(%source, "{bad}: it has no effect");
        }
        Ok(text.into())
    }

    async fn get(&self, mut target: Target) -> Result<Bytes, FetchError> {
        for _ in 0..=MAX_REDIRECTS {
            let (response, _connection) = self.ask(&target).await?;
            let status = response.status();
            match status {
                StatusCode::OK => return body(response).await,
                StatusCode::MOVED_PERMANENTLY
                | StatusCode::FOUND
                | StatusCode::SEE_OTHER
                | StatusCode::TEMPORARY_REDIRECT
                | StatusCode::PERMANENT_REDIRECT => {
                    let location = response.headers().get(LOCATION).and_then(|l| l.to_str().ok()).unwrap_or_default();
                    target = target.next(location)?;
                }
                _ => return Err(FetchError::Status(status)),
            }
        }
        Err(FetchError::Redirects)
    }

    async fn ask(&self, target: &Target) -> Result<(Response<Incoming>, Connection), FetchError> {
        let stream = self.connect(target).await?;
        if !target.tls {
            return exchange(stream, target).await;
        }
        let name = || io::Error::from(io::ErrorKind::InvalidInput);
        let refused = |e| FetchError::Tls(target.host.clone(), e);
        let server = ServerName::try_from(target.host.clone()).map_err(|_| refused(name()))?;
        let stream = self.tls().await?.connect(server, stream).await.map_err(refused)?;
        exchange(stream, target).await
    }

    /// To the first address that is allowed and answers.
    async fn connect(&self, target: &Target) -> Result<TcpStream, FetchError> {
        let host = &target.host;
        let resolve = |source| FetchError::Resolve { host: host.clone(), source };
        let addresses: Vec<SocketAddr> = lookup_host((host.as_str(), target.port)).await.map_err(resolve)?.collect();
        let mut failure = None;
        for address in &addresses {
            if !self.guard.permits(address.ip()) {
                failure.get_or_insert(FetchError::Forbidden { host: host.clone(), ip: address.ip() });
                continue;
            }
            match TcpStream::connect(address).await {
                Ok(stream) => return Ok(stream),
                Err(e) => failure = Some(FetchError::Connect(*address, e)),
            }
        }
        Err(failure.unwrap_or_else(|| resolve(io::ErrorKind::NotFound.into())))
    }
}

fn tls(extra: Option<&Path>) -> Result<ClientConfig, TrustError> {
    let roots = match extra {
        Some(path) => {
            let roots: Result<Vec<_>, _> = CertificateDer::pem_file_iter(path).and_then(Iterator::collect);
            roots.map_err(|source| TrustError::File { path: path.to_owned(), source })?
        }
        None => Vec::new(),
    };
    let provider = Arc::new(aws_lc_rs::default_provider());
    let verifier = Verifier::new_with_extra_roots(roots, provider.clone())?;
    let config = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    Ok(config.dangerous().with_custom_certificate_verifier(Arc::new(verifier)).with_no_client_auth())
}

/// Ends the connection's task when dropped.
struct Connection(AbortHandle);

impl Drop for Connection {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn exchange<S>(stream: S, target: &Target) -> Result<(Response<Incoming>, Connection), FetchError>
where
    S: AsyncRead + AsyncWrite + Send + Unpin + 'static,
{
    let (mut sender, connection) = http1::handshake(TokioIo::new(stream)).await?;
    // How it ends shows in the answer.
    let connection = Connection(tokio::spawn(connection).abort_handle());
    let request = Request::get(&target.path)
        .header(HOST, &target.authority)
        .header(USER_AGENT, concat!("pilotfish/", env!("CARGO_PKG_VERSION")))
        .header(ACCEPT, "application/json")
        .body(Empty::<Bytes>::new())
        .map_err(|_| FetchError::Url(target.path.clone()))?;
    Ok((sender.send_request(request).await?, connection))
}

async fn body(response: Response<Incoming>) -> Result<Bytes, FetchError> {
    let collected = Limited::new(response.into_body(), MAX_BYTES).collect().await;
    collected.map(|c| c.to_bytes()).map_err(|e| match e.is::<LengthLimitError>() {
        true => FetchError::TooLarge,
        false => FetchError::Body(e.to_string()),
    })
}

/// A URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    tls: bool,
    /// Without the brackets of an IPv6 address.
    host: String,
    port: u16,
    /// As written, for the Host header.
    authority: String,
    /// With the query.
    path: String,
}

impl Target {
    fn parse(url: &str) -> Result<Target, FetchError> {
        let bad = || FetchError::Url(url.to_owned());
        let uri: Uri = url.parse().map_err(|_| bad())?;
        let tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(bad()),
        };
        let authority = uri.authority().ok_or_else(bad)?;
        let host = authority.host().trim_start_matches('[').trim_end_matches(']');
        if host.is_empty() || authority.as_str().contains('@') {
            return Err(bad());
        }
        let port = match authority.port() {
            Some(port) => Some(port.as_u16()).filter(|p| *p > 0).ok_or_else(bad)?,
            None => {
                if tls {
                    443
                } else {
                    80
                }
            }
        };
        let path = uri.path_and_query().map_or("/", |p| if p.as_str().is_empty() { "/" } else { p.as_str() });
        Ok(Target { tls, host: host.to_owned(), port, authority: authority.as_str().to_owned(), path: path.to_owned() })
    }

    /// Where this one sends us. Never out of TLS: the keys would be anybody's.
    fn next(&self, location: &str) -> Result<Target, FetchError> {
        let refused = || FetchError::Redirect(location.to_owned());
        let next = match location.strip_prefix('/') {
            Some(rest) if !rest.starts_with('/') => Target { path: location.to_owned(), ..self.clone() },
            _ => Target::parse(location).map_err(|_| refused())?,
        };
        if self.tls && !next.tls { Err(refused()) } else { Ok(next) }
    }
}

#[cfg(test)]
#[path = "client_tests.rs"]
pub(crate) mod tests;
