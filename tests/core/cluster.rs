//! A Consul in memory: sessions with ids, indexes, nodes and checks, as `session/*` and `agent/self` show them.

use consul_session::transport::{INDEX, Method, Request, Response};
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// What it holds. A value: copied to go back, and compared.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Cluster {
    /// The node of the agent that is asked.
    own_node: String,
    /// The nodes on which sessions can be created.
    nodes: Vec<String>,
    /// Whether `agent/self` may be asked.
    pub agent_read: bool,
    /// By id, which is the order in which Consul lists them.
    sessions: BTreeMap<String, Stored>,
    index: u64,
}

/// A session.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Stored {
    pub name: String,
    pub node: String,
    pub lock_delay: i64,
    pub behavior: String,
    pub ttl: String,
    pub node_checks: Vec<String>,
    pub create_index: u64,
}

impl Default for Cluster {
    fn default() -> Cluster {
        Cluster {
            own_node: "n1".into(),
            nodes: vec!["n1".into(), "n2".into()],
            agent_read: true,
            sessions: BTreeMap::new(),
            index: 10,
        }
    }
}

impl Cluster {
    /// Creates a session from Consul's own JSON; its id.
    pub fn create(&mut self, body: &Value) -> Result<String, String> {
        let text = |key: &str| body[key].as_str().map(String::from);
        let node = text("Node").unwrap_or_else(|| self.own_node.clone());
        if !self.nodes.iter().any(|known| known.eq_ignore_ascii_case(&node)) {
            return Err("apply failed: Missing node registration".into());
        }
        self.index += 1;
        let id = id(self.index);
        let checks =
            body["NodeChecks"].as_array().map(|list| list.iter().map(|check| check.as_str().unwrap().into()).collect());
        let session = Stored {
            name: text("Name").unwrap_or_default(),
            node,
            lock_delay: text("LockDelay").map_or(15_000_000_000, |delay| nanoseconds(&delay)),
            behavior: text("Behavior").unwrap_or_else(|| "release".into()),
            ttl: text("TTL").unwrap_or_default(),
            node_checks: checks.unwrap_or_else(|| vec!["serfHealth".into()]),
            create_index: self.index,
        };
        self.sessions.insert(id.clone(), session);
        Ok(id)
    }

    pub fn destroy(&mut self, id: &str) {
        if self.sessions.remove(id).is_some() {
            self.index += 1;
        }
    }

    pub fn get(&self, id: &str) -> Option<&Stored> {
        self.sessions.get(id)
    }

    /// The ids of the sessions of this name, the oldest first.
    pub fn named(&self, name: &str) -> Vec<String> {
        let mut named: Vec<_> = self.sessions.iter().filter(|(_, session)| session.name == name).collect();
        named.sort_by_key(|(_, session)| session.create_index);
        named.into_iter().map(|(id, _)| id.clone()).collect()
    }

    /// Does what the request says.
    ///
    /// `past` is what a read shows that does not ask for consistency: just after a change of leader that may be what was true
    /// some time ago.
    pub fn answer(&mut self, request: &Request, past: &Cluster) -> Response {
        let (path, query) = request.path_and_query.split_once('?').unwrap_or((&request.path_and_query, ""));
        let shown = if query.split('&').any(|part| part == "consistent") { &*self } else { past };
        let (collection, item) = path.strip_prefix("/v1/").and_then(|path| path.rsplit_once('/')).unwrap_or_default();
        match (request.method, collection, item) {
            (Method::Get, "session", "list") => shown.list(|_, _| true),
            (Method::Get, "session/node", node) => shown.list(|_, session| session.node.eq_ignore_ascii_case(node)),
            (Method::Get, "session/info", wanted) => shown.list(|id, _| id == wanted),
            (Method::Get, "agent", "self") if !self.agent_read => {
                text(403, "Permission denied: token with AccessorID 'x' lacks permission 'agent:read' on \"n1\"")
            }
            (Method::Get, "agent", "self") => text(200, &json!({"Config": {"NodeName": self.own_node}}).to_string()),
            (Method::Put, "session", "create") => match self.create(&serde_json::from_slice(&request.body).unwrap()) {
                Ok(id) => text(200, &json!({"ID": id}).to_string()),
                Err(refusal) => text(500, &refusal),
            },
            (Method::Put, "session/destroy", id) => {
                self.destroy(id);
                text(200, "true")
            }
            other => panic!("no such endpoint: {other:?}"),
        }
    }

    fn list(&self, wanted: impl Fn(&str, &Stored) -> bool) -> Response {
        let list: Vec<Value> = self
            .sessions
            .iter()
            .filter(|(id, session)| wanted(id, session))
            .map(|(id, session)| {
                json!({
                    "ID": id, "Name": session.name, "Node": session.node, "LockDelay": session.lock_delay,
                    "Behavior": session.behavior, "TTL": session.ttl, "NodeChecks": session.node_checks, "ServiceChecks": null,
                    "CreateIndex": session.create_index, "ModifyIndex": session.create_index,
                })
            })
            .collect();
        let mut response = text(200, &Value::from(list).to_string());
        response.headers.push((INDEX, self.index.to_string()));
        response
    }
}

fn text(status: u16, body: &str) -> Response {
    Response { status, headers: Vec::new(), body: body.into() }
}

/// An id whose order says nothing about its age, as with Consul's.
fn id(index: u64) -> String {
    let mixed = index.wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:08x}-{:04x}-4000-8000-{index:012x}", mixed >> 32, mixed & 0xffff)
}

/// The durations that a creation sends: `15s`, `500ms`.
fn nanoseconds(text: &str) -> i64 {
    let (number, unit) = match text.strip_suffix("ms") {
        Some(number) => (number, 1_000_000),
        None => (text.strip_suffix('s').unwrap(), 1_000_000_000),
    };
    number.parse::<i64>().unwrap() * unit
}
