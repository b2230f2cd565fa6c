//! The connection to Consul, and the parts that all requests of a call share.

#![forbid(unsafe_code)]

use crate::options::{Resolved, Scheme, Token};
use crate::transport::{Method, Protocol, Request};
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, PercentEncode, utf8_percent_encode};
use serde::Serialize;

/// All but the unreserved characters of a URL (RFC 3986): hosts differ in what else they accept.
const RESERVED: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// How to reach Consul: the parts that are the same in every request of a call.
#[derive(Clone, Debug)]
pub struct Connection {
    protocol: Protocol,
    authority: String,
    pub(super) token: Option<Token>,
    /// `dc=…&ns=…&partition=…`, each if given.
    pub(super) query: String,
    pub(super) namespace: Option<String>,
    pub(super) partition: Option<String>,
    timeout: i64,
}

impl Connection {
    /// Returns the connection that these options describe.
    pub fn new(options: &Resolved) -> Connection {
        let mut query = String::new();
        for (key, value) in [("dc", &options.datacenter), ("ns", &options.namespace), ("partition", &options.partition)] {
            if let Some(value) = value {
                add(&mut query, key, Some(value));
            }
        }
        Connection {
            protocol: match (options.scheme, options.validate_certs) {
                (Scheme::Http, _) => Protocol::Http,
                (Scheme::Https, true) => Protocol::Https,
                (Scheme::Https, false) => Protocol::HttpsInsecure,
            },
            authority: format!("{}:{}", options.host.as_str(), options.port),
            token: options.token.clone(),
            query,
            namespace: options.namespace.clone(),
            partition: options.partition.clone(),
            timeout: options.timeout,
        }
    }

    /// Returns the overall timeout of a call, in nanoseconds.
    pub fn timeout(&self) -> i64 {
        self.timeout
    }

    /// Returns a request without body and headers. `path` follows `/v1/` and is encoded.
    pub(super) fn request(&self, method: Method, path: &str, query: &str) -> Request {
        let mut path_and_query = format!("/v1/{path}");
        let mut separator = '?';
        for part in [query, &self.query] {
            if !part.is_empty() {
                path_and_query.push(separator);
                path_and_query.push_str(part);
                separator = '&';
            }
        }
        Request {
            method,
            protocol: self.protocol,
            authority: self.authority.clone(),
            path_and_query,
            token: self.token.clone(),
            body: Vec::new(),
            headers: &[],
        }
    }
}

/// Encodes a string as one segment of a path or one value of a query.
pub(super) fn encode(text: &str) -> PercentEncode<'_> {
    utf8_percent_encode(text, RESERVED)
}

/// Adds `key=value`, or a bare `key`, to a query.
pub(super) fn add(query: &mut String, key: &str, value: Option<&str>) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(key);
    if let Some(value) = value {
        query.push('=');
        query.extend(encode(value));
    }
}

/// Returns the body of a request as JSON.
pub(super) fn body<T: Serialize>(body: &T) -> Vec<u8> {
    #[expect(clippy::expect_used, reason = "strings and numbers are always written")]
    serde_json::to_vec(body).expect("a request is JSON")
}
