//! `POST /v1/internal/acl/authorize`: whether a token permits an operation. Consul's UI uses it.
//!
//! The response is exact for any token, also for the anonymous one and the agent's default one,
//! with which reads only return fewer sessions.

#![forbid(unsafe_code)]

use super::connection::{Connection, body};
use super::response::json;
use crate::error::Error;
use crate::transport::{Method, Request, Response};
use serde::{Deserialize, Serialize};

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Authorization<'a> {
    resource: &'static str,
    access: &'static str,
    segment: &'a str,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Permission {
    allow: bool,
}

/// Builds the request for `session:read` on this node.
pub(super) fn request(connection: &Connection, node: &str) -> Request {
    let body = body(&[Authorization { resource: "session", access: "read", segment: node }]);
    Request { body, ..connection.request(Method::Post, "internal/acl/authorize", "") }
}

/// Reads whether the token permits it.
pub(super) fn response(response: &Response) -> Result<bool, Error> {
    // The response has as many elements as the request.
    let (Permission { allow },) = json(response)?;
    Ok(allow)
}
