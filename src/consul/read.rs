//! The three reads:
//! [`GET /v1/session/info/<id>`](https://developer.hashicorp.com/consul/api-docs/session#read-session),
//! [`/v1/session/node/<name>`](https://developer.hashicorp.com/consul/api-docs/session#list-sessions-for-node) and
//! [`/v1/session/list`](https://developer.hashicorp.com/consul/api-docs/session#list-sessions).
//! All answer with an array.

#![forbid(unsafe_code)]

use super::connection::{Connection, add, encode};
use super::response::sessions;
use crate::duration;
use crate::error::Error;
use crate::options::SessionId;
use crate::session::Session;
use crate::transport::{DEFAULT_POLICY, FILTERED, INDEX, Method, Request, Response};

/// Which sessions.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Scope {
    /// The one with this id.
    Id(SessionId),
    /// Those of the node of this name.
    Node(String),
    /// All of the datacenter.
    All,
}

/// How fresh.
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

/// How to read.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Query {
    /// How fresh.
    pub consistency: Consistency,
    /// Answer when the index is higher than this; 0 for at once.
    pub index: u64,
    /// Longest time to block, in nanoseconds.
    pub wait: Option<i64>,
}

impl Query {
    /// What was true when the request was made is in the answer.
    pub const CONSISTENT: Query = Query { consistency: Consistency::Consistent, index: 0, wait: None };

    /// The longest that Consul lets the answer wait, in nanoseconds: it adds up to a sixteenth.
    pub fn longest_wait(&self) -> i64 {
        if self.index == 0 {
            return 0;
        }
        let wait = self.wait.unwrap_or(300 * duration::SECOND);
        // In whole milliseconds, as it may be shown.
        wait.saturating_add(wait / 16 / duration::MILLISECOND * duration::MILLISECOND)
    }

    /// As it stands in a URL.
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

/// What was read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Listing {
    /// The oldest first.
    pub sessions: Vec<Session>,
    /// Index of the sessions table.
    pub index: u64,
    /// Consul said that ACLs hid something.
    pub filtered: bool,
    /// ACLs may have hidden something without Consul saying so, as it does for the anonymous token.
    pub masked: bool,
}

impl Listing {
    /// Whether a session that is not here may exist all the same.
    pub fn may_hide(&self) -> bool {
        self.filtered || self.masked
    }
}

/// The request.
pub fn request(connection: &Connection, scope: &Scope, query: &Query) -> Request {
    let path = match scope {
        Scope::Id(id) => format!("session/info/{}", id.as_str()),
        Scope::Node(node) => format!("session/node/{}", encode(node)),
        Scope::All => "session/list".into(),
    };
    // The policy only says something where there is no token.
    let headers: &[_] = if connection.token.is_some() { &[INDEX, FILTERED] } else { &[INDEX, FILTERED, DEFAULT_POLICY] };
    Request { headers, ..connection.request(Method::Get, &path, &query.parameters()) }
}

/// The sessions, and whether there may be more.
pub fn response(response: &Response, with_token: bool) -> Result<Listing, Error> {
    let mut sessions = sessions(response)?;
    sessions.sort_unstable_by(|a, b| a.age().cmp(&b.age()));
    Ok(Listing {
        sessions,
        index: response.index(),
        filtered: response.header(FILTERED) == Some("true"),
        masked: !with_token && response.header(DEFAULT_POLICY) == Some("deny"),
    })
}
