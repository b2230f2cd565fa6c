//! A Consul agent in memory: one node, no ACLs. It is for trying things out, and for tests that
//! then run on a real Consul too.
//!
//! It answers the session endpoints, and those of the KV store that locks need, as Consul 1.20.6 in
//! `-dev` mode does: with the same bodies, statuses and headers, as compared with a real one.
//!
//! Keys are read, written, acquired, released and deleted one by one (`/v1/kv/<key>`), and in
//! transactions (`/v1/txn`) that change something, with the verbs `set`, `lock`, `unlock`, `get`
//! and `check-session`. Anything else that Consul can do with keys is an error here.
//!
//! Other endpoints prepare a case: `/v1/catalog/register` and `/v1/catalog/deregister` for nodes
//! and checks, and `/v1/agent/check/*` for TTL checks of the agent's own node. The TTL of a check
//! never runs out.
//!
//! [`Agent`] is the agent without a network, a plain value. [`DevAgent`] is an agent that listens.

#![expect(clippy::result_large_err, reason = "a refusal is an answer like any other, made once per request")]

mod agent;
mod answer;
mod call;
mod catalog;
mod go;
mod kv;
mod server;
mod session;
mod state;

pub use agent::Agent;
pub use server::DevAgent;
