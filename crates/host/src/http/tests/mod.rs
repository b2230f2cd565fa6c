//! Tests with real sockets, through the functions of `wasi:http` that a guest calls.

mod names;
mod passwords;
mod plain;
mod tls;
mod tokens;

use super::*;
use http::HeaderValue;
use http_body_util::BodyExt as _;
use hyper::body::Bytes;
use std::convert::Infallible;
use tokio::io::{AsyncRead, AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::mpsc;
use tokio::time::timeout;
use wasmtime::component::{Resource, ResourceTable};
use wasmtime_wasi::p2::{Pollable as _, StreamError};
use wasmtime_wasi_http::p2::bindings::http::types::{
    ErrorCode, HostFields as _, HostIncomingBody as _, HostIncomingResponse as _, HostOutgoingBody, HostOutgoingRequest,
    Method as WasiMethod, OutgoingBody, OutgoingRequest, Scheme as WasiScheme,
};
use wasmtime_wasi_http::{WasiHttpCtx, WasiHttpCtxView};

const OK: &[u8] = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\ntrue";
const LIMITS: RequestLimits = RequestLimits { response_bytes: 1 << 20, in_flight: 8, per_call: 1_000 };

/// A response as the guest sees it.
#[derive(Debug, PartialEq)]
struct GuestResponse {
    status: u16,
    body: Vec<u8>,
    /// Whether the body ended with an error.
    broken: bool,
}

fn good() -> GuestResponse {
    GuestResponse { status: 200, body: b"true".to_vec(), broken: false }
}

/// Sends a request, calling the functions in the plugin's order.
async fn request_as_guest(
    outgoing: &mut Outgoing,
    method: WasiMethod,
    url: &str,
    headers: &[(&str, &str)],
    body: &[u8],
) -> Result<GuestResponse, ErrorCode> {
    let (mut table, mut ctx) = (ResourceTable::new(), WasiHttpCtx::new());
    let mut wasi = WasiHttpCtxView { hooks: outgoing, table: &mut table, ctx: &mut ctx };
    let (scheme, rest) = url.split_once("://").unwrap();
    let (authority, path) = rest.split_at(rest.find('/').unwrap());
    let mut fields = vec![("content-length".to_owned(), body.len().to_string().into_bytes())];
    fields.extend(headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes().to_vec())));
    let fields = wasi.from_list(fields).unwrap();
    let request = HostOutgoingRequest::new(&mut wasi, fields).unwrap();
    let borrow = || Resource::new_borrow(request.rep());
    let scheme = match scheme {
        "http" => WasiScheme::Http,
        "https" => WasiScheme::Https,
        other => WasiScheme::Other(other.into()),
    };
    wasi.set_method(borrow(), method).unwrap().unwrap();
    wasi.set_scheme(borrow(), Some(scheme)).unwrap().unwrap();
    wasi.set_authority(borrow(), Some(authority.into())).unwrap().unwrap();
    wasi.set_path_with_query(borrow(), Some(path.into())).unwrap().unwrap();
    let outgoing_body = wasi.body(borrow()).unwrap().unwrap();
    let requests = outgoing.requests();
    requests.drive(exchange(outgoing, &mut table, &mut ctx, request, outgoing_body, body)).await
}

/// Writes the body, waits for the response and reads it.
async fn exchange(
    outgoing: &mut Outgoing,
    table: &mut ResourceTable,
    ctx: &mut WasiHttpCtx,
    request: Resource<OutgoingRequest>,
    outgoing_body: Resource<OutgoingBody>,
    body: &[u8],
) -> Result<GuestResponse, ErrorCode> {
    let future = future::handle(outgoing, table, request).map_err(|error| error.downcast().unwrap())?;
    let mut wasi = WasiHttpCtxView { hooks: outgoing, table, ctx };
    let stream = wasi.write(Resource::new_borrow(outgoing_body.rep())).unwrap().unwrap();
    for chunk in body.chunks(4096) {
        let stream = wasi.table.get_mut(&stream).unwrap();
        // A host that denies the request does not read its body.
        if stream.write_ready().await.is_err() || stream.write(Bytes::copy_from_slice(chunk)).is_err() {
            break;
        }
    }
    wasi.table.delete(stream).unwrap();
    let _ = HostOutgoingBody::finish(&mut wasi, outgoing_body, None);

    wasi.table.get_mut(&future).unwrap().ready().await;
    let view = WasiHttpCtxView { hooks: wasi.hooks, table: wasi.table, ctx: wasi.ctx };
    let response = future::get(view, &future).unwrap().unwrap().unwrap()?;
    let status = wasi.status(Resource::new_borrow(response.rep())).unwrap();
    let incoming = wasi.consume(response).unwrap().unwrap();
    let stream = wasi.stream(incoming).unwrap().unwrap();
    let mut content = Vec::new();
    loop {
        let stream = wasi.table.get_mut(&stream).unwrap();
        stream.ready().await;
        match stream.read(4096) {
            Ok(bytes) => content.extend_from_slice(&bytes),
            Err(end) => {
                return Ok(GuestResponse { status, body: content, broken: !matches!(end, StreamError::Closed) });
            }
        }
    }
}

/// Returns a request for [`Outgoing::send_request`], which needs no resource table.
fn request(url: &str) -> Request<WasiBody> {
    let body = http_body_util::Empty::new().map_err(|never: Infallible| match never {}).boxed_unsync();
    Request::builder().uri(url).body(body).unwrap()
}

async fn get(outgoing: &mut Outgoing, url: &str) -> Result<GuestResponse, ErrorCode> {
    request_as_guest(outgoing, WasiMethod::Get, url, &[], b"").await
}

async fn put(outgoing: &mut Outgoing, url: &str) -> Result<GuestResponse, ErrorCode> {
    request_as_guest(outgoing, WasiMethod::Put, url, &[], b"body").await
}

/// Returns the name and message of the plugin's error for a code, after the host has explained it.
fn explained(outgoing: &Outgoing, code: &ErrorCode, at: &str) -> (&'static str, String) {
    let plugin: fn(String) -> Error = match code {
        ErrorCode::DnsError(_)
        | ErrorCode::DestinationUnavailable
        | ErrorCode::ConnectionRefused
        | ErrorCode::ConnectionLimitReached => Error::Unreachable,
        ErrorCode::HttpRequestDenied | ErrorCode::DestinationIpProhibited => Error::DeniedByHost,
        ErrorCode::ConnectionTimeout | ErrorCode::ConnectionReadTimeout => Error::Timeout,
        ErrorCode::TlsCertificateError | ErrorCode::TlsProtocolError | ErrorCode::TlsAlertReceived(_) => Error::Tls,
        ErrorCode::HttpProtocolError | ErrorCode::HttpResponseBodySize(_) => Error::InvalidResponse,
        other => panic!("{other:?}"),
    };
    let error = outgoing.explain(plugin(format!("no answer from {at}: the plugin's own text")));
    (error.name(), error.message().to_owned())
}

/// Returns a network with these rules in `allow`.
fn allowing(rules: &[&str]) -> Network {
    let mut policy = Policy::default();
    for rule in rules {
        policy.allow(rule.parse().unwrap());
    }
    // Loading the platform's roots takes a moment, and no certificate here needs them.
    let tls = Tls { platform_roots: Some(false), ..Tls::default() };
    Network { policy, tls, ..Network::default() }
}

/// Returns a token for these authorities, over plain HTTP too.
fn token(authorities: &str, token: &str) -> SecretRule {
    let secret = Secret::Token(token.parse().unwrap());
    SecretRule { authorities: authorities.parse().unwrap(), secret, over_http: true }
}

/// Returns a user and a password for these authorities, over plain HTTP too.
fn password(authorities: &str, credentials: &str) -> SecretRule {
    let secret = Secret::Password(credentials.parse().unwrap());
    SecretRule { authorities: authorities.parse().unwrap(), secret, over_http: true }
}

fn outgoing(network: Network) -> Outgoing {
    Http::new(network).unwrap().outgoing(LIMITS)
}

/// Returns the `wasi:http` of an instance that may connect anywhere.
fn anywhere() -> Outgoing {
    outgoing(allowing(&["*:*"]))
}

/// Reads a request up to the end of its body. Returns an empty string if the peer closed the
/// connection.
async fn read_request(stream: &mut (impl AsyncRead + Unpin)) -> String {
    let mut text = String::new();
    loop {
        if let Some((head, body)) = text.split_once("\r\n\r\n") {
            let length = head.lines().find_map(|line| line.strip_prefix("content-length: "));
            if body.len() >= length.map_or(0, |length| length.parse().unwrap()) {
                return text;
            }
        }
        let mut buffer = [0; 4096];
        match stream.read(&mut buffer).await.unwrap() {
            0 => return String::new(),
            n => text.push_str(std::str::from_utf8(&buffer[..n]).unwrap()),
        }
    }
}

/// Returns a listener, and its authority with the address and with the name.
async fn listen() -> (TcpListener, String, String) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let port = listener.local_addr().unwrap().port();
    (listener, format!("127.0.0.1:{port}"), format!("localhost:{port}"))
}

async fn accept(listener: &TcpListener) -> TcpStream {
    listener.accept().await.unwrap().0
}

/// Starts a server that answers every request with `answer`. Returns its authority and the requests.
async fn record(answer: &'static [u8]) -> (String, mpsc::UnboundedReceiver<String>) {
    let (listener, _, at) = listen().await;
    let (sender, receiver) = mpsc::unbounded_channel();
    tokio::spawn(async move {
        loop {
            let (mut stream, sender) = (accept(&listener).await, sender.clone());
            tokio::spawn(async move {
                loop {
                    let request = read_request(&mut stream).await;
                    if request.is_empty() {
                        return;
                    }
                    sender.send(request).unwrap();
                    stream.write_all(answer).await.unwrap();
                }
            });
        }
    });
    (at, receiver)
}
