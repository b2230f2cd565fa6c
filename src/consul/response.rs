//! From a response to JSON, and the error for what is not Consul's.

#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, excerpt, from_status};
use crate::lenient::{Any, TOO_MANY_ELEMENTS};
use crate::session::{Session, Sessions};
use crate::transport::Response;
use serde::Deserialize;

/// The JSON of a response of status 200.
pub fn json<'a, T: Deserialize<'a>>(response: &'a Response) -> Result<T, Error> {
    if response.status != 200 {
        return Err(from_status(response.status, &response.body));
    }
    parse(&response.body).map_err(|reason| match reason.starts_with(TOO_MANY_ELEMENTS) {
        true => Error::new(ErrorKind::ResponseTooLarge, format!("the answer has {reason}; read the sessions of one node")),
        false => not_consul(&response.body, &reason),
    })
}

/// The JSON of a body; the error is what is wrong with it. UTF-8 is checked once for the whole body, which is faster than for
/// each string in it.
pub fn parse<'a, T: Deserialize<'a>>(body: &'a [u8]) -> Result<T, String> {
    let text = std::str::from_utf8(body).map_err(|error| error.to_string())?;
    serde_json::from_str(text).map_err(|error| error.to_string())
}

/// The sessions in a response of status 200.
pub fn sessions(response: &Response) -> Result<Vec<Session>, Error> {
    let Any(Sessions(sessions)) = json(response)?;
    sessions.ok_or_else(|| not_consul(&response.body, "not a list of sessions"))
}

/// The error for an answer of status 200 that is not what Consul answers.
pub fn not_consul(body: &[u8], reason: &str) -> Error {
    Error::new(
        ErrorKind::InvalidResponse,
        format!(
            "the server at this address is not a Consul agent; check `host` and `port`: {reason}, in the answer {}",
            excerpt(body)
        ),
    )
}
