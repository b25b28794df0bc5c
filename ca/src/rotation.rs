//! [`Rotation`]: how one root follows another without an outage. Pure: time and what was seen of the mesh are arguments.
//!
//! ```text
//!            offer (another root)                 everybody has it                 its last certificate ended
//!  signing ─────────────────────> signing + next ─────────────────> next + retired ─────────────────────────> next
//!                                 trusted: both                     trusted: both                       trusted: one
//! ```
//!
//! Everybody has it when it is mounted wherever roots are mounted and confirmed by all who are told of roots, or when every
//! certificate that was issued before the offer has ended: the roots came with the next one.
//!
//! A key under a root that everybody trusts already is taken at once. The state is kept beside the key, so that every
//! replica, and the next process, goes on where this one was: [`Rotation::restore`]. Where the key is somebody else's to keep, no
//! more is kept than which roots were handed out, and until when they are trusted: [`Rotation::resume`].

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use rustls::pki_types::CertificateDer;
use serde::{Deserialize, Serialize};

use crate::chain;
use crate::material::{Files, Material, MaterialError};
use crate::pem;

/// The file that holds the state, beside those of the key that signs.
pub const STATE: &str = "pilotfish-rotation.json";
const ROOTS: &str = "root-cert.pem";

/// What was seen of the mesh.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// The roots that it is about, PEM. Of others it says nothing.
    pub bundle: Arc<str>,
    /// Since when every place that hands roots out has all that are trusted now; `None`: not yet.
    pub placed: Option<SystemTime>,
    /// Proxies that are told of roots and have not confirmed these.
    pub unconfirmed: usize,
}

/// Times of a rotation.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Times {
    /// How long what was placed may take to be mounted everywhere.
    pub mount: Duration,
    /// The longest that a certificate holds.
    pub longest: Duration,
    /// For how long other replicas may not know yet of another root, or that another key signs.
    pub lag: Duration,
}

impl Default for Times {
    fn default() -> Self {
        Times { mount: Duration::from_secs(180), longest: Duration::from_secs(2160 * 3600), lag: Duration::from_secs(60) }
    }
}

/// What became of an offer.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Offer {
    /// It is what signs, or what comes next, already.
    Known,
    /// It signs from now on: its root is one that everybody trusts.
    Taken,
    /// It is to be distributed first.
    Pending,
}

/// What a step did.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Nothing was due.
    None,
    /// The next key signs from now on.
    Switched,
    /// Roots whose last certificate ended are not trusted any more.
    Dropped,
}

#[derive(Clone, Debug)]
struct Source {
    files: Files,
    material: Arc<Material>,
}

impl Source {
    fn load(files: Files, now: SystemTime) -> Result<Source, MaterialError> {
        let material = Arc::new(Material::load(&files, now)?);
        Ok(Source { files, material })
    }

    fn is(&self, other: &Source) -> bool {
        let (a, b) = (&self.material, &other.material);
        a.certificate() == b.certificate() && a.chain() == b.chain() && a.roots() == b.roots() && a.crl() == b.crl()
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
struct Retired {
    root: CertificateDer<'static>,
    until: SystemTime,
}

/// See the module's documentation.
#[derive(Clone, Debug)]
pub struct Rotation {
    /// `None`: the only key that there is has a root that not everybody has.
    signing: Option<Source>,
    next: Option<Next>,
    retired: Vec<Retired>,
}

#[derive(Clone, Debug)]
struct Next {
    source: Source,
    /// When it was offered.
    since: SystemTime,
}

#[derive(Serialize, Deserialize, Default)]
#[serde(default)]
struct Kept {
    /// Files of the next key, base64.
    next: BTreeMap<String, String>,
    /// When it was offered, in seconds since 1970.
    since: Option<u64>,
    /// Roots that do not sign any more.
    retired: Vec<KeptRoot>,
}

#[derive(Serialize, Deserialize)]
struct KeptRoot {
    root: String,
    /// Seconds since 1970.
    until: u64,
}

impl Rotation {
    /// Goes on from what [`Rotation::files`] gave, or begins with a key that nothing is known of beside itself.
    pub fn restore(mut files: Files, now: SystemTime) -> Result<Rotation, MaterialError> {
        // A state that cannot be read is none: all roots of the bundle stay trusted then, for ever.
        let kept: Kept = files.remove(STATE).and_then(|f| serde_json::from_slice(&f).ok()).unwrap_or_default();
        let decode = |text: &String| STANDARD.decode(text).ok();
        let next: Option<Files> = kept.next.iter().map(|(name, text)| Some((name.clone(), decode(text)?))).collect();
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let since = kept.since.map_or(now, at);
        let next = next.filter(|files| !files.is_empty()).and_then(|files| Source::load(files, now).ok());
        let next = next.map(|source| Next { source, since });
        let retired: Vec<Retired> = kept
            .retired
            .iter()
            .filter_map(|kept| {
                let root = CertificateDer::from(decode(&kept.root)?);
                Some(Retired { root, until: at(kept.until) })
            })
            .collect();
        let others = next.iter().flat_map(|n| n.source.material.roots()).chain(retired.iter().map(|r| &r.root));
        let others: Vec<_> = others.cloned().collect();
        if let Some(file) = files.get(ROOTS)
            && !others.is_empty()
            && let Ok(all) = pem::certificates(file)
        {
            let own: Vec<_> = all.into_iter().filter(|root| !others.contains(root)).collect();
            files.insert(ROOTS.into(), pem::bundle(&own).into_bytes());
        }
        Ok(Rotation { signing: Some(Source::load(files, now)?), next, retired })
    }

    /// Goes on with this key after others, of which only the `trusted` roots (PEM) and what [`Rotation::ends`] said are known.
    pub fn resume(files: Files, trusted: &[u8], ends: &Ends, times: &Times, now: SystemTime) -> Result<Rotation, MaterialError> {
        let source = Source::load(files, now)?;
        let roots = source.material.roots();
        let known = pem::certificates(trusted).unwrap_or_default();
        let is_known = known.is_empty() || chain::verify(source.material.certificate(), source.material.chain(), &known, now).is_ok();
        let others = known.into_iter().filter(|root| !roots.contains(root));
        let retired = others.filter_map(|root| {
            let last = chain::ends(&root)?.min(now + times.lag + times.longest);
            let until =
                ends.0.get(&fingerprint(&root)).map_or(last, |seconds| last.min(SystemTime::UNIX_EPOCH + Duration::from_secs(*seconds)));
            // Who signed until now signs no more, but nothing says so.
            Some(Retired { root, until: if is_known { until } else { last } })
        });
        let retired = retired.collect();
        if is_known {
            return Ok(Rotation { signing: Some(source), next: None, retired });
        }
        Ok(Rotation { signing: None, next: Some(Next { source, since: now }), retired })
    }

    /// Until when roots are trusted that do not sign any more.
    pub fn ends(&self) -> Ends {
        let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        Ends(self.retired.iter().map(|r| (fingerprint(&r.root), seconds(r.until))).collect())
    }

    /// All of it, in the layout of the key that signs; the file of roots has all that are trusted.
    pub fn files(&self) -> Files {
        let mut files = self.signing.as_ref().or(self.next.as_ref().map(|n| &n.source)).map(|s| s.files.clone()).unwrap_or_default();
        files.remove(STATE);
        if self.next.is_none() && self.retired.is_empty() {
            return files;
        }
        let encode = |file: &[u8]| STANDARD.encode(file);
        let seconds = |at: SystemTime| at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let since = self.next.as_ref().map(|n| seconds(n.since));
        let next = self.next.iter().flat_map(|n| &n.source.files).map(|(name, file)| (name.clone(), encode(file))).collect();
        let retired = self.retired.iter().map(|r| KeptRoot { root: encode(&r.root), until: seconds(r.until) }).collect();
        files.insert(ROOTS.into(), pem::bundle(&self.trusted()).into_bytes());
        files.insert(STATE.into(), serde_json::to_vec(&Kept { next, since, retired }).unwrap_or_default());
        files
    }

    /// What signs; nothing while the only key waits for everybody to have its root.
    pub fn signing(&self) -> Option<&Arc<Material>> {
        self.signing.as_ref().map(|s| &s.material)
    }

    /// What is waiting to sign.
    pub fn next(&self) -> Option<&Arc<Material>> {
        self.next.as_ref().map(|n| &n.source.material)
    }

    /// Roots that are trusted, that of the key that signs first.
    pub fn trusted(&self) -> Vec<CertificateDer<'static>> {
        let next = self.next.iter().flat_map(|n| n.source.material.roots());
        let signing = self.signing.iter().flat_map(|s| s.material.roots());
        let all = signing.chain(next).chain(self.retired.iter().map(|r| &r.root));
        let mut trusted: Vec<CertificateDer<'static>> = Vec::new();
        for root in all {
            if !trusted.contains(root) {
                trusted.push(root.clone());
            }
        }
        trusted
    }

    /// Here is another key. What is not whole is refused, and everything stays as it is.
    pub fn offer(&mut self, files: Files, times: &Times, now: SystemTime) -> Result<Offer, MaterialError> {
        let new = Source::load(files, now)?;
        if self.next.as_ref().is_some_and(|next| next.source.is(&new)) {
            return Ok(Offer::Known);
        }
        if self.signing.as_ref().is_some_and(|s| s.is(&new)) {
            // Somebody thought better of it.
            self.next = None;
            return Ok(Offer::Known);
        }
        let material = &new.material;
        let trusted = self.signing.as_ref().map(|s| s.material.roots()).unwrap_or_default();
        if chain::verify(material.certificate(), material.chain(), trusted, now).is_ok() {
            self.next = None;
            self.replace(new, times, now);
            return Ok(Offer::Taken);
        }
        self.next = Some(Next { source: new, since: now });
        Ok(Offer::Pending)
    }

    /// Does what is due.
    pub fn step(&mut self, evidence: &Evidence, times: &Times, now: SystemTime) -> Step {
        let is_about = *evidence.bundle == *pem::bundle(&self.trusted());
        let mounted = is_about && evidence.placed.is_some_and(|placed| now >= placed + times.mount) && evidence.unconfirmed == 0;
        // A signer that cannot sign any more is no reason to wait for anything.
        let over = self.signing.as_ref().is_some_and(|s| s.material.not_after() <= now);
        if let Some(next) = self.next.take_if(|n| mounted || over || n.since + times.lag + times.longest <= now) {
            self.replace(next.source, times, now);
            return Step::Switched;
        }
        let before = self.retired.len();
        self.retired.retain(|r| now < r.until);
        if self.retired.len() < before { Step::Dropped } else { Step::None }
    }

    fn replace(&mut self, new: Source, times: &Times, now: SystemTime) {
        let last = now + times.lag + times.longest;
        let old: Vec<CertificateDer<'static>> = match &self.signing {
            Some(old) => old.material.roots().to_vec(),
            // Any of them may have signed a moment ago.
            None => self.retired.iter().map(|r| r.root.clone()).collect(),
        };
        for root in old {
            let ends = chain::ends(&root).unwrap_or(now);
            self.retired.retain(|r| r.root != root);
            self.retired.push(Retired { until: ends.min(last), root });
        }
        self.retired.retain(|r| !new.material.roots().contains(&r.root));
        self.signing = Some(new);
    }
}

/// Until when roots are trusted that do not sign any more: seconds since 1970, by fingerprint. Public, unlike the state beside a key.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Ends(pub BTreeMap<String, u64>);

/// SHA-256 of a certificate, in hexadecimal.
fn fingerprint(certificate: &CertificateDer<'_>) -> String {
    let digest = aws_lc_rs::digest::digest(&aws_lc_rs::digest::SHA256, certificate);
    digest.as_ref().iter().map(|byte| format!("{byte:02x}")).collect()
}
