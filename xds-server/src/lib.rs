//! ADS over gRPC: subscriptions, streams, snapshots and their versions.
//!
//! ```text
//!       publish(world), push(change), push_endpoints(change)
//!                        |
//!   scopes that the change touches, made off the async threads                 (store, translate)
//!                        v
//!                 Snapshot per class ------ shared by all streams of it
//!                        | Target, in the stream's mailbox
//!                        v
//!   requests ---> Client = Subscription per type + order table ---> responses  (client, subscription, order)
//!      ^                                                              |
//!      '------ stream: one future inside the response's body <--------'        (stream, body, serve)
//! ```
//!
//! Key material is the exception: looked up for each stream that asks for it, never part of a class's snapshot (`secret`).
//! What a client is owed is decided by pure state machines ([`subscription`], [`client`]) that know neither sockets nor
//! clocks. Who may have what is one table ([`access`]); who callers are, a [`guard`] finds out. A stream holds two pointers, what was sent and what is current, so that a slow client skips to the newest state.
//! The crate never sees a translator: it is generic over [`Translate`]. Enter at [`Server`].

pub mod access;
pub mod body;
pub mod client;
pub mod debug;
pub mod guard;
pub mod metrics;
mod node;
pub mod order;
mod requests;
mod roots;
mod secret;
mod serve;
mod server;
mod store;
mod stream;
pub mod subscription;
mod translate;
mod wire;

pub use guard::{Guard, Port};
pub use server::{Config, Server};
pub use store::{PushReport, Work};
pub use translate::Translate;

/// Paths of the methods of ADS.
pub const ADS_METHODS: [&str; 2] = serve::METHODS;
