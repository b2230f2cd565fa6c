//! A server that answers at once with prepared bodies, so that the measured time is the caller's.
//!
//! It runs in its own process, so that its processor time and memory are not counted as a caller's.

use anyhow::{Context, Result};
use http_body_util::Full;
use hyper::body::{Bytes, Incoming};
use hyper::header::{CONTENT_TYPE, HeaderName, HeaderValue};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper::{Request, Response};
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use std::convert::Infallible;
use std::io::{BufRead, BufReader};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use tokio::net::TcpListener;

/// First argument to run this program as the canned server.
pub const SERVE: &str = "serve";
/// Node of all sessions.
pub const NODE: &str = "agent-node";

/// The server process. Killed when this is dropped.
pub struct Server {
    process: Child,
    lists: Vec<(usize, SocketAddr)>,
}

impl Server {
    /// Starts this program again as a server with one list of each of these sizes.
    pub fn start(sizes: &[usize]) -> Result<Server> {
        let mut command = Command::new(std::env::current_exe()?);
        command.arg(SERVE).args(sizes.iter().map(usize::to_string)).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut process = command.spawn()?;
        let lines = BufReader::new(process.stdout.take().context("no output")?).lines();
        let mut lists = Vec::new();
        for (size, line) in sizes.iter().zip(lines) {
            lists.push((*size, line?.parse()?));
        }
        Ok(Server { process, lists })
    }

    /// Returns the address whose list has this many sessions.
    pub fn address(&self, size: usize) -> Option<SocketAddr> {
        self.lists.iter().find(|(listed, _)| *listed == size).map(|(_, address)| *address)
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        // Fails only if the process has already ended.
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// Runs the server: prints the address for each size, then serves until standard input ends.
pub fn serve(sizes: &[String]) -> Result<()> {
    std::thread::spawn(|| {
        let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
        std::process::exit(0);
    });
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(async {
        let mut listening = Vec::new();
        for size in sizes {
            let answers = Arc::new(Answers::new(size.parse()?));
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await?;
            println!("{}", listener.local_addr()?);
            listening.push(tokio::spawn(accept(listener, answers)));
        }
        for task in listening {
            task.await??;
        }
        Ok(())
    })
}

async fn accept(listener: TcpListener, answers: Arc<Answers>) -> Result<()> {
    loop {
        let (stream, _) = listener.accept().await?;
        stream.set_nodelay(true)?;
        let answers = Arc::clone(&answers);
        tokio::spawn(async move {
            let service = service_fn(|request| std::future::ready(Ok::<_, Infallible>(answers.answer(&request))));
            // A caller that disconnects is not an error.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}

/// The bodies of all answers.
struct Answers {
    info: Bytes,
    list: Bytes,
    created: Bytes,
    destroyed: Bytes,
    agent: Bytes,
}

impl Answers {
    fn new(sessions: usize) -> Answers {
        let bytes = |value: Value| Bytes::from(value.to_string());
        let entry = |n| if sessions < SHORT { session(n).to_string() } else { short(n) };
        let list = format!("[{}]", (0..sessions).map(entry).collect::<Vec<_>>().join(","));
        Answers {
            info: bytes(json!([session(0)])),
            list: list.into(),
            created: bytes(json!({"ID": id(0)})),
            destroyed: bytes(json!(true)),
            agent: bytes(agent()),
        }
    }

    fn answer(&self, request: &Request<Incoming>) -> Response<Full<Bytes>> {
        let known = [
            ("/v1/session/info/", &self.info),
            ("/v1/session/list", &self.list),
            ("/v1/session/create", &self.created),
            ("/v1/session/destroy/", &self.destroyed),
            ("/v1/agent/self", &self.agent),
        ];
        let found = known.iter().find(|(path, _)| request.uri().path().starts_with(path));
        let mut response = Response::new(Full::new(found.map(|(_, body)| Bytes::clone(body)).unwrap_or_default()));
        if found.is_none() {
            *response.status_mut() = hyper::StatusCode::NOT_FOUND;
        }
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        // The headers of a real agent.
        for (name, value) in [
            ("vary", "Accept-Encoding"),
            ("x-consul-default-acl-policy", "allow"),
            ("x-consul-effective-consistency", "leader"),
            ("x-consul-index", "12"),
            ("x-consul-knownleader", "true"),
            ("x-consul-lastcontact", "0"),
            ("x-consul-query-backend", "blocking-query"),
        ] {
            headers.insert(HeaderName::from_static(name), HeaderValue::from_static(value));
        }
        response
    }
}

/// Returns the ID of the n-th session. IDs are not sorted, as with a real agent.
pub fn id(n: usize) -> String {
    let mixed = (n as u64).wrapping_add(1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
    format!("{:08x}-{:04x}-4{:03x}-8{:03x}-{n:012x}", mixed >> 32, mixed >> 16 & 0xffff, mixed >> 4 & 0xfff, mixed & 0xfff)
}

/// Returns the name of the n-th session.
pub fn name(n: usize) -> String {
    format!("session-{n}")
}

fn session(n: usize) -> Value {
    json!({
        "ID": id(n), "Name": name(n), "Node": NODE, "LockDelay": 15_000_000_000_u64, "Behavior": "release", "TTL": "",
        "NodeChecks": ["serfHealth"], "ServiceChecks": null, "CreateIndex": 100 + n, "ModifyIndex": 100 + n,
    })
}

/// From this size on a list has the shortest possible sessions: full ones would exceed what the
/// plugin reads.
pub const SHORT: usize = 250_000;

fn short(n: usize) -> String {
    format!(r#"{{"ID":"{}","CreateIndex":{n}}}"#, id(n))
}

/// Returns the answer of `/v1/agent/self`: 17 kB, as a real agent's, most of it unrelated settings.
fn agent() -> Value {
    let setting =
        |n: usize| (format!("SettingOfTheAgent{n}"), json!({"Value": format!("{n}s"), "List": [n, n + 1], "On": true}));
    json!({
        "Config": {"Datacenter": "dc1", "PrimaryDatacenter": "dc1", "NodeName": NODE, "Server": true, "Version": "1.20.6"},
        "DebugConfig": (0..250).map(setting).collect::<serde_json::Map<_, _>>(),
        "Stats": {}, "Meta": {},
    })
}
