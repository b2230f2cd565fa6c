//! Consul sessions with the option semantics of Ansible's `consul_session` module, as a WebAssembly
//! component.
//!
//! Any host that runs WASI 0.2 can load `consul-session-plugin.wasm`; only the host has access to
//! the network. This crate is the source of that component. Its core compiles and is tested
//! natively; all code that needs WebAssembly is in `component`.
//!
//! # Layout
//!
//! In reading order. Each module imports only from the rows below its own.
//!
//! | module | contents |
//! |---|---|
//! | `component` | wasm32 only: bindings, conversions, and the one file that uses `wasi:http` |
//! | [`apply`] | the states as steps over `consul` |
//! | [`consul`] | one file per endpoint: builds the request, reads the response |
//! | [`transport`] | the trait that sends requests; requests and responses as plain data |
//! | [`outcome`] | the result of `apply`, and its JSON |
//! | [`session`], [`lock`], [`semaphore`] | a session, a lock and a semaphore, and Consul's JSON for them |
//! | [`options`] | the `consul_session` options as one table: names, defaults, choices, checks |
//! | [`error`] | the errors, and the one function that maps a response of Consul to them |
//! | [`duration`], `lenient` | `20s`, `20`, `1m30s`; JSON whose fields may have any type |
//!
//! The core does not use WASI, threads, clocks or the environment.
//!
//! The command line is `crates/args`, the command component `crates/command`. For the latter
//! `component::WasiHttp` is public.
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
//! | name of the agent's own node | `GET /v1/agent/self` |
//! | permission to read the sessions of a node | `POST /v1/internal/acl/authorize` |
//! | acquire or release a key or a slot | `PUT /v1/txn` |
//! | holder of a key | `GET /v1/kv/<key>` |
//! | holders of slots | `GET /v1/kv/<prefix>/?recurse` |

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
pub mod semaphore;
pub mod session;
pub mod transport;

pub use error::Error;
pub use options::Options;
pub use outcome::Outcome;
pub use session::Session;
