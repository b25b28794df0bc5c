//! What tests of several crates share: golden files, drivers of the real programs, a small HTTP backend and client.
//!
//! A dev-dependency only. Everything here panics with the evidence (a diff, the end of a log) instead of returning what
//! a test would have to unwrap, and everything that waits has a deadline.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod ads;
pub mod agent;
pub mod authority;
pub mod csr;
pub mod envoy;
pub mod golden;
pub mod helm;
pub mod http;
pub mod jwt;
pub mod kube;
pub mod kubelet;
pub mod netns;
pub mod pilotfish;
pub mod poll;
pub mod process;
pub mod random;
pub mod skip;
pub mod tcp;
pub mod tls;
pub mod token;

pub use agent::Agent;
pub use authority::{Authority, Identity};
pub use envoy::Envoy;
pub use golden::{Goldens, assert_golden};
pub use http::{Ask, Backend, Load, get};
pub use jwt::TokenIssuer;
pub use kube::KubeCluster;
pub use kubelet::Kubelet;
pub use netns::Namespace;
pub use pilotfish::Pilotfish;
pub use poll::{until, until_soon};
pub use random::Random;
pub use tcp::TcpBackend;
pub use tls::TlsServer;
