//! The same work in plain Rust: hyper's pooled client with the settings of the library, and serde.

use super::{Caller, Client};
use crate::canned::NODE;
use anyhow::{Context, Result, anyhow, ensure};
use http_body_util::{BodyExt, Full, Limited};
use hyper::body::Bytes;
use hyper::header::{CONTENT_LENGTH, HeaderMap};
use hyper::{Method, Request, StatusCode};
use hyper_util::client::legacy::Client as HttpClient;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::{TokioExecutor, TokioTimer};
use serde::Deserialize;
use serde_json::json;
use std::net::SocketAddr;
use std::time::Duration;
use tokio::time::timeout;

/// Name in the tables, in this process and as a program.
pub const NATIVE: &str = "native Rust";

/// The HTTP client, which all callers share.
pub struct Native(HttpClient<HttpConnector, Full<Bytes>>);

/// A session with the same fields as the plugin's.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct Session {
    #[serde(rename = "ID")]
    id: String,
    name: String,
    node: String,
    lock_delay: i64,
    behavior: String,
    #[serde(rename = "TTL")]
    ttl: String,
    node_checks: Option<Vec<String>>,
    service_checks: Option<Vec<ServiceCheck>>,
    checks: Option<Vec<String>>,
    namespace: Option<String>,
    partition: Option<String>,
    create_index: u64,
    modify_index: u64,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(rename_all = "PascalCase", default)]
struct ServiceCheck {
    #[serde(rename = "ID")]
    id: String,
    namespace: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Created {
    #[serde(rename = "ID")]
    id: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Agent {
    config: Config,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Config {
    node_name: String,
}

/// The plugin's answer to a read.
struct Listing {
    sessions: Vec<Session>,
    _index: u64,
    _filtered: bool,
}

/// A caller: the HTTP client and the agent's authority.
pub struct NativeCaller {
    client: HttpClient<HttpConnector, Full<Bytes>>,
    authority: String,
}

impl Native {
    /// Returns a client with its own connection pool.
    pub fn new() -> Native {
        let mut connector = HttpConnector::new();
        connector.set_nodelay(true);
        let mut builder = HttpClient::builder(TokioExecutor::new());
        builder.timer(TokioTimer::new()).pool_timer(TokioTimer::new());
        Native(builder.pool_idle_timeout(Duration::from_secs(30)).pool_max_idle_per_host(64).build(connector))
    }
}

impl Client for Native {
    type Caller = NativeCaller;

    fn name(&self) -> String {
        NATIVE.into()
    }

    async fn caller(&self, address: SocketAddr) -> Result<NativeCaller> {
        Ok(NativeCaller { client: self.0.clone(), authority: address.to_string() })
    }
}

impl NativeCaller {
    /// Sends a request. Returns headers and body of an answer with status 200.
    async fn send(&self, method: Method, path: &str, body: Vec<u8>) -> Result<(HeaderMap, Bytes)> {
        let request = Request::builder()
            .method(method)
            .uri(format!("http://{}/v1/{path}", self.authority))
            .header(CONTENT_LENGTH, body.len())
            .body(Full::new(body.into()))?;
        let exchange = async {
            let (head, body) = self.client.request(request).await?.into_parts();
            let body = Limited::new(body, 64 << 20).collect().await.map_err(|error| anyhow!(error))?.to_bytes();
            ensure!(head.status == StatusCode::OK, "status {}: {}", head.status, String::from_utf8_lossy(&body));
            Ok((head.headers, body))
        };
        timeout(Duration::from_secs(10), exchange).await?
    }

    /// Returns the size of an answer's body.
    pub async fn body(&self, path: &str) -> Result<usize> {
        Ok(self.send(Method::GET, path, Vec::new()).await?.1.len())
    }

    async fn read(&self, path: &str) -> Result<Listing> {
        let (headers, body) = self.send(Method::GET, path, Vec::new()).await?;
        let mut sessions: Vec<Session> = serde_json::from_slice(&body)?;
        sessions.sort_by(|a, b| (a.create_index, &a.id).cmp(&(b.create_index, &b.id)));
        let header = |name: &str| headers.get(name).and_then(|value| value.to_str().ok());
        Ok(Listing {
            sessions,
            _index: header("x-consul-index").and_then(|index| index.parse().ok()).unwrap_or(0),
            _filtered: header("x-consul-results-filtered-by-acls") == Some("true")
                || header("x-consul-default-acl-policy") == Some("deny"),
        })
    }
}

impl Caller for NativeCaller {
    async fn info(&mut self, id: &str) -> Result<()> {
        let found = self.read(&format!("session/info/{id}")).await?;
        ensure!(found.sessions.len() == 1, "no session");
        Ok(())
    }

    async fn create(&mut self, name: &str) -> Result<String> {
        let session = json!({"Name": name, "LockDelay": "15s", "Behavior": "release"});
        let (_, body) = self.send(Method::PUT, "session/create", session.to_string().into()).await?;
        Ok(serde_json::from_slice::<Created>(&body)?.id)
    }

    async fn destroy(&mut self, id: &str) -> Result<()> {
        let (_, body) = self.send(Method::PUT, &format!("session/destroy/{id}"), Vec::new()).await?;
        ensure!(serde_json::from_slice::<bool>(&body)?, "not destroyed");
        Ok(())
    }

    async fn present(&mut self, name: &str) -> Result<bool> {
        let mut found = self.read("session/list").await?.sessions;
        found.retain(|session| session.name == name);
        if !found.is_empty() {
            let (_, body) = self.send(Method::GET, "agent/self", Vec::new()).await?;
            let node = serde_json::from_slice::<Agent>(&body)?.config.node_name;
            found.retain(|session| session.node.eq_ignore_ascii_case(&node));
        }
        if found.is_empty() {
            self.create(name).await?;
        }
        Ok(found.is_empty())
    }

    async fn list(&mut self) -> Result<usize> {
        Ok(self.read("session/list").await?.sessions.len())
    }
}

/// First argument to read one session and exit.
pub const ONCE: &str = "once";

/// Reads one session: the whole work of a program.
pub fn once(args: &[String]) -> Result<()> {
    let [address, id] = args else { anyhow::bail!("usage: {ONCE} ADDRESS ID") };
    let address = address.parse().with_context(|| format!("invalid address `{address}` of {NODE}"))?;
    let runtime = tokio::runtime::Runtime::new()?;
    runtime.block_on(async { Native::new().caller(address).await?.info(id).await })
}
