//! Redaction of the host's secrets in what comes back: an agent or a proxy may quote the request.

use super::body::{LimitedBody, read_up_to};
use super::secret::{Secret, SecretKind, Token};
use http::header::{CONTENT_LENGTH, HeaderName, HeaderValue};
use http::{Response, StatusCode, response};
use http_body_util::{BodyExt as _, Full};
use hyper::body::Bytes;
use std::convert::Infallible;
use wasmtime_wasi_http::{Error as Code, WasiBody};

/// What stands in place of a token, as in the plugin's own errors.
const TOKEN: &[u8] = b"(token)";
/// What stands in place of a user and a password.
const PASSWORD: &[u8] = b"(password)";

/// How many leading characters of a secret are redacted where the quotation ends with them.
const MIN_CUT: usize = 4;

/// How much of the body of an error the component gets, in bytes. The plugin shows its first line.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// From this header the plugin concludes that ACLs may have hidden something from a request without
/// a token, which Consul does not report. To the plugin, a request with the host's token has none.
const DEFAULT_POLICY: HeaderName = HeaderName::from_static("x-consul-default-acl-policy");

/// Returns the response to a request with these secrets, as the component may see it.
///
/// The secrets are redacted in the headers, and in the body of an error, which is read first. The
/// body of a success is data, passed on as it arrives.
///
/// # Errors
///
/// Fails if the body of an error breaks off.
pub(super) async fn response(
    secrets: &[Secret],
    mut head: response::Parts,
    body: LimitedBody,
) -> Result<Response<WasiBody>, Code> {
    if secrets.iter().any(|secret| secret.kind() == SecretKind::Token) {
        head.headers.remove(DEFAULT_POLICY);
    }
    for secret in secrets {
        for value in head.headers.values_mut() {
            if let Some(redacted) = secret.redact(value.as_bytes()) {
                *value = HeaderValue::from_bytes(&redacted).unwrap_or(HeaderValue::from_static(""));
            }
        }
    }
    if secrets.is_empty() || head.status == StatusCode::OK {
        return Ok(Response::from_parts(head, body.boxed_unsync()));
    }
    let (mut body, _whole) = read_up_to(body, MAX_ERROR_BYTES).await?;
    for secret in secrets {
        body = secret.redact(&body).unwrap_or(body);
    }
    head.headers.remove(CONTENT_LENGTH);
    let body = Full::new(Bytes::from(body)).map_err(|never: Infallible| match never {});
    Ok(Response::from_parts(head, body.boxed_unsync()))
}

impl Secret {
    /// Redacts the secret in the message of an error.
    pub(super) fn redact_message(&self, message: &mut String) {
        if let Some(redacted) = self.redact(message.as_bytes()) {
            *message = String::from_utf8_lossy(&redacted).into_owned();
        }
    }

    /// Returns the text with the secret redacted, or `None` if it does not contain the secret.
    fn redact(&self, text: &[u8]) -> Option<Vec<u8>> {
        match self {
            Secret::Token(Token(token)) => replace(text, token.as_bytes(), MIN_CUT, TOKEN),
            Secret::Password(credentials) => {
                let encoded = replace(text, credentials.encoded(), MIN_CUT, PASSWORD);
                // The user's name alone is not secret. Nor is a word that happens to be the
                // password: its absence would tell which.
                let start = credentials.password_start();
                let text = encoded.as_deref().unwrap_or(text);
                let plain = (start < credentials.pair().len())
                    .then(|| replace(text, credentials.pair(), start + 1, PASSWORD))
                    .flatten();
                plain.or(encoded)
            }
        }
    }
}

/// Returns the text with `mark` in place of the secret, or `None` if it does not contain it.
///
/// A quotation may be cut. So the beginning of a secret is replaced too, from `min_cut` bytes on: if
/// it is more than half of it, or if the text ends there.
fn replace(text: &[u8], secret: &[u8], min_cut: usize, mark: &[u8]) -> Option<Vec<u8>> {
    let (mut replaced, mut rest, mut found) = (Vec::with_capacity(text.len()), text, false);
    while let Some((first, others)) = rest.split_first() {
        let same = rest.iter().zip(secret).take_while(|(a, b)| a == b).count();
        let tail = &rest[same..];
        let ends = tail.is_empty() || ["…", "..."].iter().any(|mark| tail.starts_with(mark.as_bytes()));
        if same == secret.len() || same >= min_cut && (ends || same > secret.len() / 2) {
            replaced.extend_from_slice(mark);
            rest = tail;
            found = true;
        } else {
            replaced.push(*first);
            rest = others;
        }
    }
    found.then_some(replaced)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_redacted_whole_and_cut() {
        let token = Secret::Token("5ec7e7-0000-host".parse().unwrap());
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
            // Too little to tell, or to be of use: not more than half.
            ("5ec7e7-0\"", "5ec7e7-0\""),
            ("5ec7e7 sessions", "5ec7e7 sessions"),
            ("session 5ec", "session 5ec"),
        ] {
            assert_eq!(redacted(text), expected, "{text}");
        }
    }
}
