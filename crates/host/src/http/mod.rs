//! Outgoing HTTP for the plugin: the requests of all instances over one client with one pool of connections.
//!
//! What the plugin asks for is what is sent, if the policy allows it: no redirect is followed, no proxy used, nothing decompressed.

mod body;
mod connect;
mod exchange;
mod explain;
mod future;
#[cfg(test)]
mod tests;
mod tls;

pub use exchange::{Exchange, Observer};
pub use future::{Requests, View, add_to_linker};
pub use tls::{Tls, TlsSetupError};

use crate::bindings::Error;
use crate::policy::{Authority, Policy, Rule};
use body::{Limited, Slot};
use connect::{ConnectionState, Connector, LAST_CONNECTION};
use explain::{Explanation, Failure};
use http::header::AUTHORIZATION;
use http::uri::{Parts, Scheme};
use http::{HeaderName, HeaderValue, Method, Request, Response, Uri};
use http_body_util::BodyExt as _;
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::percent_decode_str;
use std::cell::RefCell;
use std::error::Error as StdError;
use std::fmt;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::str::FromStr;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use wasmtime_wasi_http::{Error as Code, RequestOptions, WasiBody, WasiHttpHooks};

/// The scheme with which a component asks for HTTPS whose certificate is not verified.
pub const INSECURE: &str = "https+insecure";

/// The paths on which the host adds its token: those that the plugin uses, and a `/` at the end stands for all below. Not more,
/// since others would read the token back to the component (`/v1/acl/token/self`), or do with it what nobody granted.
const TOKEN_PATHS: [&str; 3] = ["/v1/session/", "/v1/agent/self", "/v1/internal/acl/authorize"];
/// Those that it needs for locks beside.
const LOCK_PATHS: [&str; 2] = [KEYS, "/v1/txn"];
/// Where a key's name stands behind.
const KEYS: &str = "/v1/kv/";

/// How long an unused connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How many unused connections are kept for each authority. Consul accepts 200 from one address by default.
const MAX_IDLE: usize = 64;

/// What the peer may send on one HTTP/2 stream before the component has read any of it. Answers may have tens of MB, and each
/// window costs a round trip.
const STREAM_WINDOW: u32 = 4 << 20;
/// The same for all streams of a connection.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// How often an HTTP/2 connection with an open request is asked for a sign of life, and how long that may take. HTTP/1.1 has
/// nothing like it; there the plugin's deadline has to do.
const PING_INTERVAL: Duration = Duration::from_secs(15);
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long after the end of a connection an error of its requests is waited for.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// The most that a component writes of a body in one call. The plugin writes 4 KiB at a time.
pub const BODY_CHUNK: usize = 64 << 10;

type SendResult = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Code>> + Send>), Code>;

/// The answer to a request: its head, with its body to be read.
type Answer = Result<Response<WasiBody>, Code>;

/// Where the host may connect, and how. Default: nowhere.
#[derive(Clone, Debug, Default)]
pub struct Network {
    /// What may be connected to.
    pub policy: Policy,
    /// Authorities whose certificates are not verified if the plugin asks for that (`validate_certs=false`).
    pub insecure: Vec<Rule>,
    /// Certificates.
    pub tls: Tls,
    /// Tokens that stay with the host. The first rule that matches the authority counts.
    pub tokens: Vec<(Rule, Token)>,
    /// Whether the host's tokens are for keys too.
    pub locks: bool,
    /// Authorities that are reached by a Unix socket. The policy has to allow the socket, not the authority.
    pub sockets: Vec<(Authority, PathBuf)>,
    /// Who is told of each request.
    pub observer: Observer,
}

impl Network {
    /// The Unix socket of an authority.
    fn socket(&self, authority: &Authority) -> Option<&Path> {
        self.sockets.iter().find(|(mapped, _)| mapped == authority).map(|(_, path)| path.as_path())
    }

    fn token(&self, authority: &Authority) -> Option<&Token> {
        self.tokens.iter().find(|(rule, _)| rule.matches(authority)).map(|(_, token)| token)
    }
}

/// A token of Consul's ACL system. `Debug` hides it.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl FromStr for Token {
    type Err = InvalidToken;

    /// Takes the text as it is.
    ///
    /// Errors: it is empty, or no value of a header.
    fn from_str(text: &str) -> Result<Token, InvalidToken> {
        let mut value = HeaderValue::from_str(text).map_err(|_| InvalidToken)?;
        if value.is_empty() {
            return Err(InvalidToken);
        }
        value.set_sensitive(true);
        Ok(Token(value))
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A text that is no token.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct InvalidToken;

impl fmt::Display for InvalidToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // Without the text: a mistyped token is a secret too.
        f.write_str("a token is not empty, and has no line break and no other control character")
    }
}

impl StdError for InvalidToken {}

/// What one instance may ask for.
#[derive(Clone, Copy, Debug)]
pub struct RequestLimits {
    /// Bytes in the body of one response.
    pub response_bytes: u64,
    /// Requests under way at once: from sending to the end of the response.
    pub in_flight: usize,
    /// Requests in one call.
    pub per_call: u64,
}

/// The client of all instances. Clones share the pool.
#[derive(Clone)]
pub struct Http {
    network: Arc<Network>,
    clients: Arc<Clients>,
}

struct Clients {
    verified: Client<Connector, WasiBody>,
    /// With a pool of its own, so that no verified request ever runs over a connection that was not.
    insecure: Client<Connector, WasiBody>,
}

impl Http {
    /// Errors: a file of [`Network::tls`] cannot be used.
    pub fn new(network: Network) -> wasmtime::Result<Http> {
        let (verified, insecure) = network.tls.client_configs()?;
        let server_name = network.tls.server_name()?;
        let network = Arc::new(network);
        let client = |mut tls: rustls::ClientConfig| {
            tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
            client(Connector::new(Arc::clone(&network), tls, server_name.clone()))
        };
        let clients = Arc::new(Clients { verified: client(verified), insecure: client(insecure) });
        Ok(Http { network, clients })
    }

    /// The `wasi:http` of one instance.
    pub fn outgoing(&self, limits: RequestLimits) -> Outgoing {
        Outgoing {
            http: self.clone(),
            limits,
            sent: 0,
            slot: Slot::default(),
            memory: LastFailure::default(),
            requests: Requests::default(),
        }
    }
}

fn client(connector: Connector) -> Client<Connector, WasiBody> {
    Client::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE_TIMEOUT)
        .pool_max_idle_per_host(MAX_IDLE)
        .http2_initial_stream_window_size(STREAM_WINDOW)
        .http2_initial_connection_window_size(CONNECTION_WINDOW)
        .http2_keep_alive_interval(PING_INTERVAL)
        .http2_keep_alive_timeout(PING_TIMEOUT)
        // Safe for a PUT: only a request of which no byte was written, because the reused connection turned out to
        // be closed, is sent again on another connection. One that was begun fails, and the plugin looks whether
        // it happened. Without this, the first request after a restart of the agent could fail.
        .retry_canceled_requests(true)
        .build(connector)
}

/// Why a request failed, if it did. Shared with the request, which outlives the function that sends it.
#[derive(Clone, Default)]
struct LastFailure(Arc<Mutex<Option<Explanation>>>);

impl LastFailure {
    /// The code for the component; the explanation is kept.
    fn tell(&self, failure: &Failure, at: &Authority) -> Code {
        let (code, explanation) = failure.tell(at);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = explanation;
        code
    }

    /// What the host knows of it.
    fn text(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|explanation| explanation.text().to_owned())
    }
}

/// The `wasi:http` of one instance.
pub struct Outgoing {
    http: Http,
    limits: RequestLimits,
    /// Requests of this call.
    sent: u64,
    slot: Slot,
    /// Of the last request: what an earlier one failed of is no reason of a later error.
    memory: LastFailure,
    /// Those that have no answer yet.
    requests: Requests,
}

impl Outgoing {
    /// Begins a call: forgets the last explanation and counts from 0.
    pub fn begin(&mut self) {
        self.sent = 0;
        self.memory = LastFailure::default();
    }

    /// Whether the component sent more requests in this call than it may; the host then ends the call.
    pub fn flooded(&self) -> bool {
        self.sent > self.limits.per_call
    }

    /// The plugin's error with what only the host knows: which rule to add, what is wrong with a certificate.
    pub fn explain(&self, error: Error) -> Error {
        match &*self.memory.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(explanation) => explanation.apply(error),
            None => error,
        }
    }

    /// The requests that have no answer yet, to be carried on.
    pub fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Dropping the future, as is done when the guest drops its handle of the response, or ends, makes hyper close the
    /// connection, or reset the stream on HTTP/2: an unread answer can then be no other request's.
    fn send(&mut self, mut request: Request<WasiBody>) -> Pin<Box<dyn Future<Output = Answer> + Send>> {
        self.sent = self.sent.saturating_add(1);
        // A new one: an earlier request may still write to its own.
        self.memory = LastFailure::default();
        let at = Authority::of(request.uri()).ok();
        let mut report = self.http.network.observer.begin(&request, at.as_ref(), &self.memory);
        let Some(at) = at else {
            report.failed(&Code::HttpRequestUriInvalid);
            return Box::pin(async { Err(Code::HttpRequestUriInvalid) });
        };
        let insecure = match self.admit(&mut request, &at) {
            Ok(insecure) => insecure,
            Err(failure) => {
                let code = self.memory.tell(&failure, &at);
                report.failed(&code);
                return Box::pin(async { Err(code) });
            }
        };
        let clients = Arc::clone(&self.http.clients);
        let (memory, slot, limit) = (self.memory.clone(), self.slot.clone(), self.limits.response_bytes);
        Box::pin(async move {
            let client = if insecure { &clients.insecure } else { &clients.verified };
            let answer = send(client, request, &at, &memory).await.inspect_err(|code| report.failed(code))?;
            let (parts, body) = answer.into_parts();
            report.answered(parts.status.as_u16());
            let body = Limited::new(body, limit, slot, report, at, memory)?.boxed_unsync();
            Ok(Response::from_parts(parts, body))
        })
    }

    /// Whether a request that may be sent is to be sent without verification. It gets its token if it is to have one.
    fn admit(&self, request: &mut Request<WasiBody>, at: &Authority) -> Result<bool, Failure> {
        let RequestLimits { in_flight, per_call, .. } = self.limits;
        if self.flooded() {
            return Err(Failure::TooMany(per_call));
        }
        if self.slot.taken() >= in_flight {
            return Err(Failure::TooManyAtOnce(in_flight));
        }
        let network = &self.http.network;
        match network.socket(at) {
            Some(path) => network.policy.check_socket(path).map_err(Failure::Denied)?,
            None => network.policy.check(at).map_err(Failure::Denied)?,
        }
        let insecure = request.uri().scheme_str() == Some(INSECURE);
        if insecure {
            if !network.insecure.iter().any(|rule| rule.matches(at)) {
                return Err(Failure::NotInsecure);
            }
            // The name is between component and host. On HTTP/2 the scheme goes to the server, which knows no such name.
            *request.uri_mut() = with_scheme(request.uri(), Scheme::HTTPS).ok_or(Failure::Uri)?;
        }
        if let Some(Token(token)) = network.token(at).filter(|_| wants_token(request, network.locks)) {
            request.headers_mut().insert(TOKEN_HEADER, token.clone());
        }
        Ok(insecure)
    }
}

const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-consul-token");

/// Whether the host adds its token: not to a request that has one, and only where an answer cannot give it away.
fn wants_token<B>(request: &Request<B>, locks: bool) -> bool {
    let own = request.headers().contains_key(TOKEN_HEADER) || request.headers().contains_key(AUTHORIZATION);
    // TRACE answers with what was sent, and CONNECT has no path.
    let method = matches!(*request.method(), Method::GET | Method::PUT | Method::POST | Method::DELETE);
    let paths = TOKEN_PATHS.iter().chain(LOCK_PATHS.iter().filter(|_| locks));
    !own && method && is_token_path(request.uri().path(), paths)
}

/// Whether the path is one of these, and will be for whoever reads it: a path that a server may understand otherwise (dot
/// segments, empty ones, encoded separators but for those in a key's name) gets no token.
fn is_token_path<'a>(path: &str, mut known: impl Iterator<Item = &'a &'a str>) -> bool {
    let plain = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..") && !segment.iter().any(|byte| b"/\\%".contains(byte));
    let decode = |text| percent_decode_str(text).collect::<Vec<u8>>();
    let all_plain = match path.strip_prefix(KEYS) {
        Some(key) => decode(key).split(|byte| *byte == b'/').all(plain),
        None => path.strip_prefix('/').is_some_and(|inside| inside.split('/').all(|segment| plain(&decode(segment)))),
    };
    all_plain && known.any(|known| if known.ends_with('/') { path.starts_with(known) } else { path == *known })
}

fn with_scheme(uri: &Uri, scheme: Scheme) -> Option<Uri> {
    let mut parts = Parts::from(uri.clone());
    parts.scheme = Some(scheme);
    Uri::from_parts(parts).ok()
}

impl WasiHttpHooks for Outgoing {
    // `set_host_header` stays wasmtime's: `Host` is the authority, as the guest wrote it.

    /// Less than by default: what a component hands over in one call may be no more than twice this.
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    /// For any other the guest gets `HTTP-protocol-error`.
    fn is_supported_scheme(&mut self, scheme: &Scheme) -> bool {
        *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS || scheme.as_str() == INSECURE
    }

    /// Not called, since `handle` is the host's own; see [`add_to_linker`].
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Code>> + Send>,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let answer = self.send(request);
        Box::new(async { Ok((answer.await?, Box::new(async { Ok(()) }) as Box<_>)) })
    }
}

/// The head of the response. On failure the code for the component, with the explanation in `memory`.
async fn send(
    client: &Client<Connector, WasiBody>,
    mut request: Request<WasiBody>,
    at: &Authority,
    memory: &LastFailure,
) -> Result<Response<Incoming>, Code> {
    let captured = capture_connection(&mut request);
    let exchange = async {
        tokio::select! {
            biased;
            result = client.request(request) => result.map_err(|error| match error.source().and_then(|cause| cause.downcast_ref()) {
                Some(failure) => memory.tell(failure, at),
                None => memory.tell(&failure(&error, LAST_CONNECTION.with(RefCell::take)), at),
            }),
            connection = lost(captured) => Err(memory.tell(&connection.refused().unwrap_or(Failure::Broken), at)),
        }
    };
    let response = LAST_CONNECTION.scope(RefCell::default(), exchange).await?;
    if let Some(connection) = response.extensions().get::<ConnectionState>() {
        connection.answered();
    }
    Ok(response)
}

/// What a failure was that is not the connector's. `opened`: the connection that the request opened, if it did.
fn failure(error: &ClientError, opened: Option<ConnectionState>) -> Failure {
    let used = error.connect_info();
    if let Some(refused) = used.and_then(ConnectionState::of).or(opened).and_then(|connection| connection.refused()) {
        return refused;
    }
    let cause: Option<&hyper::Error> = error.source().and_then(|cause| cause.downcast_ref());
    match cause {
        // Canceled is what hyper calls a request that it still has in its hands.
        _ if used.is_none() || cause.is_some_and(hyper::Error::is_canceled) => Failure::NotSent,
        Some(cause) if cause.is_timeout() => Failure::Dead,
        _ => Failure::Broken,
    }
}

/// Ends when the connection of a request is gone and has left the request without an answer and without an error. That happens
/// when the end of a connection and a request for it cross in hyper's channel (hyperium/hyper#4122).
async fn lost(mut captured: CaptureConnection) -> ConnectionState {
    loop {
        let used = captured.wait_for_connection_metadata().await.as_ref().and_then(ConnectionState::of);
        let Some(used) = used else { return std::future::pending().await };
        used.gone().await;
        tokio::time::sleep(LOST_AFTER).await;
        // It may be on its way again, on another connection.
        let newer = captured.connection_metadata().as_ref().and_then(ConnectionState::of).is_none_or(|watch| !watch.is(&used));
        let opening = LAST_CONNECTION.with(|opened| opened.borrow().as_ref().is_some_and(|watch| !watch.is_gone()));
        if !newer && !opening {
            return used;
        }
    }
}
