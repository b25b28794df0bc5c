//! Key material: who may be handed any, and how it joins what a stream is sent.
//!
//! Who may have any is the access table's to say; that it comes out of the **namespace** that the proxy is of is
//! [`crate::Translate::secrets`]'s to keep. A verified workload must also be allowed to read Secrets itself, as the API server
//! says: what it could not get there it does not get here. For everybody else a name that stands for key material stays
//! without an answer.
//!
//! It is made for one stream, is held by that stream's [`Client`](crate::client::Client) alone, and ends with it. Snapshots
//! of classes never hold any. What cannot be served is never mentioned (see [`is_silent`]).

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;

use pilotfish_envoy::{Resource, TypeUrl};

use crate::Translate;
use crate::access::Who;
use crate::store::{Session, Store};

/// Start of names that need the right to read Secrets. Others are only given where a Gateway of the mesh refers to them.
const READABLE: &str = "kubernetes://";
/// End of names of roots, which are no secret.
const ROOTS: &str = "-cacert";

/// True for names of what only those get who may read Secrets.
pub(crate) fn needs_right(name: &str) -> bool {
    name.starts_with(READABLE) && !name.ends_with(ROOTS)
}

/// Names of key material that a stream asks for.
pub(crate) fn asked(session: &Session) -> Vec<Arc<str>> {
    let client = session.client();
    let asked = client.subscriptions().filter(|s| s.type_url() == TypeUrl::Secret);
    asked.flat_map(|s| s.names().iter().cloned()).collect()
}

/// True for types of which the absence of a resource is never told: Envoy takes an answer without the secret that it asked
/// for as an invalid one, and keeps a secret that vanished until it gets the next.
pub(crate) const fn is_silent(type_url: TypeUrl) -> bool {
    matches!(type_url, TypeUrl::Secret)
}

/// Looks up the key material of these names in the newest world. Without `right`, of those that need none.
pub(crate) fn refresh<T: Translate>(store: &Store<T>, session: &Session, mut names: Vec<Arc<str>>, right: bool) {
    if !right {
        names.retain(|name| !needs_right(name));
    }
    let allowed = !names.is_empty() && session.may_have(TypeUrl::Secret);
    let found = match store.newest().filter(|_| allowed) {
        Some(world) => guarded(session, || store.translate.secrets(&world, &session.proxy, &names)),
        None => Some(Vec::new()),
    };
    if let Some(found) = found {
        session.client().set_secrets(found);
    }
}

/// Looks up the credentials by which the modules are pulled that the stream's class has: only for who has proved to be the proxy,
/// by a way that key material may take.
pub(crate) fn refresh_credentials<T: Translate>(store: &Store<T>, session: &Session) {
    if session.who != Who::SameNamespace || !session.may_have(TypeUrl::Secret) {
        return;
    }
    let extensions = session.client().shared_extensions();
    let found = match store.newest().filter(|_| !extensions.is_empty()) {
        Some(world) => guarded(session, || store.translate.with_credentials(&world, &extensions)),
        None => Some(Vec::new()),
    };
    if let Some(found) = found {
        session.client().set_extensions(found, &extensions);
    }
}

/// `None` if that panicked: the stream keeps what it has.
fn guarded(session: &Session, look_up: impl FnOnce() -> Vec<Resource>) -> Option<Vec<Resource>> {
    let found = catch_unwind(AssertUnwindSafe(look_up));
    if found.is_err() {
        tracing::error!(proxy = %session.connection_id, "looking up secrets panicked; the proxy keeps what it has");
    }
    found.ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_that_need_a_right() {
        for (name, needed) in [
            ("kubernetes://cert", true),
            ("kubernetes://ns/cert", true),
            ("kubernetes://ns/cert-cacert", false),
            ("kubernetes-gateway://ns/cert", false),
            ("default", false),
        ] {
            assert_eq!(needs_right(name), needed, "{name}");
        }
    }
}
