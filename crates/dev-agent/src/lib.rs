//! A Consul agent in memory: one node, no ACLs. It is for trying things out, and for tests that
//! then run on a real Consul too.
//!
//! It answers the session endpoints, and those of the KV store that locks and semaphores need, as
//! Consul 1.20.6 in `-dev` mode does: with the same bodies, statuses and headers, as compared with a
//! real one. Consul's own Go client passes its tests of sessions, locks and semaphores on it.
//!
//! Keys are read, written, compared and set, acquired, released and deleted (`/v1/kv/<key>`), one by
//! one or, with `recurse`, all that start with a prefix. Transactions (`/v1/txn`) change something,
//! with the verbs `set`, `cas`, `lock`, `unlock`, `get`, `check-session`, `delete`, `delete-cas` and
//! `delete-tree`.
//!
//! Other endpoints prepare a case: `/v1/catalog/register` and `/v1/catalog/deregister` for nodes,
//! services and checks, and `/v1/agent/check/*` for TTL checks of the agent's own node. The TTL of a
//! check never runs out.
//!
//! What Consul has and this agent lacks gets the status 501, which Consul never sends, and a text
//! that names the dev agent and the path.
//!
//! [`Agent`] is the agent without a network, a plain value. [`DevAgent`] is an agent that listens.

#![expect(clippy::result_large_err, reason = "a refusal is an answer like any other, made once per request")]

mod agent;
mod answer;
mod call;
mod catalog;
mod go;
mod keys;
mod kv;
mod server;
mod session;
mod state;

pub use agent::Agent;
pub use server::DevAgent;
