//! One call per endpoint.

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

/// A connection and the transport that carries its requests.
pub struct Client<'a> {
    /// Where to.
    pub connection: &'a Connection,
    /// How.
    pub transport: &'a mut dyn Transport,
}

impl Client<'_> {
    /// Sends a request and reads its response.
    fn call<T>(&mut self, request: &Request, read: impl FnOnce(&Response) -> Result<T, Error>) -> Result<T, Error> {
        let result = self.transport.send(request).and_then(|response| read(&response));
        result.map_err(|error| self.explain(error, request))
    }

    /// What there is to say of the error of a call. The one place that keeps the token out of every error: Consul or a proxy may
    /// echo it.
    fn explain(&self, error: Error, request: &Request) -> Error {
        let error = match error.kind {
            // Consul does not name what it does not know.
            ErrorKind::UnknownDatacenter => error.context(&self.connection.query),
            ErrorKind::UnknownNode => error.context(&excerpt(&request.body)),
            _ => error,
        };
        match &request.token {
            Some(token) => error.redact(token.secret()),
            None => error,
        }
    }

    /// `PUT /v1/session/create`: the new id. An error that [leaves doubt](Error::is_ambiguous) may hide a success.
    pub fn create(&mut self, session: &NewSession) -> Result<SessionId, Error> {
        self.call(&create::request(self.connection, session), create::response)
    }

    /// `PUT /v1/session/destroy/<id>`: succeeds whether or not the session was there. Tried again once where an answer was
    /// lost, since a second destruction changes nothing.
    pub fn destroy(&mut self, id: &SessionId) -> Result<(), Error> {
        let request = destroy::request(self.connection, id);
        match self.call(&request, destroy::response) {
            // What the second attempt says of itself, such as that nothing was sent, is not true of the first.
            Err(lost) if lost.is_ambiguous() => self.call(&request, destroy::response).or(Err(lost)),
            result => result,
        }
        .map_err(|error| error.into_outcome_unknown("the destruction of the session"))
    }

    /// `PUT /v1/session/renew/<id>`: the session.
    pub fn renew(&mut self, id: &SessionId) -> Result<Session, Error> {
        self.call(&renew::request(self.connection, id), |response| renew::response(response, id))
            .map_err(|error| error.into_outcome_unknown("the renewal"))
    }

    /// `GET /v1/session/info/<id>`, `/node/<name>` or `/list`.
    pub fn sessions(&mut self, scope: &Scope, query: &Query) -> Result<Listing, Error> {
        let with_token = self.connection.token.is_some();
        self.call(&read::request(self.connection, scope, query), |response| read::response(response, with_token))
    }

    /// `GET /v1/agent/self`: the name of the agent's own node.
    pub fn own_node(&mut self) -> Result<String, Error> {
        self.call(&agent::request(self.connection), agent::response)
    }

    /// `POST /v1/internal/acl/authorize`: whether the sessions of this node may be read.
    pub fn may_read(&mut self, node: &str) -> Result<bool, Error> {
        self.call(&authorize::request(self.connection, node), authorize::response)
    }

    /// `PUT /v1/txn`: acquires the key for the session, or releases it, which is [`Held`](Acquisition::Held) if the session does not hold it.
    pub fn lock(&mut self, verb: Verb, key: &Key, id: &SessionId, contents: Option<&Contents>) -> Result<Acquisition, Error> {
        if self.connection.namespace.is_some() || self.connection.partition.is_some() {
            // Community Edition reads no such field of an operation, and would lock another key. This it refuses.
            self.holder(key, &Query::default())?;
        }
        let request = lock::request(self.connection, verb, key, id, contents);
        self.call(&request, |response| lock::response(response, id, contents))
            .map_err(|error| error.into_outcome_unknown("the change of the lock"))
    }

    /// `GET /v1/kv/<key>`: who holds it.
    pub fn holder(&mut self, key: &Key, query: &Query) -> Result<Holding, Error> {
        self.call(&lock::read(self.connection, key, query), lock::holding)
    }
}
