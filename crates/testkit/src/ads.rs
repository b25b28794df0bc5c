//! A small ADS client on tonic's own codec: it proves that a stock client takes what the server sends.
//!
//! [`Delta`] and [`Sotw`] are one stream each; [`Proxy`] is a delta client that does what Envoy does; [`Watcher`] one that
//! runs by itself.

mod proxy;
mod watcher;

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::task::{Context, Poll};
use std::time::Duration;

use hyper_util::rt::TokioIo;
use pilotfish_envoy::TypeUrl;
use pilotfish_envoy::pb::envoy::config::core::v3::Node;
use pilotfish_envoy::pb::envoy::service::discovery::v3::{
    DeltaDiscoveryRequest, DeltaDiscoveryResponse, DiscoveryRequest, DiscoveryResponse,
};
use pilotfish_envoy::pb::google::rpc::Status as RpcStatus;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Channel;
use tonic::{Status, Streaming};
use tonic_prost::ProstCodec;

use crate::tls::TlsClient;
pub use proxy::{Held, Proxy, TYPES};
pub use watcher::{Seen, Watcher};

const SOTW: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/StreamAggregatedResources";
const DELTA: &str = "/envoy.service.discovery.v3.AggregatedDiscoveryService/DeltaAggregatedResources";
const TIMEOUT: Duration = Duration::from_secs(20);

/// A node of that id.
pub fn node(id: &str) -> Node {
    Node { id: id.into(), cluster: "test".into(), ..Default::default() }
}

/// A sidecar of a namespace.
pub fn sidecar(namespace: &str) -> Node {
    node(&format!("sidecar~10.0.0.1~web-0.{namespace}~{namespace}.svc.cluster.local"))
}

/// One stream; requests of type `Q`, responses of type `S`.
pub struct Ads<Q, S> {
    requests: mpsc::Sender<Q>,
    responses: Streaming<S>,
    node: Option<Node>,
}

/// State of the world.
pub type Sotw = Ads<DiscoveryRequest, DiscoveryResponse>;
/// Incremental.
pub type Delta = Ads<DeltaDiscoveryRequest, DeltaDiscoveryResponse>;

/// Connects; streams may share it.
pub async fn channel(url: &str) -> Channel {
    Channel::from_shared(url.to_owned()).unwrap().connect().await.unwrap()
}

/// Connects over TLS to a server of this name, once.
pub async fn tls_channel(addr: SocketAddr, name: &str, client: &TlsClient<'_>) -> anyhow::Result<Channel> {
    let (stream, _) = client.clone().alpn(&["h2"]).connect(addr, name).await?;
    let endpoint = Channel::from_shared(format!("http://{name}"))?;
    Ok(endpoint.connect_with_connector(Once(Some(TokioIo::new(stream)))).await?)
}

/// Gives a connection away that is there already.
struct Once<T>(Option<T>);

impl<T: Send + 'static> tonic::codegen::Service<http::Uri> for Once<T> {
    type Response = T;
    type Error = std::io::Error;
    type Future = std::future::Ready<Result<T, std::io::Error>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), std::io::Error>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, _: http::Uri) -> Self::Future {
        std::future::ready(self.0.take().ok_or_else(|| std::io::Error::other("the connection is gone")))
    }
}

impl<Q, S> Ads<Q, S>
where
    Q: prost::Message + Default + 'static,
    S: prost::Message + Default + std::fmt::Debug + 'static,
{
    async fn open(channel: Channel, method: &'static str, node: Node) -> Self {
        Self::try_open(channel, method, node, None).await.unwrap()
    }

    /// A server may refuse before it says anything.
    async fn try_open(channel: Channel, method: &'static str, node: Node, bearer: Option<&str>) -> Result<Self, Status> {
        let (requests, receiver) = mpsc::channel(64);
        let mut grpc = tonic::client::Grpc::new(channel).max_decoding_message_size(64 << 20);
        grpc.ready().await.unwrap();
        let mut request = tonic::Request::new(ReceiverStream::new(receiver));
        if let Some(token) = bearer {
            request.metadata_mut().insert("authorization", format!("Bearer {token}").parse().unwrap());
        }
        let codec = ProstCodec::<Q, S>::default();
        let responses = grpc.streaming(request, method.parse().unwrap(), codec).await?.into_inner();
        Ok(Ads { requests, responses, node: Some(node) })
    }

    /// Sends any request.
    pub async fn send_raw(&self, request: Q) {
        self.requests.send(request).await.unwrap();
    }

    /// What comes next; panics if nothing does in time.
    pub async fn receive(&mut self) -> Result<Option<S>, Status> {
        tokio::time::timeout(TIMEOUT, self.responses.message()).await.expect("no response in time")
    }

    /// What comes next, however long that takes.
    pub async fn whenever(&mut self) -> Result<Option<S>, Status> {
        self.responses.message().await
    }

    /// The next response, whenever it comes. Panics when the stream ends.
    pub async fn receive_patiently(&mut self) -> S {
        self.responses.message().await.unwrap().expect("the stream ended")
    }

    /// The next response; panics if none comes in time.
    pub async fn next(&mut self) -> S {
        self.receive().await.unwrap().expect("the stream ended")
    }

    /// Panics if anything arrives before the server has surely had its say.
    pub async fn expect_silence(&mut self) {
        let quiet = tokio::time::timeout(Duration::from_millis(150), self.responses.message()).await;
        assert!(quiet.is_err(), "unexpected {quiet:?}");
    }
}

fn error(text: &str) -> Option<RpcStatus> {
    Some(RpcStatus { code: 13, message: text.into(), ..Default::default() })
}

impl Sotw {
    /// A stream on a connection of its own.
    pub async fn connect(url: &str, node: Node) -> Self {
        Self::open(channel(url).await, SOTW, node).await
    }

    /// Asks for names of a type.
    pub async fn ask(&mut self, type_url: TypeUrl, names: &[&str]) {
        self.ask_with(type_url, names, "").await;
    }

    /// The same with the nonce of what it answers.
    pub async fn ask_with(&mut self, type_url: TypeUrl, names: &[&str], nonce: &str) {
        let names = names.iter().map(|n| n.to_string()).collect();
        let node = self.node.take();
        let request = DiscoveryRequest {
            type_url: type_url.as_str().into(),
            resource_names: names,
            response_nonce: nonce.into(),
            node,
            ..Default::default()
        };
        self.send_raw(request).await;
    }

    /// Confirms a response.
    pub async fn ack(&mut self, response: &DiscoveryResponse, names: &[&str]) {
        self.ask_with(TypeUrl::parse(&response.type_url).unwrap(), names, &response.nonce).await;
    }

    /// Refuses a response.
    pub async fn nack(&mut self, response: &DiscoveryResponse, names: &[&str], why: &str) {
        let request = DiscoveryRequest {
            type_url: response.type_url.clone(),
            resource_names: names.iter().map(|n| n.to_string()).collect(),
            response_nonce: response.nonce.clone(),
            error_detail: error(why),
            ..Default::default()
        };
        self.send_raw(request).await;
    }
}

impl Sotw {
    /// Asks for everything of a type, of which a version is held from an earlier stream.
    pub async fn resume(&mut self, type_url: TypeUrl, version: &str) {
        let node = self.node.take();
        let request = DiscoveryRequest { type_url: type_url.as_str().into(), version_info: version.into(), node, ..Default::default() };
        self.send_raw(request).await;
    }
}

impl Delta {
    /// A stream on a connection of its own.
    pub async fn connect(url: &str, node: Node) -> Self {
        Self::open(channel(url).await, DELTA, node).await
    }

    /// A stream on a shared connection.
    pub async fn on(channel: Channel, node: Node) -> Self {
        Self::open(channel, DELTA, node).await
    }

    /// The same with a bearer token, or why there is none.
    pub async fn on_as(channel: Channel, node: Node, bearer: Option<&str>) -> Result<Self, Status> {
        Self::try_open(channel, DELTA, node, bearer).await
    }

    /// Asks for more names of a type.
    pub async fn subscribe(&mut self, type_url: TypeUrl, names: &[&str]) {
        self.subscribe_with(type_url, names, &[], &BTreeMap::new()).await;
    }

    /// The same, with names that are not wanted any more, and what is held from an earlier stream.
    pub async fn subscribe_with(&mut self, type_url: TypeUrl, names: &[&str], unsubscribe: &[&str], initial: &BTreeMap<String, String>) {
        let request = DeltaDiscoveryRequest {
            type_url: type_url.as_str().into(),
            resource_names_subscribe: names.iter().map(|n| n.to_string()).collect(),
            resource_names_unsubscribe: unsubscribe.iter().map(|n| n.to_string()).collect(),
            initial_resource_versions: initial.clone(),
            node: self.node.take(),
            ..Default::default()
        };
        self.send_raw(request).await;
    }

    /// Confirms a response.
    pub async fn ack(&mut self, response: &DeltaDiscoveryResponse) {
        let request =
            DeltaDiscoveryRequest { type_url: response.type_url.clone(), response_nonce: response.nonce.clone(), ..Default::default() };
        self.send_raw(request).await;
    }

    /// Refuses a response.
    pub async fn nack(&mut self, response: &DeltaDiscoveryResponse, why: &str) {
        let request = DeltaDiscoveryRequest {
            type_url: response.type_url.clone(),
            response_nonce: response.nonce.clone(),
            error_detail: error(why),
            ..Default::default()
        };
        self.send_raw(request).await;
    }

    /// The next response, taken.
    pub async fn take(&mut self) -> DeltaDiscoveryResponse {
        let response = self.next().await;
        self.ack(&response).await;
        response
    }
}

/// What a delta response says: type, names sent, names removed.
pub fn said(response: &DeltaDiscoveryResponse) -> (TypeUrl, Vec<&str>, Vec<&str>) {
    (
        TypeUrl::parse(&response.type_url).unwrap(),
        response.resources.iter().map(|r| r.name.as_str()).collect(),
        response.removed_resources.iter().map(String::as_str).collect(),
    )
}

/// Versions of what a response holds, by name.
pub fn versions(response: &DeltaDiscoveryResponse) -> BTreeMap<String, String> {
    response.resources.iter().map(|r| (r.name.clone(), r.version.clone())).collect()
}
