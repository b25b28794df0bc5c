//! Key material: who may be handed any, and how it joins what a stream is sent.
//!
//! The rule, until clients prove who they are: key material leaves this server only to a **loopback** peer, and only out of
//! the **namespace that the proxy names**. On one's own machine whoever can reach the port could ask the API server, or read
//! the folder, just as well. The first half is [`may_hold_keys`], the second is [`crate::Translate::secrets`]'s to keep.
//! For everybody else a name that stands for key material stays without an answer.
//!
//! It is made for one stream, is held by that stream's [`Client`](crate::client::Client) alone, and ends with it. Snapshots
//! of classes never hold any. What cannot be served is never mentioned (see [`is_silent`]).

use std::net::SocketAddr;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pilotfish_envoy::{Resource, TypeUrl};

use crate::Translate;
use crate::store::{Session, Store};

/// True for peers that may be handed key material. An unknown peer may not.
pub(crate) fn may_hold_keys(peer: Option<SocketAddr>) -> bool {
    peer.is_some_and(|peer| peer.ip().to_canonical().is_loopback())
}

/// True for types of which the absence of a resource is never told: Envoy takes an answer without the secret that it asked
/// for as an invalid one, and keeps a secret that vanished until it gets the next.
pub(crate) const fn is_silent(type_url: TypeUrl) -> bool {
    matches!(type_url, TypeUrl::Secret)
}

/// Looks up the key material that a stream asks for, in the newest world.
pub(crate) fn refresh<T: Translate>(store: &Store<T>, session: &Session) {
    let names: Vec<Arc<str>> = {
        let client = session.client();
        let asked = client.subscriptions().filter(|s| s.type_url() == TypeUrl::Secret);
        asked.flat_map(|s| s.names().iter().cloned()).collect()
    };
    let allowed = !names.is_empty() && may_hold_keys(session.peer);
    let found = match store.newest().filter(|_| allowed) {
        Some(world) => look_up(&*store.translate, &world, session, &names),
        None => Some(Vec::new()),
    };
    if let Some(found) = found {
        session.client().set_secrets(found);
    }
}

/// `None` if that panicked: the stream keeps what it has.
fn look_up<T: Translate>(translate: &T, world: &T::World, session: &Session, names: &[Arc<str>]) -> Option<Vec<Resource>> {
    let found = catch_unwind(AssertUnwindSafe(|| translate.secrets(world, &session.proxy, names)));
    if found.is_err() {
        tracing::error!(proxy = %session.connection_id, "looking up secrets panicked; the proxy keeps what it has");
    }
    found.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_for_this_machine_only() {
        let rows = [
            ("127.0.0.1:7", true),
            ("127.8.9.10:7", true),
            ("[::1]:7", true),
            ("[::ffff:127.0.0.1]:7", true),
            ("10.0.0.1:7", false),
            ("0.0.0.0:7", false),
            ("[::]:7", false),
            ("[fe80::1]:7", false),
            ("[::ffff:10.0.0.1]:7", false),
        ];
        for (peer, expected) in rows {
            assert_eq!(may_hold_keys(Some(peer.parse().unwrap())), expected, "{peer}");
        }
        assert!(!may_hold_keys(None));
    }
}
