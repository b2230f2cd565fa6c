//! Direct requests to an agent, a real Consul or the dev agent, that prepare a test and check its
//! results.

use crate::consul::{Kind, ROOT_TOKEN, START_LIMIT};
use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::thread::sleep;
use std::time::{Duration, Instant};

/// A client of the HTTP API of an agent, with all permissions.
#[derive(Clone)]
pub struct Api {
    /// The address of the API.
    pub address: SocketAddr,
    /// Whether it has ACLs, which tests change.
    kind: Kind,
    client: ureq::Agent,
}

/// The answer of an agent.
#[derive(Debug)]
pub struct Answer {
    /// The HTTP status.
    pub status: u16,
    /// The body.
    pub text: String,
}

impl Api {
    /// Makes a client of the agent at this address.
    pub fn new(address: SocketAddr, kind: Kind) -> Api {
        Api { address, kind, client: client(Duration::from_secs(30)) }
    }

    /// Returns this client with another timeout than 30 seconds, for an agent that may be halted.
    #[must_use]
    pub fn with_timeout(self, timeout: Duration) -> Api {
        Api { client: client(timeout), ..self }
    }

    /// Returns the name of the agent's own node.
    pub fn node(&self) -> Result<String> {
        let agent = self.get("/v1/agent/self")?;
        Ok(agent["Config"]["NodeName"].as_str().context("/v1/agent/self without a node name")?.to_owned())
    }

    /// Sends a request and returns the answer, whatever its status.
    pub fn send(&self, method: &str, path: &str, body: Option<&Value>) -> Result<Answer> {
        let request = ureq::http::Request::builder()
            .method(method)
            .uri(format!("http://{}{path}", self.address))
            .header("X-Consul-Token", ROOT_TOKEN)
            .body(body.map(Value::to_string).unwrap_or_default())?;
        let mut response = self.client.run(request).with_context(|| format!("{method} {path}"))?;
        let status = response.status().as_u16();
        let text = response.body_mut().read_to_string().with_context(|| format!("{method} {path}"))?;
        Ok(Answer { status, text })
    }

    /// Sends a GET request and returns the JSON of a 200.
    ///
    /// # Errors
    ///
    /// Any other status.
    pub fn get(&self, path: &str) -> Result<Value> {
        self.send("GET", path, None)?.json().with_context(|| format!("GET {path}"))
    }

    /// Sends a PUT request and returns the JSON of a 200, or a string if the body is not JSON: some
    /// endpoints send no body.
    ///
    /// # Errors
    ///
    /// Any other status.
    pub fn put(&self, path: &str, body: Option<&Value>) -> Result<Value> {
        self.send("PUT", path, body)?.json().with_context(|| format!("PUT {path}"))
    }

    /// Returns all sessions, in Consul's order.
    pub fn sessions(&self) -> Result<Vec<Value>> {
        match self.get("/v1/session/list")? {
            Value::Array(sessions) => Ok(sessions),
            other => bail!("/v1/session/list answered {other}"),
        }
    }

    /// Undoes the changes of tests: removes all sessions, all nodes but the agent's own, keys,
    /// tokens and policies.
    pub fn clean(&self) -> Result<()> {
        if self.kind == Kind::Acl {
            self.clean_acls()?;
        }
        for session in self.sessions()? {
            self.put(&format!("/v1/session/destroy/{}", text(&session, "ID")?), None)?;
        }
        let own = self.node()?;
        for node in array(self.get("/v1/catalog/nodes")?) {
            let name = text(&node, "Node")?;
            if name != own {
                self.put("/v1/catalog/deregister", Some(&json!({"Node": name})))?;
            }
        }
        Ok(())
    }

    /// Registers the checks of the agent's own node that the conformance cases rely on; see their
    /// README. It uses the agent's own API, since an agent removes unknown checks from its node.
    pub fn register_checks(&self) -> Result<()> {
        let register = |name: &str, status: &str| {
            let check = json!({"ID": name, "Name": name, "TTL": "1000h", "Status": status});
            self.put("/v1/agent/check/register", Some(&check))
        };
        register("passing-check", "passing")?;
        register("critical-check", "critical")?;
        let check = json!({"CheckID": "service:web", "TTL": "1000h", "Status": "passing"});
        let service = self.send("PUT", "/v1/agent/service/register", Some(&json!({"Name": "web", "Check": check})))?;
        if service.status == 501 {
            // The dev agent lacks this endpoint, and a session accepts any check.
            register("service:web", "passing")?;
        }
        let start = Instant::now();
        let node = self.node()?;
        while !self.has_checks(&node, &["passing-check", "critical-check", "service:web"])? {
            ensure!(start.elapsed() < START_LIMIT, "the agent's checks did not reach the catalog");
            sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Returns whether the node has all of these checks in the catalog.
    pub fn has_checks(&self, node: &str, ids: &[&str]) -> Result<bool> {
        let checks = array(self.get(&format!("/v1/health/node/{node}"))?);
        Ok(ids.iter().all(|id| checks.iter().any(|check| check["CheckID"] == *id)))
    }

    /// Removes all tokens and policies except the management token, the anonymous token without
    /// permissions, and the built-in ones.
    fn clean_acls(&self) -> Result<()> {
        const ANONYMOUS: &str = "00000000-0000-0000-0000-000000000002";
        self.put("/v1/agent/token/default", Some(&json!({"Token": ""})))?;
        self.put(&format!("/v1/acl/token/{ANONYMOUS}"), Some(&json!({"Policies": []})))?;
        for token in array(self.get("/v1/acl/tokens")?) {
            let id = text(&token, "AccessorID")?;
            if id != ANONYMOUS && token["SecretID"] != ROOT_TOKEN {
                self.send("DELETE", &format!("/v1/acl/token/{id}"), None)?.json()?;
            }
        }
        for policy in array(self.get("/v1/acl/policies")?) {
            let id = text(&policy, "ID")?;
            // The ids of Consul's own policies start with zeros.
            if !id.starts_with("00000000-") {
                self.send("DELETE", &format!("/v1/acl/policy/{id}"), None)?.json()?;
            }
        }
        self.send("DELETE", "/v1/kv/?recurse", None)?.json()?;
        Ok(())
    }
}

impl Answer {
    /// Returns the JSON of a 200, or its body as a string.
    fn json(self) -> Result<Value> {
        if self.status != 200 {
            bail!("status {}: {}", self.status, self.text);
        }
        Ok(serde_json::from_str(&self.text).unwrap_or(Value::String(self.text)))
    }
}

/// Makes a client that returns every answer, whatever its status.
pub fn client(timeout: Duration) -> ureq::Agent {
    let config = ureq::Agent::config_builder().http_status_as_error(false).proxy(None);
    config.timeout_global(Some(timeout)).build().new_agent()
}

fn array(value: Value) -> Vec<Value> {
    match value {
        Value::Array(elements) => elements,
        _ => Vec::new(),
    }
}

fn text<'a>(value: &'a Value, key: &str) -> Result<&'a str> {
    value[key].as_str().with_context(|| format!("no {key} in {value}"))
}
