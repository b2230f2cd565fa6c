//! Failures of requests: the error code for the component, and the message for the operator.
//!
//! `wasi:http` has a code for each kind of failure, and almost no text. The host knows more: which
//! rule to add, what is wrong with a certificate, which flag corrects it. An [`Explanation`]
//! carries that into the plugin's error.

use super::SecretKind;
use crate::bindings::Error;
use crate::policy::{Authority, Denied, Rule};
use bytesize::ByteSize;
use rustls::{AlertDescription as Alert, CertificateError, InvalidMessage};
use std::error::Error as StdError;
use std::fmt;
use std::io::{self, ErrorKind};
use std::mem::{Discriminant, discriminant};
use std::path::PathBuf;
use std::time::Duration;
use wasmtime_wasi_http::Error as Code;

/// The flags for a client certificate.
const CLIENT_CERT: &str = "`--client-cert FILE --client-key FILE` (CONSUL_CLIENT_CERT, CONSUL_CLIENT_KEY)";
/// The flag for a CA.
const CA_FILE: &str = "`--ca-file FILE` (CONSUL_CACERT)";
/// The flag for the name that a certificate is verified against.
const SERVER_NAME: &str = "`--tls-server-name NAME` (CONSUL_TLS_SERVER_NAME)";

/// The reason why a request has no response.
#[derive(Debug)]
pub(crate) enum Failure {
    /// The policy denies the authority or its socket.
    Denied(Denied),
    /// The component requested no verification of the certificate, which is not granted for this
    /// authority.
    InsecureNotGranted,
    /// The host's secret for this authority is for TLS only, and the request is plain HTTP.
    NeedsTls(SecretKind),
    /// The host requires a token, and has none for this authority.
    TokenRequired,
    /// The authority is a name, and is allowed by its addresses alone. This rule for a network has
    /// a secret, and cannot be compared with a name.
    OfNetwork(SecretKind, Rule),
    /// The host's secret for this authority is not granted for keys.
    LocksNotGranted(SecretKind),
    /// The host's secret is not sent for a key whose path a server may read as another one.
    AmbiguousKey(SecretKind),
    /// The request is a transaction that gets no secret, since it does not only lock or unlock a
    /// key.
    NotALock(SecretKind),
    /// The policy denies every address of the name.
    AddressDenied(Denied),
    /// The URI of the request is invalid.
    Uri,
    /// The name cannot be resolved.
    Lookup(io::Error),
    /// No address accepts a connection.
    Connect(io::Error),
    /// The Unix socket does not accept a connection.
    Socket(PathBuf, io::Error),
    /// There was no connection before the deadline.
    ConnectTimeout(Duration),
    /// There was a connection, but no TLS handshake before the deadline.
    HandshakeTimeout(Duration),
    /// No certificate can be valid for this host name.
    ServerName,
    /// The TLS handshake failed.
    Handshake {
        /// The error of rustls, or of the underlying connection.
        error: io::Error,
        /// Whether the host has a client certificate.
        client_cert: bool,
    },
    /// The peer ended the connection because of the client's certificate, or because there was
    /// none. In TLS 1.3 the alert arrives after the handshake, when the request may be sent
    /// already, but before the peer reads it.
    Refused {
        /// The alert of the peer.
        alert: Alert,
        /// Whether the host has a client certificate.
        client_cert: bool,
    },
    /// The connection ended before any of the request was sent. It may have been opened by another
    /// request.
    NotSent,
    /// The peer does not answer HTTP/2 pings. The request may have been carried out.
    PingTimeout,
    /// The peer closed the connection, or its response is not valid HTTP. The request may have been
    /// carried out.
    ConnectionLost,
    /// The response is larger than this limit.
    TooLarge(u64),
    /// The component has this many requests in flight, and sent another.
    TooManyInFlight(usize),
    /// The component sent more requests than this limit in one call.
    TooManyRequests(u64),
}

/// The host's error for a failure, and the case of the plugin's error that it replaces.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Explanation {
    /// The case that the plugin reports for the failure.
    case: Discriminant<Error>,
    /// The error that replaces it.
    error: Error,
}

impl Explanation {
    /// Returns the message for the operator.
    pub(crate) fn message(&self) -> &str {
        self.error.message()
    }

    /// Replaces the plugin's error with the host's, if it has the case of this failure.
    ///
    /// It keeps the consequences that the plugin reports (`; session … was created to replace it`).
    pub(crate) fn apply(&self, error: Error) -> Error {
        if discriminant(&error) != self.case {
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
    /// Returns the code for the component, and the explanation for a request to `at`. There is no
    /// explanation if the code says everything.
    pub(crate) fn explain(&self, at: &Authority) -> (Code, Option<Explanation>) {
        let explained = |code, error: Error| (code, Some(Explanation { case: discriminant(&error), error }));
        let denied = |text| explained(Code::HttpRequestDenied, Error::DeniedByHost(text));
        match self {
            Failure::Denied(reason) => denied(reason.to_string()),
            Failure::InsecureNotGranted => denied(format!(
                "`validate_certs=false` is not granted for {at}: add `--insecure {at}`, or to the configuration file: insecure = [\"{at}\"]"
            )),
            Failure::NeedsTls(kind) => denied(format!(
                "the host sends its {kind} to {at} over TLS only, but the request is plain http: use `scheme=https`, or let the {kind} be read on the way: type `scheme=http`, or in the configuration file: {} with scheme = \"http\"",
                kind.table()
            )),
            Failure::TokenRequired => denied(format!(
                "no token is for {at}, and without one the request would be anonymous: add `--allow {at}`, or to the configuration file: [[token]] with authority = \"{at}\""
            )),
            Failure::OfNetwork(kind, rule) => denied(format!(
                "the {kind} of the rule `{rule}` is for addresses, not for the name in {at}, and without one the request would be anonymous: give an address as `host`, or add to the configuration file: {} with authority = \"{at}\"",
                kind.table()
            )),
            Failure::LocksNotGranted(kind) => denied(format!(
                "the {kind} for {at} is not granted for keys: add to the configuration file: locks = true, or call `Builder::locks(true)`"
            )),
            Failure::AmbiguousKey(kind) => denied(format!(
                "the {kind} for {at} is not sent for a key with `%`, `\\`, `.`, `..` or nothing between two `/` or at its end, which a server may read as another key: choose another key{}",
                match kind {
                    SecretKind::Token => ", or give the request a token of its own",
                    SecretKind::Password => "",
                }
            )),
            Failure::NotALock(kind) => denied(format!(
                "the {kind} for {at} is not granted for this transaction, which is not that of one lock or semaphore: {}",
                match kind {
                    SecretKind::Token => "give the request a token of its own",
                    SecretKind::Password => "lock or unlock one key at a time",
                }
            )),
            Failure::AddressDenied(denied) => explained(Code::DestinationIpProhibited, Error::DeniedByHost(denied.to_string())),
            Failure::Uri => (Code::HttpRequestUriInvalid, None),
            Failure::Lookup(error) => explained(
                Code::DnsError { rcode: Some(error.to_string()), info_code: None },
                Error::Unreachable(format!(
                    "the name in {at} cannot be resolved: check `host`, and this machine's name service ({error})"
                )),
            ),
            Failure::Connect(error) => {
                let (code, error) = connect_error(error, at);
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
            // `connection-timeout` would be ambiguous: some hosts report it for open connections
            // too, so the plugin cannot know whether a change was sent.
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
                let (code, error) = handshake_error(error, *client_cert, at);
                explained(code, error)
            }
            Failure::Refused { alert, client_cert } => {
                explained(alert_code(*alert), Error::Tls(alert_text(*alert, *client_cert, at)))
            }
            Failure::NotSent => explained(
                Code::DestinationUnavailable,
                Error::Unreachable(format!(
                    "the connection to {at} ended before the request was sent: check whether the agent is well, and try again"
                )),
            ),
            Failure::PingTimeout => (Code::ConnectionReadTimeout, None),
            Failure::ConnectionLost => (Code::HttpProtocolError, None),
            Failure::TooLarge(limit) => (
                Code::HttpResponseBodySize(Some(*limit)),
                Some(Explanation {
                    case: discriminant(&Error::InvalidResponse(String::new())),
                    error: Error::ResponseTooLarge(format!(
                        "the answer from {at} is larger than {}, the host's limit `response`: read the sessions of one node, or raise it with `--limit response=SIZE`",
                        ByteSize(*limit)
                    )),
                }),
            ),
            Failure::TooManyInFlight(limit) => explained(
                Code::ConnectionLimitReached,
                Error::Unreachable(format!(
                    "the component had {limit} requests under way and wanted another, to {at}: the host's limit `in_flight` ends it; raise it with `--limit in_flight=NUMBER`"
                )),
            ),
            Failure::TooManyRequests(limit) => explained(
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

/// Lets a failure pass through hyper's error type.
impl StdError for Failure {}

/// Returns code and error for a failure to connect.
fn connect_error(error: &io::Error, at: &Authority) -> (Code, Error) {
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

/// Returns code and error for a failed TLS handshake.
fn handshake_error(error: &io::Error, client_cert: bool, at: &Authority) -> (Code, Error) {
    use rustls::Error as Tls;
    let tls = |code, text| (code, Error::Tls(text));
    match rustls_error(error) {
        Some(Tls::AlertReceived(alert)) => tls(alert_code(*alert), alert_text(*alert, client_cert, at)),
        Some(Tls::InvalidCertificate(error)) => tls(Code::TlsCertificateError, certificate_text(error, at)),
        Some(Tls::NoCertificatesPresented) => {
            tls(Code::TlsCertificateError, format!("{at} has no certificate: give the agent one"))
        }
        Some(Tls::InvalidMessage(InvalidMessage::InvalidContentType)) => {
            tls(Code::TlsProtocolError, format!("the server at {at} does not speak TLS: check `port`, or give `scheme=http`"))
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
            _ => connect_error(error, at),
        },
    }
}

/// Says what is wrong with the peer's certificate.
fn certificate_text(error: &CertificateError, at: &Authority) -> String {
    use CertificateError as Cause;
    let renew = "have it renewed, and check this machine's clock";
    match error {
        // The signature is wrong if a CA of the same name was created again.
        Cause::UnknownIssuer | Cause::BadSignature => {
            format!(
                "the certificate of {at} is not signed by a CA that this host trusts: give the CA's certificate with {CA_FILE}"
            )
        }
        Cause::NotValidForNameContext { expected, presented } => {
            let names = match presented.as_slice() {
                [] => "no name at all".to_owned(),
                names => names.iter().map(|name| plain_name(name)).collect::<Vec<_>>().join(", "),
            };
            let expected = expected.to_str();
            format!(
                "the certificate of {at} is for {names}, not for {expected}: set `host` to a name that it is for, or say which to expect with {SERVER_NAME}"
            )
        }
        Cause::NotValidForName => {
            format!("the certificate of {at} is for other names: say which to expect with {SERVER_NAME}")
        }
        Cause::ExpiredContext { time, not_after } => {
            let ago = largest_unit(time.as_secs().saturating_sub(not_after.as_secs()));
            format!("the certificate of {at}, or of its CA, expired {ago} ago: {renew}")
        }
        Cause::Expired => format!("the certificate of {at}, or of its CA, has expired: {renew}"),
        Cause::NotValidYetContext { time, not_before } => {
            let left = largest_unit(not_before.as_secs().saturating_sub(time.as_secs()));
            format!("the certificate of {at}, or of its CA, is not valid yet, but in {left}: check this machine's clock")
        }
        Cause::NotValidYet => {
            format!("the certificate of {at}, or of its CA, is not valid yet: check this machine's clock")
        }
        Cause::InvalidPurpose | Cause::InvalidPurposeContext { .. } => {
            format!("the certificate of {at} is not for servers: give the agent another ({error})")
        }
        error => format!("the certificate of {at} cannot be verified: give the agent another ({error})"),
    }
}

/// Returns the name inside `DnsName("localhost")`, which is how rustls shows the names of a
/// certificate.
fn plain_name(name: &str) -> &str {
    let inside = name.split_once('(').and_then(|(_kind, rest)| rest.strip_suffix(')'));
    inside.map_or(name, |name| name.trim_matches('"'))
}

/// Formats a duration in its largest unit: `3 days`.
fn largest_unit(seconds: u64) -> String {
    let units = [(86_400, "day"), (3_600, "hour"), (60, "minute")];
    let (size, unit) = units.into_iter().find(|(size, _)| seconds >= *size).unwrap_or((1, "second"));
    let count = seconds / size;
    format!("{count} {unit}{}", if count == 1 { "" } else { "s" })
}

fn alert_code(alert: Alert) -> Code {
    Code::TlsAlertReceived { alert_id: Some(alert.into()), alert_message: Some(format!("{alert:?}")) }
}

/// Says what the peer's alert means.
fn alert_text(alert: Alert, client_cert: bool, at: &Authority) -> String {
    match alert {
        // Some servers send `HandshakeFailure` for a missing certificate, and many for other
        // reasons.
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

/// Returns whether the alert can only be about the client and its certificate. Then the peer read
/// nothing that was sent after the handshake.
pub(crate) fn is_about_client(alert: Alert) -> bool {
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

/// Returns the rustls error inside an error of a TLS stream.
pub(crate) fn rustls_error(error: &io::Error) -> Option<&rustls::Error> {
    error.get_ref()?.downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;
    use rustls::pki_types::UnixTime;

    /// Covers errors that a test cannot cause on every machine.
    #[test]
    fn network_errors_have_codes() {
        let at: Authority = "consul.example:8501".parse().unwrap();
        let code = |failure: Failure| failure.explain(&at).0;
        let connect = |kind: ErrorKind| code(Failure::Connect(kind.into()));
        assert!(matches!(connect(ErrorKind::NetworkUnreachable), Code::DestinationUnavailable));
        assert!(matches!(connect(ErrorKind::HostUnreachable), Code::DestinationUnavailable));
        assert!(matches!(connect(ErrorKind::TimedOut), Code::DestinationUnavailable));
        let handshake = |kind: ErrorKind| code(Failure::Handshake { error: kind.into(), client_cert: false });
        assert!(matches!(handshake(ErrorKind::ConnectionReset), Code::TlsProtocolError));
        assert!(matches!(handshake(ErrorKind::TimedOut), Code::DestinationUnavailable));
        let socket = |kind: ErrorKind| Failure::Socket("/run/consul.sock".into(), kind.into()).explain(&at).1.unwrap();
        let error = || Error::Unreachable("no answer from consul.example:8501: no route".into());
        assert_eq!(
            socket(ErrorKind::PermissionDenied).apply(error()).message(),
            "no permission to use the Unix socket /run/consul.sock (for consul.example:8501): have this user let in (unix_sockets in the agent's configuration)"
        );
    }

    #[test]
    fn connection_that_is_not_accepted_is_explained() {
        let at: Authority = "consul.example:8501".parse().unwrap();
        let Error::Unreachable(text) = connect_error(&ErrorKind::TimedOut.into(), &at).1 else { panic!("another error") };
        assert!(text.starts_with("consul.example:8501 did not accept a connection"), "{text}");
    }

    #[test]
    fn alerts_are_explained_by_whether_there_is_a_client_certificate() {
        let at: Authority = "a:1".parse().unwrap();
        for (alert, client_cert, beginning) in [
            (Alert::HandshakeFailure, false, "a:1 refused the TLS handshake"),
            (Alert::HandshakeFailure, true, "a:1 refused the client certificate"),
            (Alert::CertificateRequired, false, "a:1 wants a client certificate"),
            (Alert::CertificateRequired, true, "a:1 refused the client certificate"),
            (Alert::UnrecognisedName, false, "a:1 has no certificate for this name"),
            (Alert::UnrecognisedName, true, "a:1 has no certificate for this name"),
        ] {
            let text = alert_text(alert, client_cert, &at);
            assert!(text.starts_with(beginning), "{alert:?}, {client_cert}: {text}");
        }
    }

    #[test]
    fn expiry_is_shown_in_its_largest_unit() {
        let at: Authority = "consul.example:8501".parse().unwrap();
        let expired = |seconds: u64| {
            let [time, not_after] =
                [1_000_000 + seconds, 1_000_000].map(|seconds| UnixTime::since_unix_epoch(Duration::from_secs(seconds)));
            let error = rustls::CertificateError::ExpiredContext { time, not_after };
            let error = io::Error::new(ErrorKind::InvalidData, rustls::Error::InvalidCertificate(error));
            let explanation = Failure::Handshake { error, client_cert: false }.explain(&at).1.unwrap();
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
