//! The trait that carries a request to Consul, and the requests and responses themselves: plain data.

#![forbid(unsafe_code)]

use crate::error::{Error, ErrorKind, excerpt};
use crate::options::Token;

/// Carries requests. What implements it owns the clock: it ends every [`send`](Transport::send) within the time that it was
/// made for, and keeps the rules of framing.
pub trait Transport {
    /// Sends the request and reads the whole response. A response with any status is a success here.
    ///
    /// Errors: [`Unreachable`](ErrorKind::Unreachable), [`DeniedByHost`](ErrorKind::DeniedByHost), [`Tls`](ErrorKind::Tls) and
    /// [`Unsupported`](ErrorKind::Unsupported) if nothing was sent; [`Timeout`](ErrorKind::Timeout),
    /// [`InvalidResponse`](ErrorKind::InvalidResponse) and [`ResponseTooLarge`](ErrorKind::ResponseTooLarge) if it may have been.
    fn send(&mut self, request: &Request) -> Result<Response, Error>;
}

/// A method that Consul's API uses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Method {
    /// Reads.
    Get,
    /// Writes.
    Put,
    /// Asks with a body.
    Post,
}

/// A protocol, as `wasi:http` gets it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Protocol {
    /// `http`.
    Http,
    /// `https`.
    Https,
    /// `https+insecure`: HTTPS whose certificate is not verified. Only a host that knows the name can grant it.
    HttpsInsecure,
}

/// A request. Always sent with a `Content-Length`, 0 too: Consul ignores the body of a chunked create and answers 200.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Request {
    /// The method.
    pub method: Method,
    /// The protocol.
    pub protocol: Protocol,
    /// `host:port`; an IPv6 address in brackets.
    pub authority: String,
    /// Starts with `/`; percent-encoded.
    pub path_and_query: String,
    /// Sent in `X-Consul-Token`, never anywhere else.
    pub token: Option<Token>,
    /// The body, JSON or empty.
    pub body: Vec<u8>,
    /// The headers that its answer is read for. Others stay with the host.
    pub headers: &'static [&'static str],
}

/// A response, whole.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// Those of [`Request::headers`] that are there.
    pub headers: Vec<(&'static str, String)>,
    /// The body.
    pub body: Vec<u8>,
}

/// Index of what was read: of the sessions table, or of a key.
pub const INDEX: &str = "x-consul-index";
/// `true` if ACLs hid something from the answer; never sent to the anonymous token.
pub const FILTERED: &str = "x-consul-results-filtered-by-acls";
/// `allow` or `deny`.
pub const DEFAULT_POLICY: &str = "x-consul-default-acl-policy";

/// The most bytes of a body that a transport reads.
pub const RESPONSE_LIMIT: usize = 64 * 1024 * 1024;

impl Response {
    /// The value of a header.
    pub fn header(&self, name: &str) -> Option<&str> {
        self.headers.iter().find(|(n, _)| *n == name).map(|(_, value)| value.as_str())
    }

    /// For the next blocking query; 0 if it is not said.
    pub fn index(&self) -> u64 {
        self.header(INDEX).and_then(|index| index.parse().ok()).unwrap_or(0)
    }
}

/// The error for a `wasi:http` error code, by its name in WIT. Here, and not at the edge, so that it is tested natively.
///
/// Hosts name the same failure differently, so only the case counts; the code and what the host said stand in the text.
pub fn from_error_code(code: &str, detail: Option<&str>, authority: &str) -> Error {
    let (case, cause) = match code {
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
    Error::new(case, format!("no answer from {authority}: {cause} ({code}{detail})"))
}
