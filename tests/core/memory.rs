//! The dev agent as a [`Transport`]: a Consul in memory, without a network and without time.

use bytes::Bytes;
use consul_session::error::Error;
use consul_session::transport::{Method, Request, Response, Transport};
use consul_session_dev_agent::Agent;
use serde_json::{Value, json};

/// A Consul with the nodes `n1`, whose agent answers, and `n2`. A value: it can be copied and
/// compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct InMemoryConsul {
    agent: Agent,
    /// Whether ACLs allow to read `agent/self`.
    pub agent_read: bool,
}

impl Default for InMemoryConsul {
    fn default() -> InMemoryConsul {
        let mut agent = Agent::new("n1");
        let node = json!({"Node": "n2", "Address": "10.0.0.2", "Check": {"CheckID": "serfHealth", "Status": "passing"}});
        let (status, body) = answer(&mut agent, http::Method::PUT, "/v1/catalog/register", node.to_string());
        assert_eq!(status, 200, "{body}");
        InMemoryConsul { agent, agent_read: true }
    }
}

impl InMemoryConsul {
    /// Creates a session from Consul's own JSON, and returns its id.
    pub fn create(&mut self, body: &Value) -> String {
        let (status, body) = answer(&mut self.agent, http::Method::PUT, "/v1/session/create", body.to_string());
        assert_eq!(status, 200, "{body}");
        body["ID"].as_str().unwrap().to_owned()
    }

    pub fn destroy(&mut self, id: &str) {
        let (status, body) = answer(&mut self.agent, http::Method::PUT, &format!("/v1/session/destroy/{id}"), String::new());
        assert_eq!(status, 200, "{body}");
    }

    /// Returns a session in Consul's own JSON.
    pub fn get(&self, id: &str) -> Option<Value> {
        self.read(&format!("/v1/session/info/{id}")).pop()
    }

    /// Returns the ids of the sessions of this name, the oldest first.
    pub fn named(&self, name: &str) -> Vec<String> {
        let mut sessions = self.read("/v1/session/list");
        sessions.retain(|session| session["Name"] == name);
        sessions.sort_by_key(|session| session["CreateIndex"].as_u64());
        sessions.iter().map(|session| session["ID"].as_str().unwrap().to_owned()).collect()
    }

    fn read(&self, path: &str) -> Vec<Value> {
        let (status, body) = answer(&mut self.agent.clone(), http::Method::GET, path, String::new());
        assert_eq!(status, 200, "{body}");
        serde_json::from_value(body).unwrap()
    }

    /// Sends a request, but answers a read without `consistent` from `past`: just after a change of
    /// leader, such a read can show an earlier state.
    pub fn send_with_stale_reads(&mut self, request: &Request, past: &InMemoryConsul) -> Result<Response, Error> {
        let query = request.path_and_query.split_once('?').map_or("", |(_, query)| query);
        if request.method == Method::Get && !query.split('&').any(|part| part == "consistent") {
            past.clone().send(request)
        } else {
            self.send(request)
        }
    }
}

impl Transport for InMemoryConsul {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        if request.path_and_query == "/v1/agent/self" && !self.agent_read {
            let denied = "Permission denied: token with AccessorID 'x' lacks permission 'agent:read' on \"n1\"";
            return Ok(Response { status: 403, headers: Vec::new(), body: denied.into() });
        }
        let method = match request.method {
            Method::Get => http::Method::GET,
            Method::Put => http::Method::PUT,
            Method::Post => http::Method::POST,
        };
        let sent = http::Request::builder().method(method).uri(&request.path_and_query);
        let response = self.agent.answer(&sent.body(Bytes::copy_from_slice(&request.body)).unwrap());
        let status = response.status().as_u16();
        assert!(![404, 405].contains(&status), "no such endpoint: {request:?}");
        let header = |&name| Some((name, response.headers().get(name)?.to_str().unwrap().to_owned()));
        Ok(Response { status, headers: request.headers.iter().filter_map(header).collect(), body: response.into_body().into() })
    }
}

/// Returns the status and the JSON of the agent's answer.
fn answer(agent: &mut Agent, method: http::Method, path: &str, body: String) -> (u16, Value) {
    let request = http::Request::builder().method(method).uri(path).body(Bytes::from(body)).unwrap();
    let response = agent.answer(&request);
    let body = serde_json::from_slice(response.body()).unwrap_or_else(|_| format!("{:?}", response.body()).into());
    (response.status().as_u16(), body)
}
