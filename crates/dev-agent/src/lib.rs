//! A Consul agent to try things out on: in memory, one node, no ACLs. It answers the session endpoints, and of the KV store
//! those that locks need, as Consul 1.20.6 in `-dev` mode does, with the same bodies, statuses and headers, as compared with a
//! real one.
//!
//! Keys are read, written, acquired, released and deleted one by one (`/v1/kv/<key>`), and in transactions (`/v1/txn`) that
//! change something, with the verbs `set`, `lock`, `unlock`, `get` and `check-session`. What else Consul can do with keys is an
//! error here.
//!
//! Besides sessions it has what it takes to set up a case: nodes and checks through `/v1/catalog/register` and
//! `/v1/catalog/deregister`, TTL checks of the agent's own node (whose TTL never runs out) through `/v1/agent/check/*`.

mod answer;
mod call;
mod catalog;
mod go;
mod kv;
mod session;
mod state;

use answer::{Answer, Meta, bad_request, internal, response, with_policy};
use call::{Call, Query, ReadOptions, known_datacenter, percent_decode};
use catalog::{Deregistration, Registration, agent_check};
use http::header::{HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Body as _, Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use kv::{Entry, Operation, Refusal, Verb};
use serde::Serialize;
use serde_json::json;
use session::Session;
use state::{Check, DATACENTER, NODE, NODE_ID, State, same};
use std::collections::BTreeMap;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

const MAX_BODY: usize = 1 << 20;

/// A running agent. Its node is `dev-agent`, its datacenter `dc1`. Dropping it stops it and closes its connections.
pub struct DevAgent {
    agent: Arc<Agent>,
    server: JoinHandle<()>,
}

impl DevAgent {
    /// Starts an agent that listens on `listen`; port 0 takes a free port, see [`DevAgent::addr`].
    ///
    /// Errors: the address cannot be listened on.
    pub async fn start(listen: SocketAddr) -> std::io::Result<DevAgent> {
        let listener = TcpListener::bind(listen).await?;
        let address = listener.local_addr()?;
        let agent = Arc::new(Agent { address, state: Mutex::new(State::new()), changed: watch::Sender::new(()) });
        let served = agent.clone();
        let server = tokio::spawn(async move {
            // Ends with the task, and its connections with it.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // Out of file descriptors, for example: that may pass.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                while connections.try_join_next().is_some() {}
                let agent = served.clone();
                let service = service_fn(move |request| {
                    let agent = agent.clone();
                    async move { Ok::<_, Infallible>(agent.respond(request).await) }
                });
                connections
                    .spawn(http1::Builder::new().title_case_headers(true).serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(DevAgent { agent, server })
    }

    /// Registers a passing check on the agent's own node, as `PUT /v1/agent/check/register` does.
    pub fn register_check(&self, id: &str) {
        let check = Check { node: NODE.into(), id: id.into(), name: id.into(), status: "passing".into(), ..Check::default() };
        self.agent.with(|state| state.register_check(check));
    }

    /// Where it listens.
    pub fn addr(&self) -> SocketAddr {
        self.agent.address
    }
}

impl Drop for DevAgent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// What the connections share.
struct Agent {
    address: SocketAddr,
    state: Mutex<State>,
    /// Told of every change.
    changed: watch::Sender<()>,
}

#[derive(Clone, Copy)]
enum Endpoint {
    SessionCreate,
    SessionDestroy,
    SessionRenew,
    SessionInfo,
    SessionNode,
    SessionList,
    AgentSelf,
    AgentChecks,
    AgentCheckRegister,
    AgentCheckDeregister,
    AgentCheckPass,
    AgentCheckWarn,
    AgentCheckFail,
    CatalogRegister,
    CatalogDeregister,
    CatalogNodes,
    HealthNode,
    StatusLeader,
    AclAuthorize,
    Kv,
    Txn,
}

/// The methods and path of each endpoint; a path with a slash at its end takes an argument.
const ENDPOINTS: [(&[Method], &str, Endpoint); 21] = [
    (&[Method::PUT], "/v1/session/create", Endpoint::SessionCreate),
    (&[Method::PUT], "/v1/session/destroy/", Endpoint::SessionDestroy),
    (&[Method::PUT], "/v1/session/renew/", Endpoint::SessionRenew),
    (&[Method::GET], "/v1/session/info/", Endpoint::SessionInfo),
    (&[Method::GET], "/v1/session/node/", Endpoint::SessionNode),
    (&[Method::GET], "/v1/session/list", Endpoint::SessionList),
    (&[Method::GET], "/v1/agent/self", Endpoint::AgentSelf),
    (&[Method::GET], "/v1/agent/checks", Endpoint::AgentChecks),
    (&[Method::PUT], "/v1/agent/check/register", Endpoint::AgentCheckRegister),
    (&[Method::PUT], "/v1/agent/check/deregister/", Endpoint::AgentCheckDeregister),
    (&[Method::PUT], "/v1/agent/check/pass/", Endpoint::AgentCheckPass),
    (&[Method::PUT], "/v1/agent/check/warn/", Endpoint::AgentCheckWarn),
    (&[Method::PUT], "/v1/agent/check/fail/", Endpoint::AgentCheckFail),
    (&[Method::PUT], "/v1/catalog/register", Endpoint::CatalogRegister),
    (&[Method::PUT], "/v1/catalog/deregister", Endpoint::CatalogDeregister),
    (&[Method::GET], "/v1/catalog/nodes", Endpoint::CatalogNodes),
    (&[Method::GET], "/v1/health/node/", Endpoint::HealthNode),
    (&[Method::GET], "/v1/status/leader", Endpoint::StatusLeader),
    (&[Method::POST], "/v1/internal/acl/authorize", Endpoint::AclAuthorize),
    (&[Method::GET, Method::PUT, Method::DELETE], "/v1/kv/", Endpoint::Kv),
    (&[Method::PUT], "/v1/txn", Endpoint::Txn),
];

impl Agent {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let Some(path) = percent_decode(head.uri.path()).filter(|path| !path.contains(char::is_control)) else {
            return response(StatusCode::BAD_REQUEST, "400 Bad Request");
        };
        let found = ENDPOINTS.iter().find_map(|(methods, route, endpoint)| {
            let argument = path.strip_prefix(route).filter(|rest| route.ends_with('/') || rest.is_empty());
            argument.map(|argument| (methods, *endpoint, argument))
        });
        let Some((methods, endpoint, argument)) = found else {
            let with_slash = format!("{path}/");
            if ENDPOINTS.iter().any(|(_, route, _)| *route == with_slash) {
                let query = head.uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                let mut redirect = response(StatusCode::TEMPORARY_REDIRECT, "");
                if let Ok(location) = HeaderValue::try_from(with_slash + &query) {
                    redirect.headers_mut().insert(LOCATION, location);
                }
                return redirect;
            }
            return response(StatusCode::NOT_FOUND, "Invalid URL path: not a recognized HTTP API endpoint\n");
        };
        let Some(query) = Query::parse(head.uri.query().unwrap_or_default()) else {
            return with_policy(response(StatusCode::INTERNAL_SERVER_ERROR, ""));
        };
        let pretty = query.has("pretty");
        let allow = HeaderValue::try_from(methods.iter().fold("OPTIONS".into(), |all, method| format!("{all},{method}"))).ok();
        let mut answer = if head.method == Method::OPTIONS {
            Answer { allow, ..Answer::empty() }
        } else if !methods.contains(&head.method) {
            let text = format!("method {} not allowed", head.method);
            Answer { allow, ..Answer::text(StatusCode::METHOD_NOT_ALLOWED, text) }
        } else {
            let sized = body.size_hint().exact().is_some();
            match Limited::new(body, MAX_BODY).collect().await {
                Ok(body) => {
                    let (method, headers) = (head.method, head.headers);
                    let call = Call { method, argument, query, headers, body: body.to_bytes(), sized };
                    self.answer(endpoint, call).await.unwrap_or_else(|refusal| refusal)
                }
                Err(error) => Answer::text(StatusCode::BAD_REQUEST, error.to_string()),
            }
        };
        if pretty && answer.is_json && !answer.body.is_empty() {
            answer.body.push(b'\n');
        }
        with_policy(answer.into())
    }

    /// The answer of an endpoint; a refusal is an answer too.
    async fn answer(&self, endpoint: Endpoint, call: Call<'_>) -> Result<Answer, Answer> {
        let id = call.argument;
        let required = |text| if id.is_empty() { Err(bad_request(text)) } else { Ok(()) };
        match endpoint {
            Endpoint::SessionCreate => {
                call.no_enterprise()?;
                // As Consul: a body whose length is not given is not read.
                let body = if call.sized { &call.body[..] } else { b"" };
                let session = Session::decode(body, NODE).map_err(decode_failed)?;
                call.datacenter()?;
                let id = self.with(|state| state.create(session, Instant::now())).map_err(internal)?;
                Ok(Answer::json(&json!({ "ID": id })))
            }
            Endpoint::SessionDestroy => {
                call.no_enterprise()?;
                required("Missing session")?;
                call.datacenter()?;
                self.with(|state| state.destroy(id));
                Ok(Answer::json(&true))
            }
            Endpoint::SessionRenew => {
                call.read_options()?;
                required("Missing session")?;
                call.datacenter()?;
                match self.with(|state| state.renew(id, Instant::now())) {
                    Some(session) => Ok(Answer::json(&[session])),
                    None => Err(Answer::text(StatusCode::NOT_FOUND, format!("Session id '{id}' not found"))),
                }
            }
            Endpoint::SessionInfo => {
                let options = call.read_options()?;
                required("Missing session")?;
                self.read_sessions(&call, options, |session| session.id.eq_ignore_ascii_case(id)).await
            }
            Endpoint::SessionNode => {
                let options = call.read_options()?;
                required("Missing node name")?;
                self.read_sessions(&call, options, |session| same(&session.node, id)).await
            }
            Endpoint::SessionList => {
                let options = call.read_options()?;
                self.read_sessions(&call, options, |_| true).await
            }
            Endpoint::AgentSelf => Ok(Answer::json(&json!({
                "Config": {
                    "Datacenter": DATACENTER,
                    "PrimaryDatacenter": DATACENTER,
                    "NodeName": NODE,
                    "NodeID": NODE_ID,
                    "Revision": "",
                    "Server": true,
                    "Version": "1.20.6",
                },
                "Member": { "Name": NODE, "Addr": self.address.ip(), "Port": self.address.port(), "Status": 1 },
                "Meta": { "consul-version": "1.20.6" },
            }))),
            Endpoint::AgentChecks => {
                call.no_enterprise()?;
                let checks: BTreeMap<_, _> = self.with(|state| {
                    let own = state.checks(NODE).filter(|check| check.id != "serfHealth");
                    own.map(|check| (check.id.clone(), check.clone())).collect()
                });
                Ok(Answer::json(&checks))
            }
            Endpoint::AgentCheckRegister => {
                let check = agent_check(&call.body).map_err(|text| bad_request(&text))?;
                self.with(|state| {
                    // An agent keeps the status of a check that it has, so that it does not flap.
                    let known = state.checks(NODE).find(|known| same(&known.id, &check.id));
                    let status = known.map_or(check.status, |known| known.status.clone());
                    state.register_check(Check { status, ..check });
                });
                Ok(Answer::empty())
            }
            Endpoint::AgentCheckDeregister => {
                self.agent_check(id)?;
                self.with(|state| state.deregister_check(NODE, id));
                Ok(Answer::empty())
            }
            Endpoint::AgentCheckPass => self.set_agent_check(id, "passing"),
            Endpoint::AgentCheckWarn => self.set_agent_check(id, "warning"),
            Endpoint::AgentCheckFail => self.set_agent_check(id, "critical"),
            Endpoint::CatalogRegister => {
                call.no_enterprise()?;
                let registration = Registration::decode(&call.body).map_err(decode_failed)?;
                registration.validate().map_err(internal)?;
                known_datacenter(&registration.datacenter)?;
                self.with(|state| state.register(registration));
                Ok(Answer::json(&true))
            }
            Endpoint::CatalogDeregister => {
                call.no_enterprise()?;
                let Deregistration { node, check, datacenter } = Deregistration::decode(&call.body).map_err(decode_failed)?;
                if node.is_empty() {
                    return Err(internal("Must provide node".into()));
                }
                known_datacenter(&datacenter)?;
                self.with(|state| match check.as_str() {
                    "" => state.deregister_node(&node),
                    check => state.deregister_check(&node, check),
                });
                Ok(Answer::json(&true))
            }
            Endpoint::CatalogNodes => {
                call.read_options()?;
                call.datacenter().map_err(Answer::without_leader)?;
                Ok(self.with(|state| call.catalog(state, &state.nodes().collect::<Vec<_>>())))
            }
            Endpoint::HealthNode => {
                call.read_options()?;
                required("Missing node name")?;
                call.datacenter().map_err(Answer::without_leader)?;
                Ok(self.with(|state| call.catalog(state, &state.checks(id).collect::<Vec<_>>())))
            }
            Endpoint::StatusLeader => Ok(Answer::json(&self.address)),
            Endpoint::AclAuthorize => Err(Answer::text(StatusCode::UNAUTHORIZED, "ACL support disabled".into())),
            Endpoint::Kv => self.kv(call).await,
            Endpoint::Txn => self.transaction(&call),
        }
    }

    async fn kv(&self, call: Call<'_>) -> Result<Answer, Answer> {
        let read = match call.method {
            Method::GET => Some(call.read_options()?),
            _ => call.no_enterprise().map(|()| None)?,
        };
        let key = call.argument;
        if key.is_empty() {
            return Err(bad_request("Missing key name"));
        }
        if let Some(unknown) = ["cas", "keys", "raw", "recurse"].into_iter().find(|name| call.query.has(name)) {
            return Err(internal(format!("the dev agent does not know ?{unknown}")));
        }
        call.datacenter()?;
        match (&call.method, read) {
            (_, Some(options)) => {
                let (meta, entry) = self.read(options, |state| (state.keys.index(key), state.keys.get(key).cloned())).await;
                let answer = match entry {
                    Some(entry) => Answer::json(&[entry]),
                    None => Answer::text(StatusCode::NOT_FOUND, String::new()),
                };
                Ok(Answer { meta: Some(meta), ..answer })
            }
            (&Method::DELETE, None) => {
                self.with(|state| state.delete_key(key));
                Ok(Answer::json(&true))
            }
            _ => {
                let flags = match call.query.get("flags") {
                    "" => 0,
                    text => {
                        text.parse().map_err(|_| internal(format!("strconv.ParseUint: parsing {text:?}: invalid syntax")))?
                    }
                };
                let (verb, session) = match ["acquire", "release"].map(|name| call.query.has(name)) {
                    [true, true] => {
                        let [acquire, release] = ["acquire", "release"].map(|name| call.query.get(name));
                        return Err(bad_request(&format!("Conflicting flags: acquire={acquire}&release={release}\n")));
                    }
                    [true, _] => (Verb::Lock, call.query.get("acquire")),
                    [_, true] => (Verb::Unlock, call.query.get("release")),
                    _ => (Verb::Set, ""),
                };
                let operation = Operation { verb, key: key.into(), value: call.body.to_vec(), flags, session: session.into() };
                match self.with(|state| state.transact(&[operation])) {
                    Ok(_) => Ok(Answer::json(&true)),
                    Err(refused) => match refused.into_iter().next() {
                        Some((_, Refusal::Error(text))) => Err(internal(format!("raft apply failed: {text}"))),
                        _ => Ok(Answer::json(&false)),
                    },
                }
            }
        }
    }

    fn transaction(&self, call: &Call<'_>) -> Result<Answer, Answer> {
        let operations = kv::decode(&call.body).map_err(|error| match error {
            kv::Undecoded::Body(text) => bad_request(&format!("Failed to parse body: {text}")),
            kv::Undecoded::Unknown(what) => internal(format!("the dev agent does not know {what}")),
        })?;
        call.datacenter()?;
        if operations.iter().all(|operation| matches!(operation.verb, Verb::Get | Verb::CheckSession)) {
            return Err(internal("the dev agent does not know transactions that only read".into()));
        }
        Ok(match self.with(|state| state.transact(&operations)) {
            Ok(entries) => {
                let results: Vec<_> = entries.into_iter().map(|entry| Kv { kv: entry }).collect();
                Answer::json(&Ended { results: Some(results), errors: None })
            }
            Err(refused) => {
                let errors = refused.iter().map(|(at, refusal)| Failed { op_index: *at, what: refusal.text() });
                let answer = Answer::json(&Ended { results: None, errors: Some(errors.collect()) });
                Answer { status: StatusCode::CONFLICT, ..answer }
            }
        })
    }

    /// Does something with the state as it is now, and wakes the readers that wait for a change.
    fn with<T>(&self, action: impl FnOnce(&mut State) -> T) -> T {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let before = state.index;
        state.expire(Instant::now());
        let result = action(&mut state);
        if state.index != before {
            self.changed.send_replace(());
        }
        result
    }

    async fn read_sessions(
        &self,
        call: &Call<'_>,
        options: ReadOptions,
        wanted: impl Fn(&Session) -> bool,
    ) -> Result<Answer, Answer> {
        call.datacenter().map_err(Answer::without_leader)?;
        let (meta, sessions) = self.read(options, |state| (state.sessions_index(), state.sessions(&wanted))).await;
        Ok(Answer { meta: Some(meta), ..Answer::json(&sessions) })
    }

    /// What `find` finds, and its index; with an index, once what was found has changed since then, or the time is up.
    async fn read<T: Clone + PartialEq>(&self, options: ReadOptions, find: impl Fn(&State) -> (u64, T)) -> (Meta, T) {
        let mut changed = self.changed.subscribe();
        let look = || self.with(|state| (find(state), state.next_expiry()));
        // Consul adds up to a sixteenth. Here it is always all of it: the worst case.
        let deadline = Instant::now() + options.wait + options.wait / 16;
        let ((mut index, mut found), mut next_expiry) = look();
        if index <= options.index {
            let before = found.clone();
            while index <= options.index || found == before {
                let wake = next_expiry.map_or(deadline, |expiry| expiry.min(deadline));
                // An error means that it is time to look; the sender lives as long as `self`.
                let _ = timeout_at(wake, changed.changed()).await;
                ((index, found), next_expiry) = look();
                if Instant::now() >= deadline {
                    break;
                }
            }
        }
        (Meta { index, known_leader: true, consistency: None }, found)
    }

    fn agent_check(&self, id: &str) -> Result<Check, Answer> {
        let found = self.with(|state| state.checks(NODE).find(|check| check.id == id).cloned());
        let unknown = || {
            let text = format!("Unknown check ID {id:?}. Ensure that the check ID is passed, not the check name.");
            Answer::text(StatusCode::NOT_FOUND, text)
        };
        found.ok_or_else(unknown)
    }

    fn set_agent_check(&self, id: &str, status: &str) -> Result<Answer, Answer> {
        let check = Check { status: status.into(), ..self.agent_check(id)? };
        self.with(|state| state.register_check(check));
        Ok(Answer::empty())
    }
}

/// What a transaction answers.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Ended<'a> {
    results: Option<Vec<Kv>>,
    errors: Option<Vec<Failed<'a>>>,
}

#[derive(Serialize)]
#[serde(rename_all = "UPPERCASE")]
struct Kv {
    kv: Entry,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Failed<'a> {
    op_index: usize,
    what: &'a str,
}

fn decode_failed(error: String) -> Answer {
    bad_request(&format!("Request decode failed: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::Value;
    use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
    use tokio::net::TcpStream;

    async fn agent() -> DevAgent {
        DevAgent::start(([127, 0, 0, 1], 0).into()).await.unwrap()
    }

    /// Sends `request` (a method and a path), lines of headers and a body as they are; answers with the status, the head
    /// and the body.
    async fn raw(address: SocketAddr, request: &str, headers: &str, body: &str) -> (u16, String, String) {
        let mut stream = TcpStream::connect(address).await.unwrap();
        let request = format!("{request} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n{headers}\r\n{body}");
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        let (head, body) = text.split_once("\r\n\r\n").unwrap();
        (head.split(' ').nth(1).unwrap().parse().unwrap(), head.into(), body.into())
    }

    async fn send(agent: &DevAgent, request: &str, body: &str) -> (u16, String) {
        let (status, _, body) = raw(agent.addr(), request, &format!("Content-Length: {}\r\n", body.len()), body).await;
        (status, body)
    }

    async fn create(agent: &DevAgent, body: &str) -> String {
        let (status, body) = send(agent, "PUT /v1/session/create", body).await;
        assert_eq!(status, 200, "{body}");
        serde_json::from_str::<Value>(&body).unwrap()["ID"].as_str().unwrap().into()
    }

    /// The index and the names of the sessions.
    async fn read(agent: &DevAgent, path: &str) -> (u64, Vec<String>) {
        let (status, head, body) = raw(agent.addr(), &format!("GET /v1/session/{path}"), "", "").await;
        assert_eq!(status, 200, "{body}");
        let index = head.lines().find_map(|line| line.strip_prefix("X-Consul-Index: ")).unwrap();
        let sessions: Vec<Value> = serde_json::from_str(&body).unwrap();
        let names = sessions.iter().map(|session| session["Name"].as_str().unwrap().to_owned());
        (index.parse().unwrap(), names.collect())
    }

    #[tokio::test]
    async fn refusals() {
        let agent = agent().await;
        send(&agent, "PUT /v1/agent/check/register", r#"{"Name":"crit","TTL":"1h"}"#).await;
        for (request, body, status, text) in [
            (
                "PUT /v1/session/create?ns=default",
                "x",
                400,
                "Invalid query parameter: \"ns\" - Namespaces are a Consul Enterprise feature",
            ),
            ("PUT /v1/session/create?dc=nope", "x", 400, "Request decode failed: "),
            ("PUT /v1/session/create", "{", 400, "Request decode failed: unexpected EOF"),
            ("PUT /v1/session/create?dc=nope", r#"{"Node":""}"#, 500, "No path to datacenter"),
            ("PUT /v1/session/create", r#"{"Node":"","Behavior":"x"}"#, 500, "Must provide Node"),
            ("PUT /v1/session/create", r#"{"Behavior":"x","TTL":"x"}"#, 500, "Invalid Behavior setting 'x'"),
            (
                "PUT /v1/session/create",
                r#"{"TTL":"10z","Node":"n"}"#,
                500,
                "Session TTL '10z' invalid: time: unknown unit \"z\" in duration \"10z\"",
            ),
            (
                "PUT /v1/session/create",
                r#"{"TTL":"5s","Node":"n"}"#,
                500,
                "Invalid Session TTL '5000000000', must be between [10s=24h0m0s]",
            ),
            (
                "PUT /v1/session/create",
                r#"{"TTL":"86401s"}"#,
                500,
                "Invalid Session TTL '86401000000000', must be between [10s=24h0m0s]",
            ),
            ("PUT /v1/session/create", r#"{"Node":"n","NodeChecks":["dne"]}"#, 500, "apply failed: Missing node registration"),
            (
                "PUT /v1/session/create",
                r#"{"NodeChecks":["dne","crit"]}"#,
                500,
                "apply failed: Missing check 'dne' registration",
            ),
            ("PUT /v1/session/create", r#"{"NodeChecks":["crit"]}"#, 500, "apply failed: Check 'crit' is in critical state"),
            ("PUT /v1/session/renew/a%20b", "", 404, "Session id 'a b' not found"),
            ("PUT /v1/session/renew/", "", 400, "Missing session"),
            (
                "PUT /v1/session/renew/x?stale&consistent",
                "",
                400,
                "Cannot specify ?stale with ?consistent, conflicting semantics.",
            ),
            ("PUT /v1/session/destroy/x", "", 200, "true"),
            ("PUT /v1/session/destroy/x?datacenter=nope&dc=dc1", "", 500, "No path to datacenter"),
            (
                "GET /v1/session/info/x?partition=p",
                "",
                400,
                "Invalid query parameter: \"partition\" - Partitions are a Consul Enterprise feature",
            ),
            ("GET /v1/session/info/x", "", 200, "[]"),
            ("GET /v1/session/node/", "", 400, "Missing node name"),
            ("GET /v1/session/list?index=-1", "", 400, "Invalid index"),
            ("GET /v1/session/list?index=x&wait=5", "", 400, "Invalid wait time"),
            ("GET /v1/session/list?a=%zz", "", 500, ""),
            ("DELETE /v1/session/list", "", 405, "method DELETE not allowed"),
            ("GET /v1/nope", "", 404, "Invalid URL path: not a recognized HTTP API endpoint\n"),
            ("PUT /v1/session/destroy", "", 307, ""),
        ] {
            let (found, answer) = send(&agent, request, body).await;
            assert_eq!(found, status, "{request} {body}: {answer}");
            assert!(if text.ends_with(": ") { answer.starts_with(text) } else { answer == text }, "{request} {body}: {answer}");
        }
    }

    #[tokio::test]
    async fn headers() {
        let agent = agent().await;
        let head = async |request| raw(agent.addr(), request, "", "").await.1;
        let list = head("GET /v1/session/list").await;
        for line in [
            "Content-Type: application/json",
            "X-Consul-Default-Acl-Policy: allow",
            "X-Consul-Index: 1",
            "X-Consul-Knownleader: true",
            "X-Consul-Lastcontact: 0",
            "X-Consul-Query-Backend: blocking-query",
        ] {
            assert!(list.lines().any(|found| found == line), "{line} in {list}");
        }
        let destroy = head("PUT /v1/session/destroy/x").await;
        assert!(destroy.contains("X-Consul-Default-Acl-Policy: allow") && !destroy.contains("X-Consul-Index"), "{destroy}");
        let no_path = head("GET /v1/session/list?dc=nope").await;
        assert!(no_path.contains("text/plain; charset=utf-8") && no_path.contains("X-Consul-Knownleader: false"), "{no_path}");
        assert!(head("OPTIONS /v1/session/create").await.contains("Allow: OPTIONS,PUT"));
        assert!(head("HEAD /v1/session/list").await.contains("Allow: OPTIONS,GET"));
        let (status, _, text) = raw(agent.addr(), "GET /v1/session/list", "X-Consul-Namespace: default\r\n", "").await;
        assert_eq!((status, text.starts_with("Invalid header: \"X-Consul-Namespace\"")), (400, true));
    }

    #[tokio::test]
    async fn body_without_length_is_not_read() {
        let agent = agent().await;
        let chunked = "c\r\n{\"Name\":\"x\"}\r\n0\r\n\r\n";
        let (status, ..) = raw(agent.addr(), "PUT /v1/session/create", "Transfer-Encoding: chunked\r\n", chunked).await;
        assert_eq!(status, 200);
        assert_eq!(read(&agent, "list").await.1, [""]);
    }

    #[tokio::test]
    async fn checks_and_nodes_end_sessions() {
        let agent = agent().await;
        let register = |status: &str| {
            let body = format!(r#"{{"Node":"n","Address":"::1","Check":{{"CheckID":"c","Name":"C","Status":"{status}"}}}}"#);
            let agent = &agent;
            async move { assert_eq!(send(agent, "PUT /v1/catalog/register", &body).await, (200, "true".into())) }
        };
        let names = async || read(&agent, "list").await.1;
        register("passing").await;
        create(&agent, r#"{"Node":"N","NodeChecks":["C"],"Name":"a"}"#).await;
        register("warning").await;
        assert_eq!(names().await, ["a"]);
        register("critical").await;
        assert!(names().await.is_empty());

        register("passing").await;
        create(&agent, r#"{"Node":"n","NodeChecks":[],"ServiceChecks":[{"ID":"c"}]}"#).await;
        create(&agent, r#"{"Node":"n","NodeChecks":[],"Name":"b"}"#).await;
        send(&agent, "PUT /v1/catalog/deregister", r#"{"Node":"n","CheckID":"c"}"#).await;
        assert_eq!(names().await, ["b"]);
        send(&agent, "PUT /v1/catalog/deregister", r#"{"Node":"n"}"#).await;
        assert!(names().await.is_empty());

        send(&agent, "PUT /v1/agent/check/register", r#"{"Name":"own","TTL":"1h","Status":"passing"}"#).await;
        create(&agent, r#"{"Checks":["own"]}"#).await;
        // Registering it again keeps its status.
        send(&agent, "PUT /v1/agent/check/register", r#"{"Name":"own","TTL":"1h","Status":"critical"}"#).await;
        assert_eq!(names().await.len(), 1);
        send(&agent, "PUT /v1/agent/check/fail/own", "").await;
        assert!(names().await.is_empty());
    }

    /// The clock is paused, and runs on when nothing else happens.
    #[tokio::test(start_paused = true)]
    async fn sessions_expire_after_twice_the_ttl() {
        let agent = agent().await;
        let id = create(&agent, r#"{"TTL":"10s","Name":"a"}"#).await;
        let created = Instant::now();
        sleep(Duration::from_secs(15)).await;
        assert_eq!(send(&agent, &format!("PUT /v1/session/renew/{id}"), "").await.0, 200);
        let index = read(&agent, "list").await.0;
        let (expired, names) = read(&agent, &format!("info/{id}?index={index}&wait=60s")).await;
        assert_eq!((expired > index, names.is_empty()), (true, true));
        assert_eq!(created.elapsed().as_secs(), 15 + 20);
        assert_eq!(send(&agent, &format!("PUT /v1/session/renew/{id}"), "").await.0, 404);
    }

    /// The lock delay begins when the session expires, whether or not somebody asks then; it is 60 s at most.
    #[tokio::test(start_paused = true)]
    async fn lock_delays_begin_with_the_end() {
        let agent = agent().await;
        let id = create(&agent, r#"{"TTL":"10s","LockDelay":"5m"}"#).await;
        assert_eq!(send(&agent, &format!("PUT /v1/kv/k?acquire={id}"), "x").await, (200, "true".into()));
        sleep(Duration::from_secs(20 + 59)).await;
        let other = create(&agent, "").await;
        let acquire = format!("PUT /v1/kv/k?acquire={other}");
        assert_eq!(send(&agent, &acquire, "").await.1, "false");
        sleep(Duration::from_secs(1)).await;
        assert_eq!(send(&agent, &acquire, "").await.1, "true");
    }

    /// What this agent does not do with keys is an error, and never an answer about something else.
    #[tokio::test]
    async fn what_it_cannot_do_with_keys() {
        let agent = agent().await;
        for (request, body, text) in [
            ("GET /v1/kv/k?recurse", "", "the dev agent does not know ?recurse"),
            ("GET /v1/kv/k?keys", "", "the dev agent does not know ?keys"),
            ("GET /v1/kv/k?raw", "", "the dev agent does not know ?raw"),
            ("PUT /v1/kv/k?cas=0", "x", "the dev agent does not know ?cas"),
            ("DELETE /v1/kv/k?recurse", "", "the dev agent does not know ?recurse"),
            ("PUT /v1/txn", "[]", "the dev agent does not know transactions that only read"),
            ("PUT /v1/txn", r#"[{"KV":{"Verb":"get","Key":"k"}}]"#, "the dev agent does not know transactions that only read"),
            ("PUT /v1/txn", r#"[{"KV":{"Verb":"cas","Key":"k"}}]"#, "the dev agent does not know the verb \"cas\""),
            ("PUT /v1/txn", r#"[{"Node":{}}]"#, "the dev agent does not know operations but on keys"),
        ] {
            assert_eq!(send(&agent, request, body).await, (500, text.into()), "{request} {body}");
        }
        assert_eq!(send(&agent, "GET /v1/kv/k", "").await.0, 404);
    }

    #[tokio::test(start_paused = true)]
    async fn blocking_queries() {
        let agent = agent().await;
        let id = create(&agent, r#"{"Name":"a"}"#).await;
        let (index, _) = read(&agent, "list").await;

        let start = Instant::now();
        assert_eq!(read(&agent, &format!("list?index={}&wait=10s", index - 1)).await.1, ["a"]);
        assert_eq!(start.elapsed().as_secs(), 0);
        assert_eq!(read(&agent, &format!("list?index={index}&wait=16s")).await, (index, vec!["a".into()]));
        assert_eq!(start.elapsed().as_secs(), 17);

        // A change of another session wakes those who read all, and not those who read one.
        let start = Instant::now();
        let (all, one) = (format!("list?index={index}&wait=16s"), format!("info/{id}?index={index}&wait=16s"));
        let change = async {
            sleep(Duration::from_secs(5)).await;
            create(&agent, r#"{"Name":"b"}"#).await;
        };
        let timed = async |path| (read(&agent, path).await.1.len(), start.elapsed().as_secs());
        let ((), all, one) = tokio::join!(change, timed(&all), timed(&one));
        assert_eq!((all, one), ((2, 5), (1, 17)));
    }

    #[tokio::test]
    async fn dropping_stops_it() {
        let agent = agent().await;
        let address = agent.addr();
        let mut open = TcpStream::connect(address).await.unwrap();
        create(&agent, "").await;
        drop(agent);
        assert_eq!(open.read(&mut [0]).await.unwrap_or(0), 0);
        assert!(TcpStream::connect(address).await.is_err());
    }
}
