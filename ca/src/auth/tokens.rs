//! [`Tokens`]: whose a bearer token is.

use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::{Duration, SystemTime};

use pilotfish_model::identity::PodRef;
use pilotfish_model::name::Str;
use tokio::sync::Notify;

use super::cache::{Cache, Digest, digest_of};
use super::jwt::{Claims, Unproved};
use super::keys::{Keys, Proof};
use crate::service::Boxed;

/// What a token stands for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Subject {
    /// Namespace of the service account.
    pub namespace: Str,
    /// Its name.
    pub account: Str,
    /// The Pod that the token was given to.
    pub pod: Option<PodRef>,
}

/// Why a token does not count.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Refused {
    /// It is not one, is forged, is of somebody else, for somebody else or of another time.
    #[error("{0}")]
    Bad(&'static str),
    /// It may be good; nobody can tell now.
    #[error("{0}")]
    Unavailable(String),
}

/// Answers of an API server. It fails with the reason why there is no answer.
pub trait Reviewer: Send + Sync + 'static {
    /// The issuer of tokens, and its public keys.
    fn keys(&self) -> Boxed<'_, Result<(String, Keys), String>>;
    /// Whose a token for one of these audiences is; `None` if it is not good.
    fn review<'a>(&'a self, token: &'a str, audiences: &'a [String]) -> Boxed<'a, Result<Option<Subject>, String>>;
}

/// An issuer beside the cluster (`JWT_RULE`).
#[derive(Clone, Debug, Default)]
pub struct Rule {
    /// Its name.
    pub issuer: String,
    /// One of these must be meant; any of the token's if there are none.
    pub audiences: Vec<String>,
    /// Its keys.
    pub keys: Keys,
    /// They are published somewhere; see [`Tokens::set_keys`].
    pub remote: bool,
}

/// How long clocks may differ.
const SKEW: Duration = Duration::from_secs(60);
/// How long the word of the API server counts.
const REVIEWED: Duration = Duration::from_secs(600);
/// How long a refusal of the API server is remembered.
const REFUSED: Duration = Duration::from_secs(10);
/// How often the API server is asked about tokens at most, per second.
const REVIEWS: u32 = 20;
/// Asking for keys again because a token names an unknown one.
const REFRESH: Duration = Duration::from_secs(10);
const SERVICE_ACCOUNT: &str = "system:serviceaccount:";

/// See the module's documentation.
pub struct Tokens {
    audiences: Vec<String>,
    rules: RwLock<Vec<Rule>>,
    /// A token of a rule names a key that is not there.
    unknown: Notify,
    reviewer: Option<Arc<dyn Reviewer>>,
    cluster: RwLock<Option<(String, Keys)>>,
    cache: Cache,
    budget: Mutex<Budget>,
    /// One question for keys at a time.
    asking: tokio::sync::Mutex<Option<SystemTime>>,
}

/// Questions that may still be asked.
struct Budget {
    left: f64,
    at: Option<SystemTime>,
}

impl Tokens {
    /// `audiences`: of tokens of the cluster. Without a reviewer only rules hold.
    pub fn new(audiences: Vec<String>, rules: Vec<Rule>, reviewer: Option<Arc<dyn Reviewer>>) -> Self {
        let budget = Mutex::new(Budget { left: f64::from(REVIEWS), at: None });
        let (rules, cluster) = (RwLock::new(rules), RwLock::default());
        Tokens {
            audiences,
            rules,
            unknown: Notify::new(),
            reviewer,
            cluster,
            cache: Cache::default(),
            budget,
            asking: tokio::sync::Mutex::default(),
        }
    }

    /// The keys of a rule's issuer, from now on.
    pub fn set_keys(&self, issuer: &str, keys: Keys) {
        let mut rules = self.rules.write().unwrap_or_else(PoisonError::into_inner);
        for rule in rules.iter_mut().filter(|rule| rule.issuer == issuer && rule.keys != keys) {
            rule.keys = keys.clone();
            // What an older key has proved is to be proved again.
            self.cache.clear();
        }
    }

    /// Returns when a token of an issuer whose keys are published names one that is not known here.
    pub async fn unknown_key(&self) {
        self.unknown.notified().await;
    }

    /// Asks for the cluster's keys. What is known stays if there is no answer.
    pub async fn refresh(&self, now: SystemTime) -> Result<(), String> {
        let Some(reviewer) = &self.reviewer else { return Ok(()) };
        let mut asked = self.asking.lock().await;
        *asked = Some(now);
        let new = reviewer.keys().await?;
        let mut known = self.cluster.write().unwrap_or_else(PoisonError::into_inner);
        if known.as_ref() != Some(&new) {
            if known.is_some() {
                self.cache.clear();
            }
            *known = Some(new);
        }
        Ok(())
    }

    /// Whose token this is.
    pub async fn verify(&self, token: &str, now: SystemTime) -> Result<Subject, Refused> {
        let unproved = Unproved::parse(token).map_err(|_| Refused::Bad("not a signed token"))?;
        let claims = unproved.claims().map_err(|_| Refused::Bad("its claims do not parse"))?;
        let ends = in_time(&claims, now)?;
        let digest = digest_of(token);
        match self.cache.get(&digest, now) {
            Some(Some(subject)) => return Ok(subject),
            Some(None) => return Err(Refused::Bad("refused a moment ago")),
            None => {}
        }
        if let Some(outcome) = self.by_rule(&unproved, &claims) {
            let subject = outcome?;
            self.cache.put(digest, Some(subject.clone()), ends, now);
            return Ok(subject);
        }
        match self.by_keys(&unproved, &claims, now).await {
            Some(outcome) => {
                let subject = outcome?;
                self.cache.put(digest, Some(subject.clone()), ends, now);
                Ok(subject)
            }
            None => self.by_review(token, digest, ends, now).await,
        }
    }

    fn by_rule(&self, token: &Unproved<'_>, claims: &Claims) -> Option<Result<Subject, Refused>> {
        let rules = self.rules.read().unwrap_or_else(PoisonError::into_inner);
        let rule = rules.iter().find(|rule| rule.issuer == claims.iss)?;
        let proof = rule.keys.prove(token);
        if proof == Proof::UnknownKey && rule.remote {
            self.unknown.notify_one();
        }
        Some(if rule.keys.is_empty() {
            Err(Refused::Unavailable("the keys of its issuer are not known".into()))
        } else if proof != Proof::Signed {
            Err(Refused::Bad("not signed by its issuer"))
        } else if !rule.audiences.is_empty() && !rule.audiences.iter().any(|a| claims.aud.0.contains(a)) {
            Err(Refused::Bad("for another audience"))
        } else {
            subject(claims)
        })
    }

    /// `None`: the keys do not tell.
    async fn by_keys(&self, token: &Unproved<'_>, claims: &Claims, now: SystemTime) -> Option<Result<Subject, Refused>> {
        match self.prove(token, claims) {
            Some(Proof::Signed) => return Some(self.for_us(claims)),
            Some(Proof::Forged) => return Some(Err(Refused::Bad("not signed by the cluster"))),
            Some(Proof::UnknownKey) | None => {}
        }
        let due = match self.asking.try_lock() {
            Ok(asked) => asked.is_none_or(|at| now >= at + REFRESH),
            Err(_) => false,
        };
        if due && let Err(error) = self.refresh(now).await {
            tracing::debug!(%error, "no keys of the cluster");
        }
        match self.prove(token, claims)? {
            Proof::Signed => Some(self.for_us(claims)),
            Proof::Forged => Some(Err(Refused::Bad("not signed by the cluster"))),
            Proof::UnknownKey => None,
        }
    }

    /// `None`: the cluster's keys are not known, or it is not the issuer that they belong to.
    fn prove(&self, token: &Unproved<'_>, claims: &Claims) -> Option<Proof> {
        let cluster = self.cluster.read().unwrap_or_else(PoisonError::into_inner);
        cluster.as_ref().filter(|(issuer, _)| *issuer == claims.iss).map(|(_, keys)| keys.prove(token))
    }

    fn for_us(&self, claims: &Claims) -> Result<Subject, Refused> {
        if !self.audiences.iter().any(|a| claims.aud.0.contains(a)) {
            return Err(Refused::Bad("for another audience"));
        }
        subject(claims)
    }

    async fn by_review(&self, token: &str, digest: Digest, ends: SystemTime, now: SystemTime) -> Result<Subject, Refused> {
        let Some(reviewer) = &self.reviewer else { return Err(Refused::Bad("its issuer is not known")) };
        if !self.may_ask(now) {
            return Err(Refused::Unavailable("the API server was asked about too many tokens".into()));
        }
        let found = reviewer.review(token, &self.audiences).await.map_err(Refused::Unavailable)?;
        let until = if found.is_some() { ends.min(now + REVIEWED) } else { now + REFUSED };
        self.cache.put(digest, found.clone(), until, now);
        found.ok_or(Refused::Bad("refused by the API server"))
    }

    fn may_ask(&self, now: SystemTime) -> bool {
        let mut budget = self.budget.lock().unwrap_or_else(PoisonError::into_inner);
        let passed = budget.at.and_then(|at| now.duration_since(at).ok()).unwrap_or_default();
        budget.left = (budget.left + passed.as_secs_f64() * f64::from(REVIEWS)).min(f64::from(REVIEWS));
        budget.at = Some(now);
        let may = budget.left >= 1.0;
        if may {
            budget.left -= 1.0;
        }
        may
    }
}

/// When it ends.
fn in_time(claims: &Claims, now: SystemTime) -> Result<SystemTime, Refused> {
    let at = |seconds: f64| Duration::try_from_secs_f64(seconds).ok().and_then(|d| SystemTime::UNIX_EPOCH.checked_add(d));
    let ends = claims.exp.and_then(at).ok_or(Refused::Bad("it does not say when it ends"))?;
    if ends <= now {
        return Err(Refused::Bad("its time is over"));
    }
    match claims.nbf {
        Some(begins) if at(begins).is_none_or(|begins| begins > now + SKEW) => Err(Refused::Bad("its time has not come")),
        _ => Ok(ends),
    }
}

/// The service account that a proved token is of.
fn subject(claims: &Claims) -> Result<Subject, Refused> {
    let (namespace, account) = service_account(&claims.sub).ok_or(Refused::Bad("not of a service account"))?;
    let pod = claims.kubernetes.as_ref().and_then(|k| k.pod.as_ref());
    let pod = pod.filter(|p| !p.name.is_empty() && !p.uid.is_empty());
    let pod = pod.map(|p| PodRef { name: p.name.as_str().into(), uid: p.uid.as_str().into() });
    Ok(Subject { namespace: namespace.into(), account: account.into(), pod })
}

/// Namespace and name out of the name of a user of Kubernetes.
pub fn service_account(user: &str) -> Option<(&str, &str)> {
    let (namespace, account) = user.strip_prefix(SERVICE_ACCOUNT)?.split_once(':')?;
    let is_name =
        |text: &str| !text.is_empty() && text.bytes().all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || matches!(b, b'-' | b'.'));
    (is_name(namespace) && is_name(account)).then_some((namespace, account))
}
