//! [`GET /v1/agent/self`](https://developer.hashicorp.com/consul/api-docs/agent#read-configuration), for the name of the agent's
//! own node, which a session is tied to by default. Needs `agent:read`.

use super::{Connection, json};
use crate::error::Error;
use crate::text::Text;
use crate::transport::{Method, Request, Response};
use alloc::borrow::ToOwned;

/// The request.
pub fn request(connection: &Connection) -> Request {
    connection.request(Method::Get, "agent/self", "")
}

/// The node's name.
pub fn response(response: &Response) -> Result<Text, Error> {
    match json(response)?.get("Config").get("NodeName").text() {
        "" => Err(super::not_consul(&response.body, "it has no node name")),
        name => Ok(name.to_owned().into()),
    }
}
