//! The three reads, each of which returns an array:
//! [`GET /v1/session/info/<id>`](https://developer.hashicorp.com/consul/api-docs/session#read-session),
//! [`/v1/session/node/<name>`](https://developer.hashicorp.com/consul/api-docs/session#list-sessions-for-node)
//! and [`/v1/session/list`](https://developer.hashicorp.com/consul/api-docs/session#list-sessions).

#![forbid(unsafe_code)]

use super::connection::{Connection, add, encode};
use super::response::sessions;
use crate::duration;
use crate::error::Error;
use crate::options::SessionId;
use crate::session::Session;
use crate::transport::{DEFAULT_POLICY, FILTERED, INDEX, Method, Request, Response};

/// The sessions to read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The session with this id.
    Id(SessionId),
    /// The sessions of the node with this name.
    Node(String),
    /// All sessions of the datacenter.
    All,
}

/// The consistency mode of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Consistency {
    /// The leader answers.
    #[default]
    Default,
    /// Any server answers.
    Stale,
    /// The leader asks a quorum first.
    Consistent,
}

/// The parameters of a read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// The consistency mode.
    pub consistency: Consistency,
    /// Blocks until the index is higher than this; 0 does not block.
    pub index: u64,
    /// Maximum time to block, in nanoseconds.
    pub wait: Option<i64>,
}

impl Query {
    /// A read that sees every change made before the request.
    pub const CONSISTENT: Query = Query { consistency: Consistency::Consistent, index: 0, wait: None };

    /// Returns the maximum time that Consul blocks, in nanoseconds: it adds up to a sixteenth.
    pub fn longest_wait(&self) -> i64 {
        if self.index == 0 {
            return 0;
        }
        let wait = self.wait.unwrap_or(300 * duration::SECOND);
        // In whole milliseconds, since messages show it.
        wait.saturating_add(wait / 16 / duration::MILLISECOND * duration::MILLISECOND)
    }

    /// Returns the query for the URL.
    pub(super) fn parameters(&self) -> String {
        let mut parameters = String::new();
        match self.consistency {
            Consistency::Default => {}
            Consistency::Stale => add(&mut parameters, "stale", None),
            Consistency::Consistent => add(&mut parameters, "consistent", None),
        }
        if self.index > 0 {
            add(&mut parameters, "index", Some(&self.index.to_string()));
            if let Some(wait) = self.wait {
                add(&mut parameters, "wait", Some(&duration::format(wait)));
            }
        }
        parameters
    }
}

/// The sessions that were read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The sessions, oldest first.
    pub sessions: Vec<Session>,
    /// Index of the sessions table.
    pub index: u64,
    /// Whether Consul reports that ACLs hid something.
    pub filtered: bool,
    /// Whether ACLs may have hidden something unreported, as with the anonymous token.
    pub masked: bool,
}

impl Listing {
    /// Returns whether a session that is not listed may exist anyway.
    pub fn may_hide(&self) -> bool {
        self.filtered || self.masked
    }
}

/// Builds the request.
pub(super) fn request(connection: &Connection, scope: &Scope, query: &Query) -> Request {
    let path = match scope {
        Scope::Id(id) => format!("session/info/{}", id.as_str()),
        Scope::Node(node) => format!("session/node/{}", encode(node)),
        Scope::All => "session/list".into(),
    };
    // The policy matters only without a token.
    let headers: &[_] = if connection.token.is_some() { &[INDEX, FILTERED] } else { &[INDEX, FILTERED, DEFAULT_POLICY] };
    Request { headers, ..connection.request(Method::Get, &path, &query.parameters()) }
}

/// Reads the sessions, and whether there may be more.
pub(super) fn response(response: &Response, with_token: bool) -> Result<Listing, Error> {
    let mut sessions = sessions(response)?;
    sessions.sort_unstable_by(|a, b| a.age().cmp(&b.age()));
    Ok(Listing {
        sessions,
        index: response.index(),
        filtered: response.header(FILTERED) == Some("true"),
        masked: !with_token && response.header(DEFAULT_POLICY) == Some("deny"),
    })
}
