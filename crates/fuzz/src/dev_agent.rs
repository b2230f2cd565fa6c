//! The dev agent beside a real Consul.

use consul_session_dev_agent::Agent;
use serde_json::Value;
use std::collections::BTreeSet;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::TcpStream;
use std::sync::{LazyLock, Mutex, PoisonError};
use test_support::api::Api;
use test_support::consul::{Consul, Kind};

/// The name of the own node of both agents.
const NODE: &str = "agent-node";

/// The most requests of one input.
const MAX_REQUESTS: usize = 24;

/// Header with Raft's index, and the fields that hold it.
const INDEX: &str = "x-consul-index";
const INDEX_FIELDS: [&str; 2] = ["CreateIndex", "ModifyIndex"];

static REAL: LazyLock<Mutex<Real>> = LazyLock::new(|| {
    let consul = Consul::start(Kind::Plain).unwrap_or_else(|error| panic!("{error:?}"));
    Mutex::new(Real { api: consul.api(), connection: None, inputs: 0, _consul: consul })
});

/// A real Consul that all inputs share.
struct Real {
    api: Api,
    connection: Option<BufReader<TcpStream>>,
    /// Each input has keys of its own, since a lock delay outlives its key.
    inputs: u64,
    /// Killed when this is dropped.
    _consul: Consul,
}

/// A response, as far as both agents have it.
#[derive(Clone, Debug, PartialEq)]
struct Answer {
    status: u16,
    /// Those that describe the answer.
    headers: BTreeSet<(String, String)>,
    body: Body,
}

#[derive(Clone, Debug, PartialEq)]
enum Body {
    Json(Value),
    Text(String),
}

/// A request, whose path and body have `{0}`, `{1}`, … for the sessions created so far.
#[derive(Debug)]
struct Request {
    method: &'static str,
    path: String,
    body: String,
}

/// Sends the same requests to the dev agent and to a real Consul, and compares the answers, apart
/// from the ids of sessions and Raft's indexes, of which only the order counts.
///
/// A request that the dev agent refuses as not implemented is left out.
///
/// # Panics
///
/// Also panics if no Consul is there: see [`Consul::start`].
pub fn dev_agent(data: &[u8]) {
    let mut real = REAL.lock().unwrap_or_else(PoisonError::into_inner);
    real.inputs += 1;
    let prefix = format!("f{:08}", real.inputs);
    let mut bytes = Bytes(data);
    let requests: Vec<Request> =
        std::iter::from_fn(|| (!bytes.0.is_empty()).then(|| request(&mut bytes, &prefix))).take(MAX_REQUESTS).collect();
    let mut dev = Agent::new(NODE);
    real.clean();
    let mut left = Side::new(baseline(&prefix, |request| real.ask(request)));
    let mut right = Side::new(baseline(&prefix, |request| ask(&mut dev, request)));
    let mut log = String::new();
    for request in &requests {
        let at_dev = ask(&mut dev, &right.fill(request));
        if at_dev.status == 501 {
            continue;
        }
        let at_real = real.ask(&left.fill(request));
        log += &format!("{} {} {}\n", request.method, request.path, request.body);
        left.learn(request, at_real);
        right.learn(request, at_dev);
    }
    let (left, right) = (left.compared(), right.compared());
    for (number, (left, right)) in left.iter().zip(&right).enumerate() {
        assert_eq!(left, right, "request {number}, Consul's answer on the left:\n{log}");
    }
}

/// Writes and deletes a key, and returns Raft's index after that. Every later change has a higher one.
fn baseline(prefix: &str, mut ask: impl FnMut(&Request) -> Answer) -> u64 {
    let mut send = |method, path: String| index_of(&ask(&Request { method, path, body: String::new() }));
    let key = format!("/v1/kv/{prefix}/base");
    send("PUT", key.clone());
    let written = send("GET", key);
    send("DELETE", "/v1/kv/?recurse".into());
    let deleted = send("GET", "/v1/kv/?recurse".into());
    written.max(deleted).unwrap_or_else(|| panic!("no index of {prefix}/base"))
}

fn index_of(answer: &Answer) -> Option<u64> {
    answer.headers.iter().find(|(name, _)| name == INDEX)?.1.parse().ok()
}

/// The answers of one agent.
struct Side {
    /// The index before the first request. A lower one says no more than that nothing has changed.
    base: u64,
    sessions: Vec<String>,
    answers: Vec<Answer>,
}

impl Side {
    fn new(base: u64) -> Side {
        Side { base, sessions: Vec::new(), answers: Vec::new() }
    }

    /// Replaces `{0}`, `{1}`, … by the ids of the sessions.
    fn fill(&self, request: &Request) -> Request {
        let fill = |text: &str| {
            let ids = self.sessions.iter().enumerate();
            ids.fold(text.to_owned(), |text, (number, id)| text.replace(&format!("{{{number}}}"), id))
        };
        Request { method: request.method, path: fill(&request.path), body: fill(&request.body) }
    }

    fn learn(&mut self, request: &Request, answer: Answer) {
        if request.path.starts_with("/v1/session/create")
            && let Body::Json(json) = &answer.body
            && let Some(id) = json["ID"].as_str()
        {
            self.sessions.push(id.to_owned());
        }
        self.answers.push(answer);
    }

    /// Returns the answers with numbers for ids, and for each index its rank.
    fn compared(&self) -> Vec<Answer> {
        let mut indexes = BTreeSet::new();
        for answer in &self.answers {
            indexes.extend(index_of(answer));
            if let Body::Json(json) = &answer.body {
                visit(&mut json.clone(), &mut |index| {
                    indexes.insert(index);
                    index
                });
            }
        }
        let rank = |index: u64| if index <= self.base { 0 } else { indexes.range(self.base + 1..=index).count() as u64 };
        let known = |text: &str| {
            let ids = self.sessions.iter().enumerate();
            ids.fold(text.to_owned(), |text, (number, id)| text.replace(id.as_str(), &format!("{{{number}}}")))
        };
        let answer = |answer: &Answer| Answer {
            headers: answer
                .headers
                .iter()
                .map(|(name, value)| match (name.as_str(), value.parse()) {
                    (INDEX, Ok(index)) => (name.clone(), rank(index).to_string()),
                    _ => (name.clone(), known(value)),
                })
                .collect(),
            body: match &answer.body {
                Body::Text(text) => Body::Text(known(text)),
                Body::Json(json) => {
                    let mut json: Value = serde_json::from_str(&known(&json.to_string())).unwrap_or_default();
                    visit(&mut json, &mut |index| rank(index));
                    // In the order of their ids, which are random.
                    if let Value::Array(items) = &mut json {
                        items.sort_by_key(Value::to_string);
                    }
                    Body::Json(json)
                }
            },
            ..answer.clone()
        };
        self.answers.iter().map(answer).collect()
    }
}

/// Replaces each index in a JSON value.
fn visit(json: &mut Value, replace: &mut dyn FnMut(u64) -> u64) {
    match json {
        Value::Array(items) => items.iter_mut().for_each(|item| visit(item, replace)),
        Value::Object(fields) => {
            for (name, value) in fields.iter_mut() {
                match value.as_u64() {
                    Some(index) if INDEX_FIELDS.contains(&name.as_str()) => *value = replace(index).into(),
                    _ => visit(value, replace),
                }
            }
        }
        _ => {}
    }
}

/// Returns an answer as it is compared: without the charset of JSON, which the versions of Consul name
/// in different answers.
fn answer(status: u16, headers: impl Iterator<Item = (String, String)>, body: &[u8]) -> Answer {
    let is_relevant = |name: &str| ["allow", "content-type", "location", "vary", INDEX].contains(&name);
    let headers = headers.filter(|(name, _)| is_relevant(name));
    let headers = headers.map(|(name, value)| (name, value.replace("; charset=utf-8", "")));
    let text = String::from_utf8_lossy(body).into_owned();
    let body = match serde_json::from_str(&text) {
        Ok(mut json) => {
            without_own_node(&mut json);
            Body::Json(json)
        }
        Err(_) => Body::Text(text),
    };
    Answer { status, headers: headers.collect(), body }
}

/// Removes what is known of the agent's own node, which differs: versions, addresses and times.
fn without_own_node(json: &mut Value) {
    if let Value::Array(items) = json {
        // Sessions of it stay, which alone have a lock delay.
        items.retain(|item| item["Node"] != NODE || !item["LockDelay"].is_null());
    }
}

fn ask(agent: &mut Agent, request: &Request) -> Answer {
    let built = http::Request::builder()
        .method(request.method)
        .uri(&request.path)
        .header("content-length", request.body.len())
        .body(request.body.clone().into_bytes().into())
        .unwrap_or_else(|error| panic!("{request:?}: {error}"));
    let response = agent.answer(&built);
    let headers = response.headers().iter();
    let headers =
        headers.map(|(name, value)| (name.as_str().to_owned(), String::from_utf8_lossy(value.as_bytes()).into_owned()));
    answer(response.status().as_u16(), headers, response.body())
}

impl Real {
    /// Removes the sessions and nodes that the input before has left.
    fn clean(&mut self) {
        let get = |path: &str| self.api.get(path).unwrap_or_else(|error| panic!("{error:?}"));
        let mut requests = Vec::new();
        for session in get("/v1/session/list").as_array().into_iter().flatten() {
            requests.push((format!("/v1/session/destroy/{}", session["ID"].as_str().unwrap_or_default()), String::new()));
        }
        for node in get("/v1/catalog/nodes").as_array().into_iter().flatten().filter(|node| node["Node"] != NODE) {
            requests.push(("/v1/catalog/deregister".to_owned(), format!(r#"{{"Node":{}}}"#, node["Node"])));
        }
        for (path, body) in requests {
            self.ask(&Request { method: "PUT", path, body });
        }
    }

    fn ask(&mut self, request: &Request) -> Answer {
        // Consul closes connections that are idle, and after some mistakes.
        if self.connection.is_some()
            && let Ok(answer) = self.exchange(request)
        {
            return answer;
        }
        let stream = TcpStream::connect(self.api.address).unwrap_or_else(|error| panic!("no Consul: {error}"));
        self.connection = Some(BufReader::new(stream));
        self.exchange(request).unwrap_or_else(|error| panic!("{request:?}: {error}"))
    }

    fn exchange(&mut self, request: &Request) -> std::io::Result<Answer> {
        let Some(stream) = &mut self.connection else { return Err(std::io::ErrorKind::NotConnected.into()) };
        let Request { method, path, body } = request;
        let head = format!("{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Length: {}\r\n\r\n{body}", body.len());
        stream.get_mut().write_all(head.as_bytes())?;
        let mut line = String::new();
        stream.read_line(&mut line)?;
        let status = line.split(' ').nth(1).and_then(|status| status.parse().ok());
        let status = status.ok_or(std::io::ErrorKind::InvalidData)?;
        let (mut headers, mut length, mut is_chunked) = (Vec::new(), 0, false);
        loop {
            line.clear();
            if stream.read_line(&mut line)? == 0 {
                return Err(std::io::ErrorKind::UnexpectedEof.into());
            }
            let Some((name, value)) = line.trim_end().split_once(": ") else { break };
            let name = name.to_ascii_lowercase();
            match name.as_str() {
                "content-length" => length = value.parse().map_err(|_| std::io::ErrorKind::InvalidData)?,
                "transfer-encoding" => is_chunked = true,
                _ => {}
            }
            headers.push((name, value.to_owned()));
        }
        let mut body = vec![0; length];
        if is_chunked {
            loop {
                line.clear();
                stream.read_line(&mut line)?;
                let length = usize::from_str_radix(line.trim(), 16).map_err(|_| std::io::ErrorKind::InvalidData)?;
                let mut chunk = vec![0; length + 2];
                stream.read_exact(&mut chunk)?;
                body.extend_from_slice(chunk.get(..length).unwrap_or_default());
                if length == 0 {
                    break;
                }
            }
        } else {
            stream.read_exact(&mut body)?;
        }
        if headers.iter().any(|(name, value)| name == "connection" && value == "close") {
            self.connection = None;
        }
        Ok(answer(status, headers.into_iter(), &body))
    }
}

/// Bytes that are read one after the other; 0 after the last one.
struct Bytes<'a>(&'a [u8]);

impl Bytes<'_> {
    fn next(&mut self) -> u8 {
        let (first, rest) = self.0.split_first().map_or((0, self.0), |(first, rest)| (*first, rest));
        self.0 = rest;
        first
    }

    fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[usize::from(self.next()) % choices.len()]
    }
}

/// Makes the next request.
fn request(bytes: &mut Bytes, prefix: &str) -> Request {
    let put = |path: String, body: String| Request { method: "PUT", path, body };
    let get = |path: String| Request { method: "GET", path, body: String::new() };
    match bytes.next() % 16 {
        0..=2 => put(format!("/v1/session/create{}", query(bytes)), json(bytes, session)),
        3 => put(format!("/v1/session/destroy/{}{}", id(bytes), query(bytes)), String::new()),
        4 => put(format!("/v1/session/renew/{}{}", id(bytes), query(bytes)), String::new()),
        5 => get(format!("/v1/session/info/{}{}", id(bytes), query(bytes))),
        6 => get(format!("/v1/session/node/{}{}", node(bytes), query(bytes))),
        7 => get(format!("/v1/session/list{}", query(bytes))),
        8 => {
            let query =
                bytes.pick(&["", "?recurse", "?recurse&consistent", "?stale", "?recurse=x&dc=dc1", "?cas=1", "?index=x"]);
            get(format!("/v1/kv/{}{query}", key(bytes, prefix)))
        }
        9 | 10 => {
            let id = id(bytes);
            let query = match bytes.next() % 12 {
                0 => String::new(),
                1..=3 => format!("?acquire={id}"),
                4 | 5 => format!("?release={id}"),
                6 => "?cas=0".to_owned(),
                7 => format!("?cas=0&acquire={id}&flags=7"),
                8 => "?flags=x".to_owned(),
                9 => "?cas=1".to_owned(),
                10 => format!("?acquire={id}&release={id}"),
                _ => "?flags=18446744073709551615".to_owned(),
            };
            put(format!("/v1/kv/{}{query}", key(bytes, prefix)), bytes.pick(&["", "value", "true"]).to_owned())
        }
        11 => {
            let query = bytes.pick(&["", "?recurse", "?cas=0", "?cas=1", "?cas=x", "?recurse&cas=1"]);
            Request { method: "DELETE", path: format!("/v1/kv/{}{query}", key(bytes, prefix)), body: String::new() }
        }
        12 => put(format!("/v1/txn{}", query(bytes)), json(bytes, |bytes| transaction(bytes, prefix))),
        13 => put("/v1/catalog/register".to_owned(), json(bytes, registration)),
        14 => put("/v1/catalog/deregister".to_owned(), json(bytes, deregistration)),
        _ => {
            let path = match bytes.next() % 8 {
                0 | 1 => "/v1/catalog/nodes".to_owned(),
                2..=4 => format!("/v1/health/node/{}", node(bytes)),
                5 => "/v1/session/create".to_owned(),
                6 => "/v1/txn".to_owned(),
                _ => format!("/v1/session/destroy/{}", id(bytes)),
            };
            get(path + &query(bytes))
        }
    }
}

/// Returns a body, now and then with something amiss.
fn json(bytes: &mut Bytes, make: impl Fn(&mut Bytes) -> String) -> String {
    let mut body = make(bytes);
    match bytes.next() {
        250 => body.truncate(body.len() / 2),
        251 => body = body.replace(':', ""),
        252 => body.push('x'),
        253 => body = body.replace('"', ""),
        254 => return bytes.pick(&["null", "[]", "{}", "7", "\"text\"", "[null]", ""]).to_owned(),
        255 => body = body.replace("\"N", "\"n").replace("\"L", "\"l").replace("\"K", "\"k"),
        _ => {}
    }
    body
}

fn query(bytes: &mut Bytes) -> String {
    const QUERIES: [&str; 13] = [
        "?consistent",
        "?stale",
        "?stale&consistent",
        "?dc=dc1",
        "?dc=nope",
        "?dc=",
        "?index=x",
        "?wait=x",
        "?ns=default",
        "?partition=p",
        "?pretty",
        "?x=a+b%2F~",
        "?index=-1",
    ];
    QUERIES.get(usize::from(bytes.next() % 64)).copied().unwrap_or_default().to_owned()
}

/// Returns the id of a session that was created, or of none.
fn id(bytes: &mut Bytes) -> String {
    match bytes.next() % 16 {
        15 => "adf4238a-882b-9ddc-4a9d-5b6758e4159e".to_owned(),
        14 => "nope".to_owned(),
        number => format!("{{{}}}", number % 4),
    }
}

fn node(bytes: &mut Bytes) -> &'static str {
    bytes.pick(&[NODE, "n1", "n1", "n2", "N1", "nope", "Agent-Node"])
}

/// Returns a key that every version of Consul takes as it is.
fn key(bytes: &mut Bytes, prefix: &str) -> String {
    format!("{prefix}/{}", bytes.pick(&["a", "a", "a/b", "a/", "b", "c.d", ""]))
}

/// Returns the fields that the bytes choose, as a JSON object.
fn object(bytes: &mut Bytes, fields: &[(&str, &[&str])]) -> String {
    let mut chosen = Vec::new();
    for (name, values) in fields {
        // A field is absent as often as all its values are.
        if let Some(value) = values.get(usize::from(bytes.next()) % (2 * values.len())) {
            chosen.push(format!("\"{name}\":{value}"));
        }
    }
    format!("{{{}}}", chosen.join(","))
}

fn session(bytes: &mut Bytes) -> String {
    object(
        bytes,
        &[
            ("Name", &["\"web\"", "\"\"", "null", "7", "\"a\\u0000b\""]),
            ("Node", &["\"n1\"", "\"n2\"", "\"N1\"", "\"agent-node\"", "\"nope\"", "\"\"", "null"]),
            // None that ends meanwhile: the dev agent's clock stands still.
            (
                "LockDelay",
                &[
                    "\"0s\"",
                    "\"15s\"",
                    "0",
                    "16000000000",
                    "999",
                    "\"1m30s\"",
                    "\"x\"",
                    "\"-5s\"",
                    "\"61s\"",
                    "1.5",
                    "null",
                    "15",
                ],
            ),
            ("Behavior", &["\"release\"", "\"delete\"", "\"\"", "\"other\"", "null", "1"]),
            ("TTL", &["\"60s\"", "\"10m\"", "\"9s\"", "\"25h\"", "\"\"", "\"x\"", "60", "\"0s\"", "\"86400s\"", "null"]),
            ("NodeChecks", &["[]", "[\"serfHealth\"]", "[\"c1\"]", "[\"serfHealth\",\"c2\"]", "null", "\"c1\"", "[1]"]),
            ("ServiceChecks", &["[]", "[{\"ID\":\"c1\"}]", "[{\"ID\":\"s1\",\"Namespace\":\"\"}]", "null", "[\"c1\"]", "[{}]"]),
            ("Checks", &["[]", "[\"c1\"]", "[\"serfHealth\"]", "null", "\"c1\""]),
            ("ID", &["\"x\"", "null"]),
        ],
    )
}

fn transaction(bytes: &mut Bytes, prefix: &str) -> String {
    let count = 1 + bytes.next() % 3;
    let operations = (0..count).map(|_| {
        let verb = bytes.pick(&[
            "set",
            "cas",
            "lock",
            "unlock",
            "get",
            "check-session",
            "delete",
            "delete-cas",
            "delete-tree",
            "nope",
        ]);
        let (key, id) = (key(bytes, prefix), id(bytes));
        let mut operation = format!("\"Verb\":\"{verb}\",\"Key\":\"{key}\"");
        if bytes.next().is_multiple_of(2) {
            operation += &format!(",\"Session\":\"{id}\"");
        }
        operation +=
            bytes.pick(&["", ",\"Value\":\"aGk=\"", ",\"Value\":null", ",\"Value\":\"?\"", ",\"Flags\":7", ",\"Flags\":-1"]);
        operation += bytes.pick(&["", "", ",\"Index\":0", ",\"Index\":1", ",\"index\":0"]);
        format!("{{\"KV\":{{{operation}}}}}")
    });
    format!("[{}]", operations.collect::<Vec<_>>().join(","))
}

fn registration(bytes: &mut Bytes) -> String {
    object(
        bytes,
        &[
            ("Node", &["\"n1\"", "\"n1\"", "\"n2\"", "\"N1\"", "\"\"", "null"]),
            ("Address", &["\"1.1.1.1\"", "\"1.1.1.1\"", "\"1.1.1.2\"", "\"\""]),
            (
                "Check",
                &[
                    "{\"CheckID\":\"c1\",\"Status\":\"passing\"}",
                    "{\"CheckID\":\"c1\",\"Status\":\"critical\"}",
                    "{\"Name\":\"c2\",\"Status\":\"warning\"}",
                    "{\"CheckID\":\"c1\"}",
                    "{\"CheckID\":\"s1\",\"ServiceID\":\"web\",\"Status\":\"passing\"}",
                ],
            ),
            ("Service", &["{\"Service\":\"web\"}", "{\"ID\":\"web\",\"Service\":\"web\"}"]),
            ("SkipNodeUpdate", &["true", "false"]),
        ],
    )
}

fn deregistration(bytes: &mut Bytes) -> String {
    object(
        bytes,
        &[
            ("Node", &["\"n1\"", "\"n1\"", "\"n2\"", "\"nope\"", "\"\""]),
            ("CheckID", &["\"c1\"", "\"nope\""]),
            ("ServiceID", &["\"web\""]),
        ],
    )
}
