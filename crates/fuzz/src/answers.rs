//! Consul's answers in the core.

use consul_session::apply::Plan;
use consul_session::consul::{Client, Connection, Consistency, NewSession, Query, Scope, Verb};
use consul_session::error::{Error, ErrorKind, from_status};
use consul_session::lock::{Contents, Key};
use consul_session::options::{Options, SessionId};
use consul_session::outcome::Outcome;
use consul_session::semaphore::Prefix;
use consul_session::transport::{Method, Request, Response, Transport};
use serde_json::{Value, json};
use std::sync::LazyLock;

/// The token of half of the calls, which no message may show.
const TOKEN: &str = "0f7c2d3e-b1a5-4c96-8d7f-e2a94b6c1d05";

/// The most requests of one call.
const MAX_REQUESTS: usize = 400;

/// Answers of Consul and of what is before it, and whether a change may have happened.
const FAILURES: &[(u16, &str, bool)] = &[
    (400, "Missing request body", false),
    (400, "Bad request: Enterprise feature", false),
    (400, "the header X-Consul-Token: {token} is not valid", false),
    (401, "", false),
    (403, "Permission denied: token with AccessorID 'x' lacks permission 'session:write' on \"n1\"", false),
    (403, "ACL not found", false),
    (404, "Session id 'adf4238a-882b-9ddc-4a9d-000000000000' not found", false),
    (404, "", false),
    (405, "method PUT not allowed", false),
    (413, "Request body too large", false),
    (429, "rate limit exceeded, try again later or against a different server", false),
    (500, "No cluster leader", false),
    (500, "rpc error making call: rpc error making call: No cluster leader", false),
    (500, "rpc error getting client: failed to get conn: dial tcp 10.0.0.1:8300: i/o timeout", false),
    (500, "rpc error making call: node is not the leader", false),
    (500, "rpc error making call: leadership transfer in progress", false),
    (500, "Missing node registration", false),
    (500, "rpc error making call: Missing check 'web' registration", false),
    (500, "Check 'web' is in critical state", false),
    (500, "No path to datacenter", false),
    (503, "no healthy upstream", false),
    (500, "rpc error making call: EOF", true),
    (500, "rpc error making call: leadership lost while committing log", true),
    (500, "rpc error making call: i/o deadline reached", true),
    (500, "rpc error making call: stream closed, token {token}", true),
    (500, "raft apply failed: no space left on device", true),
    (500, "unexpected EOF", true),
    (502, "", true),
    (502, "<html><h1>Bad Gateway</h1></html>", true),
    (503, "upstream request timeout", true),
    (504, "<html><h1>Gateway Timeout</h1></html>", true),
];

/// What a call asks for.
enum Call {
    Apply(Box<Plan>),
    Renew,
    Create(NewSession),
    Lock(Verb),
    AcquireSlot,
    ReleaseSlot,
    Holder,
    Semaphore,
    MayRead,
    OwnNode,
    Sessions(Scope, Query),
}

struct Case {
    call: Call,
    connection: Connection,
    is_dry: bool,
    is_read: bool,
    /// Whether a session that is not seen is destroyed, without a word about it.
    destroys_unseen: bool,
}

static CASES: LazyLock<Vec<Case>> = LazyLock::new(cases);

/// Returns the session id with this number.
fn id(number: u8) -> String {
    format!("adf4238a-882b-9ddc-4a9d-{:012x}", number % 8)
}

fn cases() -> Vec<Case> {
    let wishes = [
        json!({}),
        json!({"delay": "20s"}),
        json!({"ttl": "30s", "behavior": "delete"}),
        json!({"checks": ["web"]}),
        json!({"node_checks": [], "service_checks": ["web"]}),
    ];
    let mut all = Vec::new();
    for wish in &wishes {
        for on_mismatch in ["fail", "replace"] {
            for place in [json!({}), json!({"node": "n1"})] {
                all.push(with(with(json!({"name": "web", "on_mismatch": on_mismatch}), &place), wish));
            }
        }
        all.push(with(json!({"id": id(0)}), wish));
        all.push(with(json!({"id": id(0), "name": "web", "node": "n1"}), wish));
        all.push(wish.clone());
    }
    for given in [
        json!({"id": id(0)}),
        json!({"id": id(0), "name": "web"}),
        json!({"name": "web"}),
        json!({"name": "web", "node": "n1"}),
    ] {
        all.push(with(json!({"state": "absent"}), &given));
    }
    for given in
        [json!({"state": "info", "id": id(0)}), json!({"state": "node", "node": "n1"}), json!({"state": "list", "name": "web"})]
    {
        all.push(given);
    }
    let dry = all.iter().map(|options| with(options.clone(), &json!({"dry_run": true}))).collect::<Vec<_>>();
    all.extend(dry);
    let mut cases: Vec<Case> =
        all.iter().flat_map(|given| [given.clone(), with(given.clone(), &json!({"token": TOKEN}))]).map(applied).collect();
    for given in [json!({}), json!({"token": TOKEN}), json!({"datacenter": "dc2", "namespace": "team"})] {
        let options = options(&given).resolve();
        let blocking = Query { consistency: Consistency::Stale, index: 7, wait: Some(1_000_000_000) };
        let calls = [
            Call::Renew,
            Call::Create(NewSession::new(&options)),
            Call::Lock(Verb::Lock),
            Call::Lock(Verb::Unlock),
            Call::AcquireSlot,
            Call::ReleaseSlot,
            Call::Holder,
            Call::Semaphore,
            Call::MayRead,
            Call::OwnNode,
            Call::Sessions(Scope::All, Query::default()),
            Call::Sessions(Scope::Node("n1".into()), blocking),
        ];
        cases.extend(calls.into_iter().map(|call| Case {
            connection: Connection::new(&options),
            is_dry: false,
            is_read: matches!(call, Call::Holder | Call::Semaphore | Call::MayRead | Call::OwnNode | Call::Sessions(..)),
            destroys_unseen: false,
            call,
        }));
    }
    assert!(cases.len() <= 256, "a byte chooses the case, and there are {}", cases.len());
    cases
}

fn with(mut options: Value, more: &Value) -> Value {
    for (name, value) in more.as_object().into_iter().flatten() {
        options[name] = value.clone();
    }
    options
}

fn options(given: &Value) -> Options {
    Options::from_json(&given.to_string()).unwrap_or_else(|error| panic!("{given}: {error}"))
}

fn applied(given: Value) -> Case {
    let parsed = options(&given);
    let state = given["state"].as_str().unwrap_or("present");
    Case {
        connection: Connection::new(&parsed.clone().resolve()),
        is_dry: given["dry_run"] == true,
        is_read: ["info", "node", "list"].contains(&state),
        destroys_unseen: state == "absent" && given["id"].is_string(),
        call: Call::Apply(Box::new(Plan::new(parsed).unwrap_or_else(|error| panic!("{given}: {error}")))),
    }
}

/// Bytes that are read one after the other; 0 after the last one.
struct Bytes<'a>(&'a [u8]);

impl<'a> Bytes<'a> {
    fn next(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    fn take(&mut self, count: usize) -> &'a [u8] {
        let (taken, rest) = self.0.split_at(count.min(self.0.len()));
        self.0 = rest;
        taken
    }
}

/// What the requests of a call have changed.
#[derive(Default)]
struct Changes {
    sent: usize,
    puts: usize,
    /// The sessions that were created, and are there at the last look.
    created: Vec<String>,
    /// The sessions that were created, and were gone at a look.
    vanished: Vec<String>,
    destroyed: Vec<String>,
    maybe_created: bool,
    /// Sessions whose destruction got no clear answer, and was not repeated with one.
    maybe_destroyed: Vec<String>,
    other: bool,
    maybe_other: bool,
}

impl Changes {
    fn any(&self) -> bool {
        let certain = [&self.created, &self.vanished, &self.destroyed].iter().any(|ids| !ids.is_empty()) || self.other;
        certain || self.maybe_created || !self.maybe_destroyed.is_empty() || self.maybe_other
    }

    fn note(&mut self, request: &Request, result: &Result<Response, Error>, label: Option<bool>) {
        self.sent += 1;
        let path = request.path_and_query.split('?').next().unwrap_or_default();
        if request.method != Method::Put {
            let is_look = path == "/v1/session/list" || path.starts_with("/v1/session/node/");
            if let Ok(Response { status: 200, body, .. }) = result
                && let (true, Ok(Value::Array(seen))) = (is_look, serde_json::from_slice(body))
            {
                // What a consistent read does not show any more is gone.
                let (left, gone) = self
                    .created
                    .drain(..)
                    .partition(|id| seen.iter().any(|session| session["ID"] == **id && session["Name"] == "web"));
                self.created = left;
                self.vanished.extend::<Vec<String>>(gone);
            }
            return;
        }
        self.puts += 1;
        let destroyed = path.strip_prefix("/v1/session/destroy/").map(str::to_owned);
        let is_creation = path == "/v1/session/create";
        // Whether the change has happened, or may have.
        let (done, maybe) = match result {
            Err(_) => (false, label.unwrap_or(true)),
            // The session did not exist.
            Ok(Response { status: 200, body, .. }) if path.starts_with("/v1/session/renew/") && is_empty_list(body) => return,
            Ok(response) if response.status == 200 => {
                let done = match (serde_json::from_slice::<Value>(&response.body), &destroyed) {
                    (Ok(Value::Bool(true)), Some(_)) => true,
                    (Ok(json), None) if is_creation => {
                        let id = json["ID"].as_str().and_then(SessionId::parse);
                        self.created.extend(id.as_ref().map(|id| id.as_str().to_owned()));
                        id.is_some()
                    }
                    _ => false,
                };
                (done, !done)
            }
            // The transaction was rolled back.
            Ok(response) if response.status == 409 && path == "/v1/txn" => (false, false),
            Ok(response) => (false, label.unwrap_or_else(|| from_status(response.status, &response.body).is_ambiguous())),
        };
        match destroyed {
            Some(id) if done => {
                self.maybe_destroyed.retain(|other| *other != id);
                self.destroyed.push(id);
            }
            Some(id) if maybe && !self.destroyed.contains(&id) => self.maybe_destroyed.push(id),
            Some(_) => {}
            None if is_creation => self.maybe_created |= maybe,
            None => {
                let is_success = result.as_ref().is_ok_and(|response| response.status == 200);
                self.other |= is_success;
                self.maybe_other |= maybe && !is_success;
            }
        }
    }
}

fn is_empty_list(body: &[u8]) -> bool {
    matches!(serde_json::from_slice(body), Ok(Value::Array(items)) if items.is_empty())
}

/// Answers each request from the bytes, and keeps what the requests have changed.
struct Script<'a> {
    bytes: Bytes<'a>,
    changes: Changes,
    log: Option<Vec<String>>,
}

impl Transport for Script<'_> {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        assert!(self.changes.sent < MAX_REQUESTS, "the call does not end");
        let (result, label) = self.answer(request);
        self.changes.note(request, &result, label);
        if let Some(log) = &mut self.log {
            log.push(format!("{:?} {} -> {result:?}", request.method, request.path_and_query));
        }
        result
    }

    fn pause(&mut self, _: i64) -> bool {
        // Without bytes no answer changes any more.
        !self.bytes.0.is_empty() && !self.bytes.next().is_multiple_of(4)
    }
}

impl Script<'_> {
    /// Returns the next answer and, for one whose meaning is known, whether a change may have happened.
    fn answer(&mut self, request: &Request) -> (Result<Response, Error>, Option<bool>) {
        let respond = |status: u16, body: String| Ok(Response { status, headers: Vec::new(), body: body.into_bytes() });
        // A server can only repeat a token that it was sent.
        let token = request.token.as_ref().map_or("(none)", |token| token.secret());
        match self.bytes.next() {
            choice @ 0..=7 => {
                let (kind, may_be_sent) = match choice {
                    0 => (ErrorKind::Unreachable, false),
                    1 => (ErrorKind::DeniedByHost, false),
                    2 => (ErrorKind::Tls, false),
                    3 => (ErrorKind::Unsupported, false),
                    4 => (ErrorKind::Timeout, true),
                    5 => (ErrorKind::InvalidResponse, true),
                    6 => (ErrorKind::ResponseTooLarge, true),
                    _ => (ErrorKind::Other, true),
                };
                let message = format!("no answer: {}", kind.name());
                (Err(Error::new(kind, message)), Some(may_be_sent))
            }
            8..=63 => {
                let (status, body, may_be_done) = FAILURES[usize::from(self.bytes.next()) % FAILURES.len()];
                (respond(status, body.replace("{token}", token)), Some(may_be_done))
            }
            64..=95 => {
                const STATUSES: [u16; 16] = [200, 200, 200, 200, 201, 204, 301, 400, 403, 404, 409, 429, 500, 502, 503, 599];
                let status = STATUSES[usize::from(self.bytes.next() % 16)];
                let headers = self.headers(request);
                let length = usize::from(self.bytes.next());
                let mut body = Vec::new();
                for byte in self.bytes.take(length) {
                    match byte {
                        1 => body.extend_from_slice(token.as_bytes()),
                        // Long white space, which is left out where the body is quoted.
                        2 => body.extend_from_slice(&[b' '; 97]),
                        3 => body.extend_from_slice("é".repeat(48).as_bytes()),
                        // So that only a repeated token has the beginning of one.
                        b'-' => body.push(b'_'),
                        // So that only the core says that nothing was changed.
                        b'w' => body.push(b'W'),
                        byte => body.push(*byte),
                    }
                }
                (Ok(Response { status, headers, body }), None)
            }
            _ => {
                let headers = self.headers(request);
                let (status, body) = self.fitting(request);
                (Ok(Response { status, headers, body: body.into_bytes() }), None)
            }
        }
    }

    /// Returns those of the headers that the request asks for.
    fn headers(&mut self, request: &Request) -> Vec<(&'static str, String)> {
        let choice = self.bytes.next();
        let value = |(at, name): (usize, &&'static str)| {
            let value = match (*name, choice >> (2 * at) & 3) {
                (_, 0) => return None,
                ("x-consul-index", 1) => "12",
                ("x-consul-index", 2) => "-1",
                ("x-consul-results-filtered-by-acls", 1) => "true",
                ("x-consul-default-acl-policy", 1) => "deny",
                ("x-consul-default-acl-policy", 2) => "allow",
                _ => "odd",
            };
            Some((*name, value.to_owned()))
        };
        request.headers.iter().enumerate().filter_map(value).collect()
    }

    /// Returns an answer that Consul gives to such a request.
    fn fitting(&mut self, request: &Request) -> (u16, String) {
        let path = request.path_and_query.split('?').next().unwrap_or_default();
        let choice = self.bytes.next();
        let endpoint = path.trim_start_matches("/v1/");
        if endpoint == "session/create" {
            (200, json!({"ID": id(choice)}).to_string())
        } else if endpoint.starts_with("session/destroy/") {
            (200, if choice.is_multiple_of(16) { "false" } else { "true" }.to_owned())
        } else if endpoint.starts_with("session/") {
            let sessions: Vec<String> = (0..choice % 5).map(|_| self.session()).collect();
            (200, format!("[{}]", sessions.join(",")))
        } else if endpoint == "agent/self" {
            let name = ["n1", "n2", "N1", ""][usize::from(choice % 4)];
            (200, json!({"Config": {"NodeName": name}}).to_string())
        } else if endpoint == "internal/acl/authorize" {
            (200, json!([{"Allow": choice.is_multiple_of(2)}]).to_string())
        } else if endpoint == "txn" {
            self.transaction(choice)
        } else {
            self.keys(choice)
        }
    }

    /// Returns a session in Consul's JSON.
    fn session(&mut self) -> String {
        let (number, properties, index) = (self.bytes.next(), self.bytes.next(), self.bytes.next());
        let pick = |shift: u8| usize::from(properties >> shift & 3);
        let id = if number == 255 { "not-a-uuid".to_owned() } else { id(number) };
        let name = ["web", "web", "web", "other"][usize::from(number >> 3 & 3)];
        let node = ["n1", "n1", "N1", "n2"][usize::from(number >> 5 & 3)];
        format!(
            r#"{{"ID":"{id}","Name":"{name}","Node":"{node}","LockDelay":{},"Behavior":"{}","TTL":"{}","NodeChecks":{},"CreateIndex":{index}}}"#,
            [15_000_000_000_i64, 20_000_000_000, -1, i64::MAX][pick(0)],
            ["release", "delete", "release", "odd"][pick(2)],
            ["", "30s", "0s", "odd"][pick(4)],
            [r#"["serfHealth"]"#, "[]", r#"["serfHealth","web"]"#, "null"][pick(6)],
        )
    }

    fn transaction(&mut self, choice: u8) -> (u16, String) {
        const REASONS: [&str; 6] = [
            "failed to lock key \"web\", lock is already held",
            "failed to unlock key \"web\", lock isn't held, or is held by another session",
            "key \"web\" lock failed due to lock delay",
            "invalid session \"adf4238a-882b-9ddc-4a9d-000000000000\"",
            "failed to set key \"web/.lock\", index is stale",
            "other",
        ];
        match REASONS.get(usize::from(choice % 12)) {
            Some(reason) => (409, json!({"Results": null, "Errors": [{"OpIndex": 0, "What": reason}]}).to_string()),
            None if choice % 12 == 11 => (200, "{}".to_owned()),
            None => (
                200,
                json!({"Results": [{"KV": {"Key": "web", "LockIndex": 1, "Session": id(choice)}}], "Errors": null}).to_string(),
            ),
        }
    }

    fn keys(&mut self, choice: u8) -> (u16, String) {
        // The flags of a semaphore, in Consul's JSON.
        const FLAGS: u64 = 0xe0f6_9a2b_aa41_4de0;
        if choice.is_multiple_of(4) {
            return (404, String::new());
        }
        let holders = choice >> 2;
        let value = [
            json!({"Limit": 3, "Holders": (0..holders % 4).map(|number| (id(number), Value::Bool(true))).collect::<serde_json::Map<_, _>>()})
                .to_string(),
            json!({"Limit": 2, "Holders": null}).to_string(),
            String::new(),
            "odd".to_owned(),
        ];
        let value = base64(value[usize::from(holders >> 4)].as_bytes());
        let flags = if holders % 8 == 7 { 0 } else { FLAGS };
        let mut keys =
            vec![json!({"Key": "web/.lock", "Value": value, "Flags": flags, "ModifyIndex": holders, "Session": null})];
        keys.extend(
            (0..holders % 4).map(|number| json!({"Key": format!("web/{}", id(number)), "Session": id(number), "Flags": FLAGS})),
        );
        (200, Value::from(keys).to_string())
    }
}

/// Returns the bytes in base64, padded.
fn base64(bytes: &[u8]) -> String {
    const DIGITS: &[u8; 64] = b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    let mut text = String::new();
    for chunk in bytes.chunks(3) {
        let three = chunk.iter().chain([0, 0].iter()).take(3).fold(0, |number, byte| number << 8 | usize::from(*byte));
        for digit in 0..4 {
            let digit = (digit <= chunk.len()).then(|| char::from(DIGITS[three >> (18 - 6 * digit) & 63]));
            text.push(digit.unwrap_or('='));
        }
    }
    text
}

/// Makes the call that the first byte chooses, and answers its requests from the others. It ends,
/// its error shows no token, and what it says has changed is what its requests can have changed.
pub fn answers(data: &[u8]) {
    let mut bytes = Bytes(data);
    let case = &CASES[usize::from(bytes.next()) % CASES.len()];
    let run = |log| {
        let mut script = Script { bytes: Bytes(bytes.0), changes: Changes::default(), log };
        let result = made(case, &mut script);
        (result, script)
    };
    let (result, Script { changes, .. }) = run(None);
    let problem = match &result {
        Ok(outcome) => check_outcome(case, outcome.as_ref(), &changes),
        Err(error) => check_error(error, &changes),
    };
    if let Err(problem) = problem {
        let (_, Script { log, .. }) = run(Some(Vec::new()));
        panic!("{problem}\n{}\n{result:#?}", log.unwrap_or_default().join("\n"));
    }
}

fn made(case: &Case, script: &mut Script) -> Result<Option<Outcome>, Error> {
    if let Call::Apply(plan) = &case.call {
        return plan.run(script).map(Some);
    }
    let (Ok(key), Ok(prefix), Some(session)) = (Key::parse("web"), Prefix::parse("web"), SessionId::parse(&id(0))) else {
        unreachable!("these are valid")
    };
    let contents = Contents { value: Some(b"value".to_vec()), flags: None };
    let mut client = Client { connection: &case.connection, transport: script };
    match &case.call {
        Call::Apply(_) => Ok(()),
        Call::Renew => client.renew(&session).map(drop),
        // Its callers decide what an ambiguous error means.
        Call::Create(new) => client.create(new).map(drop).map_err(|error| error.into_outcome_unknown("the creation")),
        Call::Lock(verb) => client.lock(*verb, &key, &session, Some(&contents)).map(drop),
        Call::AcquireSlot => client.acquire_slot(&prefix, &session, 3, b"value").map(drop),
        Call::ReleaseSlot => client.release_slot(&prefix, &session).map(drop),
        Call::Holder => client.holder(&key, &Query::CONSISTENT).map(drop),
        Call::Semaphore => client.semaphore(&prefix, &Query::default()).map(drop),
        Call::MayRead => client.may_read("n1").map(drop),
        Call::OwnNode => client.own_node().map(drop),
        Call::Sessions(scope, query) => client.sessions(scope, query).map(drop),
    }
    .map(|()| None)
}

fn check_outcome(case: &Case, outcome: Option<&Outcome>, changes: &Changes) -> Result<(), String> {
    let is_true = |condition: bool, problem: &str| if condition { Ok(()) } else { Err(problem.to_owned()) };
    is_true(!(case.is_dry || case.is_read) || changes.puts == 0, "a call that only reads has sent a change")?;
    let Some(outcome) = outcome else { return Ok(()) };
    is_true(serde_json::from_str::<Value>(&outcome.to_json()).is_ok(), "the outcome is not JSON")?;
    let tells = outcome.notes.iter().any(|note| note.contains("was lost"));
    is_true(!changes.maybe_created || tells, "no note says that an answer was lost")?;
    is_true(changes.maybe_destroyed.is_empty(), "a success, although a destruction is not certain")?;
    let is_gone = |id: &String| changes.destroyed.contains(id);
    let is_new = |id: &String| changes.created.contains(id) || changes.vanished.contains(id);
    if !outcome.changed {
        is_true(changes.created.iter().all(is_gone), "unchanged, although a session was created")?;
        is_true(case.destroys_unseen || changes.destroyed.iter().all(is_new), "unchanged, although a session was destroyed")?;
    }
    is_true(case.is_dry || outcome.destroyed.iter().all(is_gone), "names a session that it did not destroy")?;
    let is_named = |id: &String| outcome.destroyed.contains(id) || is_new(id);
    is_true(case.destroys_unseen || changes.destroyed.iter().all(is_named), "does not name a session that it destroyed")
}

fn check_error(error: &Error, changes: &Changes) -> Result<(), String> {
    let message = &error.message;
    let is_true = |condition: bool, problem: &str| if condition { Ok(()) } else { Err(problem.to_owned()) };
    is_true(serde_json::from_str::<Value>(&error.to_json()).is_ok(), "the error is not JSON")?;
    is_true(!message.contains(&TOKEN[..9]), "the message shows the token")?;
    if error.kind == ErrorKind::OutcomeUnknown {
        return is_true(changes.any(), "unknown, although no request can have changed anything");
    }
    is_true(!changes.maybe_created, "a session may have been created, and the error does not say so")?;
    is_true(changes.maybe_destroyed.is_empty(), "a session may have been destroyed, and the error does not say so")?;
    is_true(!changes.maybe_other && !changes.other, "something may have changed, and the error does not say so")?;
    let is_gone = |id: &String| changes.destroyed.contains(id);
    let is_new = |id: &String| changes.created.contains(id) || changes.vanished.contains(id);
    for id in changes.created.iter().filter(|id| !is_gone(id)).chain(changes.destroyed.iter().filter(|id| !is_new(id))) {
        is_true(message.contains(id.as_str()), "the error does not name a session that the call created or destroyed")?;
    }
    let claims_nothing = message.contains("nothing was changed") || message.contains("nothing was destroyed");
    is_true(!claims_nothing || !changes.any(), "nothing was changed, says the error, and something was")
}
