//! [`PUT /v1/session/renew/<id>`](https://developer.hashicorp.com/consul/api-docs/session#renew-session)

#![forbid(unsafe_code)]

use super::connection::Connection;
use super::response::sessions;
use crate::error::{Error, ErrorKind};
use crate::options::SessionId;
use crate::session::Session;
use crate::transport::{Method, Request, Response};

/// Builds the request. It has no consistency mode: with `stale` a follower would restart only its
/// own timer, and the leader's would run out.
pub(super) fn request(connection: &Connection, id: &SessionId) -> Request {
    connection.request(Method::Put, &format!("session/renew/{}", id.as_str()), "")
}

/// Reads the session.
pub(super) fn response(response: &Response, id: &SessionId) -> Result<Session, Error> {
    if response.status == 404 && response.body.starts_with(b"Session id") {
        return Err(missing(id));
    }
    sessions(response)?.into_iter().next().ok_or_else(|| missing(id))
}

/// Returns the error for a session that does not exist.
pub(super) fn missing(id: &SessionId) -> Error {
    Error::new(ErrorKind::NotFound, format!("no session {} exists (any more): create a new one", id.as_str()))
}
