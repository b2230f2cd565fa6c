//! From a response to its JSON, and the error for a response that is not Consul's.

#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, excerpt, from_status};
use crate::lenient::{Any, TOO_MANY_ELEMENTS};
use crate::session::{Session, Sessions};
use crate::transport::Response;
use serde::Deserialize;

/// Parses the JSON of a response with status 200.
pub(super) fn json<'a, T: Deserialize<'a>>(response: &'a Response) -> Result<T, Error> {
    if response.status != 200 {
        return Err(from_status(response.status, &response.body));
    }
    parse(&response.body).map_err(|reason| match reason.starts_with(TOO_MANY_ELEMENTS) {
        true => Error::new(ErrorKind::ResponseTooLarge, format!("the answer has {reason}; read the sessions of one node")),
        false => not_consul(&response.body, &reason),
    })
}

/// Parses the JSON of a body; the error is the reason. UTF-8 is checked once for the whole body,
/// which is faster than for each string in it.
pub(super) fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// Parses the sessions in a response with status 200.
pub(super) fn sessions(response: &Response) -> Result<Vec<Session>, Error> {
    let Any(Sessions(sessions)) = json(response)?;
    sessions.ok_or_else(|| not_consul(&response.body, "not a list of sessions"))
}

/// Returns the error for a response with status 200 that is not Consul's.
pub(super) fn not_consul(body: &[u8], reason: &str) -> Error {
    Error::new(
        ErrorKind::InvalidResponse,
        format!(
            "the server at this address is not a Consul agent; check `host` and `port`: {reason}, in the answer {}",
            excerpt(body)
        ),
    )
}
