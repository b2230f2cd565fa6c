//! The transport: the only module that touches `wasi:http`.
//!
//! Its rules, each paid for by somebody:
//!
//! 1. `Content-Length` always, 0 too. Without it hosts send chunks, and Consul answers 200 to a chunked create and ignores it.
//! 2. `handle` before the body is written, which else has nowhere to go; the stream is dropped before `finish`; empty bodies
//!    are finished too, else Node never ends the request: even that of a GET, whose connection is not used again.
//! 3. The deadline is kept here, as a timer beside each wait. No host's own timeouts hold, and wasmtime up to 50 leaks a table
//!    entry for each `request-options`, so that none are given.
//! 4. The scheme is always set: hosts take a missing one for HTTPS.
//! 5. The response is cut off at [`RESPONSE_LIMIT`].
//! 6. Nothing here can panic, whatever the network does.

use alloc::borrow::ToOwned;
use alloc::vec;
use alloc::vec::Vec;
mod error_code;
mod imports;

use self::error_code::ErrorCode;
use self::imports::{
    Fields, FutureIncomingResponse, IncomingResponse, METHOD_POST, METHOD_PUT, OutgoingBody, OutgoingRequest, Pollable,
    SCHEME_HTTP, SCHEME_HTTPS, SCHEME_OTHER, StreamError,
};
use super::abi::Answer;
use super::heap;
use crate::decimal;
use crate::duration;
use crate::error::{Case, Error};
use crate::transport::{Method, Protocol, RESPONSE_LIMIT, Request, Response, Transport, from_error_code};

/// The most that one write may take: more traps in hosts that follow the letter of `wasi:io`.
const WRITE_LIMIT: u64 = 4096;
/// What is asked for in one read.
const READ_SIZE: u64 = 256 * 1024;

/// `wasi:http` for the length of one call.
pub struct WasiHttp {
    timeout: i64,
    /// Ready when the time is over. One timer for all waits of the call.
    deadline: Pollable,
}

impl WasiHttp {
    /// The clock runs from now, for `timeout` nanoseconds.
    pub fn new(timeout: i64) -> WasiHttp {
        WasiHttp { timeout, deadline: Pollable::after(u64::try_from(timeout).unwrap_or(0)) }
    }

    /// Waits for `ready`, or for the end of the time.
    fn wait(&self, ready: &Pollable, authority: &str) -> Result<(), Error> {
        let wait = || {
            // Both may be ready; what has come in time counts.
            if imports::poll(&[ready, &self.deadline]).contains(&0) {
                return Ok(());
            }
            Err(Case::Timeout.because(text![
                "no answer from ",
                authority,
                " within ",
                duration::format(self.timeout),
                ": check whether the agent is well, or give a longer `timeout`"
            ]))
        };
        // Safety: the list of what is ready is not used any more. So what was read before stays the last piece of memory.
        unsafe { heap::passing(wait) }
    }

    /// Writes the body as fast as the host takes it. `false` if the host does not want it: the response says why.
    fn write(&self, body: &OutgoingBody, mut bytes: &[u8], authority: &str) -> Result<bool, Error> {
        if bytes.is_empty() {
            return Ok(true);
        }
        let Some(stream) = body.write() else { return Ok(false) };
        let mut ready = None;
        while !bytes.is_empty() {
            let Answer::Ok(permit) = stream.check_write() else { return Ok(false) };
            if permit == 0 {
                self.wait(ready.get_or_insert_with(|| stream.subscribe()), authority)?;
                continue;
            }
            let size = usize::try_from(permit.min(WRITE_LIMIT)).unwrap_or(0).min(bytes.len());
            let Some((piece, rest)) = bytes.split_at_checked(size) else { return Ok(false) };
            if !stream.write(piece) {
                return Ok(false);
            }
            bytes = rest;
        }
        // Not flushed: to finish the body sends all of it.
        Ok(true)
    }

    fn response(&self, future: &FutureIncomingResponse, authority: &str) -> Result<IncomingResponse, Error> {
        self.wait(&future.subscribe(), authority)?;
        match future.get() {
            Some(Answer::Ok(response)) => Ok(response),
            Some(Answer::Err(code)) => Err(from_code(&code, authority)),
            None => Err(lost(authority)),
        }
    }

    fn body(&self, response: &IncomingResponse, authority: &str) -> Result<Vec<u8>, Error> {
        let body = response.consume().ok_or_else(|| lost(authority))?;
        let stream = body.stream().ok_or_else(|| lost(authority))?;
        let (mut ready, mut bytes) = (None, Vec::new());
        loop {
            match stream.read(READ_SIZE) {
                Answer::Ok(piece) if piece.is_empty() => {
                    self.wait(ready.get_or_insert_with(|| stream.subscribe()), authority)?;
                }
                Answer::Ok(piece) if bytes.len() + piece.len() > RESPONSE_LIMIT => {
                    return Err(Case::ResponseTooLarge.because(text![
                        "the answer from ",
                        authority,
                        " is larger than ",
                        decimal(RESPONSE_LIMIT >> 20),
                        " MiB: check `host` and `port`, or read the sessions of one node"
                    ]));
                }
                // Safety: the host has just written it, and here alone it is used.
                Answer::Ok(piece) => unsafe { heap::append(&mut bytes, &piece) },
                Answer::Err(StreamError::Closed) => return Ok(bytes),
                // Its code says no more: hosts have one for everything that breaks off.
                Answer::Err(StreamError::LastOperationFailed(_)) => {
                    return Err(Case::InvalidResponse.because(text![
                        "the answer from ",
                        authority,
                        " broke off after ",
                        decimal(bytes.len()),
                        " bytes: check whether the agent is well, and try again"
                    ]));
                }
            }
        }
    }
}

impl Transport for WasiHttp {
    fn send(&mut self, request: &Request) -> Result<Response, Error> {
        let authority = request.authority.as_str();
        let insecure = request.protocol == Protocol::HttpsInsecure;
        let unsupported = || {
            Case::Unsupported.because(text![
                "this host does not grant `validate_certs=false` for ",
                authority,
                ": have it trust the CA of the agent's certificate instead"
            ])
        };

        let length = decimal(request.body.len());
        let mut headers = vec![("content-length", length.as_str())];
        if let Some(token) = &request.token {
            headers.push(("x-consul-token", token.secret()));
        }
        let headers =
            Fields::from_list(&headers).ok_or_else(|| Case::Other.because("the host refuses the request's headers"))?;
        let outgoing = OutgoingRequest::new(headers);
        let method = match request.method {
            // A request is one, until it is told otherwise.
            Method::Get => None,
            Method::Put => Some(METHOD_PUT),
            Method::Post => Some(METHOD_POST),
        };
        let (scheme, other) = match request.protocol {
            Protocol::Http => (SCHEME_HTTP, ""),
            Protocol::Https => (SCHEME_HTTPS, ""),
            Protocol::HttpsInsecure => (SCHEME_OTHER, "https+insecure"),
        };
        for (accepted, what) in [
            (method.is_none_or(|method| outgoing.set_method(method)), "method"),
            (outgoing.set_scheme(scheme, other), "scheme"),
            (outgoing.set_authority(authority), "authority"),
            (outgoing.set_path_with_query(&request.path_and_query), "path"),
        ] {
            if !accepted {
                return Err(match what {
                    "scheme" if insecure => unsupported(),
                    _ => Error::invalid("host", text!["the host refuses this ", what, ": ", authority]),
                });
            }
        }

        let body = outgoing.body().ok_or_else(|| Case::Other.because("the host gives the request no body"))?;
        let future = match imports::handle(outgoing) {
            Answer::Ok(future) => future,
            Answer::Err(ErrorCode::HttpProtocolError) if insecure => return Err(unsupported()),
            Answer::Err(code) => return Err(from_code(&code, authority)),
        };
        if self.write(&body, &request.body, authority)? {
            body.finish();
        }
        let response = self.response(&future, authority)?;
        let mut headers = Vec::new();
        if !request.headers.is_empty() {
            let fields = response.headers();
            for name in request.headers {
                let values = fields.get(name);
                let value = values.first().and_then(|value| core::str::from_utf8(value).ok());
                headers.extend(value.map(|value| (*name, value.to_owned())));
            }
        }
        Ok(Response { status: response.status(), headers, body: self.body(&response, authority)? })
    }
}

fn lost(authority: &str) -> Error {
    Case::Other.because(text!["the host lost the answer from ", authority])
}

fn from_code(code: &ErrorCode, authority: &str) -> Error {
    from_error_code(code.name(), code.detail(), authority)
}
