//! Consul's HTTP API, as far as sessions and their locks need it: one file for each endpoint, which builds a request and reads its response.
//! Plain data in, plain data out; [`Client`] puts a [`Transport`] between the two.

use alloc::string::String;
use alloc::vec::Vec;
pub mod agent;
pub mod authorize;
pub mod create;
pub mod destroy;
pub mod lock;
pub mod read;
pub mod renew;

use crate::decimal;
use crate::error::{Case, Error, excerpt, from_status};
use crate::json::Json;
use crate::lock::{Acquisition, Contents, Holding, Key};
use crate::options::{Options, Scheme, SessionId, Token};
use crate::session::Session;
use crate::text::Text;
use crate::transport::{Method, Protocol, Request, Response, Transport};

pub use create::NewSession;
pub use lock::Verb;
pub use read::{Consistency, Listing, Query, Scope};

/// How to reach Consul: what is the same in every request of a call.
#[derive(Clone, Debug)]
pub struct Connection {
    protocol: Protocol,
    authority: Text,
    token: Option<Token>,
    /// `dc=…&ns=…&partition=…`, as far as given.
    query: Text,
    /// `,"Namespace":…,"Partition":…`, as far as given: as it stands in an operation of a transaction.
    scope: Text,
    /// Nanoseconds.
    timeout: i64,
}

impl Connection {
    /// From options that have their defaults.
    ///
    /// Errors: [`InvalidOption`](Case::InvalidOption) if one without which there is no connection is missing.
    pub fn new(options: &Options) -> Result<Connection, Error> {
        let host = need(options.host.as_ref(), "host")?;
        let port = need(options.port, "port")?;
        let protocol = match (need(options.scheme, "scheme")?, need(options.validate_certs, "validate_certs")?) {
            (Scheme::Http, _) => Protocol::Http,
            (Scheme::Https, true) => Protocol::Https,
            (Scheme::Https, false) => Protocol::HttpsInsecure,
        };
        let (mut query, mut scope) = (String::new(), String::new());
        for (key, field, value) in [
            ("dc", "", &options.datacenter),
            ("ns", ",\"Namespace\":", &options.namespace),
            ("partition", ",\"Partition\":", &options.partition),
        ] {
            let Some(value) = value else { continue };
            add(&mut query, key, Some(value));
            if !field.is_empty() {
                scope.push_str(field);
                scope.push_str(&Json::from(value).to_text());
            }
        }
        Ok(Connection {
            protocol,
            authority: text![host.as_str(), ":", decimal(port.into())].into(),
            token: options.token.clone(),
            query: query.into(),
            scope: scope.into(),
            timeout: need(options.timeout, "timeout")?,
        })
    }

    /// Bound on a whole call, in nanoseconds.
    pub fn timeout(&self) -> i64 {
        self.timeout
    }

    /// A request without a body, and whose answer is one. `path` is what stands behind `/v1/`, already encoded.
    fn request(&self, method: Method, path: &str, query: &str) -> Request {
        let mut path_and_query = text!["/v1/", path];
        for (sign, part) in [('?', query), (if query.is_empty() { '?' } else { '&' }, &self.query)] {
            if !part.is_empty() {
                path_and_query.push(sign);
                path_and_query.push_str(part);
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

/// The value, or the error that says which option is missing.
pub fn need<T>(value: Option<T>, name: &str) -> Result<T, Error> {
    value.ok_or_else(|| missing(name))
}

fn missing(name: &str) -> Error {
    Error::invalid(name, text!["option `", name, "` is required"])
}

/// A text as one part of a path or of a query: everything percent-encoded that is not unreserved (RFC 3986), since hosts differ
/// in what else they let through. By hand: the crate for it is four times as large.
fn encode(text: &str) -> String {
    let mut encoded = String::new();
    for byte in text.bytes() {
        if byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~') {
            encoded.push(char::from(byte));
        } else {
            encoded.push('%');
            for digit in [byte >> 4, byte & 15] {
                encoded.push(char::from(if digit < 10 { b'0' + digit } else { b'A' - 10 + digit }));
            }
        }
    }
    encoded
}

/// Adds `key=value`, or a bare `key`, to a query.
fn add(query: &mut String, key: &str, value: Option<&str>) {
    if !query.is_empty() {
        query.push('&');
    }
    query.push_str(key);
    if let Some(value) = value {
        query.push('=');
        query.push_str(&encode(value));
    }
}

/// The JSON of a response of status 200.
fn json(response: &Response) -> Result<Json<'_>, Error> {
    Json::parse(body(response)?).map_err(|error| not_consul(&response.body, &error.message()))
}

/// The sessions in a response of status 200.
fn sessions(response: &Response) -> Result<Vec<Session>, Error> {
    match Json::parse_list::<Session>(body(response)?) {
        Ok(Some(sessions)) if sessions.iter().all(|session| !session.id.is_empty()) => Ok(sessions),
        Ok(_) => Err(not_consul(&response.body, "it is no list of sessions")),
        Err(error) => Err(not_consul(&response.body, &error.message())),
    }
}

fn body(response: &Response) -> Result<&[u8], Error> {
    match response.status {
        200 => Ok(&response.body),
        status => Err(from_status(status, &response.body)),
    }
}

/// The error for an answer of status 200 that is not what Consul answers.
fn not_consul(body: &[u8], reason: &str) -> Error {
    Case::InvalidResponse.because(text![
        "what answers at this address does not speak consul's HTTP API, check `host` and `port`: ",
        reason,
        ", in the answer ",
        excerpt(body)
    ])
}

/// A connection and the transport that carries its requests: one call per endpoint.
pub struct Client<'a> {
    /// Where to.
    pub connection: &'a Connection,
    /// How.
    pub transport: &'a mut dyn Transport,
}

impl Client<'_> {
    /// Sends a request and reads its response.
    fn call<T>(&mut self, request: &Request, read: impl FnOnce(&Response) -> Result<T, Error>) -> Result<T, Error> {
        let result = self.transport.send(request).and_then(|response| read(&response));
        result.map_err(|error| self.explain(error, request))
    }

    /// What there is to say of the error of a call. The one place that keeps the token out of every error: Consul or a proxy may
    /// echo it.
    fn explain(&self, error: Error, request: &Request) -> Error {
        let error = match error.case {
            // Consul does not name what it does not know.
            Case::UnknownDatacenter => error.and(&self.connection.query),
            Case::UnknownNode => error.and(&excerpt(&request.body)),
            _ => error,
        };
        match &request.token {
            Some(token) => error.without(token.secret()),
            None => error,
        }
    }

    /// `PUT /v1/session/create`: the new id. An error that [leaves doubt](Error::leaves_doubt) may hide a success.
    pub fn create(&mut self, session: &NewSession) -> Result<SessionId, Error> {
        self.call(&create::request(self.connection, session), create::response)
    }

    /// `PUT /v1/session/destroy/<id>`: succeeds whether or not the session was there. Tried again once where an answer was
    /// lost, since a second destruction changes nothing.
    pub fn destroy(&mut self, id: &SessionId) -> Result<(), Error> {
        let request = destroy::request(self.connection, id);
        match self.call(&request, destroy::response) {
            // What the second attempt says of itself, such as that nothing was sent, is not true of the first.
            Err(lost) if lost.leaves_doubt() => self.call(&request, destroy::response).or(Err(lost)),
            result => result,
        }
        .map_err(|error| error.of_a_change("the destruction of the session"))
    }

    /// `PUT /v1/session/renew/<id>`: the session.
    pub fn renew(&mut self, id: &SessionId) -> Result<Session, Error> {
        self.call(&renew::request(self.connection, id), |response| renew::response(response, id))
            .map_err(|error| error.of_a_change("the renewal"))
    }

    /// `GET /v1/session/info/<id>`, `/node/<name>` or `/list`.
    pub fn sessions(&mut self, scope: &Scope, query: &Query) -> Result<Listing, Error> {
        let with_token = self.connection.token.is_some();
        self.call(&read::request(self.connection, scope, query), |response| read::response(response, with_token))
    }

    /// `GET /v1/agent/self`: the name of the agent's own node.
    pub fn own_node(&mut self) -> Result<Text, Error> {
        self.call(&agent::request(self.connection), agent::response)
    }

    /// `POST /v1/internal/acl/authorize`: whether the sessions of this node may be read.
    pub fn may_read(&mut self, node: &str) -> Result<bool, Error> {
        self.call(&authorize::request(self.connection, node), authorize::response)
    }

    /// `PUT /v1/txn`: acquires the key for the session, or releases it, which is [`Held`](Acquisition::Held) if the session does not hold it.
    pub fn lock(&mut self, verb: Verb, key: &Key, id: &SessionId, contents: Option<&Contents>) -> Result<Acquisition, Error> {
        if !self.connection.scope.is_empty() {
            // Community Edition reads no such field of an operation, and would lock another key. This it refuses.
            self.holder(key, &Query::default())?;
        }
        let request = lock::request(self.connection, verb, key, id, contents);
        self.call(&request, |response| lock::response(response, id, contents))
            .map_err(|error| error.of_a_change("the change of the lock"))
    }

    /// `GET /v1/kv/<key>`: who holds it.
    pub fn holder(&mut self, key: &Key, query: &Query) -> Result<Holding, Error> {
        self.call(&lock::read(self.connection, key, query), lock::holding)
    }
}
