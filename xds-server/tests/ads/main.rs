//! The server over a real connection, with a stock tonic client.

mod client;
mod fake;
mod make_before_break;
mod protocol;
mod streams;
