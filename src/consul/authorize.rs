//! `POST /v1/internal/acl/authorize`: whether the caller may do something. Consul's own UI asks it.
//!
//! It answers exactly for any token, the anonymous and the agent's default one too, where reads only come back shorter.

use super::{Connection, json};
use crate::error::Error;
use crate::json::Json;
use crate::transport::{Method, Request, Response};
use alloc::vec;

/// Asks for `session:read` on this node.
pub fn request(connection: &Connection, node: &str) -> Request {
    let question = Json::object(vec![("Resource", "session".into()), ("Access", "read".into()), ("Segment", node.into())]);
    Request {
        body: Json::List(vec![question]).to_text().into_bytes(),
        ..connection.request(Method::Post, "internal/acl/authorize", "")
    }
}

/// Whether it is allowed.
pub fn response(response: &Response) -> Result<bool, Error> {
    match json(response)?.items().first().map(|answer| answer.get("Allow")) {
        Some(Json::Bool(allow)) => Ok(*allow),
        _ => Err(super::not_consul(&response.body, "it does not say `Allow`")),
    }
}
