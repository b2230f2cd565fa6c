//! The trait that sends a request to Consul, and requests and responses as plain data.

#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, excerpt};
use crate::options::Token;

/// A sender of requests. The implementation owns the clock: it was created with a deadline, and
/// each [`send`](Transport::send) returns before it. It also owns the framing.
pub trait Transport {
    /// Sends the request and reads the whole response. Any HTTP status is a success here.
    ///
    /// # Errors
    ///
    /// [`Unreachable`](ErrorKind::Unreachable), [`DeniedByHost`](ErrorKind::DeniedByHost),
    /// [`Tls`](ErrorKind::Tls) and [`Unsupported`](ErrorKind::Unsupported) if nothing was sent;
    /// [`Timeout`](ErrorKind::Timeout), [`InvalidResponse`](ErrorKind::InvalidResponse) and
    /// [`ResponseTooLarge`](ErrorKind::ResponseTooLarge) if the request may have been sent.
    fn send(&mut self, request: &Request) -> Result<Response, Error>;

    /// Waits between half of this time and all of it, in nanoseconds, by chance: clients that failed
    /// together then do not try again together. Returns `false` without waiting if too little time
    /// would be left for a request, or if this transport cannot wait.
    fn pause(&mut self, longest: i64) -> bool {
        let _ = longest;
        false
    }
}

/// A method that Consul's API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Writes.
    Put,
    /// Reads, with a body.
    Post,
}

/// A protocol, by its scheme in `wasi:http`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http`.
    Http,
    /// `https`.
    Https,
    /// `https+insecure`: HTTPS without verification of the certificate. Only a host that knows this
    /// scheme can grant it.
    HttpsInsecure,
}

/// A request. It needs a `Content-Length`, even 0: Consul ignores the body of a chunked create and
/// answers 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The protocol.
    pub protocol: Protocol,
    /// `host:port`; an IPv6 address is in brackets.
    pub authority: String,
    /// Starts with `/`; percent-encoded.
    pub path_and_query: String,
    /// The token, sent only in `X-Consul-Token`.
    pub token: Option<Token>,
    /// The body, JSON or empty.
    pub body: Vec<u8>,
    /// The headers to read from the response. The others stay with the host.
    pub headers: &'static [&'static str],
}

/// A complete response.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// The headers of the response that are in [`Request::headers`].
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Header with the index of the sessions table or of the key that was read.
pub const INDEX: &str = "x-consul-index";
/// Header that is `true` if ACLs hid something; never sent to the anonymous token.
pub const FILTERED: &str = "x-consul-results-filtered-by-acls";
/// Header with the default ACL policy, `allow` or `deny`.
pub const DEFAULT_POLICY: &str = "x-consul-default-acl-policy";

impl Response {
    /// Returns the value of a header.
    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// Returns the index for the next blocking query; 0 if the response has none.
    pub(crate) fn index(&self) -> u64 {
        self.header(INDEX).and_then(|index| index.parse().ok()).unwrap_or(0)
    }
}

/// Returns the error for a `wasi:http` error code, given by its name in WIT. It is in the core so
/// that it is tested natively.
///
/// Hosts use different codes for the same failure, so callers depend on the kind only. The message
/// quotes the code and the host's detail.
pub fn from_error_code(code: &str, detail: Option<&str>, authority: &str) -> Error {
    let (kind, cause) = match code {
        "DNS-timeout" | "DNS-error" | "destination-not-found" => {
            (ErrorKind::Unreachable, "the name cannot be resolved: check `host`")
        }
        "destination-unavailable" | "destination-IP-unroutable" => (ErrorKind::Unreachable, "no route: check `host`"),
        "connection-refused" => {
            (ErrorKind::Unreachable, "nothing listens there: check `host` and `port`, and whether the agent runs")
        }
        "connection-limit-reached" => (ErrorKind::Unreachable, "the host has no connection left: try again later"),
        "HTTP-request-denied" | "destination-IP-prohibited" => {
            (ErrorKind::DeniedByHost, "the host's policy does not allow it: ask its operator to allow this authority")
        }
        "connection-timeout" | "connection-read-timeout" | "connection-write-timeout" | "HTTP-response-timeout" => {
            (ErrorKind::Timeout, "the host gave up waiting")
        }
        "TLS-certificate-error" => {
            (ErrorKind::Tls, "the agent's certificate is not trusted: the host needs the CA that signed it")
        }
        "TLS-protocol-error" | "TLS-alert-received" => {
            (ErrorKind::Tls, "no TLS connection: check `scheme`, and whether the host trusts the CA of the agent's certificate")
        }
        "connection-terminated" | "HTTP-protocol-error" => {
            (ErrorKind::InvalidResponse, "the connection ended without a whole HTTP answer: check `port` and `scheme`")
        }
        code if code.starts_with("HTTP-response") || code == "HTTP-upgrade-failed" => {
            (ErrorKind::InvalidResponse, "the answer is broken: check `host` and `port`")
        }
        _ => (ErrorKind::Other, "the host could not carry the request"),
    };
    let detail = detail.map(|detail| format!(": {}", excerpt(detail.as_bytes()))).unwrap_or_default();
    Error::new(kind, format!("no answer from {authority}: {cause} ({code}{detail})"))
}
