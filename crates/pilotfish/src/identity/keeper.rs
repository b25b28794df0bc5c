//! [`Keeper`]: keeps the key that signs, our own certificate and the trusted roots as they should be.

use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use anyhow::Context;
use http::Method;
use pilotfish_ca::material::Files;
use pilotfish_ca::rotation::{Evidence, Rotation, Step, Times};
use pilotfish_ca::tls::{Serving, serving_certificate};
use pilotfish_ca::{Authority, Material, pem, root};
use pilotfish_controller::api::{Api, ApiError, Call, JSON, KubeApi};
use pilotfish_controller::lease::Leadership;
use pilotfish_controller::rbac::CA_SECRET;
use pilotfish_controller::roots::{self, Handed, Placed};
use serde_json::{Value, json};
use tokio::sync::watch;
use tracing::{error, info, warn};

use super::args::IdentityArgs;
use super::cluster::{data, files};

/// How long our own certificate holds; it is made anew after half of that.
const SERVING_TTL: Duration = Duration::from_secs(24 * 3600);
/// Less than this part of its time left, in percent, is said every day.
const WARN_PERCENT: u32 = 10;
const SAY_AGAIN: Duration = Duration::from_secs(86_400);
/// Another replica has seen a change after that many of its looks for keys.
const LOOKS: u32 = 6;

/// How agents are told of roots over streams.
pub struct Streams {
    /// Tells them of these, PEM.
    pub hand_out: Box<dyn Fn(Vec<String>) + Send + Sync>,
    /// Who was told and has not confirmed.
    pub lacking: Box<dyn Fn() -> Vec<String> + Send + Sync>,
}

/// Where the key that signs comes from.
pub(super) enum Origin {
    /// A folder that somebody else keeps. What was handed out is known by whom it was handed to: in the namespace of our own.
    Folder { dir: PathBuf, known: Option<(KubeApi, String)> },
    /// A Secret, which the leader makes.
    Secret { api: KubeApi, namespace: String, leadership: Leadership },
}

/// See the module's documentation.
pub(super) struct Keeper {
    pub(super) args: IdentityArgs,
    pub(super) origin: Origin,
    pub(super) names: Vec<String>,
    pub(super) authority: Arc<Authority>,
    pub(super) serving: Serving,
    pub(super) handed: watch::Sender<Handed>,
    /// Of what our own certificate is.
    pub(super) served: Option<Arc<Material>>,
    pub(super) placed: watch::Receiver<Placed>,
    pub(super) streams: Streams,
    pub(super) rotation: Option<Rotation>,
    /// When our own certificate is to be made anew.
    pub(super) renew: Option<SystemTime>,
    pub(super) said: Option<(String, SystemTime)>,
    /// What was said last of those that a rotation waits for.
    pub(super) waits: Option<(String, SystemTime)>,
}

impl Keeper {
    /// Looks once. `trust_domain`: whose root is made, if one is.
    pub(super) async fn round(&mut self, trust_domain: &str, now: SystemTime) {
        let outcome = match &self.origin {
            Origin::Folder { dir, known } => {
                let (dir, known) = (dir.clone(), known.clone());
                self.load_folder(&dir, known.as_ref(), now).await
            }
            Origin::Secret { api, namespace, leadership } => {
                let (api, namespace) = (api.clone(), namespace.clone());
                let leads = leadership.holds(tokio::time::Instant::now()).is_some();
                self.load_secret(&api, &namespace, leads, trust_domain, now).await
            }
        };
        if let Err(why) = outcome {
            self.say(why.to_string(), now);
        }
        if let Err(why) = self.use_it(now) {
            self.say(format!("{why:#}"), now);
        }
    }

    fn say(&mut self, why: String, now: SystemTime) {
        let again = self.said.as_ref().is_none_or(|(said, at)| *said != why || now >= *at + SAY_AGAIN);
        if again {
            error!("the certificate authority: {why}");
            self.said = Some((why, now));
        }
    }

    fn times(&self) -> Times {
        let lag = self.args.ca_check_interval * LOOKS;
        Times { mount: self.args.root_mount_time, longest: self.args.max_workload_cert_ttl, lag }
    }

    /// About the roots that are handed out since the last round.
    fn evidence(&mut self, now: SystemTime) -> Evidence {
        let bundle = self.authority.current().bundle.clone();
        let placed = self.placed.borrow().clone();
        let lacking = (self.streams.lacking)();
        if let (Some(first), true) = (lacking.first(), self.rotation.as_ref().is_some_and(|r| r.next().is_some())) {
            warn_once(
                &mut self.waits,
                format!("the next root waits for {} proxies that have not confirmed it, such as {first}", lacking.len()),
                now,
            );
        }
        Evidence { placed: placed.since.filter(|_| placed.bundle == bundle), bundle, unconfirmed: lacking.len() }
    }

    async fn load_folder(&mut self, dir: &Path, known: Option<&(KubeApi, String)>, now: SystemTime) -> anyhow::Result<()> {
        let (times, evidence) = (self.times(), self.evidence(now));
        let files = read_folder(dir)?;
        match &mut self.rotation {
            None => {
                // Until that is known, nobody knows what signing would break.
                let (trusted, state) = match known {
                    Some((api, namespace)) => roots::known(api, namespace).await.context("which roots are handed out")?,
                    None => Default::default(),
                };
                let ends = serde_json::from_str(&state).unwrap_or_default();
                let rotation = Rotation::resume(files, trusted.as_bytes(), &ends, &times, now)?;
                if rotation.signing().is_none() {
                    warn!("the key has another root than the mesh; it signs when everybody has that");
                }
                self.rotation = Some(rotation);
            }
            Some(rotation) => {
                let offer = rotation.offer(files, &times, now);
                let step = rotation.step(&evidence, &times, now);
                if step != Step::None {
                    info!(?step, "roots");
                }
                offer?;
            }
        }
        Ok(())
    }

    async fn load_secret(
        &mut self,
        api: &KubeApi,
        namespace: &str,
        leads: bool,
        trust_domain: &str,
        now: SystemTime,
    ) -> anyhow::Result<()> {
        let secrets = format!("/api/v1/namespaces/{namespace}/secrets");
        let path = format!("{secrets}/{CA_SECRET}");
        let secret = match api.call(Call::get(&path)).await {
            Ok(secret) => secret,
            Err(e) if e.code().is_some_and(|c| c.as_u16() == 404) => {
                if !leads {
                    anyhow::ensure!(self.rotation.is_some(), "there is no Secret {namespace}/{CA_SECRET} yet; the leader makes it");
                    return Ok(());
                }
                // A Secret that is gone is made of what is still known of it: nobody has to trust a new root.
                let files = match &self.rotation {
                    Some(rotation) => rotation.files(),
                    None => new_root(trust_domain, self.args.root(), now).await?,
                };
                let metadata = json!({"name": CA_SECRET, "namespace": namespace});
                let body =
                    json!({"apiVersion": "v1", "kind": "Secret", "metadata": metadata, "type": "istio.io/ca-root", "data": data(&files)});
                match write(api, Method::POST, secrets, body).await {
                    Ok(secret) => {
                        info!(namespace, name = CA_SECRET, "made a certificate authority");
                        secret
                    }
                    // Somebody was quicker.
                    Err(e) if e.code().is_some_and(|c| c.as_u16() == 409) => return Ok(()),
                    Err(e) => return Err(e.into()),
                }
            }
            Err(e) => return Err(e.into()),
        };
        self.rotation = Some(Rotation::restore(files(&secret), now)?);
        if leads { self.advance(api, &path, secret, trust_domain, now).await } else { Ok(()) }
    }

    /// What the leader does: the next root when it is time, and the next step when everybody is ready.
    async fn advance(&mut self, api: &KubeApi, path: &str, mut secret: Value, trust_domain: &str, now: SystemTime) -> anyhow::Result<()> {
        let (times, evidence) = (self.times(), self.evidence(now));
        let Some(rotation) = &self.rotation else { return Ok(()) };
        let mut next = rotation.clone();
        let step = next.step(&evidence, &times, now);
        let is_due = next.signing().is_some_and(|s| s.percent_left(now) < self.args.root_grace_percent);
        if step == Step::None && is_due && next.next().is_none() {
            next.offer(new_root(trust_domain, self.args.root(), now).await?, &times, now)?;
            info!("a new root is handed out; it signs when everybody has it");
        } else if step == Step::None {
            return Ok(());
        }
        secret["data"] = json!(data(&next.files()));
        // The version that was read goes with it: whoever else wrote meanwhile wins.
        write(api, Method::PUT, path.to_owned(), secret).await?;
        if step != Step::None {
            info!(?step, "roots");
        }
        self.rotation = Some(next);
        Ok(())
    }

    /// Signs with, serves and trusts what there is now.
    fn use_it(&mut self, now: SystemTime) -> anyhow::Result<()> {
        let Some(rotation) = &self.rotation else { return Ok(()) };
        let (signing, trusted) = (rotation.signing().cloned(), rotation.trusted());
        // While nothing signs, the port is for those who have the next root.
        let Some(serving) = signing.clone().or_else(|| rotation.next().cloned()) else { return Ok(()) };
        let ends = serde_json::to_string(&rotation.ends())?;
        let current = self.authority.current();
        let is = |m: &Arc<Material>| m.certificate() == serving.certificate() && m.crl() == serving.crl();
        let is_same = self.served.as_ref().is_some_and(is) && current.signing.is_some() == signing.is_some();
        if !is_same || *current.trusted != *trusted {
            info!(roots = trusted.len(), not_after = ?serving.not_after(), signs = signing.is_some(), "certificate authority");
            self.serving.set_clients(&trusted, serving.revocation_lists().to_vec())?;
            let trusted_pem = trusted.iter().map(|root| pem::certificate(root)).collect();
            self.authority.set(signing.clone(), trusted);
            (self.streams.hand_out)(trusted_pem);
            let handed = Handed {
                bundle: self.authority.current().bundle.clone(),
                state: ends.into(),
                crl: serving.crl().unwrap_or_default().into(),
            };
            self.handed.send_if_modified(|h| std::mem::replace(h, handed.clone()) != handed);
        }
        if !is_same || self.renew.is_none_or(|at| now >= at) {
            let ttl = SERVING_TTL.min(self.args.root_ttl);
            let (chain, key) = serving_certificate(&serving, &self.names, ttl, now)?;
            self.serving.set_certificate(chain, key)?;
            self.served = Some(serving.clone());
            self.renew = Some(now + ttl / 2);
        }
        let left = serving.percent_left(now);
        if left < WARN_PERCENT {
            warn_once(&mut self.said, format!("the certificate that signs ends soon: {left} % of its time is left"), now);
        }
        Ok(())
    }
}

fn warn_once(said: &mut Option<(String, SystemTime)>, text: String, now: SystemTime) {
    if said.as_ref().is_none_or(|(before, at)| *before != text || now >= *at + SAY_AGAIN) {
        warn!("{text}");
        *said = Some((text, now));
    }
}

/// Secrets are small, and so are their mounted files.
fn read_folder(dir: &Path) -> anyhow::Result<Files> {
    let mut files = Files::new();
    for entry in fs::read_dir(dir)? {
        let path = entry?.path();
        if path.is_file()
            && let Some(name) = path.file_name().and_then(|n| n.to_str())
        {
            files.insert(name.to_owned(), fs::read(&path)?);
        }
    }
    Ok(files)
}

/// Whether a folder is meant to hold a key: one that is there and incomplete is a mistake, not an absence.
pub(super) fn is_given(dir: &Path) -> bool {
    ["ca-cert.pem", "ca-key.pem", "tls.crt", "tls.key"].iter().any(|file| dir.join(file).is_file())
}

/// An RSA key takes a processor for seconds, which streams would miss.
async fn new_root(trust_domain: &str, options: root::Options, now: SystemTime) -> anyhow::Result<Files> {
    let trust_domain = trust_domain.to_owned();
    Ok(tokio::task::spawn_blocking(move || root::generate(&trust_domain, &options, now)).await??)
}

async fn write(api: &KubeApi, method: Method, path: String, body: Value) -> Result<Value, ApiError> {
    api.call(Call { method, path, content_type: JSON, body }).await
}
