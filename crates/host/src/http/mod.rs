//! Outgoing HTTP for the plugin: one client with one connection pool for all instances.
//!
//! A request that the policy allows is sent as the plugin made it. The client follows no redirects,
//! uses no proxy and decompresses nothing.

mod body;
mod connect;
mod exchange;
mod explain;
mod future;
#[cfg(test)]
mod tests;
mod tls;

pub use exchange::Exchange;
pub(crate) use exchange::Observer;
pub(crate) use future::{Requests, View, add_to_linker};
pub use tls::Tls;

use crate::bindings::Error;
use crate::config_error::ConfigError;
use crate::policy::{Authority, Policy, Rule};
use body::{InFlight, LimitedBody};
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

/// The scheme with which the component requests HTTPS without verification of the certificate.
pub(crate) const INSECURE: &str = "https+insecure";

/// The paths for which the host adds its token: those that the plugin uses. A trailing `/` stands
/// for all paths below. Other paths would return the token to the component (`/v1/acl/token/self`),
/// or use it for operations that were not granted.
const TOKEN_PATHS: [&str; 3] = ["/v1/session/", "/v1/agent/self", "/v1/internal/acl/authorize"];
/// The additional paths for locks.
const LOCK_PATHS: [&str; 2] = [KEYS, "/v1/txn"];
/// The prefix of the path of a key.
const KEYS: &str = "/v1/kv/";

/// How long an idle connection is kept.
const IDLE_TIMEOUT: Duration = Duration::from_secs(30);
/// How many idle connections are kept for each authority. Consul accepts 200 connections from one
/// address by default.
const MAX_IDLE: usize = 64;

/// The HTTP/2 window of a stream: how much the peer may send before the component has read any of
/// it. Responses may have tens of MB, and each window costs a round trip.
const STREAM_WINDOW: u32 = 4 << 20;
/// The HTTP/2 window of a connection, for all its streams together.
const CONNECTION_WINDOW: u32 = 16 << 20;
/// The interval of pings on an HTTP/2 connection with an open request. HTTP/1.1 has no pings; there
/// the plugin's deadline ends the request.
const PING_INTERVAL: Duration = Duration::from_secs(15);
/// How long the peer may take to answer a ping.
const PING_TIMEOUT: Duration = Duration::from_secs(10);

/// How long to wait for the errors of a connection's requests after the connection ended.
const LOST_AFTER: Duration = Duration::from_secs(1);

/// The most that a component may write to a body in one host call. The plugin writes 4 KiB at a
/// time.
pub(crate) const BODY_CHUNK: usize = 64 << 10;

type SendResult = Result<(Response<WasiBody>, Box<dyn Future<Output = Result<(), Code>> + Send>), Code>;

/// The result of a request: the head of the response, with a body to read.
type ResponseResult = Result<Response<WasiBody>, Code>;

/// Where the host may connect, and how. Default: nowhere.
#[derive(Clone, Debug, Default)]
pub(crate) struct Network {
    /// The authorities and sockets that are allowed.
    pub(crate) policy: Policy,
    /// Authorities whose certificates are not verified if the plugin requests it
    /// (`validate_certs=false`).
    pub(crate) insecure: Vec<Rule>,
    /// The certificates to trust and to present.
    pub(crate) tls: Tls,
    /// Tokens that the component never sees. The first rule that matches the authority counts.
    pub(crate) tokens: Vec<(Rule, Token)>,
    /// Whether the tokens are added to requests for locks too.
    pub(crate) locks: bool,
    /// Authorities that are reached over a Unix socket. The policy must allow the socket, not the
    /// authority.
    pub(crate) sockets: Vec<(Authority, PathBuf)>,
    /// The observer of requests.
    pub(crate) observer: Observer,
}

impl Network {
    /// Returns the Unix socket of an authority.
    fn socket(&self, authority: &Authority) -> Option<&Path> {
        self.sockets.iter().find(|(mapped, _)| mapped == authority).map(|(_, path)| path.as_path())
    }

    /// Returns the token for an authority.
    fn token(&self, authority: &Authority) -> Option<&Token> {
        self.tokens.iter().find(|(rule, _)| rule.matches(authority)).map(|(_, token)| token)
    }
}

/// A token of Consul's ACL system. `Debug` does not show it.
#[derive(Clone)]
pub struct Token(HeaderValue);

impl FromStr for Token {
    type Err = ConfigError;

    /// Returns the text as a token, unchanged.
    ///
    /// # Errors
    ///
    /// Fails if the text is empty, or not a valid header value.
    fn from_str(text: &str) -> Result<Token, ConfigError> {
        // Without the text: a mistyped token is a secret too.
        let invalid = || ConfigError::new("a token is not empty, and has no line break and no other control character");
        let mut value = HeaderValue::from_str(text).map_err(|_| invalid())?;
        if value.is_empty() {
            return Err(invalid());
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

/// Limits for the requests of one instance.
#[derive(Clone, Copy, Debug)]
pub(crate) struct RequestLimits {
    /// The size of the body of one response, in bytes.
    pub(crate) response_bytes: u64,
    /// Requests in flight at once: from sending to the end of the response.
    pub(crate) in_flight: usize,
    /// Requests in one call.
    pub(crate) per_call: u64,
}

/// The HTTP client of all instances. Clones share the connection pool.
#[derive(Clone)]
pub(crate) struct Http {
    network: Arc<Network>,
    clients: Arc<Clients>,
}

struct Clients {
    verified: Client<Connector, WasiBody>,
    /// Has a pool of its own, so that a verified request never uses a connection that was not
    /// verified.
    insecure: Client<Connector, WasiBody>,
}

impl Http {
    /// Reads the TLS files, and makes the clients.
    ///
    /// # Errors
    ///
    /// Fails if a setting of [`Network::tls`] is invalid.
    pub(crate) fn new(network: Network) -> Result<Http, ConfigError> {
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

    /// Returns the `wasi:http` of one instance.
    pub(crate) fn outgoing(&self, limits: RequestLimits) -> Outgoing {
        Outgoing {
            http: self.clone(),
            limits,
            sent: 0,
            in_flight: InFlight::default(),
            last_failure: LastFailure::default(),
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
        // Safe for a PUT: a request is retried on another connection only if no byte of it was
        // written, because the pooled connection turned out to be closed. A request that was begun
        // fails, and the plugin checks whether it was carried out. Without retries, the first
        // request after a restart of the agent could fail.
        .retry_canceled_requests(true)
        .build(connector)
}

/// The host's explanation of the last failure, if any. Shared with the request, which outlives the
/// function that sends it.
#[derive(Clone, Default)]
struct LastFailure(Arc<Mutex<Option<Explanation>>>);

impl LastFailure {
    /// Records the explanation of a failure, and returns the code for the component.
    fn record(&self, failure: &Failure, at: &Authority) -> Code {
        let (code, explanation) = failure.explain(at);
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = explanation;
        code
    }

    /// Returns the message of the explanation.
    fn message(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).as_ref().map(|explanation| explanation.message().to_owned())
    }
}

/// The `wasi:http` of one instance.
pub(crate) struct Outgoing {
    http: Http,
    limits: RequestLimits,
    /// The number of requests in this call.
    sent: u64,
    in_flight: InFlight,
    /// The failure of the last request only: that of an earlier one does not explain a later error.
    last_failure: LastFailure,
    /// The requests that have no response yet.
    requests: Requests,
}

impl Outgoing {
    /// Begins a call: resets the number of requests and the last failure.
    pub(crate) fn begin_call(&mut self) {
        self.sent = 0;
        self.last_failure = LastFailure::default();
    }

    /// Returns whether this call exceeded its number of requests. The host then ends the call.
    pub(crate) fn exceeded_requests(&self) -> bool {
        self.sent > self.limits.per_call
    }

    /// Adds to the plugin's error what only the host knows: which rule to add, or what is wrong
    /// with a certificate.
    pub(crate) fn explain(&self, error: Error) -> Error {
        match &*self.last_failure.0.lock().unwrap_or_else(PoisonError::into_inner) {
            Some(explanation) => explanation.apply(error),
            None => error,
        }
    }

    /// Returns the requests that have no response yet, for [`Requests::drive`].
    pub(crate) fn requests(&self) -> Requests {
        self.requests.clone()
    }

    /// Sends a request.
    ///
    /// The future is dropped when the guest drops the handle of its response, or ends. Then hyper
    /// closes the connection, or resets the stream on HTTP/2, so an unread response cannot become
    /// that of another request.
    fn send(&mut self, mut request: Request<WasiBody>) -> Pin<Box<dyn Future<Output = ResponseResult> + Send>> {
        self.sent = self.sent.saturating_add(1);
        // A new value, since an earlier request may still write to its own.
        self.last_failure = LastFailure::default();
        let at = Authority::of(request.uri()).ok();
        let mut recorder = self.http.network.observer.record(&request, at.as_ref(), &self.last_failure);
        let Some(at) = at else {
            recorder.set_error(&Code::HttpRequestUriInvalid);
            return Box::pin(async { Err(Code::HttpRequestUriInvalid) });
        };
        let insecure = match self.admit(&mut request, &at) {
            Ok(insecure) => insecure,
            Err(failure) => {
                let code = self.last_failure.record(&failure, &at);
                recorder.set_error(&code);
                return Box::pin(async { Err(code) });
            }
        };
        let clients = Arc::clone(&self.http.clients);
        let (last_failure, in_flight, limit) = (self.last_failure.clone(), self.in_flight.clone(), self.limits.response_bytes);
        Box::pin(async move {
            let client = if insecure { &clients.insecure } else { &clients.verified };
            let response = send(client, request, &at, &last_failure).await.inspect_err(|code| recorder.set_error(code))?;
            let (parts, body) = response.into_parts();
            recorder.set_status(parts.status.as_u16());
            let body = LimitedBody::new(body, limit, in_flight, recorder, at, last_failure)?.boxed_unsync();
            Ok(Response::from_parts(parts, body))
        })
    }

    /// Checks whether a request may be sent, and adds its token. Returns whether to send it without
    /// verification of the certificate.
    ///
    /// # Errors
    ///
    /// Fails if the policy or a limit denies the request.
    fn admit(&self, request: &mut Request<WasiBody>, at: &Authority) -> Result<bool, Failure> {
        let RequestLimits { in_flight, per_call, .. } = self.limits;
        if self.exceeded_requests() {
            return Err(Failure::TooManyRequests(per_call));
        }
        if self.in_flight.count() >= in_flight {
            return Err(Failure::TooManyInFlight(in_flight));
        }
        let network = &self.http.network;
        match network.socket(at) {
            Some(path) => network.policy.check_socket(path).map_err(Failure::Denied)?,
            None => network.policy.check(at).map_err(Failure::Denied)?,
        }
        let insecure = request.uri().scheme_str() == Some(INSECURE);
        if insecure {
            if !network.insecure.iter().any(|rule| rule.matches(at)) {
                return Err(Failure::InsecureNotGranted);
            }
            // This scheme exists only between component and host. HTTP/2 would send it to the
            // server, which does not know it.
            *request.uri_mut() = with_scheme(request.uri(), Scheme::HTTPS).ok_or(Failure::Uri)?;
        }
        if let Some(Token(token)) = network.token(at).filter(|_| wants_token(request, network.locks)) {
            request.headers_mut().insert(TOKEN_HEADER, token.clone());
        }
        Ok(insecure)
    }
}

const TOKEN_HEADER: HeaderName = HeaderName::from_static("x-consul-token");

/// Returns whether the host adds its token to a request: only if the request has none, and only
/// where the response cannot contain the token.
fn wants_token<B>(request: &Request<B>, locks: bool) -> bool {
    let has_token = request.headers().contains_key(TOKEN_HEADER) || request.headers().contains_key(AUTHORIZATION);
    // TRACE returns the request in the response, and CONNECT has no path.
    let method_is_safe = matches!(*request.method(), Method::GET | Method::PUT | Method::POST | Method::DELETE);
    let paths = TOKEN_PATHS.iter().chain(LOCK_PATHS.iter().filter(|_| locks));
    !has_token && method_is_safe && is_token_path(request.uri().path(), paths)
}

/// Returns whether the path is one of `known`, and every server reads it as such. A path that a
/// server may interpret differently gets no token: one with dot segments, empty segments, or
/// encoded separators other than those in the name of a key.
fn is_token_path<'a>(path: &str, mut known: impl Iterator<Item = &'a &'a str>) -> bool {
    let plain = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..") && !segment.iter().any(|byte| b"/\\%".contains(byte));
    let decode = |text| percent_decode_str(text).collect::<Vec<u8>>();
    let all_plain = match path.strip_prefix(KEYS) {
        Some(key) => decode(key).split(|byte| *byte == b'/').all(plain),
        None => path.strip_prefix('/').is_some_and(|inside| inside.split('/').all(|segment| plain(&decode(segment)))),
    };
    all_plain && known.any(|known| if known.ends_with('/') { path.starts_with(known) } else { path == *known })
}

/// Returns the URI with another scheme.
fn with_scheme(uri: &Uri, scheme: Scheme) -> Option<Uri> {
    let mut parts = Parts::from(uri.clone());
    parts.scheme = Some(scheme);
    Uri::from_parts(parts).ok()
}

impl WasiHttpHooks for Outgoing {
    // `set_host_header` keeps its default: `Host` is the authority as the guest wrote it.

    /// Less than the default: the arguments of one host call are limited to twice this.
    fn p2_outgoing_body_chunk_size(&mut self) -> usize {
        BODY_CHUNK
    }

    /// For an unsupported scheme the guest gets `HTTP-protocol-error`.
    fn is_supported_scheme(&mut self, scheme: &Scheme) -> bool {
        *scheme == Scheme::HTTP || *scheme == Scheme::HTTPS || scheme.as_str() == INSECURE
    }

    /// Called by tests only, since the host implements `handle` itself; see [`add_to_linker`].
    fn send_request(
        &mut self,
        request: Request<WasiBody>,
        _options: Option<RequestOptions>,
        _processed: Box<dyn Future<Output = Result<(), Code>> + Send>,
    ) -> Box<dyn Future<Output = SendResult> + Send> {
        let response = self.send(request);
        Box::new(async { Ok((response.await?, Box::new(async { Ok(()) }) as Box<_>)) })
    }
}

/// Sends a request, and returns the response with its body unread.
///
/// # Errors
///
/// Returns the code for the component, and records the explanation in `last_failure`.
async fn send(
    client: &Client<Connector, WasiBody>,
    mut request: Request<WasiBody>,
    at: &Authority,
    last_failure: &LastFailure,
) -> Result<Response<Incoming>, Code> {
    let captured = capture_connection(&mut request);
    let exchange = async {
        tokio::select! {
            biased;
            result = client.request(request) => result.map_err(|error| match error.source().and_then(|cause| cause.downcast_ref()) {
                Some(failure) => last_failure.record(failure, at),
                None => last_failure.record(&classify(&error, LAST_CONNECTION.with(RefCell::take)), at),
            }),
            connection = connection_lost(captured) => {
                Err(last_failure.record(&connection.refusal().unwrap_or(Failure::ConnectionLost), at))
            }
        }
    };
    let response = LAST_CONNECTION.scope(RefCell::default(), exchange).await?;
    if let Some(connection) = response.extensions().get::<ConnectionState>() {
        connection.mark_answered();
    }
    Ok(response)
}

/// Classifies an error of hyper's client that the connector did not cause. `opened` is the
/// connection that the request opened, if it opened one.
fn classify(error: &ClientError, opened: Option<ConnectionState>) -> Failure {
    let used = error.connect_info();
    if let Some(refusal) = used.and_then(ConnectionState::from_connected).or(opened).and_then(|state| state.refusal()) {
        return refusal;
    }
    let cause: Option<&hyper::Error> = error.source().and_then(|cause| cause.downcast_ref());
    match cause {
        // A request is canceled, in hyper's terms, if hyper has not sent any of it.
        _ if used.is_none() || cause.is_some_and(hyper::Error::is_canceled) => Failure::NotSent,
        Some(cause) if cause.is_timeout() => Failure::PingTimeout,
        _ => Failure::ConnectionLost,
    }
}

/// Waits until the connection of a request has ended and left the request without a response and
/// without an error. That happens when the end of a connection and a request for it cross in
/// hyper's channel (hyperium/hyper#4122).
async fn connection_lost(mut captured: CaptureConnection) -> ConnectionState {
    loop {
        let used = captured.wait_for_connection_metadata().await.as_ref().and_then(ConnectionState::from_connected);
        let Some(used) = used else { return std::future::pending().await };
        used.closed().await;
        tokio::time::sleep(LOST_AFTER).await;
        // The request may have been retried on another connection.
        let newer = captured
            .connection_metadata()
            .as_ref()
            .and_then(ConnectionState::from_connected)
            .is_none_or(|state| !state.is_same(&used));
        let opening = LAST_CONNECTION.with(|opened| opened.borrow().as_ref().is_some_and(|state| !state.is_closed()));
        if !newer && !opening {
            return used;
        }
    }
}
