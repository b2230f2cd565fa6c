//! [`GET /v1/agent/self`](https://developer.hashicorp.com/consul/api-docs/agent#read-configuration):
//! the name of the agent's own node, which a session is tied to by default. Needs `agent:read`.

#![forbid(unsafe_code)]

use super::connection::Connection;
use super::response::{json, not_consul};
use crate::error::Error;
use crate::transport::{Method, Request, Response};
use serde::Deserialize;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Agent {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    node_name: String,
}

/// Builds the request.
pub(super) fn request(connection: &Connection) -> Request {
    connection.request(Method::Get, "agent/self", "")
}

/// Reads the name of the node.
pub(super) fn response(response: &Response) -> Result<String, Error> {
    let Agent { config: Config { node_name } } = json(response)?;
    if node_name.is_empty() { Err(not_consul(&response.body, "it has no node name")) } else { Ok(node_name) }
}
