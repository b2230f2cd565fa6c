//! Outgoing HTTP for the plugin: one client with one connection pool for all instances.
//!
//! A request that the policy allows is sent as the plugin made it. The client follows no redirects,
//! uses no proxy and decompresses nothing.

mod body;
mod connect;
mod exchange;
mod explain;
mod future;
mod redact;
mod secret;
#[cfg(test)]
mod tests;
mod tls;
mod transaction;

pub use exchange::Exchange;
pub(crate) use exchange::Observer;
pub(crate) use future::{MAX_HEADERS, Requests, View, add_to_linker};
pub use secret::{Credentials, Token};
pub(crate) use secret::{Secret, SecretKind, SecretRule};
pub use tls::Tls;

use crate::bindings::Error;
use crate::config_error::ConfigError;
use crate::policy::{Authority, Policy, Rule};
use body::{InFlight, LimitedBody};
use connect::{ConnectionState, Connector, LAST_CONNECTION, LOOKUPS, Resolver};
use explain::{Explanation, Failure};
use http::header::AUTHORIZATION;
use http::uri::{Parts, Scheme};
use http::{Method, Request, Response, Uri};
use hyper::body::Incoming;
use hyper_util::client::legacy::connect::{CaptureConnection, capture_connection};
use hyper_util::client::legacy::{Client, Error as ClientError};
use hyper_util::rt::{TokioExecutor, TokioTimer};
use percent_encoding::percent_decode_str;
use secret::TOKEN_HEADER;
use std::cell::RefCell;
use std::error::Error as StdError;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio::sync::Semaphore;
use wasmtime_wasi_http::{Error as Code, RequestOptions, WasiBody, WasiHttpHooks};

/// The scheme with which the component requests HTTPS without verification of the certificate.
pub(crate) const INSECURE: &str = "https+insecure";

/// The paths for which the host adds its secrets: those that the plugin uses. A trailing `/` stands
/// for all paths below. Other paths would return the token to the component (`/v1/acl/token/self`),
/// or use it for operations that were not granted.
const SECRET_PATHS: [&str; 3] = ["/v1/session/", "/v1/agent/self", "/v1/internal/acl/authorize"];
/// The prefix of the path of a key, which the plugin reads. It changes keys with a
/// [transaction].
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

/// The most bytes of the headers of a response, which the component can keep and copy. HTTP/2 has the
/// same limit.
const MAX_RESPONSE_HEADERS: usize = 16 << 10;

/// The most that a component may write to a body in one host call. The plugin writes 4 KiB at a
/// time.
pub(crate) const BODY_CHUNK: usize = 8 << 10;

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
    /// Secrets that the component never sees. Of each kind, the first rule that matches the
    /// authority counts.
    pub(crate) secrets: Vec<SecretRule>,
    /// Whether a request that would get a token is denied if no rule of `secrets` has one for it.
    pub(crate) token_required: bool,
    /// Whether the secrets are added to requests for locks too.
    pub(crate) locks: bool,
    /// Authorities that are reached over a Unix socket. The policy must allow the socket, not the
    /// authority.
    pub(crate) sockets: Vec<(Authority, PathBuf)>,
    /// The observer of requests.
    pub(crate) observer: Observer,
    /// Looks up the addresses of names.
    pub(crate) resolver: Resolver,
}

impl Network {
    /// Returns the Unix socket of an authority.
    fn socket(&self, authority: &Authority) -> Option<&Path> {
        self.sockets.iter().find(|(mapped, _)| mapped == authority).map(|(_, path)| path.as_path())
    }

    /// Returns the secrets for a request.
    ///
    /// # Errors
    ///
    /// Fails if the operator gave a secret for the request, and it must not be sent. Without it, the
    /// request would be an anonymous one, whose answer is that of another question.
    fn secrets<B>(&self, request: &Request<B>, at: &Authority) -> Result<Vec<Secret>, Failure> {
        let Some(purpose) = purpose(request) else { return Ok(Vec::new()) };
        let headers = request.headers();
        let authorized = headers.contains_key(AUTHORIZATION);
        let has_token = authorized || headers.contains_key(TOKEN_HEADER);
        let mut secrets = Vec::new();
        for (kind, has_own) in [(SecretKind::Token, has_token), (SecretKind::Password, authorized)] {
            if !has_own {
                secrets.extend(self.secret(kind, purpose, request.uri(), at)?.cloned());
            }
        }
        Ok(secrets)
    }

    /// Returns the secret of this kind for a request that has none of its own.
    ///
    /// # Errors
    ///
    /// Fails as [`Network::secrets`] does.
    fn secret(&self, kind: SecretKind, purpose: Purpose, uri: &Uri, at: &Authority) -> Result<Option<&Secret>, Failure> {
        let Some(rule) = self.rules(kind).find(|rule| rule.authorities.matches(at)) else {
            return self.without(kind, at).map(|()| None);
        };
        match purpose {
            Purpose::Lock | Purpose::AmbiguousKey if !self.locks => return Err(Failure::LocksNotGranted(kind)),
            Purpose::AmbiguousKey => return Err(Failure::AmbiguousKey(kind)),
            Purpose::Lock | Purpose::Session => {}
        }
        // What a Unix socket carries does not leave the machine.
        let is_readable = uri.scheme() == Some(&Scheme::HTTP) && self.socket(at).is_none();
        if is_readable && !rule.over_http { Err(Failure::NeedsTls(kind)) } else { Ok(Some(&rule.secret)) }
    }

    /// Returns the rules with secrets of this kind.
    fn rules(&self, kind: SecretKind) -> impl Iterator<Item = &SecretRule> {
        self.secrets.iter().filter(move |rule| rule.secret.kind() == kind)
    }

    /// Checks whether a request for which no rule has a secret of this kind may be sent without one.
    ///
    /// # Errors
    ///
    /// Fails if a token is required, or if a rule for a network may mean the addresses of the name,
    /// which is allowed by its addresses alone.
    fn without(&self, kind: SecretKind, at: &Authority) -> Result<(), Failure> {
        if kind == SecretKind::Token && self.token_required {
            return Err(Failure::TokenRequired);
        }
        let by_address = at.name().is_some() && self.socket(at).is_none() && !self.policy.allows_as_written(at);
        match self.rules(kind).find(|rule| by_address && rule.authorities.is_network(at.port())) {
            Some(rule) => Err(Failure::OfNetwork(kind, rule.authorities.clone())),
            None => Ok(()),
        }
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
        let client = |tls| client(Connector::new(Arc::clone(&network), tls, server_name.clone()));
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
            lookups: Arc::new(Semaphore::new(limits.in_flight.min(Semaphore::MAX_PERMITS))),
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
    /// The permits for lookups of names, as many as for requests in flight.
    lookups: Arc<Semaphore>,
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

    /// Redacts the secrets of the host in a message.
    pub(crate) fn redact(&self, message: &mut String) {
        for rule in &self.http.network.secrets {
            rule.secret.redact_message(message);
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
        let Admitted { insecure, secrets } = match self.admit(&mut request, &at) {
            Ok(admitted) => admitted,
            Err(failure) => {
                let code = self.last_failure.record(&failure, &at);
                recorder.set_error(&code);
                return Box::pin(async { Err(code) });
            }
        };
        let clients = Arc::clone(&self.http.clients);
        let (last_failure, in_flight, limit) = (self.last_failure.clone(), self.in_flight.clone(), self.limits.response_bytes);
        let lookups = Arc::clone(&self.lookups);
        Box::pin(async move {
            let client = if insecure { &clients.insecure } else { &clients.verified };
            if let Some(secret) = secrets.first()
                && request.uri().path() == transaction::PATH
            {
                let Some(lock) = transaction::only_lock(request).await else {
                    let code = last_failure.record(&Failure::NotALock(secret.kind()), &at);
                    recorder.set_error(&code);
                    return Err(code);
                };
                request = lock;
            }
            request.headers_mut().extend(secrets.iter().map(Secret::header));
            let response = LOOKUPS.scope(lookups, send(client, request, &at, &last_failure));
            let response = response.await.inspect_err(|code| recorder.set_error(code))?;
            let (parts, body) = response.into_parts();
            recorder.set_status(parts.status.as_u16());
            let body = LimitedBody::new(body, limit, in_flight, recorder, at, last_failure)?;
            redact::response(&secrets, parts, body).await
        })
    }

    /// Checks whether a request may be sent, and how.
    ///
    /// # Errors
    ///
    /// Fails if the policy or a limit denies the request, or a secret that it needs.
    fn admit(&self, request: &mut Request<WasiBody>, at: &Authority) -> Result<Admitted, Failure> {
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
        Ok(Admitted { insecure, secrets: network.secrets(request, at)? })
    }
}

/// How to send a request that may be sent.
struct Admitted {
    /// Whether to send it without verification of the certificate.
    insecure: bool,
    /// The secrets to add, at most one of each kind.
    secrets: Vec<Secret>,
}

/// What a request does with a secret.
#[derive(Clone, Copy, PartialEq)]
enum Purpose {
    /// Reads or changes sessions.
    Session,
    /// Reads a key, or locks or unlocks it.
    Lock,
    /// Reads a key whose path a server may read as another one.
    AmbiguousKey,
}

/// Returns for what a request gets the host's secrets, or `None` if it gets none: the plugin sends
/// no such request, or the response could contain the secrets.
fn purpose<B>(request: &Request<B>) -> Option<Purpose> {
    // TRACE returns the request in the response, and CONNECT has no path.
    let method_is_safe = matches!(*request.method(), Method::GET | Method::PUT | Method::POST | Method::DELETE);
    let path = request.uri().path();
    let reads_key = path.starts_with(KEYS) && *request.method() == Method::GET;
    // All keys of a semaphore are below a path that ends with `/`.
    let is_recursive = reads_key && request.uri().query().is_some_and(|query| query.split('&').any(|part| part == "recurse"));
    if !method_is_safe {
        None
    } else if !is_plain(path, is_recursive) {
        reads_key.then_some(Purpose::AmbiguousKey)
    } else if SECRET_PATHS.iter().any(|known| if known.ends_with('/') { path.starts_with(known) } else { path == *known }) {
        Some(Purpose::Session)
    } else if reads_key || path == transaction::PATH {
        Some(Purpose::Lock)
    } else {
        None
    }
}

/// Returns whether every server reads the path in the same way. That is uncertain with dot
/// segments, empty segments, and encoded separators other than those in the name of a key. The
/// beginning of several keys may end with a separator.
fn is_plain(path: &str, is_beginning: bool) -> bool {
    let plain = |segment: &[u8]| !matches!(segment, b"" | b"." | b"..") && !segment.iter().any(|byte| b"/\\%".contains(byte));
    let decode = |text| percent_decode_str(text).collect::<Vec<u8>>();
    match path.strip_prefix(KEYS) {
        Some(key) => {
            let key = decode(key);
            let end = if is_beginning { key.len() - usize::from(key.ends_with(b"/")) } else { key.len() };
            key[..end].split(|byte| *byte == b'/').all(plain)
        }
        None => path.strip_prefix('/').is_some_and(|inside| inside.split('/').all(|segment| plain(&decode(segment)))),
    }
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
    let size = response.headers().iter().map(|(name, value)| name.as_str().len() + value.len()).sum::<usize>();
    if size > MAX_RESPONSE_HEADERS {
        return Err(Code::HttpResponseHeaderSectionSize(u32::try_from(size).ok()));
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
