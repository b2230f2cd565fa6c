//! Embeds the `consul-session` plugin in [wasmtime]: loads the component once, runs each call in an
//! instance of its own, and links what the plugin imports and nothing else. That is outgoing HTTP,
//! over one pool of connections, to the authorities that are allowed.
//!
#![doc = concat!("```no_run\n", include_str!("../examples/apply.rs"), "```")]
//!
//! # What the component may do
//!
//! Nothing by default. The plugin host grants:
//!
//! - where the component may connect ([`Rule`], [`Builder::allow`]);
//! - whose certificates are trusted ([`Tls`]), or not verified ([`Builder::insecure`]);
//! - which tokens and passwords the host adds to requests without showing them to the component
//!   ([`Builder::token`], [`Builder::basic_auth`]);
//! - how much the component may use ([`Limits`]).
//!
//! An operator sets the same in a file ([`Builder::config_file`]).
//!
//! # Errors
//!
//! [`CallError::Plugin`] is the plugin's answer: an [`Error`] with a case to compare and a message.
//! With the other cases of [`CallError`], the component was stopped, or it trapped. [`ConfigError`]
//! reports an invalid value before any call.

mod bindings;
mod cache;
mod config;
mod config_error;
mod error;
mod host;
mod http;
mod limits;
mod policy;
mod pool;

pub use bindings::{
    Acquisition, Behavior, Connection, Consistency, Contents, CreateOptions, Diff, Difference, Error, Holding, InvalidOption,
    Listing, Lock, Lookup, Mismatch, NodeRequired, OnMismatch, Options, Outcome, Query, Refusal, Scheme, Semaphore,
    ServiceCheck, Session, SlotAcquisition, State,
};
pub use bytesize::ByteSize;
pub use config_error::ConfigError;
pub use error::CallError;
pub use host::{Builder, Host, Instance};
pub use http::{Credentials, Exchange, Tls, Token};
pub use limits::{Exceeded, Limits};
pub use policy::{Authority, Denied, Policy, Rule};
pub use pool::Pool;
