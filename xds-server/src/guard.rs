//! The seam to whoever knows callers: [`Guard`]; and what one port does: [`Port`].

use std::collections::HashMap;
use std::future::{Future, ready};
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use bytes::Bytes;
use http::HeaderMap;
use pilotfish_model::{Caller, Identity};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tonic::Status;

use crate::access::Way;

/// A future of a trait object.
pub type Boxed<'a, T> = Pin<Box<dyn Future<Output = T> + Send + 'a>>;

/// The other end of a connection.
#[derive(Clone, Debug)]
pub struct Peer {
    /// Its address.
    pub address: SocketAddr,
    /// How it came.
    pub way: Way,
    /// The leaf of the certificate that TLS has verified, DER.
    pub certificate: Option<Arc<[u8]>>,
}

/// Finds out who callers are, and answers the methods beside ADS. Asked before anything of a request's body is read.
pub trait Guard: Send + Sync + 'static {
    /// Who asks. A proof that does not hold is an error, none at all is an anonymous caller.
    fn authenticate<'a>(&'a self, peer: &'a Peer, headers: &'a HeaderMap) -> Boxed<'a, Result<Caller, Status>>;
    /// Whether somebody may read the Secrets of its namespace. An error: nobody can tell now.
    fn may_read_secrets<'a>(&'a self, identity: &'a Identity) -> Boxed<'a, Result<bool, String>>;
    /// Paths of methods with one request and one answer.
    fn methods(&self) -> &[&'static str];
    /// Answers one of [`Guard::methods`].
    fn call<'a>(&'a self, path: &'a str, caller: &'a Caller, request: Bytes) -> Boxed<'a, Result<Bytes, Status>>;
}

/// Knows nobody.
#[derive(Clone, Copy, Debug)]
pub struct NoGuard;

impl Guard for NoGuard {
    fn authenticate<'a>(&'a self, _: &'a Peer, _: &'a HeaderMap) -> Boxed<'a, Result<Caller, Status>> {
        Box::pin(ready(Ok(Caller::anonymous())))
    }

    fn may_read_secrets<'a>(&'a self, _: &'a Identity) -> Boxed<'a, Result<bool, String>> {
        Box::pin(ready(Ok(false)))
    }

    fn methods(&self) -> &[&'static str] {
        &[]
    }

    fn call<'a>(&'a self, path: &'a str, _: &'a Caller, _: Bytes) -> Boxed<'a, Result<Bytes, Status>> {
        Box::pin(ready(Err(Status::unimplemented(format!("no method {path}")))))
    }
}

/// What one port does.
#[derive(Clone)]
pub struct Port {
    pub(crate) tls: Option<TlsAcceptor>,
    pub(crate) guard: Arc<dyn Guard>,
    pub(crate) rights: Arc<Rights>,
}

impl Port {
    /// In clear text.
    pub fn clear(guard: Arc<dyn Guard>) -> Port {
        Port { tls: None, guard, rights: Arc::default() }
    }

    /// Over TLS.
    pub fn tls(config: Arc<ServerConfig>, guard: Arc<dyn Guard>) -> Port {
        Port { tls: Some(TlsAcceptor::from(config)), guard, rights: Arc::default() }
    }
}

/// How long an answer counts.
const COUNTS: Duration = Duration::from_secs(60);
/// How soon is asked again after no answer.
const AGAIN: Duration = Duration::from_secs(5);
/// How long what was said last counts while there is no answer.
const STALE: Duration = Duration::from_secs(3600);

/// Who may read Secrets, as was said within the last minute.
#[derive(Debug, Default)]
pub(crate) struct Rights(Mutex<HashMap<Identity, Right>>);

#[derive(Clone, Copy, Debug)]
struct Right {
    may: bool,
    said: Instant,
    ask_again: Instant,
}

impl Rights {
    /// Whether it may, and when that is to be asked again.
    pub(crate) async fn of(&self, guard: &dyn Guard, identity: &Identity, now: Instant) -> (bool, Instant) {
        let known = self.lock().get(identity).copied();
        if let Some(right) = known.filter(|r| now < r.ask_again) {
            return (right.may, right.ask_again);
        }
        let right = match guard.may_read_secrets(identity).await {
            Ok(may) => Right { may, said: now, ask_again: now + COUNTS },
            Err(why) => {
                tracing::warn!(%identity, why, "it is not known whether it may read Secrets");
                // Only what was never allowed is denied for want of an answer.
                let before = known.filter(|r| now < r.said + STALE);
                let may = before.is_some_and(|r| r.may);
                Right { may, said: before.map_or(now, |r| r.said), ask_again: now + AGAIN }
            }
        };
        let mut all = self.lock();
        all.retain(|_, r| now < r.said + STALE);
        all.insert(identity.clone(), right);
        (right.may, right.ask_again)
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<Identity, Right>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::atomic::{AtomicUsize, Ordering};

    /// Answers in turn.
    struct Says(Mutex<Vec<Result<bool, String>>>, AtomicUsize);

    impl Guard for Says {
        fn authenticate<'a>(&'a self, _: &'a Peer, _: &'a HeaderMap) -> Boxed<'a, Result<Caller, Status>> {
            Box::pin(ready(Ok(Caller::anonymous())))
        }
        fn may_read_secrets<'a>(&'a self, _: &'a Identity) -> Boxed<'a, Result<bool, String>> {
            self.1.fetch_add(1, Ordering::Relaxed);
            Box::pin(ready(self.0.lock().unwrap().remove(0)))
        }
        fn methods(&self) -> &[&'static str] {
            &[]
        }
        fn call<'a>(&'a self, _: &'a str, _: &'a Caller, _: Bytes) -> Boxed<'a, Result<Bytes, Status>> {
            Box::pin(ready(Err(Status::unimplemented(""))))
        }
    }

    #[tokio::test]
    async fn an_answer_counts_for_a_minute_and_without_any_the_last_one() {
        let down = || Err("down".to_owned());
        let guard = Says(Mutex::new(vec![down(), Ok(true), down(), Ok(false), down()]), AtomicUsize::new(0));
        let (rights, start) = (Rights::default(), Instant::now());
        let identity = "spiffe://td/ns/a/sa/b".parse().unwrap();
        let mut seen = Vec::new();
        for seconds in [0, 4, 5, 64, 65, 69, 70, 130] {
            seen.push(rights.of(&guard, &identity, start + Duration::from_secs(seconds)).await.0);
        }
        assert_eq!(seen, [false, false, true, true, true, true, false, false]);
        assert_eq!(guard.1.load(Ordering::Relaxed), 5);
    }
}
