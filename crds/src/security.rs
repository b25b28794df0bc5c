//! `security.istio.io`.

pub mod peer_authentication;

pub use peer_authentication::PeerAuthenticationSpec;
