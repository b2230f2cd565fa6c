//! `error-code` of `wasi:http`. `tests/native/wit.rs` compares it with `wit/`.

use crate::component::abi::{Maybe, Text};

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
