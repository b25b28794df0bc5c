//! Who a caller is: [`Authenticator`]. The first kind of proof that is there decides; a bad one is not made up for by another.
//!
//! | proof | checked by |
//! | --- | --- |
//! | client certificate | TLS, against our roots; here only its names |
//! | bearer token of Kubernetes | the cluster's public keys; by the API server itself where these do not tell |
//! | bearer token of another issuer | its public keys, if a rule says so |
//! | `x-forwarded-client-cert` | the address that it comes from, if that is listed |
//!
//! **How long a token that was taken back still counts**: one that the cluster's keys prove counts until it ends, or its key
//! is withdrawn (looked for every five minutes); one that the API server was asked about, ten minutes at most.

mod cache;
pub mod jwt;
pub mod keys;
pub mod tokens;
mod xfcc;

use std::net::IpAddr;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};
use std::time::SystemTime;

use http::{HeaderMap, header};
use ipnet::IpNet;
use pilotfish_model::name::Str;
use pilotfish_model::{Caller, Identity};
use tonic::Status;

use crate::chain;
use tokens::{Refused, Tokens};

/// What a connection says of whoever is at its other end.
#[derive(Clone, Debug, Default)]
pub struct Connection {
    /// The address, if it is known.
    pub address: Option<IpAddr>,
    /// The leaf of the certificate that TLS has verified, DER.
    pub certificate: Option<Arc<[u8]>>,
}

/// Settings.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Trust domain of service accounts whose token does not say, which is all of them.
    pub trust_domain: Str,
    /// Names of other trust domains that certificates may be of.
    pub aliases: Vec<Str>,
    /// Gateways in front of us, which say in a header who their client is.
    pub gateways: Vec<IpNet>,
}

/// See the module's documentation.
pub struct Authenticator {
    options: RwLock<Options>,
    tokens: Tokens,
}

/// The header of Envoy that names its client.
const XFCC: &str = "x-forwarded-client-cert";

impl Authenticator {
    /// With these settings.
    pub fn new(options: Options, tokens: Tokens) -> Self {
        Authenticator { options: RwLock::new(options), tokens }
    }

    /// Other trust domains hold from now on.
    pub fn set_trust(&self, domain: &Str, aliases: &[Str]) {
        let is_same = {
            let options = self.options();
            options.trust_domain == *domain && options.aliases == aliases
        };
        if !is_same {
            let mut options = self.options.write().unwrap_or_else(PoisonError::into_inner);
            (options.trust_domain, options.aliases) = (domain.clone(), aliases.to_vec());
        }
    }

    /// Bearer tokens.
    pub fn tokens(&self) -> &Tokens {
        &self.tokens
    }

    fn options(&self) -> RwLockReadGuard<'_, Options> {
        self.options.read().unwrap_or_else(PoisonError::into_inner)
    }

    /// Who asks; anonymous if there is no proof of any kind. A proof that does not hold is `UNAUTHENTICATED`, one that cannot
    /// be checked now `UNAVAILABLE`: to be tried again.
    pub async fn authenticate(&self, connection: &Connection, headers: &HeaderMap, now: SystemTime) -> Result<Caller, Status> {
        if let Some(leaf) = &connection.certificate {
            return self.certificate(leaf);
        }
        if let Some(token) = bearer(headers)? {
            return match self.tokens.verify(token, now).await {
                Ok(subject) => {
                    Ok(Caller { identities: Arc::from([self.identity(&subject.namespace, &subject.account)]), pod: subject.pod })
                }
                Err(Refused::Unavailable(why)) => {
                    tracing::warn!(%why, "a token cannot be checked");
                    Err(Status::unavailable("request authenticate failure"))
                }
                Err(refused) => {
                    tracing::info!(why = %refused, "token refused");
                    Err(unauthenticated())
                }
            };
        }
        match headers.get(XFCC) {
            Some(value) if self.is_gateway(connection.address) => {
                let identity = value.to_str().ok().and_then(xfcc::identity);
                match identity.filter(|identity| self.is_ours(identity)) {
                    Some(identity) => Ok(Caller::of(identity)),
                    None => Err(unauthenticated()),
                }
            }
            // Anybody can write a header.
            _ => Ok(Caller::anonymous()),
        }
    }

    fn certificate(&self, leaf: &[u8]) -> Result<Caller, Status> {
        let parsed = chain::parse(leaf).map_err(|_| unauthenticated())?;
        let identities: Vec<Identity> = chain::identities(&parsed).into_iter().filter(|i| self.is_ours(i)).collect();
        if identities.is_empty() {
            return Err(unauthenticated());
        }
        Ok(Caller { identities: identities.into(), pod: None })
    }

    fn identity(&self, namespace: &str, account: &str) -> Identity {
        Identity { trust_domain: self.options().trust_domain.clone(), namespace: namespace.into(), account: account.into() }
    }

    fn is_ours(&self, identity: &Identity) -> bool {
        {
            let options = self.options();
            identity.trust_domain == options.trust_domain || options.aliases.contains(&identity.trust_domain)
        }
    }

    fn is_gateway(&self, address: Option<IpAddr>) -> bool {
        address.is_some_and(|ip| self.options().gateways.iter().any(|net| net.contains(&ip.to_canonical())))
    }
}

fn unauthenticated() -> Status {
    Status::unauthenticated("request authenticate failure")
}

/// The bearer token; an error if there is something else in its place.
fn bearer(headers: &HeaderMap) -> Result<Option<&str>, Status> {
    let mut values = headers.get_all(header::AUTHORIZATION).iter();
    let Some(value) = values.next() else { return Ok(None) };
    if values.next().is_some() {
        return Err(unauthenticated());
    }
    let text = value.to_str().map_err(|_| unauthenticated())?;
    let (scheme, token) = text.split_once(' ').ok_or_else(unauthenticated)?;
    // Istio's agents have said "Istio" once.
    if !(scheme.eq_ignore_ascii_case("bearer") || scheme.eq_ignore_ascii_case("istio")) {
        return Err(unauthenticated());
    }
    Ok(Some(token.trim()))
}
