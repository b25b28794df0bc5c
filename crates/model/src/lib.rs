//! The mesh as plain data, independent of where it came from and of what is made out of it.
//!
//! Sources (files, Kubernetes) convert their objects into these types; the translator reads them through [`Mesh`], which
//! is immutable and shares structure with its predecessor. Everything here is parsed: names are checked, durations are
//! durations, enums are closed. Nothing here knows Kubernetes clients, gRPC or Envoy.
//!
//! Enter at [`Mesh`] (what there is), [`Proxy`] (who asks) and [`ChangeSet`] (what is new).

pub mod attachment;
pub mod authorization_policy;
pub mod cel;
pub mod change;
pub mod destination_rule;
pub mod diagnostic;
pub mod endpoint;
pub mod envoy_filter;
pub mod extension;
pub mod features;
pub mod gateway;
pub mod hash;
pub mod identity;
pub mod matching;
pub mod mesh;
pub mod mesh_config;
pub mod name;
pub mod peer_authentication;
pub mod proxy;
pub mod proxy_config;
pub mod request_authentication;
pub mod secret;
pub mod service;
pub mod sidecar;
pub mod telemetry;
pub mod time;
pub mod tls;
pub mod virtual_service;

pub use authorization_policy::AuthorizationPolicy;
pub use change::{ChangeSet, EndpointChange};
pub use destination_rule::DestinationRule;
pub use diagnostic::Diagnostic;
pub use endpoint::{Endpoint, Locality};
pub use envoy_filter::EnvoyFilter;
pub use extension::Extension;
pub use features::Features;
pub use gateway::Gateway;
pub use hash::ContentHash;
pub use identity::{Caller, Identity};
pub use mesh::Mesh;
pub use mesh_config::MeshConfig;
pub use name::{Host, Kind, Labels, Meta, ObjectId, Str};
pub use peer_authentication::PeerAuthentication;
pub use proxy::Proxy;
pub use proxy_config::ProxyConfig;
pub use request_authentication::RequestAuthentication;
pub use service::{Protocol, Resolution, Service, ServicePort};
pub use sidecar::Sidecar;
pub use telemetry::Telemetry;
pub use virtual_service::VirtualService;
