//! Redaction of the host's tokens in what comes back: an agent or a proxy may quote the request.

use super::Token;
use super::body::{LimitedBody, read_up_to};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Response, StatusCode, response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use std::convert::Infallible;
use wasmtime_wasi_http::{Error as Code, WasiBody};

/// What stands in place of a token, as in the plugin's own errors.
const REDACTED: &[u8] = b"(token)";

/// How many leading characters of a token are redacted where the quotation ends with them.
const MIN_CUT: usize = 4;

/// How much of the body of an error the component gets, in bytes. The plugin shows its first line.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// From this header the plugin concludes that ACLs may have hidden something from a request without
/// a token, which Consul does not report. To the plugin, a request with the host's token has none.
const DEFAULT_POLICY: HeaderName = HeaderName::from_static("x-consul-default-acl-policy");

impl Token {
    /// Returns the response to a request with this token, as the component may see it.
    ///
    /// The token is redacted in the headers, and in the body of an error, which is read first. The
    /// body of a success is data, passed on as it arrives.
    ///
    /// # Errors
    ///
    /// Fails if the body of an error breaks off.
    pub(super) async fn redact_response(
        &self,
        mut head: response::Parts,
        body: LimitedBody,
    ) -> Result<Response<WasiBody>, Code> {
        head.headers.remove(DEFAULT_POLICY);
        for value in head.headers.values_mut() {
            if let Some(redacted) = self.redact(value.as_bytes()) {
                *value = HeaderValue::from_bytes(&redacted).unwrap_or(HeaderValue::from_static(""));
            }
        }
        if head.status == StatusCode::OK {
            return Ok(Response::from_parts(head, body.boxed_unsync()));
        }
        let (body, _whole) = read_up_to(body, MAX_ERROR_BYTES).await?;
        let body = self.redact(&body).unwrap_or(body);
        head.headers.remove(CONTENT_LENGTH);
        let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
        Ok(Response::from_parts(head, body.boxed_unsync()))
    }

    /// Redacts the token in the message of an error.
    pub(super) fn redact_message(&self, message: &mut String) {
        if let Some(redacted) = self.redact(message.as_bytes()) {
            *message = String::from_utf8_lossy(&redacted).into_owned();
        }
    }

    /// Returns the text with the token redacted, or `None` if it does not contain the token.
    ///
    /// A quotation may be cut. So the beginning of a token is redacted too: if it is more than half
    /// of it, or if the text ends there.
    fn redact(&self, text: &[u8]) -> Option<Vec<u8>> {
        let token = self.0.as_bytes();
        let (mut redacted, mut rest, mut found) = (Vec::with_capacity(text.len()), text, false);
        while let Some((first, others)) = rest.split_first() {
            let same = rest.iter().zip(token).take_while(|(a, b)| a == b).count();
            let tail = &rest[same..];
            let ends = tail.is_empty() || ["…", "..."].iter().any(|mark| tail.starts_with(mark.as_bytes()));
            if same == token.len() || same >= MIN_CUT && (ends || same > token.len() / 2) {
                redacted.extend_from_slice(REDACTED);
                rest = tail;
                found = true;
            } else {
                redacted.push(*first);
                rest = others;
            }
        }
        found.then_some(redacted)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_redacted_whole_and_cut() {
        let token: Token = "5ec7e7-0000-host".parse().unwrap();
        let redacted = |text: &str| {
            let mut message = text.to_owned();
            token.redact_message(&mut message);
            message
        };
        for (text, expected) in [
            ("", ""),
            ("consul answered 403: ü", "consul answered 403: ü"),
            ("5ec7e7-0000-host", "(token)"),
            ("ü 5ec7e7-0000-host5ec7e7-0000-host, x", "ü (token)(token), x"),
            ("55ec7e7-0000-host", "5(token)"),
            ("X-Consul-Token: 5ec7e7-00", "X-Consul-Token: (token)"),
            ("X-Consul-Token: 5ec7…; other", "X-Consul-Token: (token)…; other"),
            ("\"5ec7e7-0...\"", "\"(token)...\""),
            ("5ec7e7-00\"", "(token)\""),
            // Too little to tell, or to be of use.
            ("5ec7e7 sessions", "5ec7e7 sessions"),
            ("session 5ec", "session 5ec"),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
    }
}
