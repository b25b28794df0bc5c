//! [`Agent`]: what an Istio agent does beside a proxy, as far as identities go.
//!
//! It asks the certificate authority over TLS for a certificate, for half of its life, then for the next; what it trusts is
//! what is mounted, what came with its certificate, and what it is told over ADS. All of it stands in two files, and
//! each is replaced as a whole.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, SystemTime};

use anyhow::{Context, ensure};
use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::pb::envoy::config::core::v3::Node;
use pilotfish_envoy::pb::istio::mesh::v1alpha1::ProxyConfig;
use prost::Message as _;
use serde_json::{Value, json};
use tempfile::TempDir;
use tokio::sync::watch;
use tokio::task::JoinSet;
use tokio::time::sleep;
use tokio_rustls::rustls::pki_types::CertificateDer;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use x509_parser::extensions::{AuthorityKeyIdentifier, ParsedExtension};
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::ads::{Delta, tls_channel};
use crate::authority::Identity;
use crate::csr::{Ask, certificate};
use crate::poll;
use crate::tls::TlsClient;

/// After a failure.
const AGAIN: Duration = Duration::from_millis(100);

/// Whose agent, and of which control plane.
#[derive(Clone, Debug)]
pub struct Options {
    /// The control plane's TLS port.
    pub control: SocketAddr,
    /// Its name.
    pub name: String,
    /// Proves whose agent it is.
    pub token: String,
    /// How long certificates should hold, in seconds.
    pub seconds: i64,
    /// The proxy.
    pub node: Node,
}

/// A running agent. Dropping it ends it; its files go with it.
pub struct Agent {
    shared: Arc<Shared>,
    _tasks: JoinSet<()>,
}

struct Shared {
    options: Options,
    dir: TempDir,
    /// Where roots came from: mounted, with the certificate, over ADS.
    trusted: Mutex<[BTreeSet<String>; 3]>,
    current: Mutex<Option<Identity>>,
    certificates: AtomicU64,
    /// Key ids of whom its certificates are signed by.
    signers: Mutex<BTreeSet<Vec<u8>>>,
    failures: Mutex<Vec<String>>,
}

const MOUNTED: usize = 0;
const ISSUED: usize = 1;
const TOLD: usize = 2;

impl Agent {
    /// Waits for the first certificate. `mounted`: the roots that a Pod would find mounted, PEM.
    pub async fn start(options: Options, mut mounted: watch::Receiver<String>) -> Self {
        let shared = Arc::new(Shared {
            options,
            dir: tempfile::tempdir().unwrap(),
            trusted: Mutex::default(),
            current: Mutex::default(),
            certificates: AtomicU64::default(),
            signers: Mutex::default(),
            failures: Mutex::default(),
        });
        let first = tokio::time::timeout(poll::DEADLINE, mounted.wait_for(|roots| !roots.is_empty())).await;
        shared.trust(MOUNTED, &first.expect("roots are mounted in time").unwrap().clone());
        let mut ends = poll::until("a first certificate", async || shared.renew().await.map_err(|e| format!("{e:#}"))).await;
        let mut tasks = JoinSet::new();
        let agent = shared.clone();
        tasks.spawn(async move {
            while mounted.changed().await.is_ok() {
                let roots = mounted.borrow_and_update().clone();
                agent.trust(MOUNTED, &roots);
            }
            std::future::pending::<()>().await;
        });
        let agent = shared.clone();
        tasks.spawn(async move {
            loop {
                sleep(ends.duration_since(SystemTime::now()).unwrap_or_default() / 2).await;
                match agent.renew().await {
                    Ok(next) => ends = next,
                    Err(error) => {
                        agent.failures.lock().unwrap().push(format!("{error:#}"));
                        sleep(AGAIN).await;
                    }
                }
            }
        });
        let agent = shared.clone();
        tasks.spawn(async move {
            loop {
                let error = agent.listen().await.err().map(|e| format!("over ADS: {e:#}"));
                agent.failures.lock().unwrap().extend(error);
                sleep(AGAIN).await;
            }
        });
        Agent { shared, _tasks: tasks }
    }

    /// One file with the certificate, what leads to a root, and the key.
    pub fn own(&self) -> PathBuf {
        self.shared.dir.path().join("own.pem")
    }

    /// A file of what is trusted.
    pub fn roots(&self) -> PathBuf {
        self.shared.dir.path().join("roots.pem")
    }

    /// Files of secrets for a bootstrap: `own` and `roots`.
    pub fn secrets(&self) -> [PathBuf; 2] {
        let file = |path: PathBuf| json!({"filename": path});
        let secret = |name: &str, kind: &str, content: Value| {
            let secret =
                json!({"@type": "type.googleapis.com/envoy.extensions.transport_sockets.tls.v3.Secret", "name": name, kind: content});
            let path = self.shared.dir.path().join(format!("{name}.json"));
            std::fs::write(&path, json!({"resources": [secret]}).to_string()).unwrap();
            path
        };
        let own = json!({"certificate_chain": file(self.own()), "private_key": file(self.own())});
        [secret("own", "tls_certificate", own), secret("roots", "validation_context", json!({"trusted_ca": file(self.roots())}))]
    }

    /// How many certificates it got.
    pub fn certificates(&self) -> u64 {
        self.shared.certificates.load(Ordering::Relaxed)
    }

    /// How many keys have signed them.
    pub fn signers(&self) -> usize {
        self.shared.signers.lock().unwrap().len()
    }

    /// What went wrong since it started.
    pub fn failures(&self) -> Vec<String> {
        self.shared.failures.lock().unwrap().clone()
    }
}

impl Shared {
    /// Gets a certificate; when it ends.
    async fn renew(&self) -> anyhow::Result<SystemTime> {
        let Options { control, name, token, seconds, .. } = &self.options;
        let channel = tls_channel(*control, name, &self.client()?).await?;
        let ask = Ask { token: Some(token), seconds: *seconds, ..Ask::default() };
        let identity = certificate(channel, &ask).await?;
        let read = |path: PathBuf| std::fs::read_to_string(path).unwrap();
        let (_, parsed) = X509Certificate::from_der(&identity.der)?;
        let ends = SystemTime::UNIX_EPOCH + Duration::from_secs(u64::try_from(parsed.validity().not_after.timestamp())?);
        for extension in parsed.extensions() {
            if let ParsedExtension::AuthorityKeyIdentifier(AuthorityKeyIdentifier { key_identifier: Some(id), .. }) =
                extension.parsed_extension()
            {
                self.signers.lock().unwrap().insert(id.0.to_vec());
            }
        }
        // First whom to trust, then whom to be.
        self.trust(ISSUED, &read(identity.roots()));
        self.write("own.pem", &(read(identity.chain()) + &read(identity.key())));
        *self.current.lock().unwrap() = Some(identity);
        self.certificates.fetch_add(1, Ordering::Relaxed);
        Ok(ends)
    }

    /// Learns of roots over ADS until the stream ends.
    async fn listen(&self) -> anyhow::Result<()> {
        let Options { control, name, token, node, .. } = &self.options;
        let channel = tls_channel(*control, name, &self.client()?).await?;
        let mut stream = Delta::on_as(channel, node.clone(), Some(token)).await?;
        stream.subscribe(TypeUrl::ProxyConfig, &[]).await;
        while let Some(response) = stream.whenever().await? {
            let [resource] = &*response.resources else { continue };
            let config = resource.resource.as_ref().context("an empty resource")?;
            ensure!(config.type_url == TypeUrl::ProxyConfig.as_str(), "{}", config.type_url);
            self.trust(TOLD, &ProxyConfig::decode(&*config.value)?.ca_certificates_pem.concat());
            // What is said to be taken is in the file.
            stream.ack(&response).await;
        }
        Ok(())
    }

    /// Trusts what is mounted, as an agent does when it speaks to its control plane.
    fn client(&self) -> anyhow::Result<TlsClient<'static>> {
        let roots: Vec<_> = {
            let trusted = self.trusted.lock().unwrap();
            trusted[MOUNTED].iter().filter_map(|pem| CertificateDer::from_pem_slice(pem.as_bytes()).ok()).collect()
        };
        let (first, others) = roots.split_first().context("nothing is mounted")?;
        Ok(others.iter().fold(TlsClient::new(first.clone()), |client, root| client.also(root.clone())))
    }

    fn trust(&self, from: usize, roots: &str) {
        const END: &str = "-----END CERTIFICATE-----\n";
        let mut trusted = self.trusted.lock().unwrap();
        trusted[from] = roots.split_inclusive(END).filter(|pem| pem.ends_with(END)).map(str::to_owned).collect();
        let all: BTreeSet<&String> = trusted.iter().flatten().collect();
        self.write("roots.pem", &all.into_iter().map(String::as_str).collect::<String>());
    }

    fn write(&self, name: &str, text: &str) {
        write(self.dir.path(), name, text);
    }
}

/// Replaces a file as a whole: who watches it sees it come.
fn write(dir: &Path, name: &str, text: &str) {
    let aside = dir.join(format!(".{name}"));
    std::fs::write(&aside, text).unwrap();
    std::fs::rename(aside, dir.join(name)).unwrap();
}
