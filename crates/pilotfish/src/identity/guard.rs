//! [`Callers`]: the ADS server's guard, and that of debug pages.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::SystemTime;

use axum::http::HeaderMap;
use pilotfish_ca::Service;
use pilotfish_ca::auth::{Authenticator, Connection};
use pilotfish_ca::wire::CREATE_CERTIFICATE;
use pilotfish_controller::api::KubeApi;
use pilotfish_model::{Caller, Identity};
use pilotfish_xds_server::access::Way;
use pilotfish_xds_server::guard::{Boxed, Guard, Peer};
use tonic::Status;

use super::cluster::ClusterFacts;

/// Knows callers, and gives them their certificates.
pub struct Callers {
    pub(super) authenticator: Authenticator,
    pub(super) service: Service,
    pub(super) facts: Option<ClusterFacts<KubeApi>>,
}

impl Guard for Callers {
    fn authenticate<'a>(&'a self, peer: &'a Peer, headers: &'a HeaderMap) -> Boxed<'a, Result<Caller, Status>> {
        Box::pin(async move {
            let connection = Connection { address: Some(peer.address.ip()), certificate: peer.certificate.clone() };
            let outcome = self.authenticator.authenticate(&connection, headers, SystemTime::now()).await;
            outcome.inspect_err(|_| self.service.metrics().refused())
        })
    }

    fn may_read_secrets<'a>(&'a self, identity: &'a Identity) -> Boxed<'a, Result<bool, String>> {
        Box::pin(async move {
            match &self.facts {
                Some(facts) => facts.may_read_secrets(identity).await,
                // Without an API server there is nobody to allow more or less than the namespace does.
                None => Ok(true),
            }
        })
    }

    fn methods(&self) -> &[&'static str] {
        &[CREATE_CERTIFICATE]
    }

    fn call<'a>(&'a self, _: &'a str, caller: &'a Caller, request: bytes::Bytes) -> Boxed<'a, Result<bytes::Bytes, Status>> {
        Box::pin(async move { Ok(self.service.create(caller, &request, SystemTime::now()).await?.into()) })
    }
}

/// Who asks for a page. Without identities: nobody in particular.
pub async fn page_caller(guard: Option<&Arc<Callers>>, address: SocketAddr, headers: &HeaderMap) -> Result<(Way, Caller), Status> {
    let peer = Peer { address, way: Way::of(Some(address), false), certificate: None };
    let caller = match guard {
        Some(guard) => guard.authenticate(&peer, headers).await?,
        None => Caller::anonymous(),
    };
    Ok((peer.way, caller))
}
