//! A client with one method per operation.

#![forbid(unsafe_code)]

use super::connection::Connection;
use super::create::{self, NewSession};
use super::lock::{self, Verb};
use super::read::{self, Listing, Query, Scope};
use super::{agent, authorize, destroy, renew};
use crate::error::{Error, ErrorKind, excerpt};
use crate::lock::{Acquisition, Contents, Holding, Key};
use crate::options::SessionId;
use crate::session::Session;
use crate::transport::{Request, Response, Transport};

/// A connection, and the transport that sends its requests.
///
/// # Errors
///
/// The methods fail with the errors of the [transport](Transport::send) and of
/// [`from_status`](crate::error::from_status), [`InvalidResponse`](ErrorKind::InvalidResponse) and
/// [`ResponseTooLarge`](ErrorKind::ResponseTooLarge). Changes other than [`create`](Client::create)
/// replace an [ambiguous](Error::is_ambiguous) error with
/// [`OutcomeUnknown`](ErrorKind::OutcomeUnknown).
pub struct Client<'a> {
    /// How to reach Consul.
    pub connection: &'a Connection,
    /// What sends the requests.
    pub transport: &'a mut dyn Transport,
}

impl Client<'_> {
    /// Sends a request and reads its response.
    fn call<T>(&mut self, request: &Request, read: impl FnOnce(&Response) -> Result<T, Error>) -> Result<T, Error> {
        let result = self.transport.send(request).and_then(|response| read(&response));
        result.map_err(|error| self.explain(error, request))
    }

    /// Adds context to the error of a call. This is the one place that keeps the token out of every
    /// error: Consul or a proxy may echo it.
    fn explain(&self, error: Error, request: &Request) -> Error {
        let error = match error.kind {
            // Consul does not name the unknown datacenter or node.
            ErrorKind::UnknownDatacenter => error.context(&self.connection.query),
            ErrorKind::UnknownNode => error.context(&excerpt(&request.body)),
            _ => error,
        };
        match &request.token {
            Some(token) => error.redact(token.secret()),
            None => error,
        }
    }

    /// Creates a session and returns its id: `PUT /v1/session/create`. After an
    /// [ambiguous](Error::is_ambiguous) error the session may exist.
    pub fn create(&mut self, session: &NewSession) -> Result<SessionId, Error> {
        self.call(&create::request(self.connection, session), create::response)
    }

    /// Destroys a session: `PUT /v1/session/destroy/<id>`. Succeeds whether or not the session
    /// existed. Retries once after a lost response, since a second destruction changes nothing.
    pub fn destroy(&mut self, id: &SessionId) -> Result<(), Error> {
        let request = destroy::request(self.connection, id);
        match self.call(&request, destroy::response) {
            // The second error, such as that nothing was sent, does not apply to the first attempt.
            Err(lost) if lost.is_ambiguous() => self.call(&request, destroy::response).or(Err(lost)),
            result => result,
        }
        .map_err(|error| error.into_outcome_unknown("the destruction of the session"))
    }

    /// Renews a session and returns it: `PUT /v1/session/renew/<id>`. Fails with
    /// [`NotFound`](ErrorKind::NotFound) if the session does not exist.
    pub fn renew(&mut self, id: &SessionId) -> Result<Session, Error> {
        self.call(&renew::request(self.connection, id), |response| renew::response(response, id))
            .map_err(|error| error.into_outcome_unknown("the renewal"))
    }

    /// Reads sessions: `GET /v1/session/info/<id>`, `/node/<name>` or `/list`.
    pub fn sessions(&mut self, scope: &Scope, query: &Query) -> Result<Listing, Error> {
        let with_token = self.connection.token.is_some();
        self.call(&read::request(self.connection, scope, query), |response| read::response(response, with_token))
    }

    /// Reads the name of the agent's own node: `GET /v1/agent/self`.
    pub fn own_node(&mut self) -> Result<String, Error> {
        self.call(&agent::request(self.connection), agent::response)
    }

    /// Returns whether the token permits reading the sessions of this node:
    /// `POST /v1/internal/acl/authorize`.
    pub fn may_read(&mut self, node: &str) -> Result<bool, Error> {
        self.call(&authorize::request(self.connection, node), authorize::response)
    }

    /// Acquires or releases a key for the session: `PUT /v1/txn`. The release of a key that the
    /// session does not hold returns [`Held`](Acquisition::Held).
    pub fn lock(&mut self, verb: Verb, key: &Key, id: &SessionId, contents: Option<&Contents>) -> Result<Acquisition, Error> {
        if self.connection.namespace.is_some() || self.connection.partition.is_some() {
            // Community Edition ignores these fields of an operation and would lock another key. It
            // rejects them in the query of a read.
            self.holder(key, &Query::default())?;
        }
        let request = lock::request(self.connection, verb, key, id, contents);
        self.call(&request, |response| lock::response(response, id, contents))
            .map_err(|error| error.into_outcome_unknown("the change of the lock"))
    }

    /// Reads a key and its holder: `GET /v1/kv/<key>`.
    pub fn holder(&mut self, key: &Key, query: &Query) -> Result<Holding, Error> {
        self.call(&lock::read(self.connection, key, query), lock::holding)
    }
}
