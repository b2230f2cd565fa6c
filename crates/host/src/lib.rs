//! Embeds the `consul-session` plugin in [wasmtime]: loads the component once, runs each call in an instance of its own,
//! and gives it what it imports and nothing else: outgoing HTTP over one pooled client, to where it was allowed.
//!
#![doc = concat!("```no_run\n", include_str!("../../../examples/rust/main.rs"), "```")]
//!
//! # What the component may do
//!
//! Nothing that was not granted: where it may connect ([`Rule`], [`Builder::allow`]), whose certificates are trusted ([`Tls`]) or not
//! looked at ([`Builder::insecure`]), which tokens the host adds without showing them ([`Builder::token`]), and how much it may use
//! ([`Limits`]). An operator lays the same down in a file ([`Builder::config_file`]).
//!
//! # Errors
//!
//! [`CallError::Plugin`] is an answer: an [`Error`] with a case to compare and a text. The other cases say that the component was stopped or broke.

mod bindings;
mod cache;
mod config;
mod error;
mod host;
mod http;
mod limits;
mod policy;

pub use bindings::{
    Acquisition, Behavior, Connection, Consistency, Contents, CreateOptions, Diff, Difference, Error, Holding, InvalidOption,
    Listing, Lock, Lookup, Mismatch, NodeRequired, OnMismatch, Options, Outcome, Query, Refusal, Scheme, ServiceCheck, Session,
    State,
};
pub use bytesize::ByteSize;
pub use config::ConfigError;
pub use error::CallError;
pub use host::{Builder, Host, Instance};
pub use http::{Exchange, InvalidToken, Tls, TlsSetupError, Token};
pub use limits::{Exceeded, InvalidLimit, Limits};
pub use policy::{Authority, Denied, ParseError, Policy, Rule};
