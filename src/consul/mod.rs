//! Consul's HTTP API, as far as sessions and their locks need it: one file for each endpoint, which builds a request and reads its
//! response. Plain data in, plain data out; [`Client`] puts a [`Transport`](crate::transport::Transport) between the two.

pub mod agent;
pub mod authorize;
mod client;
mod connection;
pub mod create;
pub mod destroy;
pub mod lock;
pub mod read;
pub mod renew;
mod response;

pub use client::Client;
pub use connection::Connection;
pub use create::NewSession;
pub use lock::Verb;
pub use read::{Consistency, Listing, Query, Scope};
