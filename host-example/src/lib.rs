//! Embeds the `consul-session` plugin in [wasmtime]: loads the component once, runs each call in an instance of its own,
//! and gives it what it imports and nothing else: outgoing HTTP over one pooled client.
//!
//! ```no_run
//! use consul_session_host::{Host, Options};
//!
//! # async fn example() -> wasmtime::Result<()> {
//! let host = Host::new("dist/consul-session-plugin.wasm".as_ref())?;
//! let options = Options { name: Some("session1".into()), delay: Some(20.0), ..Options::default() };
//! match host.apply(&options).await? {
//!     Ok(outcome) => println!("{:?}, changed: {}", outcome.session_id, outcome.changed),
//!     Err(error) => eprintln!("{}: {}", consul_session_host::error_case(&error), consul_session_host::error_message(&error)),
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Two kinds of failure are kept apart, hence `Result<Result<T, Error>>`: the outer one is the host's (the component
//! cannot be loaded, or it trapped), the inner one is what the plugin answers.

mod bindings;
mod dev_agent;
mod host;
mod http;

pub use bindings::{
    Behavior, Connection, Consistency, CreateOptions, Diff, Difference, Error, InvalidOption, Listing, Lookup, Mismatch,
    NodeRequired, OnMismatch, Options, Outcome, Query, Refusal, Scheme, ServiceCheck, Session, State, error_case,
    error_message,
};
pub use dev_agent::DevAgent;
pub use host::Host;
