//! The transport: the only module that uses `wasi:http`.
//!
//! Its rules, each of which prevents a known failure of a host or of Consul:
//!
//! 1. `Content-Length` is always sent, even 0. Without it hosts send chunks, and Consul answers 200
//!    to a chunked create and ignores its body.
//! 2. `handle` is called before the body is written, since nothing reads the body until then. The
//!    stream is dropped before `finish`. Empty bodies are finished too: otherwise Node never ends
//!    the request, even of a GET, and does not reuse its connection.
//! 3. The deadline is enforced here, by a timer in each wait. Hosts do not enforce their own
//!    timeouts reliably, and wasmtime up to 50 leaks a table entry per `request-options`, so none
//!    are passed.
//! 4. The scheme is always set: hosts take a missing one to be HTTPS.
//! 5. A response larger than [`RESPONSE_LIMIT`] is an error and is not read further.
//! 6. Nothing here can panic, whatever the network does.

#![forbid(unsafe_code)]

use crate::duration;
use crate::error::{Error, ErrorKind};
use crate::transport::{Method, Protocol, Request, Response, Transport, from_error_code};
use wasi::clocks::monotonic_clock::{now, subscribe_duration};
use wasi::http::outgoing_handler::handle;
use wasi::http::types::{
    ErrorCode, Fields, FutureIncomingResponse, IncomingResponse, Method as WasiMethod, OutgoingBody, OutgoingRequest, Scheme,
};
use wasi::io::poll::{Pollable, poll};
use wasi::io::streams::StreamError;

/// Maximum length of a response's body, in bytes.
const RESPONSE_LIMIT: usize = 64 << 20;
/// Maximum length of one write. Longer ones trap in hosts that follow `wasi:io` to the letter.
const WRITE_LIMIT: u64 = 4096;
/// The time that a pause leaves for the next request, in nanoseconds: one that the deadline cuts off
/// would leave a change in doubt.
const RESERVE: u64 = 500_000_000;
/// Length of one read.
const READ_SIZE: u64 = 256 * 1024;

/// A [`Transport`] over `wasi:http` for one call.
pub struct WasiHttp {
    timeout: i64,
    /// The time of the deadline, in nanoseconds.
    end: u64,
    /// Ready when the timeout expires. One timer serves all waits of the call.
    deadline: Pollable,
}

impl WasiHttp {
    /// Returns a transport whose timeout starts now, in nanoseconds.
    pub fn new(timeout: i64) -> WasiHttp {
        let nanoseconds = u64::try_from(timeout).unwrap_or(0);
        WasiHttp { timeout, end: now().saturating_add(nanoseconds), deadline: subscribe_duration(nanoseconds) }
    }

    /// Waits for `ready`, but not past the deadline.
    fn wait(&self, ready: &Pollable, authority: &str) -> Result<(), Error> {
        // If both are ready, the response came in time.
        if poll(&[ready, &self.deadline]).contains(&0) {
            return Ok(());
        }
        Err(Error::new(
            ErrorKind::Timeout,
            format!(
                "no answer from {authority} within {}: check whether the agent is well, or give a longer `timeout`",
                duration::format(self.timeout)
            ),
        ))
    }

    /// Writes the body as fast as the host accepts it. Returns `false` if the host rejects it; the
    /// response then has the reason.
    fn write(&self, body: &OutgoingBody, mut bytes: &[u8], authority: &str) -> Result<bool, Error> {
        if bytes.is_empty() {
            return Ok(true);
        }
        let Ok(stream) = body.write() else { return Ok(false) };
        let mut ready = None;
        while !bytes.is_empty() {
            let Ok(permit) = stream.check_write() else { return Ok(false) };
            if permit == 0 {
                self.wait(ready.get_or_insert_with(|| stream.subscribe()), authority)?;
                continue;
            }
            let size = usize::try_from(permit.min(WRITE_LIMIT)).unwrap_or(0).min(bytes.len());
            let Some((piece, rest)) = bytes.split_at_checked(size) else { return Ok(false) };
            if stream.write(piece).is_err() {
                return Ok(false);
            }
            bytes = rest;
        }
        // Not flushed: finishing the body sends all of it.
        Ok(true)
    }

    fn response(&self, future: &FutureIncomingResponse, authority: &str) -> Result<IncomingResponse, Error> {
        self.wait(&future.subscribe(), authority)?;
        match future.get() {
            Some(Ok(Ok(response))) => Ok(response),
            Some(Ok(Err(code))) => Err(from_code(&code, authority)),
            Some(Err(())) | None => Err(lost(authority)),
        }
    }

    fn body(&self, response: &IncomingResponse, authority: &str) -> Result<Vec<u8>, Error> {
        let body = response.consume().map_err(|()| lost(authority))?;
        let stream = body.stream().map_err(|()| lost(authority))?;
        // Joined at the end: a growing buffer leaves holes in memory, too small for its next size.
        let (mut ready, mut pieces, mut length) = (None, Vec::new(), 0);
        loop {
            match stream.read(READ_SIZE) {
                Ok(piece) if piece.is_empty() => {
                    self.wait(ready.get_or_insert_with(|| stream.subscribe()), authority)?;
                }
                Ok(piece) if length + piece.len() > RESPONSE_LIMIT => {
                    return Err(Error::new(
                        ErrorKind::ResponseTooLarge,
                        format!(
                            "the answer from {authority} is larger than {} MiB: check `host` and `port`, or read the sessions of \
                         one node",
                            RESPONSE_LIMIT >> 20
                        ),
                    ));
                }
                Ok(piece) => {
                    length += piece.len();
                    pieces.push(piece);
                }
                Err(StreamError::Closed) if pieces.len() == 1 => return Ok(pieces.swap_remove(0)),
                Err(StreamError::Closed) => return Ok(pieces.concat()),
                // The code has no more detail: hosts use the same one for every broken response.
                Err(StreamError::LastOperationFailed(_)) => {
                    return Err(Error::new(
                        ErrorKind::InvalidResponse,
                        format!(
                            "the answer from {authority} broke off after {length} bytes: check whether the agent is well, and try \
                         again"
                        ),
                    ));
                }
            }
        }
    }
}

impl Transport for WasiHttp {
    fn pause(&mut self, longest: i64) -> bool {
        let (now, half) = (now(), u64::try_from(longest).unwrap_or(0) / 2);
        if now + 2 * half + RESERVE > self.end {
            return false;
        }
        // The clock's last digits are chance enough, and need no further import.
        subscribe_duration(half + now % half.max(1)).block();
        true
    }

    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        let authority = request.authority.as_str();
        let insecure = request.protocol == Protocol::HttpsInsecure;
        let unsupported = || {
            Error::new(
                ErrorKind::Unsupported,
                format!(
                    "this host does not grant `validate_certs=false` for {authority}: have it trust the CA of the agent's \
                 certificate instead"
                ),
            )
        };

        let mut headers = vec![("content-length".to_owned(), request.body.len().to_string().into_bytes())];
        if let Some(token) = &request.token {
            headers.push(("x-consul-token".to_owned(), token.secret().as_bytes().to_vec()));
        }
        let headers =
            Fields::from_list(&headers).map_err(|_| Error::new(ErrorKind::Other, "the host refuses the request's headers"))?;
        let outgoing = OutgoingRequest::new(headers);
        let method = match request.method {
            // The default of a request.
            Method::Get => None,
            Method::Put => Some(WasiMethod::Put),
            Method::Post => Some(WasiMethod::Post),
        };
        let scheme = match request.protocol {
            Protocol::Http => Scheme::Http,
            Protocol::Https => Scheme::Https,
            Protocol::HttpsInsecure => Scheme::Other("https+insecure".to_owned()),
        };
        let refused = |part: &str| Error::invalid("host", format!("the host refuses this {part}: {authority}"));
        if let Some(method) = method {
            outgoing.set_method(&method).map_err(|()| refused("method"))?;
        }
        outgoing.set_scheme(Some(&scheme)).map_err(|()| if insecure { unsupported() } else { refused("scheme") })?;
        outgoing.set_authority(Some(authority)).map_err(|()| refused("authority"))?;
        outgoing.set_path_with_query(Some(&request.path_and_query)).map_err(|()| refused("path"))?;

        let body = outgoing.body().map_err(|()| Error::new(ErrorKind::Other, "the host gives the request no body"))?;
        let future = match handle(outgoing, None) {
            Ok(future) => future,
            Err(ErrorCode::HttpProtocolError) if insecure => return Err(unsupported()),
            Err(code) => return Err(from_code(&code, authority)),
        };
        if self.write(&body, &request.body, authority)? {
            // The response reports the same error.
            let _ = OutgoingBody::finish(body, None);
        }
        let response = self.response(&future, authority)?;
        let mut headers = Vec::new();
        if !request.headers.is_empty() {
            let fields = response.headers();
            for name in request.headers {
                let value = fields.get(&(*name).to_owned()).into_iter().next().and_then(|value| String::from_utf8(value).ok());
                headers.extend(value.map(|value| (*name, value)));
            }
        }
        Ok(Response { status: response.status(), headers, body: self.body(&response, authority)? })
    }
}

fn lost(authority: &str) -> Error {
    Error::new(ErrorKind::Other, format!("the host lost the answer from {authority}"))
}

fn from_code(code: &ErrorCode, authority: &str) -> Error {
    let detail = match code {
        ErrorCode::DnsError(payload) => payload.rcode.as_deref(),
        ErrorCode::TlsAlertReceived(payload) => payload.alert_message.as_deref(),
        ErrorCode::InternalError(text) => text.as_deref(),
        _ => None,
    };
    from_error_code(name(code), detail, authority)
}

/// Returns the name of a code in WIT.
fn name(code: &ErrorCode) -> &'static str {
    match code {
        ErrorCode::DnsTimeout => "DNS-timeout",
        ErrorCode::DnsError(_) => "DNS-error",
        ErrorCode::DestinationNotFound => "destination-not-found",
        ErrorCode::DestinationUnavailable => "destination-unavailable",
        ErrorCode::DestinationIpProhibited => "destination-IP-prohibited",
        ErrorCode::DestinationIpUnroutable => "destination-IP-unroutable",
        ErrorCode::ConnectionRefused => "connection-refused",
        ErrorCode::ConnectionTerminated => "connection-terminated",
        ErrorCode::ConnectionTimeout => "connection-timeout",
        ErrorCode::ConnectionReadTimeout => "connection-read-timeout",
        ErrorCode::ConnectionWriteTimeout => "connection-write-timeout",
        ErrorCode::ConnectionLimitReached => "connection-limit-reached",
        ErrorCode::TlsProtocolError => "TLS-protocol-error",
        ErrorCode::TlsCertificateError => "TLS-certificate-error",
        ErrorCode::TlsAlertReceived(_) => "TLS-alert-received",
        ErrorCode::HttpRequestDenied => "HTTP-request-denied",
        ErrorCode::HttpRequestLengthRequired => "HTTP-request-length-required",
        ErrorCode::HttpRequestBodySize(_) => "HTTP-request-body-size",
        ErrorCode::HttpRequestMethodInvalid => "HTTP-request-method-invalid",
        ErrorCode::HttpRequestUriInvalid => "HTTP-request-URI-invalid",
        ErrorCode::HttpRequestUriTooLong => "HTTP-request-URI-too-long",
        ErrorCode::HttpRequestHeaderSectionSize(_) => "HTTP-request-header-section-size",
        ErrorCode::HttpRequestHeaderSize(_) => "HTTP-request-header-size",
        ErrorCode::HttpRequestTrailerSectionSize(_) => "HTTP-request-trailer-section-size",
        ErrorCode::HttpRequestTrailerSize(_) => "HTTP-request-trailer-size",
        ErrorCode::HttpResponseIncomplete => "HTTP-response-incomplete",
        ErrorCode::HttpResponseHeaderSectionSize(_) => "HTTP-response-header-section-size",
        ErrorCode::HttpResponseHeaderSize(_) => "HTTP-response-header-size",
        ErrorCode::HttpResponseBodySize(_) => "HTTP-response-body-size",
        ErrorCode::HttpResponseTrailerSectionSize(_) => "HTTP-response-trailer-section-size",
        ErrorCode::HttpResponseTrailerSize(_) => "HTTP-response-trailer-size",
        ErrorCode::HttpResponseTransferCoding(_) => "HTTP-response-transfer-coding",
        ErrorCode::HttpResponseContentCoding(_) => "HTTP-response-content-coding",
        ErrorCode::HttpResponseTimeout => "HTTP-response-timeout",
        ErrorCode::HttpUpgradeFailed => "HTTP-upgrade-failed",
        ErrorCode::HttpProtocolError => "HTTP-protocol-error",
        ErrorCode::LoopDetected => "loop-detected",
        ErrorCode::ConfigurationError => "configuration-error",
        ErrorCode::InternalError(_) => "internal-error",
    }
}
