//! The server over a real connection, with a stock tonic client.

// The lints for production code do not see that this is a test.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod access;
mod convergence;
mod debug;
mod fake;
mod fuzz;
mod make_before_break;
mod protocol;
mod roots;
mod secrets;
mod streams;
