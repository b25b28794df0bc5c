//! When a kind is audited, and how the API server is asked for it: by lists of metadata, in pages, of which only hashes stay.

use std::pin::Pin;
use std::time::Duration;

use pilotfish_model::{Kind, ObjectId};
use serde::Deserialize;
use tokio::time::{Instant, sleep_until};

use super::audit::{Suspects, Versions, hash};
use super::connection::Connection;
use super::decode::{Format, Nonsense};
use super::path::Target;
use super::watch::{ask, read, spread};
use super::{path, proto};

/// How long an event that is on its way may take: longer than a server in trouble needs.
const GRACE: Duration = Duration::from_secs(10);
/// Metadata alone, as protobuf where the server writes that.
const METADATA: &str = "application/vnd.kubernetes.protobuf;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,\
                        application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1,application/json";

/// One audit after the other, while a watch is open.
pub(super) struct Auditor {
    every: Duration,
    state: State,
}

enum State {
    Waiting(Instant),
    Listing(Pin<Box<dyn Future<Output = Result<Versions, String>> + Send>>),
    Confirming(Instant, Suspects),
}

/// What is to be done next.
#[derive(Debug, PartialEq)]
pub(super) enum Step {
    /// It is time for an audit.
    Due,
    /// This is what the server has, or why that is not known.
    Listed(Result<Versions, String>),
    /// Whoever is still suspected now is to be healed.
    Confirm(Suspects),
}

impl Auditor {
    /// The first one is due after a time between half of `every` and all of it: not all kinds, nor all replicas, ask together.
    pub(super) fn new(every: Duration) -> Self {
        Auditor { every, state: State::Waiting(Instant::now() + every.mul_f64(0.5 + spread() / 2.0)) }
    }

    /// Whether there are to be audits at all.
    pub(super) fn is_on(&self) -> bool {
        !self.every.is_zero()
    }

    /// The next step. Safe to cancel.
    pub(super) async fn next(&mut self) -> Step {
        match &mut self.state {
            State::Waiting(at) => {
                sleep_until(*at).await;
                Step::Due
            }
            State::Listing(listing) => {
                let listed = listing.await;
                self.wait();
                Step::Listed(listed)
            }
            State::Confirming(at, suspects) => {
                sleep_until(*at).await;
                let suspects = std::mem::take(suspects);
                self.wait();
                Step::Confirm(suspects)
            }
        }
    }

    /// Asks for everything that a watch is about.
    pub(super) fn list(&mut self, connection: Connection, target: Target, version: &'static str) {
        self.state = State::Listing(Box::pin(list(connection, target, version)));
    }

    /// Comes back to these after a while.
    pub(super) fn suspect(&mut self, suspects: Suspects) {
        self.state = State::Confirming(Instant::now() + GRACE, suspects);
    }

    /// The watch is a new one: what was begun is given up.
    pub(super) fn restart(&mut self) {
        if !matches!(self.state, State::Waiting(_)) {
            self.state = State::Waiting(Instant::now());
        }
    }

    fn wait(&mut self) {
        self.state = State::Waiting(Instant::now() + self.every.mul_f64(0.9 + spread() / 5.0));
    }
}

/// Without a version in the request, the server must give the newest that there is, past all its caches.
async fn list(connection: Connection, target: Target, version: &'static str) -> Result<Versions, String> {
    let (mut all, mut token) = (Versions::new(), None::<String>);
    loop {
        let (status, format, mut body) = ask(&connection, &path::page(&target, version, token.as_deref()), METADATA).await?;
        let bytes = read(&mut body).await?;
        if !status.is_success() {
            return Err(format!("the API server says {status}"));
        }
        token = page(target.kind, format, &bytes, &mut all).map_err(|e| format!("a list of metadata {e}"))?;
        if token.is_none() {
            return Ok(all);
        }
    }
}

/// Takes a page in; the token of the next.
fn page(kind: Kind, format: Format, body: &[u8], all: &mut Versions) -> Result<Option<String>, Nonsense> {
    let mut take = |namespace: &str, name: &str, version: &str| {
        all.insert(hash(&ObjectId::new(kind, namespace, name)), hash(version));
    };
    let token = match format {
        Format::Protobuf => {
            let (_, token, items) = proto::list(proto::unwrap(body)?)?;
            for item in items {
                let (namespace, name, version) = proto::identity(item)?;
                take(namespace, name, version);
            }
            token
        }
        Format::Json => {
            let list: List = serde_json::from_slice(body)?;
            list.items.iter().for_each(|item| take(&item.metadata.namespace, &item.metadata.name, &item.metadata.resource_version));
            list.metadata.token
        }
    };
    Ok(Some(token).filter(|t| !t.is_empty()))
}

#[derive(Deserialize)]
struct List {
    metadata: ListMeta,
    items: Vec<Item>,
}

#[derive(Deserialize)]
struct ListMeta {
    #[serde(default, rename = "continue")]
    token: String,
}

#[derive(Deserialize)]
struct Item {
    metadata: Identity,
}

#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Identity {
    #[serde(default)]
    namespace: String,
    name: String,
    #[serde(default)]
    resource_version: String,
}

#[cfg(test)]
mod tests {
    use pretty_assertions::assert_eq;

    use super::*;

    #[test]
    fn a_page_is_read_in_either_format() {
        let expected = Versions::from([
            (hash(&ObjectId::new(Kind::Pod, "ns", "a")), hash("7")),
            (hash(&ObjectId::new(Kind::Pod, "ns", "b")), hash("9")),
        ]);
        let json = br#"{"metadata": {"continue": "t"}, "items": [{"metadata": {"namespace": "ns", "name": "a", "resourceVersion": "7"}},
            {"metadata": {"namespace": "ns", "name": "b", "resourceVersion": "9", "labels": {"x": "y"}}}]}"#;
        let mut found = Versions::new();
        assert_eq!(page(Kind::Pod, Format::Json, json, &mut found).unwrap(), Some("t".into()));
        assert_eq!(found, expected);

        let field = |number: u8, content: &[u8]| [&[number << 3 | 2, u8::try_from(content.len()).unwrap()], content].concat();
        let item = |name: &[u8], version: &[u8]| field(2, &field(1, &[field(1, name), field(3, b"ns"), field(6, version)].concat()));
        let list = [field(1, &field(3, b"t")), item(b"a", b"7"), item(b"b", b"9")].concat();
        let body = [b"k8s\0", field(2, &list).as_slice()].concat();
        let mut found = Versions::new();
        assert_eq!(page(Kind::Pod, Format::Protobuf, &body, &mut found).unwrap(), Some("t".into()));
        assert_eq!(found, expected);
    }
}
