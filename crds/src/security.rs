//! `security.istio.io`.

pub mod authorization_policy;
pub mod peer_authentication;
pub mod request_authentication;

pub use authorization_policy::AuthorizationPolicySpec;
pub use peer_authentication::PeerAuthenticationSpec;
pub use request_authentication::RequestAuthenticationSpec;
