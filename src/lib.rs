//! Consul sessions with the option semantics of Ansible's `consul_session` module, as a WebAssembly component.
//!
//! Any host that runs WASI 0.2 loads `consul-session-plugin.wasm`; the host alone owns the network. This crate is what the
//! component is made of. Its core compiles and is tested natively; what needs WebAssembly is in one module.
//!
//! # Layout
//!
//! Each row imports from rows below it only.
//!
//! | module | holds |
//! |---|---|
//! | `component` | wasm32 only: bindings, conversions, and the one file that touches `wasi:http` |
//! | [`apply`] | the states as steps over `consul` |
//! | [`consul`] | one file for each endpoint: builds a request, reads a response |
//! | [`transport`] | the trait that carries a request, and plain requests and responses |
//! | [`outcome`] | what `apply` answers, and its JSON |
//! | [`session`], [`lock`] | a session and a lock, and Consul's JSON for them |
//! | [`options`] | the `consul_session` options as one table: names, defaults, choices, checks |
//! | [`error`] | the errors, and the one function from a status of Consul to them |
//! | [`duration`], `lenient` | `20s`, `20`, `1m30s`; JSON whose fields may have any type |
//!
//! Nothing in the core knows WASI, threads, clocks or the environment.
//!
//! # Endpoints
//!
//! | operation | request |
//! |---|---|
//! | create | `PUT /v1/session/create` |
//! | destroy | `PUT /v1/session/destroy/<id>` |
//! | renew | `PUT /v1/session/renew/<id>` |
//! | info | `GET /v1/session/info/<id>` |
//! | node | `GET /v1/session/node/<name>` |
//! | list | `GET /v1/session/list` |
//! | the agent's own node | `GET /v1/agent/self` |
//! | may these sessions be read? | `POST /v1/internal/acl/authorize` |
//! | acquire or release a key | `PUT /v1/txn` |
//! | who holds a key | `GET /v1/kv/<key>` |

#![deny(unsafe_code)]
#![cfg_attr(not(test), deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing))]

pub mod apply;
#[cfg(target_arch = "wasm32")]
pub mod component;
pub mod consul;
pub mod duration;
pub mod error;
mod lenient;
pub mod lock;
pub mod options;
pub mod outcome;
pub mod session;
pub mod transport;

pub use error::Error;
pub use options::Options;
pub use outcome::Outcome;
pub use session::Session;
