//! [`PUT /v1/session/destroy/<id>`](https://developer.hashicorp.com/consul/api-docs/session#delete-session)

#![forbid(unsafe_code)]

use super::connection::Connection;
use super::response::{json, not_consul};
use crate::error::Error;
use crate::options::SessionId;
use crate::transport::{Method, Request, Response};

/// Builds the request.
pub(super) fn request(connection: &Connection, id: &SessionId) -> Request {
    connection.request(Method::Put, &format!("session/destroy/{}", id.as_str()), "")
}

/// Checks the response, which is `true` whether or not the session existed.
pub(super) fn response(response: &Response) -> Result<(), Error> {
    match json(response)? {
        true => Ok(()),
        false => Err(not_consul(&response.body, "it is not `true`")),
    }
}
