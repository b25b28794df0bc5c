//! The SPIFFE certificate authority, and who callers are.
//!
//! ```text
//!  files, Secret ──> Material (validated) ──> Authority (signs now, comes next, trusted still)
//!                                                 │
//!  CSR + Caller ──> Service ──> issue (pure) ─────┤
//!  token, certificate, header ──> Authenticator   └──> tls (serving certificate, trusted clients)
//! ```
//!
//! [`issue`](issue::issue) decides what a certificate says: out of what was proved, never out of the request. Time is an
//! argument everywhere. Where keys are kept, and what the API server says of tokens and Pods, is behind small traits.

pub mod auth;
pub mod authority;
pub mod chain;
pub mod issue;
pub mod material;
pub mod metrics;
pub mod pem;
pub mod root;
pub mod rotation;
pub mod service;
pub mod tls;
pub mod wire;

pub use authority::Authority;
pub use material::Material;
pub use service::Service;
