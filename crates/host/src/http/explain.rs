//! Why a request got no answer: the code that the component gets, and the text that its operator gets.
//!
//! `wasi:http` has a code for each kind of failure and hardly a word beside it. What only the host knows (which rule to add, what is
//! wrong with a certificate, with which flag to mend it) is remembered here and put into the plugin's error.

use crate::bindings::Error;
use crate::policy::{Authority, Denied};
use bytesize::ByteSize;
use rustls::{AlertDescription as Alert, CertificateError, InvalidMessage};
use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind};
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;
use std::time::Duration;
use wasmtime_wasi_http::Error as Code;

/// How the operator gives a client certificate.
const CLIENT_CERT: &str = "`--client-cert FILE --client-key FILE` (CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY)";
/// How the operator gives a CA.
const CA_FILE: &str = "`--ca-file FILE` (CONSUL_CACERT)";
/// How the operator gives the name that a certificate is verified against.
const SERVER_NAME: &str = "`--tls-server-name NAME` (CONSUL_TLS_SERVER_NAME)";

/// Why a request got no answer.
#[derive(Debug)]
pub enum Failure {
    /// The policy has no rule for the authority or its socket.
    Denied(Denied),
    /// The certificate was not to be verified, which is not granted here.
    NotInsecure,
    /// The policy refuses every address that the name has.
    AddressDenied(Denied),
    /// The request's address cannot be understood.
    Uri,
    /// The name could not be looked up.
    Lookup(io::Error),
    /// No connection to any address.
    Connect(io::Error),
    /// No connection to the Unix socket.
    Socket(PathBuf, io::Error),
    /// Not connected in time.
    ConnectTimeout(Duration),
    /// Connected, but no TLS handshake in time.
    HandshakeTimeout(Duration),
    /// No certificate can be for such a host name.
    ServerName,
    /// The TLS handshake failed.
    Handshake {
        /// Of rustls, or of the connection under it.
        error: io::Error,
        /// Whether the host has a client certificate to show.
        client_cert: bool,
    },
    /// The peer ended the connection because of the client's certificate, or because there was none. In TLS 1.3 that comes after the
    /// handshake, when the request is on its way already, but before it is read.
    Refused {
        /// What the peer said.
        alert: Alert,
        /// Whether the host has a client certificate to show.
        client_cert: bool,
    },
    /// The connection, or that of another request which this one was to share, ended before anything of the request was sent.
    NotSent,
    /// The peer does not answer HTTP/2 pings. The request may have been carried out.
    Dead,
    /// The peer closed the connection, or what it sent is no HTTP. The request may have been carried out.
    Broken,
    /// The answer is larger than this.
    TooLarge(u64),
    /// The component has as many requests as this under way.
    TooManyAtOnce(usize),
    /// The component sent more requests than this.
    TooMany(u64),
}

/// What the host knows of a failure, and which error of the plugin it belongs to.
#[derive(Clone, Debug, PartialEq)]
pub struct Explanation {
    /// The case that the plugin makes of the failure.
    of: Discriminant<Error>,
    /// The error that it is.
    error: Error,
}

impl Explanation {
    /// What an operator is told.
    pub fn text(&self) -> &str {
        self.error.message()
    }

    /// The same failure with the host's text in place of the plugin's, if it is this failure.
    ///
    /// What the plugin says of the consequences (`; session … was created to replace it`) stays.
    pub fn apply(&self, error: Error) -> Error {
        if discriminant(&error) != self.of {
            return error;
        }
        let mut explained = self.error.clone();
        if let Some((_cause, consequences)) = error.message().split_once("; ") {
            let message = explained.message_mut();
            message.push_str("; ");
            message.push_str(consequences);
        }
        explained
    }
}

impl Failure {
    /// The code for the component, and what its operator is told of a request to `at`. Nothing if the code says all.
    pub fn tell(&self, at: &Authority) -> (Code, Option<Explanation>) {
        let explained = |code, error: Error| (code, Some(Explanation { of: discriminant(&error), error }));
        match self {
            Failure::Denied(denied) => explained(Code::HttpRequestDenied, Error::DeniedByHost(denied.to_string())),
            Failure::NotInsecure => explained(
                Code::HttpRequestDenied,
                Error::DeniedByHost(format!(
                    "`validate_certs=false` is not granted for {at}: add `--insecure {at}`, or to the configuration file: insecure = [\"{at}\"]"
                )),
            ),
            Failure::AddressDenied(denied) => explained(Code::DestinationIpProhibited, Error::DeniedByHost(denied.to_string())),
            Failure::Uri => (Code::HttpRequestUriInvalid, None),
            Failure::Lookup(error) => explained(
                Code::DnsError { rcode: Some(error.to_string()), info_code: None },
                Error::Unreachable(format!(
                    "the name in {at} cannot be resolved: check `host`, and this machine's name service ({error})"
                )),
            ),
            Failure::Connect(error) => {
                let (code, error) = not_connected(error, at);
                explained(code, error)
            }
            Failure::Socket(path, error) => {
                let path = path.display();
                let (code, text) = match error.kind() {
                    ErrorKind::NotFound => (
                        Code::DestinationUnavailable,
                        format!("the Unix socket {path} (for {at}) does not exist: check the path, and whether the agent runs"),
                    ),
                    ErrorKind::PermissionDenied => (
                        Code::DestinationUnavailable,
                        format!(
                            "no permission to use the Unix socket {path} (for {at}): have this user let in (unix_sockets in the agent's configuration)"
                        ),
                    ),
                    ErrorKind::ConnectionRefused => (
                        Code::ConnectionRefused,
                        format!("nothing listens on the Unix socket {path} (for {at}): check whether the agent runs"),
                    ),
                    _ => (Code::DestinationUnavailable, format!("no connection to the Unix socket {path} (for {at}): {error}")),
                };
                explained(code, Error::Unreachable(text))
            }
            // Not `connection-timeout`, after which the plugin cannot know whether a change was sent: some hosts say that of any
            // connection.
            Failure::ConnectTimeout(limit) => explained(
                Code::DestinationUnavailable,
                Error::Unreachable(format!(
                    "{at} did not accept a connection within {limit:?}, so that nothing was sent: check `host` and `port`, and for a firewall between"
                )),
            ),
            Failure::HandshakeTimeout(limit) => explained(
                Code::DestinationUnavailable,
                Error::Unreachable(format!(
                    "{at} accepted the connection, but no TLS handshake within {limit:?}, so that nothing was sent: check whether it speaks TLS (else `scheme=http`), and whether the agent is well"
                )),
            ),
            Failure::ServerName => explained(
                Code::TlsCertificateError,
                Error::Tls(format!("no certificate can be for the host of {at}: say which name to expect with {SERVER_NAME}")),
            ),
            Failure::Handshake { error, client_cert } => {
                let (code, error) = no_handshake(error, *client_cert, at);
                explained(code, error)
            }
            Failure::Refused { alert, client_cert } => {
                explained(alert_code(*alert), Error::Tls(said(*alert, *client_cert, at)))
            }
            Failure::NotSent => explained(
                Code::DestinationUnavailable,
                Error::Unreachable(format!(
                    "the connection to {at} ended before the request was sent: check whether the agent is well, and try again"
                )),
            ),
            Failure::Dead => (Code::ConnectionReadTimeout, None),
            Failure::Broken => (Code::HttpProtocolError, None),
            Failure::TooLarge(limit) => (
                Code::HttpResponseBodySize(Some(*limit)),
                Some(Explanation {
                    of: discriminant(&Error::InvalidResponse(String::new())),
                    error: Error::ResponseTooLarge(format!(
                        "the answer from {at} is larger than {}, the host's limit `response`: read the sessions of one node, or raise it with `--limit response=SIZE`",
                        ByteSize(*limit)
                    )),
                }),
            ),
            Failure::TooManyAtOnce(limit) => explained(
                Code::ConnectionLimitReached,
                Error::Unreachable(format!(
                    "the component had {limit} requests under way and wanted another, to {at}: the host's limit `in_flight` ends it; raise it with `--limit in_flight=NUMBER`"
                )),
            ),
            Failure::TooMany(limit) => explained(
                Code::ConnectionLimitReached,
                Error::Unreachable(format!(
                    "the component wanted more than {limit} requests in one call, this one to {at}: the host's limit `requests` ends it; raise it with `--limit requests=NUMBER`"
                )),
            ),
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(self, f)
    }
}

/// So that it can come back out of hyper.
impl StdError for Failure {}

fn not_connected(error: &io::Error, at: &Authority) -> (Code, Error) {
    match error.kind() {
        ErrorKind::ConnectionRefused => (
            Code::ConnectionRefused,
            Error::Unreachable(format!("nothing listens at {at}: check `host` and `port`, and whether the agent runs")),
        ),
        ErrorKind::TimedOut => (
            Code::DestinationUnavailable,
            Error::Unreachable(format!(
                "{at} did not accept a connection, so that nothing was sent: check `host` and `port`, and for a firewall between"
            )),
        ),
        _ => (
            Code::DestinationUnavailable,
            Error::Unreachable(format!("no connection to {at}: check `host`, and the network between ({error})")),
        ),
    }
}

fn no_handshake(error: &io::Error, client_cert: bool, at: &Authority) -> (Code, Error) {
    use rustls::Error as Tls;
    let tls = |code, text| (code, Error::Tls(text));
    match rustls_error(error) {
        Some(Tls::AlertReceived(alert)) => tls(alert_code(*alert), said(*alert, client_cert, at)),
        Some(Tls::InvalidCertificate(error)) => tls(Code::TlsCertificateError, certificate(error, at)),
        Some(Tls::NoCertificatesPresented) => {
            tls(Code::TlsCertificateError, format!("{at} has no certificate: give the agent one"))
        }
        Some(Tls::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            tls(Code::TlsProtocolError, format!("what listens at {at} does not speak TLS: check `port`, or give `scheme=http`"))
        }
        Some(error) => tls(Code::TlsProtocolError, format!("no TLS handshake with {at}: {error}")),
        None => match error.kind() {
            ErrorKind::UnexpectedEof | ErrorKind::ConnectionReset | ErrorKind::ConnectionAborted | ErrorKind::BrokenPipe => {
                tls(
                    Code::TlsProtocolError,
                    format!(
                        "{at} cut the TLS handshake off: check `port`, whether it speaks TLS (else `scheme=http`), and whether the agent is well"
                    ),
                )
            }
            _ => not_connected(error, at),
        },
    }
}

/// What is wrong with the peer's certificate.
fn certificate(error: &CertificateError, at: &Authority) -> String {
    use CertificateError as Wrong;
    let renew = "have it renewed, and check this machine's clock";
    match error {
        // The signature is another's if a CA of the same name was made anew.
        Wrong::UnknownIssuer | Wrong::BadSignature => {
            format!(
                "the certificate of {at} is signed by no CA that this host trusts: give the CA's certificate with {CA_FILE}"
            )
        }
        Wrong::NotValidForNameContext { expected, presented } => {
            let names = match presented.as_slice() {
                [] => "no name at all".to_owned(),
                names => names.iter().map(|name| plain_name(name)).collect::<Vec<_>>().join(", "),
            };
            let expected = expected.to_str();
            format!(
                "the certificate of {at} is for {names}, not for {expected}: set `host` to a name that it is for, or say which to expect with {SERVER_NAME}"
            )
        }
        Wrong::NotValidForName => {
            format!("the certificate of {at} is for other names: say which to expect with {SERVER_NAME}")
        }
        Wrong::ExpiredContext { time, not_after } => {
            let ago = span(time.as_secs().saturating_sub(not_after.as_secs()));
            format!("the certificate of {at}, or of its CA, expired {ago} ago: {renew}")
        }
        Wrong::Expired => format!("the certificate of {at}, or of its CA, has expired: {renew}"),
        Wrong::NotValidYetContext { time, not_before } => {
            let left = span(not_before.as_secs().saturating_sub(time.as_secs()));
            format!("the certificate of {at}, or of its CA, is not valid yet, but in {left}: check this machine's clock")
        }
        Wrong::NotValidYet => {
            format!("the certificate of {at}, or of its CA, is not valid yet: check this machine's clock")
        }
        Wrong::InvalidPurpose | Wrong::InvalidPurposeContext { .. } => {
            format!("the certificate of {at} is not for servers: give the agent another ({error})")
        }
        error => format!("the certificate of {at} cannot be verified: give the agent another ({error})"),
    }
}

/// `DnsName("localhost")`, as rustls writes the names of a certificate, without what is around it.
fn plain_name(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_kind, rest)| rest.strip_suffix(')'));
    inside.map_or(name, |name| name.trim_matches('"'))
}

/// A time in its largest unit: `3 days`.
fn span(seconds: u64) -> String {
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let (size, unit) = units.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1, "second"));
    let count = seconds / size;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn alert_code(alert: Alert) -> Code {
    Code::TlsAlertReceived { alert_id: Some(alert.into()), alert_message: Some(format!("{alert:?}")) }
}

/// What the peer's alert means.
fn said(alert: Alert, client_cert: bool, at: &Authority) -> String {
    match alert {
        // Some send `HandshakeFailure` for a missing certificate, and many for other reasons.
        Alert::HandshakeFailure if !client_cert => format!(
            "{at} refused the TLS handshake ({alert:?}): perhaps it wants a client certificate, which is given with {CLIENT_CERT}"
        ),
        alert if is_about_client(alert) && client_cert => {
            format!("{at} refused the client certificate ({alert:?}): give one that its CA signed with {CLIENT_CERT}")
        }
        alert if is_about_client(alert) => format!("{at} wants a client certificate ({alert:?}): give one with {CLIENT_CERT}"),
        Alert::UnrecognisedName => {
            format!("{at} has no certificate for this name ({alert:?}): say which to ask for with {SERVER_NAME}")
        }
        Alert::ProtocolVersion => {
            format!("{at} speaks no version of TLS that this host does, which are 1.2 and 1.3 ({alert:?}): update the agent")
        }
        alert => format!("{at} ended the TLS connection ({alert:?}): look into the agent's log"),
    }
}

/// Whether the alert can only be about the client and its certificate, so that what was sent after the handshake was not read.
pub fn is_about_client(alert: Alert) -> bool {
    matches!(
        alert,
        Alert::CertificateRequired
            | Alert::BadCertificate
            | Alert::UnsupportedCertificate
            | Alert::CertificateRevoked
            | Alert::CertificateExpired
            | Alert::CertificateUnknown
            | Alert::UnknownCA
            | Alert::AccessDenied
            | Alert::DecryptError
            | Alert::HandshakeFailure
    )
}

/// The error of rustls in an error of a TLS stream.
pub fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::UnixTime;

    /// What a test cannot provoke on every machine.
    #[test]
    fn errors_of_the_network() {
        let at: Authority = "consul.example:8501".parse().unwrap();
        let code = |failure: Failure| failure.tell(&at).0;
        let connect = |kind: ErrorKind| code(Failure::Connect(kind.into()));
        assert!(matches!(connect(ErrorKind::NetworkUnreachable), Code::DestinationUnavailable));
        assert!(matches!(connect(ErrorKind::HostUnreachable), Code::DestinationUnavailable));
        assert!(matches!(connect(ErrorKind::TimedOut), Code::DestinationUnavailable));
        let handshake = |kind: ErrorKind| code(Failure::Handshake { error: kind.into(), client_cert: false });
        assert!(matches!(handshake(ErrorKind::ConnectionReset), Code::TlsProtocolError));
        assert!(matches!(handshake(ErrorKind::TimedOut), Code::DestinationUnavailable));
        let socket = |kind: ErrorKind| Failure::Socket("/run/consul.sock".into(), kind.into()).tell(&at).1.unwrap();
        let error = || Error::Unreachable("no answer from consul.example:8501: no route".into());
        assert_eq!(
            socket(ErrorKind::PermissionDenied).apply(error()).message(),
            "no permission to use the Unix socket /run/consul.sock (for consul.example:8501): have this user let in (unix_sockets in the agent's configuration)"
        );
    }

    #[test]
    fn spans_of_time() {
        let at: Authority = "consul.example:8501".parse().unwrap();
        let expired = |seconds: u64| {
            let [time, not_after] =
                [1_000_000 + seconds, 1_000_000].map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
            let error = rustls::CertificateError::ExpiredContext { time, not_after };
            let error = io::Error::new(ErrorKind::InvalidData, rustls::Error::InvalidCertificate(error));
            let explanation = Failure::Handshake { error, client_cert: false }.tell(&at).1.unwrap();
            let message = explanation.apply(Error::Tls(String::new())).message().to_owned();
            let ago = message.strip_prefix("the certificate of consul.example:8501, or of its CA, expired ").unwrap();
            ago.strip_suffix(" ago: have it renewed, and check this machine's clock").unwrap().to_owned()
        };
        for (seconds, text) in [
            (0, "0 seconds"),
            (1, "1 second"),
            (59, "59 seconds"),
            (60, "1 minute"),
            (3_599, "59 minutes"),
            (7_200, "2 hours"),
            (86_399, "23 hours"),
            (86_400, "1 day"),
            (864_000, "10 days"),
        ] {
            assert_eq!(expired(seconds), text);
        }
    }
}
