//! Answers, and the headers that Consul puts on them.

use http::header::{ALLOW, CONTENT_TYPE, HeaderName, HeaderValue, VARY};
use http::{Response, StatusCode};
use hyper::body::Bytes;
use serde::Serialize;
use std::time::Duration;

/// The answer of an endpoint.
pub struct Answer {
    pub status: StatusCode,
    /// JSON if `true`, plain text otherwise.
    pub is_json: bool,
    pub body: Vec<u8>,
    pub allow: Option<HeaderValue>,
    pub meta: Option<Meta>,
    /// The options of a read that can block.
    pub blocking: Option<ReadOptions>,
}

/// When a read is answered.
pub struct ReadOptions {
    /// The read waits for a later index; with 0 it does not wait.
    pub index: u64,
    pub wait: Duration,
}

/// The `X-Consul-*` headers of a read.
pub struct Meta {
    pub index: u64,
    pub known_leader: bool,
    pub consistency: Option<&'static str>,
}

impl Answer {
    pub fn text(status: StatusCode, text: String) -> Answer {
        Answer { status, is_json: false, body: text.into_bytes(), allow: None, meta: None, blocking: None }
    }

    pub fn empty() -> Answer {
        Answer { is_json: true, ..Answer::text(StatusCode::OK, String::new()) }
    }

    /// Returns JSON with the indentation of an agent in `-dev` mode.
    pub fn json(content: &impl Serialize) -> Answer {
        let mut body = Vec::new();
        let indent = serde_json::ser::PrettyFormatter::with_indent(b"    ");
        match content.serialize(&mut serde_json::Serializer::with_formatter(&mut body, indent)) {
            Ok(()) => Answer { body, ..Answer::empty() },
            Err(error) => internal(error.to_string()),
        }
    }

    /// Adds the headers of a read that can block.
    pub fn blocking(self, index: u64, options: ReadOptions) -> Answer {
        let meta = Meta { index, known_leader: true, consistency: None };
        Answer { meta: Some(meta), blocking: Some(options), ..self }
    }

    /// Adds the header that Consul sends with the catalog.
    pub fn with_consistency(mut self, consistency: &'static str) -> Answer {
        if let Some(meta) = &mut self.meta {
            meta.consistency = Some(consistency);
        }
        self
    }

    /// Adds the headers that Consul sends with the error of a read.
    pub fn without_leader(self) -> Answer {
        Answer { meta: Some(Meta { index: 1, known_leader: false, consistency: None }), ..self }
    }
}

impl From<Answer> for Response<Bytes> {
    fn from(answer: Answer) -> Self {
        let is_empty = answer.body.is_empty();
        let mut response = response(answer.status, answer.body);
        let headers = response.headers_mut();
        if answer.is_json {
            headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        } else if is_empty {
            headers.remove(CONTENT_TYPE);
        }
        if let Some(allow) = answer.allow {
            headers.insert(ALLOW, allow);
        }
        if let Some(meta) = answer.meta {
            let mut set = |name, value| headers.insert(HeaderName::from_static(name), value);
            if let Some(consistency) = meta.consistency {
                set("x-consul-effective-consistency", HeaderValue::from_static(consistency));
            }
            set("x-consul-index", meta.index.into());
            set("x-consul-knownleader", HeaderValue::from_static(if meta.known_leader { "true" } else { "false" }));
            set("x-consul-lastcontact", HeaderValue::from_static("0"));
            set("x-consul-query-backend", HeaderValue::from_static("blocking-query"));
        }
        response
    }
}

/// Returns a response of plain text.
pub fn response(status: StatusCode, body: impl Into<Bytes>) -> Response<Bytes> {
    let mut response = Response::new(body.into());
    *response.status_mut() = status;
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("text/plain; charset=utf-8"));
    response
}

/// Adds the headers that every endpoint sends.
pub fn with_policy(mut response: Response<Bytes>) -> Response<Bytes> {
    let headers = response.headers_mut();
    headers.insert(VARY, HeaderValue::from_static("Accept-Encoding"));
    headers.insert(HeaderName::from_static("x-consul-default-acl-policy"), HeaderValue::from_static("allow"));
    response
}

pub fn bad_request(text: &str) -> Answer {
    Answer::text(StatusCode::BAD_REQUEST, text.into())
}

pub fn internal(text: String) -> Answer {
    Answer::text(StatusCode::INTERNAL_SERVER_ERROR, text)
}

/// Answers a request for something that this agent lacks. Consul never answers with this status.
pub fn lacking(what: &str) -> Answer {
    let text = format!("the dev agent of consul-session does not implement {what}: use a Consul agent\n");
    Answer::text(StatusCode::NOT_IMPLEMENTED, text)
}
