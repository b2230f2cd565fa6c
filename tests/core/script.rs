//! A transport that expects each request exactly, and returns a fixed answer.

use consul_session::apply::Plan;
use consul_session::consul::{Client, Connection};
use consul_session::error::{Error, ErrorKind};
use consul_session::transport::{Method, Protocol, Request, Response, Transport};
use consul_session::{Options, Outcome};
use serde_json::{Value, json};
use std::collections::VecDeque;
use std::panic::Location;

/// An expected request and its answer.
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

/// Expects the creation of a session with this name and the default options.
#[track_caller]
pub fn create(name: &str) -> Exchange {
    put("/v1/session/create").body(&format!(r#"{{"Name":"{name}","LockDelay":"15s","Behavior":"release"}}"#))
}

/// Expects the destruction of the session that [`session`] returns for this number.
#[track_caller]
pub fn destroy(number: u64) -> Exchange {
    put(&format!("/v1/session/destroy/{}", id(number)))
}

impl Exchange {
    /// Expects this body, byte for byte.
    pub fn body(mut self, body: &str) -> Exchange {
        self.body = body.into();
        self
    }

    /// Answers with status 200 and this JSON.
    pub fn gives(self, body: Value) -> Exchange {
        self.says(200, &body.to_string())
    }

    /// Answers with this status and this text.
    pub fn says(mut self, status: u16, body: &str) -> Exchange {
        self.answer = Ok(Response { status, headers: Vec::new(), body: body.into() });
        self
    }

    /// Adds a header to the answer.
    pub fn header(mut self, name: &'static str, value: &str) -> Exchange {
        self.answer.as_mut().unwrap().headers.push((name, value.into()));
        self
    }

    /// Fails with this error of the transport instead of an answer.
    pub fn fails(mut self, case: ErrorKind) -> Exchange {
        let message = format!("no answer: {}", case.name());
        self.answer = Err(Error::new(case, message));
        self
    }
}

/// The transport. When dropped, it panics if an expected request is missing.
pub struct Script {
    expected: VecDeque<Exchange>,
    authority: String,
    protocol: Protocol,
    token: Option<String>,
    /// The pauses between the requests, in nanoseconds. It does not wait.
    pauses: Vec<i64>,
    location: &'static Location<'static>,
}

impl Script {
    /// Expects these requests to `localhost:8500` without a token.
    #[track_caller]
    pub fn new(expected: impl IntoIterator<Item = Exchange>) -> Script {
        Script {
            expected: expected.into_iter().collect(),
            authority: "localhost:8500".into(),
            protocol: Protocol::Http,
            token: None,
            pauses: Vec::new(),
            location: Location::caller(),
        }
    }

    /// Expects the requests at this authority instead.
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

    fn milliseconds(&self) -> Vec<i64> {
        self.pauses.iter().map(|pause| pause / 1_000_000).collect()
    }
}

impl Transport for Script {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        let location = self.location;
        let Some(expected) = self.expected.pop_front() else { panic!("{location}: unexpected request: {request:#?}") };
        let location = expected.location;
        let body = String::from_utf8_lossy(&request.body);
        let found = (request.method, request.path_and_query.as_str(), body.as_ref());
        let expected_request = (expected.method, expected.path_and_query.as_str(), expected.body.as_str());
        assert_eq!(found, expected_request, "{location}: a different request is expected");
        assert_eq!((request.protocol, &request.authority), (self.protocol, &self.authority), "{location}");
        assert_eq!(request.token.as_ref().map(|token| token.secret()), self.token.as_deref(), "{location}: the token");
        let mut answer = expected.answer;
        // The others stay with the host.
        if let Ok(response) = &mut answer {
            response.headers.retain(|(name, _)| request.headers.contains(name));
        }
        answer
    }

    fn pause(&mut self, longest: i64) -> bool {
        self.pauses.push(longest);
        false
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        if let (Some(missing), false) = (self.expected.front(), std::thread::panicking()) {
            panic!("{}: this request is missing: {:?} {}", missing.location, missing.method, missing.path_and_query);
        }
    }
}

/// Parses the options and applies them, with exactly these requests. Each must carry the token of
/// the options.
#[track_caller]
pub fn apply(options: Value, expected: impl IntoIterator<Item = Exchange>) -> Result<Outcome, Error> {
    apply_with_pauses(options, expected).0
}

/// Does the same, and returns the pauses too, in milliseconds.
#[track_caller]
pub fn apply_with_pauses(options: Value, expected: impl IntoIterator<Item = Exchange>) -> (Result<Outcome, Error>, Vec<i64>) {
    let mut script = Script::new(expected);
    script.token = options["token"].as_str().map(String::from);
    let plan = Options::from_json(&options.to_string()).and_then(Plan::new);
    let result = plan.and_then(|plan| plan.run(&mut script));
    (result, script.milliseconds())
}

/// Calls an endpoint, with exactly the requests of the script.
#[track_caller]
pub fn call<T>(options: Value, script: Script, endpoint: impl FnOnce(&mut Client) -> Result<T, Error>) -> Result<T, Error> {
    call_with_pauses(options, script, endpoint).0
}

/// Does the same, and returns the pauses too, in milliseconds.
#[track_caller]
pub fn call_with_pauses<T>(
    options: Value,
    mut script: Script,
    endpoint: impl FnOnce(&mut Client) -> Result<T, Error>,
) -> (Result<T, Error>, Vec<i64>) {
    let options = Options::from_json(&options.to_string()).unwrap().resolve();
    let result = endpoint(&mut Client { connection: &Connection::new(&options), transport: &mut script });
    (result, script.milliseconds())
}

/// Returns the id of the session with this number.
pub fn id(number: u64) -> String {
    format!("adf4238a-882b-9ddc-4a9d-{number:012x}")
}

/// Returns a session in Consul's JSON, with the default options except for `fields`. `number` is
/// its index, so higher numbers are younger.
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

/// Expects `GET /v1/agent/self`, and answers with the node `n1`.
#[track_caller]
pub fn own_node() -> Exchange {
    get("/v1/agent/self").gives(json!({"Config": {"Datacenter": "dc1", "NodeName": "n1"}, "Stats": {}}))
}

/// Expects `GET /v1/agent/self`, and denies it.
#[track_caller]
pub fn own_node_denied() -> Exchange {
    get("/v1/agent/self").says(403, "Permission denied: anonymous token lacks permission 'agent:read' on \"n1\".")
}
