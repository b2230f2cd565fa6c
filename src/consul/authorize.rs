//! `POST /v1/internal/acl/authorize`: whether the caller may do something. Consul's own UI asks it.
//!
//! It answers exactly for any token, the anonymous and the agent's default one too, where reads only come back shorter.

#![forbid(unsafe_code)]

use super::connection::{Connection, body};
use super::response::json;
use crate::error::Error;
use crate::transport::{Method, Request, Response};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Question<'a> {
    resource: &'static str,
    access: &'static str,
    segment: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Answer {
    allow: bool,
}

/// Asks for `session:read` on this node.
pub fn request(connection: &Connection, node: &str) -> Request {
    let body = body(&[Question { resource: "session", access: "read", segment: node }]);
    Request { body, ..connection.request(Method::Post, "internal/acl/authorize", "") }
}

/// Whether it is allowed.
pub fn response(response: &Response) -> Result<bool, Error> {
    // As many answers as there were questions.
    let (Answer { allow },) = json(response)?;
    Ok(allow)
}
