//! A transport that expects each request exactly, and answers as it is told.

use consul_session::apply::Plan;
use consul_session::consul::{Client, Connection};
use consul_session::error::{Error, ErrorKind};
use consul_session::transport::{Method, Protocol, Request, Response, Transport};
use consul_session::{Options, Outcome};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::panic::Location;

/// A request that is expected, and its answer.
pub struct Exchange {
    method: Method,
    path_and_query: String,
    body: String,
    answer: Result<Response, Error>,
    location: &'static Location<'static>,
}

#[track_caller]
fn exchange(method: Method, path_and_query: &str) -> Exchange {
    Exchange {
        method,
        path_and_query: path_and_query.into(),
        body: String::new(),
        answer: Ok(Response { status: 200, headers: Vec::new(), body: Vec::new() }),
        location: Location::caller(),
    }
}

#[track_caller]
pub fn get(path_and_query: &str) -> Exchange {
    exchange(Method::Get, path_and_query)
}

#[track_caller]
pub fn put(path_and_query: &str) -> Exchange {
    exchange(Method::Put, path_and_query)
}

#[track_caller]
pub fn post(path_and_query: &str) -> Exchange {
    exchange(Method::Post, path_and_query)
}

/// The creation that is expected most: a session of this name, and otherwise the defaults.
#[track_caller]
pub fn create(name: &str) -> Exchange {
    put("/v1/session/create").body(&format!(r#"{{"Name":"{name}","LockDelay":"15s","Behavior":"release"}}"#))
}

/// The destruction of the session that [`session`] makes with this number.
#[track_caller]
pub fn destroy(number: u64) -> Exchange {
    put(&format!("/v1/session/destroy/{}", id(number)))
}

impl Exchange {
    /// The body that is expected, byte for byte.
    pub fn body(mut self, body: &str) -> Exchange {
        self.body = body.into();
        self
    }

    /// Status 200 and this JSON.
    pub fn gives(self, body: Value) -> Exchange {
        self.says(200, &body.to_string())
    }

    /// This status and this text.
    pub fn says(mut self, status: u16, body: &str) -> Exchange {
        self.answer = Ok(Response { status, headers: Vec::new(), body: body.into() });
        self
    }

    /// Another header of the answer.
    pub fn header(mut self, name: &'static str, value: &str) -> Exchange {
        self.answer.as_mut().unwrap().headers.push((name, value.into()));
        self
    }

    /// No answer, but this error of the transport.
    pub fn fails(mut self, case: ErrorKind) -> Exchange {
        let message = format!("no answer: {}", case.name());
        self.answer = Err(Error::new(case, message));
        self
    }
}

/// The transport. Every request that is expected must come, which is checked when it is dropped.
pub struct Script {
    expected: VecDeque<Exchange>,
    authority: String,
    protocol: Protocol,
    token: Option<String>,
    location: &'static Location<'static>,
}

impl Script {
    /// Expects these requests, at `localhost:8500` and without a token.
    #[track_caller]
    pub fn new(expected: impl IntoIterator<Item = Exchange>) -> Script {
        Script {
            expected: expected.into_iter().collect(),
            authority: "localhost:8500".into(),
            protocol: Protocol::Http,
            token: None,
            location: Location::caller(),
        }
    }

    /// Expects them there instead.
    pub fn at(mut self, protocol: Protocol, authority: &str) -> Script {
        self.protocol = protocol;
        self.authority = authority.into();
        self
    }

    /// Expects this token in every request.
    pub fn token(mut self, token: &str) -> Script {
        self.token = Some(token.into());
        self
    }
}

impl Transport for Script {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        let location = self.location;
        let Some(expected) = self.expected.pop_front() else { panic!("{location}: one request too many: {request:#?}") };
        let location = expected.location;
        let body = String::from_utf8_lossy(&request.body);
        let found = (request.method, request.path_and_query.as_str(), body.as_ref());
        let wanted = (expected.method, expected.path_and_query.as_str(), expected.body.as_str());
        assert_eq!(found, wanted, "{location}: another request is expected");
        assert_eq!((request.protocol, &request.authority), (self.protocol, &self.authority), "{location}");
        assert_eq!(request.token.as_ref().map(|token| token.secret()), self.token.as_deref(), "{location}: the token");
        expected.answer
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let (Some(missing), false) = (self.expected.front(), std::thread::panicking()) {
            panic!("{}: this request did not come: {:?} {}", missing.location, missing.method, missing.path_and_query);
        }
    }
}

/// Reads the options, checks them and applies them, with exactly these requests. The token in the options must be in each.
#[track_caller]
pub fn apply(options: Value, expected: impl IntoIterator<Item = Exchange>) -> Result<Outcome, Error> {
    let mut script = Script::new(expected);
    script.token = options["token"].as_str().map(String::from);
    Plan::new(Options::from_json(&options.to_string())?)?.run(&mut script)
}

/// Calls an endpoint with exactly this request.
#[track_caller]
pub fn call<T>(options: Value, script: Script, endpoint: impl FnOnce(&mut Client) -> Result<T, Error>) -> Result<T, Error> {
    let mut script = script;
    let options = Options::from_json(&options.to_string()).unwrap().resolve();
    endpoint(&mut Client { connection: &Connection::new(&options), transport: &mut script })
}

/// The id of the session with this number.
pub fn id(number: u64) -> String {
    format!("adf4238a-882b-9ddc-4a9d-{number:012x}")
}

/// A session in Consul's JSON, as the defaults make it; `number` is its age. `fields` replace some of it.
pub fn session(number: u64, fields: Value) -> Value {
    let mut session = json!({
        "ID": id(number), "Name": "web", "Node": "n1", "LockDelay": 15_000_000_000_i64, "Behavior": "release", "TTL": "",
        "NodeChecks": ["serfHealth"], "ServiceChecks": null, "CreateIndex": number, "ModifyIndex": number,
    });
    for (key, value) in fields.as_object().unwrap() {
        session[key] = value.clone();
    }
    session
}

/// `GET /v1/agent/self`, answered with the node `n1`.
#[track_caller]
pub fn own_node() -> Exchange {
    get("/v1/agent/self").gives(json!({"Config": {"Datacenter": "dc1", "NodeName": "n1"}, "Stats": {}}))
}

/// `GET /v1/agent/self`, refused.
#[track_caller]
pub fn own_node_denied() -> Exchange {
    get("/v1/agent/self").says(403, "Permission denied: anonymous token lacks permission 'agent:read' on \"n1\".")
}
