//! [`PUT /v1/session/renew/<id>`](https://developer.hashicorp.com/consul/api-docs/session#renew-session)

#![forbid(unsafe_code)]

use super::connection::Connection;
use super::response::sessions;
use crate::error::{Error, ErrorKind};
use crate::options::SessionId;
use crate::session::Session;
use crate::transport::{Method, Request, Response};

/// The request. Without a consistency mode: a follower that is asked `stale` would restart its own timer only, and the
/// leader's would run out.
pub fn request(connection: &Connection, id: &SessionId) -> Request {
    connection.request(Method::Put, &format!("session/renew/{}", id.as_str()), "")
}

/// The session.
pub fn response(response: &Response, id: &SessionId) -> Result<Session, Error> {
    if response.status == 404 && response.body.starts_with(b"Session id") {
        return Err(missing(id));
    }
    sessions(response)?.into_iter().next().ok_or_else(|| missing(id))
}

/// The error for a session that is needed and not there.
pub(super) fn missing(id: &SessionId) -> Error {
    Error::new(ErrorKind::NotFound, format!("no session {} exists (any more): create a new one", id.as_str()))
}
