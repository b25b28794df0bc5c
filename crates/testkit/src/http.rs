//! Both ends of HTTP traffic on loopback: a backend that tells what reached it, a client, and a load that runs during an
//! edit.

mod backend;
mod client;
mod load;

pub use backend::{Backend, Echo};
pub(crate) use client::post;
pub use client::{Ask, Response, get, post_json};
pub use load::{Load, Report};
