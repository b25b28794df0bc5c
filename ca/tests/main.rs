//! What the certificate authority shows from outside.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod suite;
