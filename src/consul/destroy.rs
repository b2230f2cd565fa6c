//! [`PUT /v1/session/destroy/<id>`](https://developer.hashicorp.com/consul/api-docs/session#delete-session)

use super::{Connection, json};
use crate::error::Error;
use crate::json::Json;
use crate::options::SessionId;
use crate::transport::{Method, Request, Response};

/// The request.
pub fn request(connection: &Connection, id: &SessionId) -> Request {
    connection.request(Method::Put, &text!["session/destroy/", id.as_str()], "")
}

/// Consul answers `true` whether or not the session was there.
pub fn response(response: &Response) -> Result<(), Error> {
    match json(response)? {
        Json::Bool(true) => Ok(()),
        _ => Err(super::not_consul(&response.body, "it is not `true`")),
    }
}
