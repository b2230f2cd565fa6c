//! Consul's HTTP API, as far as sessions and their locks need it.
//!
//! One file per endpoint builds the request and reads the response: plain data in, plain data out.
//! [`Client`] sends the requests over a [`Transport`](crate::transport::Transport).

mod agent;
mod authorize;
mod client;
mod connection;
mod create;
mod destroy;
mod lock;
mod read;
mod renew;
mod response;
mod semaphore;

pub use client::Client;
pub use connection::Connection;
pub use create::{NewSession, expand_checks};
pub use lock::Verb;
pub use read::{Consistency, Listing, Query, Scope};
