//! The agent without a network: it routes a request to its endpoint, and answers it.

use crate::answer::{Answer, ReadOptions, bad_request, internal, lacking, response, with_policy};
use crate::call::{Call, Query, known_datacenter, percent_decode};
use crate::catalog::{Deregistration, agent_check, deregistration, registration};
use crate::keys;
use crate::kv::Undecoded;
use crate::session::Session;
use crate::state::{Check, DATACENTER, Ids, NODE_ID, State, same};
use http::header::{HeaderValue, LOCATION};
use http::{Method, Request, Response, StatusCode};
use hyper::body::Bytes;
use serde_json::json;
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr};
use std::time::Duration;

/// A Consul agent without a network: a plain value that answers requests.
///
/// A copy is independent of the original, and two agents are equal if they hold the same. So a test
/// can copy a situation, continue it in several ways and compare the results. The same code answers
/// the requests to a [`DevAgent`](crate::DevAgent).
///
/// # Examples
///
/// ```
/// use consul_session_dev_agent::Agent;
/// use http::{Method, Request};
/// use std::time::Duration;
///
/// let mut agent = Agent::new("n1");
/// let send = |agent: &mut Agent, method, uri, body: &'static str| {
///     let request = Request::builder().method(method).uri(uri).body(body.into()).unwrap();
///     agent.answer(&request)
/// };
/// let created = send(&mut agent, Method::PUT, "/v1/session/create", r#"{"TTL": "10s"}"#);
/// assert_eq!(created.status(), 200);
/// let before = agent.clone();
///
/// // Consul ends a session after twice its TTL.
/// agent.advance_to(Duration::from_secs(20));
/// assert_eq!(send(&mut agent, Method::GET, "/v1/session/list", "").body(), "[]");
/// assert_ne!(agent, before);
/// ```
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Agent {
    state: State,
    address: SocketAddr,
}

/// A response, and what a blocking query needs to know of it.
pub(crate) struct Reply {
    pub response: Response<Bytes>,
    /// The time for which the read waits, if the client has seen the index of this response
    /// already.
    pub wait: Option<Duration>,
}

/// The endpoints that the agent answers.
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

/// The methods and path of each endpoint. A path that ends with a slash takes an argument.
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
    /// Returns an agent whose own node has this name. It calls itself `127.0.0.1:8500`.
    ///
    /// The ids of its sessions are the same in every run. As with Consul's, their order says
    /// nothing about the age of the sessions. More nodes can be added with `/v1/catalog/register`.
    pub fn new(own_node: &str) -> Agent {
        let address = (Ipv4Addr::LOCALHOST, 8500).into();
        Agent { state: State::new(own_node, Ids::FromIndex), address }
    }

    /// Returns an agent that calls itself `address` and creates sessions with random ids.
    pub(crate) fn at(address: SocketAddr, own_node: &str) -> Agent {
        Agent { state: State::new(own_node, Ids::Random), address }
    }

    /// Answers a request at once. A read with an `index` does not wait for a change.
    ///
    /// The path and query of the URI count, and the headers that Consul reads. As in Consul, a
    /// `Transfer-Encoding` makes it ignore the body of `/v1/session/create`.
    pub fn answer(&mut self, request: &Request<Bytes>) -> Response<Bytes> {
        self.reply(request).response
    }

    /// Sets the agent's clock to a time since its start, and ends the sessions whose TTL has run
    /// out. The clock never goes back, and it advances only through this method.
    pub fn advance_to(&mut self, since_start: Duration) {
        self.state.advance_to(since_start);
    }

    /// Returns the time since the start at which the next session expires.
    pub(crate) fn next_expiry(&self) -> Option<Duration> {
        self.state.next_expiry()
    }

    /// Returns the index of the last change.
    pub(crate) fn index(&self) -> u64 {
        self.state.index
    }

    /// Returns where the agent listens.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Registers a passing check on the agent's own node.
    pub(crate) fn register_check(&mut self, id: &str) {
        let node = self.state.own_node().into();
        let check = Check { node, id: id.into(), name: id.into(), status: "passing".into(), ..Check::default() };
        self.state.register_check(check);
    }

    /// Answers a request at once, and says whether it waits for a change.
    pub(crate) fn reply(&mut self, request: &Request<Bytes>) -> Reply {
        let uri = request.uri();
        let Some(path) = percent_decode(uri.path()).filter(|path| !path.contains(char::is_control)) else {
            return response(StatusCode::BAD_REQUEST, "400 Bad Request").into();
        };
        let found = ENDPOINTS.iter().find_map(|(methods, route, endpoint)| {
            let argument = path.strip_prefix(route).filter(|rest| route.ends_with('/') || rest.is_empty());
            argument.map(|argument| (methods, *endpoint, argument))
        });
        let Some((methods, endpoint, argument)) = found else {
            let with_slash = format!("{path}/");
            if ENDPOINTS.iter().any(|(_, route, _)| *route == with_slash) {
                let query = uri.query().map(|query| format!("?{query}")).unwrap_or_default();
                let mut redirect = response(StatusCode::TEMPORARY_REDIRECT, "");
                if let Ok(location) = HeaderValue::try_from(with_slash + &query) {
                    redirect.headers_mut().insert(LOCATION, location);
                }
                return redirect.into();
            }
            let missing = lacking(&format!("{} {path}", request.method()));
            return Reply { response: missing.into(), wait: None };
        };
        let Some(query) = Query::parse(uri.query().unwrap_or_default()) else {
            return with_policy(response(StatusCode::INTERNAL_SERVER_ERROR, "")).into();
        };
        let pretty = query.has("pretty");
        let method = request.method();
        let allow = HeaderValue::try_from(methods.iter().fold("OPTIONS".into(), |all, method| format!("{all},{method}"))).ok();
        let mut answer = if method == Method::OPTIONS {
            Answer { allow, ..Answer::empty() }
        } else if !methods.contains(method) {
            let text = format!("method {method} not allowed");
            Answer { allow, ..Answer::text(StatusCode::METHOD_NOT_ALLOWED, text) }
        } else {
            let call = Call { method, path: &path, argument, query, headers: request.headers(), body: request.body() };
            self.call(endpoint, &call).unwrap_or_else(|refusal| refusal)
        };
        if pretty && answer.is_json && !answer.body.is_empty() {
            answer.body.push(b'\n');
        }
        let wait = match (&answer.meta, &answer.blocking) {
            (Some(meta), Some(options)) if meta.index <= options.index => Some(options.wait),
            _ => None,
        };
        Reply { response: with_policy(answer.into()), wait }
    }

    /// Answers a call of an endpoint. A refusal is an answer too.
    fn call(&mut self, endpoint: Endpoint, call: &Call) -> Result<Answer, Answer> {
        let id = call.argument;
        let required = |text| if id.is_empty() { Err(bad_request(text)) } else { Ok(()) };
        match endpoint {
            Endpoint::SessionCreate => {
                call.no_enterprise()?;
                let session = Session::decode(call.sized_body(), self.state.own_node()).map_err(decode_failed)?;
                call.datacenter()?;
                let id = self.state.create(session).map_err(internal)?;
                Ok(Answer::json(&json!({ "ID": id })))
            }
            Endpoint::SessionDestroy => {
                call.no_enterprise()?;
                required("Missing session")?;
                call.datacenter()?;
                self.state.destroy(id);
                Ok(Answer::json(&true))
            }
            Endpoint::SessionRenew => {
                call.read_options()?;
                required("Missing session")?;
                call.datacenter()?;
                match self.state.renew(id) {
                    Some(session) => Ok(Answer::json(&[session])),
                    None => Err(Answer::text(StatusCode::NOT_FOUND, format!("Session id '{id}' not found"))),
                }
            }
            Endpoint::SessionInfo => {
                let options = call.read_options()?;
                required("Missing session")?;
                self.read_sessions(call, options, |session| session.id.eq_ignore_ascii_case(id))
            }
            Endpoint::SessionNode => {
                let options = call.read_options()?;
                required("Missing node name")?;
                self.read_sessions(call, options, |session| same(&session.node, id))
            }
            Endpoint::SessionList => {
                let options = call.read_options()?;
                self.read_sessions(call, options, |_| true)
            }
            Endpoint::AgentSelf => Ok(Answer::json(&json!({
                "Config": {
                    "Datacenter": DATACENTER,
                    "PrimaryDatacenter": DATACENTER,
                    "NodeName": self.state.own_node(),
                    "NodeID": NODE_ID,
                    "Revision": "",
                    "Server": true,
                    "Version": "1.20.6",
                },
                "Member": { "Name": self.state.own_node(), "Addr": self.address.ip(), "Port": self.address.port(), "Status": 1 },
                "Meta": { "consul-version": "1.20.6" },
            }))),
            Endpoint::AgentChecks => {
                call.lacks(&["filter"])?;
                call.no_enterprise()?;
                let own = self.state.checks(self.state.own_node()).filter(|check| check.id != "serfHealth");
                let checks: BTreeMap<_, _> = own.map(|check| (&check.id, check)).collect();
                Ok(Answer::json(&checks))
            }
            Endpoint::AgentCheckRegister => {
                let own_node = self.state.own_node();
                let check =
                    agent_check(call.body, own_node).map_err(|error| undecoded(call, error, |text| bad_request(&text)))?;
                // An agent keeps the status of a check that it has, so that the status does not
                // flap.
                let known = self.state.checks(own_node).find(|known| same(&known.id, &check.id));
                let status = known.map_or(check.status, |known| known.status.clone());
                self.state.register_check(Check { status, ..check });
                Ok(Answer::empty())
            }
            Endpoint::AgentCheckDeregister => {
                let check = self.agent_check(id)?;
                self.state.deregister_check(&check.node, &check.id);
                Ok(Answer::empty())
            }
            Endpoint::AgentCheckPass => self.set_agent_check(call, "passing"),
            Endpoint::AgentCheckWarn => self.set_agent_check(call, "warning"),
            Endpoint::AgentCheckFail => self.set_agent_check(call, "critical"),
            Endpoint::CatalogRegister => {
                call.no_enterprise()?;
                let registration = registration(call.body).map_err(|error| undecoded(call, error, decode_failed))?;
                known_datacenter(&registration.datacenter)?;
                registration.validate().map_err(internal)?;
                if self.state.renames(&registration) {
                    return Err(call.lacking("another name or id for a node"));
                }
                self.state.register(registration).map_err(internal)?;
                Ok(Answer::json(&true))
            }
            Endpoint::CatalogDeregister => {
                call.no_enterprise()?;
                let Deregistration { node, service, check, datacenter } = deregistration(call.body).map_err(decode_failed)?;
                known_datacenter(&datacenter)?;
                if node.is_empty() {
                    return Err(internal("Must provide node".into()));
                }
                match (service.as_str(), check.as_str()) {
                    ("", "") => self.state.deregister_node(&node),
                    ("", check) => self.state.deregister_check(&node, check),
                    (service, _) => self.state.deregister_service(&node, service),
                }
                Ok(Answer::json(&true))
            }
            Endpoint::CatalogNodes => {
                call.lacks(&["filter", "near", "node-meta"])?;
                let options = call.node_read_options()?;
                call.datacenter().map_err(Answer::without_leader)?;
                let nodes = Answer::json(&self.state.nodes().collect::<Vec<_>>());
                Ok(nodes.blocking(self.state.nodes_index, options).with_consistency(call.consistency()))
            }
            Endpoint::HealthNode => {
                call.lacks(&["filter"])?;
                let options = call.read_options()?;
                required("Missing node name")?;
                call.datacenter().map_err(Answer::without_leader)?;
                let checks = Answer::json(&self.state.checks(id).collect::<Vec<_>>());
                Ok(checks.blocking(self.state.checks_index, options).with_consistency(call.consistency()))
            }
            Endpoint::StatusLeader => Ok(Answer::json(&self.address)),
            Endpoint::AclAuthorize => Err(Answer::text(StatusCode::UNAUTHORIZED, "ACL support disabled".into())),
            Endpoint::Kv => keys::kv(&mut self.state, call),
            Endpoint::Txn => keys::transaction(&mut self.state, call),
        }
    }

    fn read_sessions(&self, call: &Call, options: ReadOptions, filter: impl Fn(&Session) -> bool) -> Result<Answer, Answer> {
        call.datacenter().map_err(Answer::without_leader)?;
        let sessions: Vec<_> = self.state.sessions().filter(|session| filter(session)).collect();
        Ok(Answer::json(&sessions).blocking(self.state.sessions_index(), options))
    }

    fn agent_check(&self, id: &str) -> Result<Check, Answer> {
        let found = self.state.checks(self.state.own_node()).find(|check| check.id == id).cloned();
        let unknown = || {
            let text = format!("Unknown check ID {id:?}. Ensure that the check ID is passed, not the check name.");
            Answer::text(StatusCode::NOT_FOUND, text)
        };
        found.ok_or_else(unknown)
    }

    fn set_agent_check(&mut self, call: &Call, status: &str) -> Result<Answer, Answer> {
        let check = self.agent_check(call.argument)?;
        let check = Check { status: status.into(), output: call.query.get("note").into(), ..check };
        self.state.register_check(check);
        Ok(Answer::empty())
    }
}

impl From<Response<Bytes>> for Reply {
    fn from(response: Response<Bytes>) -> Reply {
        Reply { response, wait: None }
    }
}

fn decode_failed(error: String) -> Answer {
    bad_request(&format!("Request decode failed: {error}"))
}

/// Answers a body that cannot be decoded. `invalid` makes the answer of Consul.
fn undecoded(call: &Call, error: Undecoded, invalid: fn(String) -> Answer) -> Answer {
    match error {
        Undecoded::Body(text) => invalid(text),
        Undecoded::Lacking(what) => call.lacking(&what),
    }
}
