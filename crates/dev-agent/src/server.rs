//! The agent over HTTP: connections, the clock, and blocking queries.

use crate::agent::{Agent, Reply};
use crate::answer::{response, with_policy};
use http::{Request, Response, StatusCode};
use http_body_util::{BodyExt as _, Full, Limited};
use hyper::body::{Bytes, Incoming};
use hyper::server::conn::http1;
use hyper::service::service_fn;
use hyper_util::rt::TokioIo;
use std::convert::Infallible;
use std::net::SocketAddr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::net::TcpListener;
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};
use tokio::time::{Instant, sleep, timeout_at};

const NODE: &str = "dev-agent";
const MAX_BODY: usize = 1 << 20;

/// An [`Agent`] that answers over HTTP. Its node is `dev-agent`, its datacenter `dc1`. The ids of
/// its sessions are random UUIDs. Dropping it stops it and closes its connections.
pub struct DevAgent {
    shared: Arc<Shared>,
    server: JoinHandle<()>,
}

impl DevAgent {
    /// Starts an agent that listens on `listen`. Port 0 chooses a free port, see
    /// [`DevAgent::addr`].
    ///
    /// # Errors
    ///
    /// The address is not available.
    pub async fn start(listen: SocketAddr) -> std::io::Result<DevAgent> {
        let listener = TcpListener::bind(listen).await?;
        let agent = Agent::at(listener.local_addr()?, NODE);
        let started = Instant::now();
        let shared = Arc::new(Shared { agent: Mutex::new(agent), started, changed: watch::Sender::new(()) });
        let accepting = shared.clone();
        let server = tokio::spawn(async move {
            // The connections end with this task.
            let mut connections = JoinSet::new();
            loop {
                let Ok((stream, _)) = listener.accept().await else {
                    // The failure can be temporary, for example a lack of file descriptors.
                    sleep(Duration::from_millis(50)).await;
                    continue;
                };
                while connections.try_join_next().is_some() {}
                let shared = accepting.clone();
                let service = service_fn(move |request| {
                    let shared = shared.clone();
                    async move { Ok::<_, Infallible>(shared.respond(request).await) }
                });
                connections
                    .spawn(http1::Builder::new().title_case_headers(true).serve_connection(TokioIo::new(stream), service));
            }
        });
        Ok(DevAgent { shared, server })
    }

    /// Registers a passing check on the agent's own node, as `PUT /v1/agent/check/register` does.
    pub fn register_check(&self, id: &str) {
        self.shared.with(|agent| agent.register_check(id));
    }

    /// Returns the address on which the agent listens.
    pub fn addr(&self) -> SocketAddr {
        self.shared.with(|agent| agent.address())
    }
}

impl Drop for DevAgent {
    fn drop(&mut self) {
        self.server.abort();
    }
}

/// The part of the agent that the connections share.
struct Shared {
    agent: Mutex<Agent>,
    started: Instant,
    /// Notified of every change.
    changed: watch::Sender<()>,
}

impl Shared {
    async fn respond(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        let (head, body) = request.into_parts();
        let response = match Limited::new(body, MAX_BODY).collect().await {
            Ok(body) => self.answer(&Request::from_parts(head, body.to_bytes())).await,
            Err(error) => with_policy(response(StatusCode::BAD_REQUEST, error.to_string())),
        };
        response.map(Full::new)
    }

    /// Answers a request. A blocking query is answered when its answer has changed or its time is
    /// over.
    async fn answer(&self, request: &Request<Bytes>) -> Response<Bytes> {
        let mut changed = self.changed.subscribe();
        let reply = || self.with(|agent| (agent.reply(request), agent.next_expiry()));
        let (Reply { response: first, wait }, mut next_expiry) = reply();
        let Some(wait) = wait else { return first };
        // Consul adds a random part of a sixteenth. This agent always adds all of it, the worst
        // case.
        let deadline = Instant::now() + wait + wait / 16;
        loop {
            let wake = next_expiry.map_or(deadline, |expiry| deadline.min(self.started + expiry));
            // An error means that the time has come; the sender lives as long as `self`.
            let _ = timeout_at(wake, changed.changed()).await;
            let (Reply { response, wait }, expiry) = reply();
            let is_new = wait.is_none() && response.body() != first.body();
            if is_new || Instant::now() >= deadline {
                return response;
            }
            next_expiry = expiry;
        }
    }

    /// Sets the agent's clock, runs `action`, and wakes the readers if anything changed.
    fn with<T>(&self, action: impl FnOnce(&mut Agent) -> T) -> T {
        let mut agent = self.agent.lock().unwrap_or_else(PoisonError::into_inner);
        let before = agent.index();
        agent.advance_to(self.started.elapsed());
        let result = action(&mut agent);
        if agent.index() != before {
            self.changed.send_replace(());
        }
        result
    }
}
