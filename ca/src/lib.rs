//! The SPIFFE certificate authority.
