//! The functions of `wasi:http` that answer with an `error-code`, and its type.
//!
//! By hand: `wit-bindgen` takes the thirty-nine cases apart in each of them anew, which is 4 kB. `tests/native/wit.rs` compares
//! the type with `wit/`.

use super::{FutureIncomingResponse, IncomingResponse, OutgoingBody, OutgoingRequest};
use crate::component::abi::{Answer, Maybe, Text};
use core::mem::MaybeUninit;

/// Makes the type, with the cases' names in WIT.
macro_rules! error_codes {
    ($($case:ident $(($payload:ty))? = $name:literal,)*) => {
        #[repr(C, u8)]
        #[expect(dead_code, reason = "the host makes them")]
        pub enum ErrorCode {
            $($case $(($payload))?,)*
        }

        impl ErrorCode {
            /// The name in WIT.
            pub fn name(&self) -> &'static str {
                match self {
                    $(ErrorCode::$case { .. } => $name,)*
                }
            }
        }
    };
}

error_codes! {
    DnsTimeout = "DNS-timeout",
    DnsError(DnsErrorPayload) = "DNS-error",
    DestinationNotFound = "destination-not-found",
    DestinationUnavailable = "destination-unavailable",
    DestinationIpProhibited = "destination-IP-prohibited",
    DestinationIpUnroutable = "destination-IP-unroutable",
    ConnectionRefused = "connection-refused",
    ConnectionTerminated = "connection-terminated",
    ConnectionTimeout = "connection-timeout",
    ConnectionReadTimeout = "connection-read-timeout",
    ConnectionWriteTimeout = "connection-write-timeout",
    ConnectionLimitReached = "connection-limit-reached",
    TlsProtocolError = "TLS-protocol-error",
    TlsCertificateError = "TLS-certificate-error",
    TlsAlertReceived(TlsAlertReceivedPayload) = "TLS-alert-received",
    HttpRequestDenied = "HTTP-request-denied",
    HttpRequestLengthRequired = "HTTP-request-length-required",
    HttpRequestBodySize(Maybe<u64>) = "HTTP-request-body-size",
    HttpRequestMethodInvalid = "HTTP-request-method-invalid",
    HttpRequestUriInvalid = "HTTP-request-URI-invalid",
    HttpRequestUriTooLong = "HTTP-request-URI-too-long",
    HttpRequestHeaderSectionSize(Maybe<u32>) = "HTTP-request-header-section-size",
    HttpRequestHeaderSize(Maybe<FieldSizePayload>) = "HTTP-request-header-size",
    HttpRequestTrailerSectionSize(Maybe<u32>) = "HTTP-request-trailer-section-size",
    HttpRequestTrailerSize(FieldSizePayload) = "HTTP-request-trailer-size",
    HttpResponseIncomplete = "HTTP-response-incomplete",
    HttpResponseHeaderSectionSize(Maybe<u32>) = "HTTP-response-header-section-size",
    HttpResponseHeaderSize(FieldSizePayload) = "HTTP-response-header-size",
    HttpResponseBodySize(Maybe<u64>) = "HTTP-response-body-size",
    HttpResponseTrailerSectionSize(Maybe<u32>) = "HTTP-response-trailer-section-size",
    HttpResponseTrailerSize(FieldSizePayload) = "HTTP-response-trailer-size",
    HttpResponseTransferCoding(Maybe<Text>) = "HTTP-response-transfer-coding",
    HttpResponseContentCoding(Maybe<Text>) = "HTTP-response-content-coding",
    HttpResponseTimeout = "HTTP-response-timeout",
    HttpUpgradeFailed = "HTTP-upgrade-failed",
    HttpProtocolError = "HTTP-protocol-error",
    LoopDetected = "loop-detected",
    ConfigurationError = "configuration-error",
    InternalError(Maybe<Text>) = "internal-error",
}

#[repr(C)]
pub struct DnsErrorPayload {
    pub rcode: Maybe<Text>,
    pub info_code: Maybe<u16>,
}

#[repr(C)]
pub struct TlsAlertReceivedPayload {
    pub alert_id: Maybe<u8>,
    pub alert_message: Maybe<Text>,
}

#[repr(C)]
pub struct FieldSizePayload {
    pub field_name: Maybe<Text>,
    pub field_size: Maybe<u32>,
}

impl ErrorCode {
    /// What a host says beside the code.
    pub fn detail(&self) -> Option<&str> {
        let text = match self {
            ErrorCode::DnsError(payload) => &payload.rcode,
            ErrorCode::TlsAlertReceived(payload) => &payload.alert_message,
            ErrorCode::InternalError(text) => text,
            _ => return None,
        };
        text.as_ref().map(|text| &**text)
    }
}

#[link(wasm_import_module = "wasi:http/outgoing-handler@0.2.0")]
unsafe extern "C" {
    #[link_name = "handle"]
    fn import_handle(request: u32, options_given: u32, options: u32, answer: *mut Answer<u32, ErrorCode>);
}

#[link(wasm_import_module = "wasi:http/types@0.2.0")]
unsafe extern "C" {
    #[link_name = "[method]future-incoming-response.get"]
    fn import_get(future: u32, answer: *mut Maybe<Answer<Answer<u32, ErrorCode>, ()>>);
    #[link_name = "[static]outgoing-body.finish"]
    fn import_finish(body: u32, trailers_given: u32, trailers: u32, answer: *mut Answer<(), ErrorCode>);
}

/// What a host writes where it is told to.
///
/// # Safety
///
/// The call writes a whole value.
unsafe fn written<T>(call: impl FnOnce(*mut T)) -> T {
    let mut value = MaybeUninit::uninit();
    call(value.as_mut_ptr());
    // Safety: the caller's.
    unsafe { value.assume_init() }
}

/// `outgoing-handler.handle`, without options.
pub fn handle(request: OutgoingRequest) -> Result<FutureIncomingResponse, ErrorCode> {
    // Safety: the host gets the request's only handle, and gives that of the future.
    unsafe {
        match written(|answer| import_handle(request.take_handle(), 0, 0, answer)) {
            Answer::Ok(future) => Ok(FutureIncomingResponse::from_handle(future)),
            Answer::Err(code) => Err(code),
        }
    }
}

/// `future-incoming-response.get`; `None` also for an answer that was fetched before.
pub fn get(future: &FutureIncomingResponse) -> Option<Result<IncomingResponse, ErrorCode>> {
    // Safety: the handle is the future's, and the host gives that of the response.
    unsafe {
        match written(|answer| import_get(future.handle(), answer)) {
            Maybe::Some(Answer::Ok(Answer::Ok(response))) => Some(Ok(IncomingResponse::from_handle(response))),
            Maybe::Some(Answer::Ok(Answer::Err(code))) => Some(Err(code)),
            Maybe::Some(Answer::Err(())) | Maybe::None => None,
        }
    }
}

/// `outgoing-body.finish`, without trailers. Should the host find fault with the body, the response tells.
pub fn finish(body: OutgoingBody) {
    // Safety: the host gets the body's only handle.
    let _: Answer<(), ErrorCode> = unsafe { written(|answer| import_finish(body.take_handle(), 0, 0, answer)) };
}
