//! Data of the debug interface, as JSON: [`struct@Debug`]. Routes and access rules are the binary's.
//!
//! What a proxy is *meant* to hold is shown from its class's snapshot; nothing is translated for a look.

mod applied;
mod dump;
mod tally;
mod time;

use std::sync::Arc;

use pilotfish_envoy::TypeUrl;
use pilotfish_model::Proxy;
use pilotfish_model::proxy::ProxyVersion;
use prost::Message as _;
use serde_json::{Map, Value, json};

pub use tally::{Report, Tally};

use crate::Translate;
pub use crate::store::Made;
use crate::store::{Session, Store};
use time::rfc3339;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
pub enum DebugError {
    /// HTTP 400.
    #[error("proxyID is missing: name a connected proxy in the query")]
    NoProxy,
    /// HTTP 404.
    #[error("no proxy {0:?} is connected to this server; it may be connected to another replica")]
    NotConnected(String),
}

/// A view on the server's streams.
pub struct Debug<T: Translate> {
    store: Arc<Store<T>>,
}

impl<T: Translate> Clone for Debug<T> {
    fn clone(&self) -> Self {
        Debug { store: self.store.clone() }
    }
}

impl<T: Translate> Debug<T> {
    pub(crate) fn new(store: Arc<Store<T>>) -> Self {
        Debug { store }
    }

    /// `syncz`: what each proxy was sent and has confirmed, optionally of one namespace.
    pub fn syncz(&self, namespace: Option<&str>) -> Value {
        let of_namespace = |s: &Arc<Session>| namespace.is_none_or(|ns| &*s.proxy.namespace == ns);
        self.sessions().iter().filter(|s| of_namespace(s)).map(|s| sync_status(s)).collect()
    }

    /// `connections`: who is connected, since when, from where.
    pub fn connections(&self) -> Value {
        clients(&self.sessions(), connection)
    }

    /// `adsz`: connections with what they said about themselves and what they watch; of one proxy if asked for.
    pub fn adsz(&self, proxy_id: Option<&str>) -> Result<Value, DebugError> {
        let sessions = match proxy_id {
            Some(id) => vec![self.find(Some(id))?],
            None => self.sessions(),
        };
        Ok(clients(&sessions, watched))
    }

    /// `config_dump`: what a proxy is meant to hold, in the shape of Envoy's admin interface.
    pub fn config_dump(&self, proxy_id: Option<&str>, include_eds: bool) -> Result<Value, DebugError> {
        Ok(dump::config_dump(&self.find(proxy_id)?.snapshot(), include_eds))
    }

    /// `config_dump?types=`: the plain resources of some types: short names or type URLs, separated by commas. `{}` if one
    /// is unknown.
    pub fn resources(&self, proxy_id: Option<&str>, types: &str) -> Result<Value, DebugError> {
        let session = self.find(proxy_id)?;
        let parse = |text: &str| TypeUrl::ALL.into_iter().find(|t| t.short().eq_ignore_ascii_case(text) || t.as_str() == text);
        let types: Option<Vec<TypeUrl>> = types.split(',').map(|text| parse(text.trim())).collect();
        Ok(types.map_or_else(|| json!({}), |types| dump::resources(&session.snapshot(), &types)))
    }

    /// `edsz`.
    pub fn edsz(&self, proxy_id: Option<&str>) -> Result<Value, DebugError> {
        self.one_type(proxy_id, TypeUrl::Endpoint)
    }

    /// `ndsz`.
    pub fn ndsz(&self, proxy_id: Option<&str>) -> Result<Value, DebugError> {
        self.one_type(proxy_id, TypeUrl::NameTable)
    }

    /// `ecdsz`.
    pub fn ecdsz(&self, proxy_id: Option<&str>) -> Result<Value, DebugError> {
        self.one_type(proxy_id, TypeUrl::ExtensionConfig)
    }

    /// What everything is made of now; `None` before the first.
    pub fn world(&self) -> Option<Arc<T::World>> {
        self.store.newest()
    }

    /// What was made for those who are connected, for who tells users what became of their objects.
    pub fn made(&self) -> Made<T> {
        self.store.made()
    }

    /// Connected proxies by connection id, for listings of what they are beside what they are sent.
    pub fn proxies(&self) -> Vec<(String, Arc<Proxy>)> {
        self.sessions().iter().map(|s| (s.connection_id.to_string(), s.proxy.clone())).collect()
    }

    /// The namespace of the proxy that such an id names.
    pub fn namespace_of(&self, proxy_id: &str) -> Option<String> {
        self.find(Some(proxy_id)).ok().map(|session| session.proxy.namespace.to_string())
    }

    fn one_type(&self, proxy_id: Option<&str>, type_url: TypeUrl) -> Result<Value, DebugError> {
        Ok(dump::resources(&self.find(proxy_id)?.snapshot(), &[type_url]))
    }

    /// In the order of connection ids.
    fn sessions(&self) -> Vec<Arc<Session>> {
        let mut sessions = self.store.sessions();
        sessions.sort_by(|a, b| a.connection_id.cmp(&b.connection_id));
        sessions
    }

    /// The first connection whose id contains the text.
    fn find(&self, proxy_id: Option<&str>) -> Result<Arc<Session>, DebugError> {
        let id = proxy_id.filter(|id| !id.is_empty()).ok_or(DebugError::NoProxy)?;
        let found = self.sessions().into_iter().find(|s| s.connection_id.contains(id));
        found.ok_or_else(|| DebugError::NotConnected(id.to_owned()))
    }
}

fn clients(sessions: &[Arc<Session>], describe: fn(&Session) -> Map<String, Value>) -> Value {
    let clients: Vec<Value> = sessions.iter().map(|s| Value::Object(describe(s))).collect();
    json!({"totalClients": clients.len(), "clients": clients})
}

fn connection(session: &Session) -> Map<String, Value> {
    let mut map = Map::new();
    map.insert("connectionId".into(), json!(session.connection_id));
    map.insert("connectedAt".into(), json!(rfc3339(session.connected_at)));
    map.insert("address".into(), json!(session.peer.to_string()));
    map
}

fn watched(session: &Session) -> Map<String, Value> {
    let mut map = connection(session);
    let proxy = &session.proxy;
    map.insert("labels".into(), proxy.labels.iter().map(|(k, v)| (k.to_string(), json!(&**v))).collect());
    let metadata = prost_types::Struct::decode(session.metadata.as_slice()).unwrap_or_default();
    map.insert("metadata".into(), crate::node::object(&metadata));
    let locality = [("region", &proxy.locality.region), ("zone", &proxy.locality.zone), ("subzone", &proxy.locality.sub_zone)];
    let locality = locality.into_iter().filter(|(_, v)| !v.is_empty()).map(|(k, v)| (k.to_owned(), json!(&**v)));
    map.insert("locality".into(), locality.collect());
    let client = session.client();
    let names = |s: &crate::subscription::Subscription| s.names().iter().map(|n| json!(&**n)).collect::<Value>();
    map.insert("watches".into(), client.subscriptions().map(|s| (s.type_url().as_str().to_owned(), names(s))).collect());
    map
}

fn sync_status(session: &Session) -> Value {
    let proxy = &session.proxy;
    let mut map = Map::new();
    map.insert("cluster_id".into(), json!(proxy.cluster_id()));
    map.insert("proxy".into(), json!(&*proxy.name));
    map.insert("proxy_type".into(), json!(proxy.kind.as_str()));
    if let Some(version) = proxy.metadata.istio_version.as_ref().filter(|_| proxy.version != ProxyVersion::NEWEST) {
        map.insert("istio_version".into(), json!(version));
    }
    let mut resources = Map::new();
    for subscription in session.client().subscriptions() {
        let mut status = Map::new();
        let nonces = [("sent", subscription.sent()), ("acked", subscription.acked())];
        for (key, nonce) in nonces.into_iter().filter_map(|(key, nonce)| Some((key, nonce?))) {
            status.insert(key.into(), json!(&**nonce));
            if let Some(kind) = long_name(subscription.type_url()) {
                map.insert(format!("{kind}_{key}"), json!(&**nonce));
            }
        }
        if let Some(at) = subscription.sent_at() {
            status.insert("sentTime".into(), json!(rfc3339(at)));
        }
        if let Some(error) = subscription.last_error() {
            status.insert("lastError".into(), json!(error.message));
        }
        if !status.is_empty() {
            resources.insert(subscription.type_url().as_str().into(), Value::Object(status));
        }
    }
    map.insert("resources".into(), Value::Object(resources));
    Value::Object(map)
}

/// The types that have fields of their own in `syncz`.
fn long_name(type_url: TypeUrl) -> Option<&'static str> {
    match type_url {
        TypeUrl::Cluster => Some("cluster"),
        TypeUrl::Listener => Some("listener"),
        TypeUrl::Route => Some("route"),
        TypeUrl::Endpoint => Some("endpoint"),
        TypeUrl::ExtensionConfig => Some("extensionconfig"),
        _ => None,
    }
}
