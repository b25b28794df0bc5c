//! [`Service`]: answers requests for certificates of callers that are known. What went wrong is told in few words.

use std::collections::BTreeSet;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::time::SystemTime;

use pilotfish_model::name::Str;
use pilotfish_model::{Caller, Identity};
use prost::Message as _;
use prost_types::value::Kind;
use tonic::Status;

use crate::authority::Authority;
use crate::issue::{IssueError, Policy, issue};
use crate::metrics::{Metrics, SignError};
use crate::wire::{CertificateRequest, CertificateResponse};

/// A future of a trait object.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The key of the request's metadata that names somebody else.
const IMPERSONATED: &str = "ImpersonatedIdentity";

/// What is known of Pods.
pub trait Pods: Send + Sync + 'static {
    /// Whether a Pod of this name, UID and service account runs, and a Pod of the `wanted` one on the same node.
    /// An error is for the log only.
    fn beside<'a>(
        &'a self,
        caller: &'a Identity,
        pod: &'a pilotfish_model::identity::PodRef,
        wanted: &'a Identity,
    ) -> Boxed<'a, Result<bool, String>>;
}

/// Knows no Pod.
#[derive(Clone, Copy, Debug)]
pub struct NoPods;

impl Pods for NoPods {
    fn beside<'a>(&'a self, _: &'a Identity, _: &'a pilotfish_model::identity::PodRef, _: &'a Identity) -> Boxed<'a, Result<bool, String>> {
        Box::pin(std::future::ready(Ok(false)))
    }
}

/// See the module's documentation.
pub struct Service {
    authority: Arc<Authority>,
    policy: Policy,
    /// Namespace and name of service accounts that may ask for others on their node.
    trusted: BTreeSet<(Str, Str)>,
    pods: Arc<dyn Pods>,
    metrics: Arc<Metrics>,
}

impl Service {
    /// `trusted`: who may ask for others, as `NAMESPACE/NAME` separated by commas.
    pub fn new(authority: Arc<Authority>, policy: Policy, trusted: &str, pods: Arc<dyn Pods>) -> Self {
        let account = |text: &str| text.trim().split_once('/').map(|(ns, name)| (Str::from(ns), Str::from(name)));
        let trusted = trusted.split(',').filter_map(account).collect();
        Service { authority, policy, trusted, pods, metrics: Arc::default() }
    }

    /// What it counts.
    pub fn metrics(&self) -> Arc<Metrics> {
        self.metrics.clone()
    }

    /// One request, encoded, of a caller that authentication has passed; the answer, encoded.
    pub async fn create(&self, caller: &Caller, request: &[u8], now: SystemTime) -> Result<Vec<u8>, Status> {
        self.metrics.request();
        if caller.is_anonymous() {
            self.metrics.refused();
            return Err(Status::unauthenticated("request authenticate failure"));
        }
        let Ok(request) = CertificateRequest::decode(request) else {
            self.metrics.failure(SignError::Csr);
            return Err(Status::invalid_argument("CSR signing error (the request does not parse)"));
        };
        let named = match impersonated(&request) {
            None => caller.identities.clone(),
            Some(wanted) => Arc::from([self.impersonate(caller, wanted).await?]),
        };
        let answer = self.sign(&request, &named, now).map_err(|(code, error, why)| {
            self.metrics.failure(error);
            tracing::info!(identity = %named[0], %why, "no certificate");
            Status::new(code, format!("CSR signing error ({why})"))
        })?;
        self.metrics.success();
        tracing::debug!(identity = %named[0], "certificate issued");
        Ok(answer.encode_to_vec())
    }

    fn sign(
        &self,
        request: &CertificateRequest,
        identities: &[Identity],
        now: SystemTime,
    ) -> Result<CertificateResponse, (tonic::Code, SignError, IssueError)> {
        use tonic::Code::{Internal, InvalidArgument};
        let current = self.authority.current();
        let Some(material) = &current.signing else { return Err((Internal, SignError::NotReady, IssueError::Sign)) };
        let issued = issue(material, &self.policy, &request.csr, identities, request.validity_duration, now);
        let issued = issued.map_err(|e| match e {
            IssueError::Csr(_) => (InvalidArgument, SignError::Csr, e),
            IssueError::Ttl { .. } => (InvalidArgument, SignError::Ttl, e),
            IssueError::NoIdentity => (Internal, SignError::Unknown, e),
            IssueError::SignerExpired | IssueError::Sign => (Internal, SignError::Generation, e),
        })?;
        let mut cert_chain = issued.chain;
        cert_chain.push(current.bundle.to_string());
        Ok(CertificateResponse { cert_chain })
    }

    /// A proxy of a node asks for the workloads beside it.
    async fn impersonate(&self, caller: &Caller, wanted: &str) -> Result<Identity, Status> {
        let refuse = |why: &str| {
            self.metrics.refused();
            tracing::warn!(caller = ?caller.identities.first().map(ToString::to_string), wanted, why, "impersonation refused");
            Status::unauthenticated("request impersonation authentication failure")
        };
        let is_trusted = |identity: &&Identity| self.trusted.contains(&(identity.namespace.clone(), identity.account.clone()));
        let identity = caller.identities.iter().find(is_trusted).ok_or_else(|| refuse("not a trusted node proxy"))?;
        let wanted: Identity = wanted.parse().map_err(|_| refuse("not an identity"))?;
        if wanted.trust_domain != identity.trust_domain {
            return Err(refuse("another trust domain"));
        }
        let pod = caller.pod.as_ref().ok_or_else(|| refuse("its credentials name no Pod"))?;
        match self.pods.beside(identity, pod, &wanted).await {
            Ok(true) => Ok(wanted),
            Ok(false) => Err(refuse("no such Pod on the node")),
            Err(why) => Err(refuse(&why)),
        }
    }
}

fn impersonated(request: &CertificateRequest) -> Option<&str> {
    match &request.metadata.as_ref()?.fields.get(IMPERSONATED)?.kind {
        Some(Kind::StringValue(wanted)) if !wanted.is_empty() => Some(wanted),
        None | Some(Kind::NullValue(_)) => None,
        Some(Kind::StringValue(_)) => None,
        // Something is asked for; what is no text names nobody.
        Some(_) => Some("?"),
    }
}
