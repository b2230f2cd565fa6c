//! The errors, one kind for each reaction of a caller, and the one function that maps a response of
//! Consul to them.
//!
//! Messages are lower case, name the cause first and the remedy second, and never contain a token.
//! The kinds are the cases of `variant error` in `wit/sessions.wit`, which describes each.

#![forbid(unsafe_code)]

use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;
use std::ops::Deref;

/// An error of this component: a kind and a message.
///
/// Boxed, since every `?` moves it and few calls create one.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Parts>);

/// The parts of an [`Error`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// The kind, for programs.
    pub kind: ErrorKind,
    /// The message, for people.
    pub message: String,
    /// See [`Error::is_ambiguous`].
    ambiguous: bool,
}

/// The cases of `variant error` with their payloads, without the message; see `wit/sessions.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each case and field is described in wit/sessions.wit")]
pub enum ErrorKind {
    InvalidOption { option: String },
    Unsupported,
    NotFound,
    Mismatch { session_id: String, differences: Vec<Difference> },
    NodeRequired { nodes: Vec<String> },
    Hidden,
    UnknownNode,
    UnknownCheck,
    CriticalCheck,
    UnknownDatacenter,
    AccessDenied { status: u16 },
    Unavailable { status: u16 },
    Refused { status: u16 },
    Unreachable,
    DeniedByHost,
    Tls,
    Timeout,
    InvalidResponse,
    ResponseTooLarge,
    OutcomeUnknown,
    Other,
}

/// A field in which a session differs from the options.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// Name of the option.
    pub option: &'static str,
    /// The value that the session has.
    pub found: String,
    /// The value that the options ask for.
    pub wanted: String,
}

impl ErrorKind {
    /// Returns the name of the case in WIT.
    pub fn name(&self) -> &'static str {
        match self {
            ErrorKind::InvalidOption { .. } => "invalid-option",
            ErrorKind::Unsupported => "unsupported",
            ErrorKind::NotFound => "not-found",
            ErrorKind::Mismatch { .. } => "mismatch",
            ErrorKind::NodeRequired { .. } => "node-required",
            ErrorKind::Hidden => "hidden",
            ErrorKind::UnknownNode => "unknown-node",
            ErrorKind::UnknownCheck => "unknown-check",
            ErrorKind::CriticalCheck => "critical-check",
            ErrorKind::UnknownDatacenter => "unknown-datacenter",
            ErrorKind::AccessDenied { .. } => "access-denied",
            ErrorKind::Unavailable { .. } => "unavailable",
            ErrorKind::Refused { .. } => "refused",
            ErrorKind::Unreachable => "unreachable",
            ErrorKind::DeniedByHost => "denied-by-host",
            ErrorKind::Tls => "tls",
            ErrorKind::Timeout => "timeout",
            ErrorKind::InvalidResponse => "invalid-response",
            ErrorKind::ResponseTooLarge => "response-too-large",
            ErrorKind::OutcomeUnknown => "outcome-unknown",
            ErrorKind::Other => "other",
        }
    }
}

impl Deref for Error {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

impl Error {
    /// Returns an error of this kind with this message.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        // Each of these is an error of a request that was sent, or may have been.
        let ambiguous = matches!(
            kind,
            ErrorKind::Timeout
                | ErrorKind::InvalidResponse
                | ErrorKind::ResponseTooLarge
                | ErrorKind::OutcomeUnknown
                | ErrorKind::Other
        );
        Error(Box::new(Parts { kind, message: message.into(), ambiguous }))
    }

    /// Returns the kind and the message.
    pub fn into_parts(self) -> Parts {
        *self.0
    }

    /// Returns an [`InvalidOption`](ErrorKind::InvalidOption) for this option.
    pub fn invalid(option: &str, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidOption { option: option.to_owned() }, message)
    }

    /// Appends to the message, unless it ends like that already: an error of a call may be one that
    /// another call has explained.
    #[must_use]
    pub fn context(mut self, more: &str) -> Error {
        if self.0.message.ends_with(more) {
            return self;
        }
        self.0.message.push_str("; ");
        self.0.message.push_str(more);
        self
    }

    /// Redacts a secret that Consul or a proxy echoed, whole or as far as the response is quoted.
    #[must_use]
    pub fn redact(mut self, secret: &str) -> Error {
        let mut text = String::new();
        let mut rest = self.0.message.as_str();
        while let Some(c) = rest.chars().next() {
            let same = rest.bytes().zip(secret.bytes()).take_while(|(a, b)| a == b).count();
            let tail = rest.get(same..).unwrap_or_default();
            if same == secret.len().max(1) || same > 3 && tail.starts_with('…') {
                text += "(token)";
                rest = tail;
            } else {
                text.push(c);
                rest = rest.get(c.len_utf8()..).unwrap_or_default();
            }
        }
        self.0.message = text;
        self
    }

    /// Returns whether a change that failed with this error may have happened anyway.
    pub fn is_ambiguous(&self) -> bool {
        self.0.ambiguous
    }

    /// Returns whether sending the request again later may succeed, and can do no harm: Consul had
    /// no leader or was over a limit, and the request only `reads` or certainly changed nothing.
    pub(crate) fn is_worth_retrying(&self, reads: bool) -> bool {
        matches!(self.kind, ErrorKind::Unavailable { .. }) && (reads || !self.0.ambiguous)
    }

    /// Turns the error of a change into `OutcomeUnknown` if the change may have happened anyway.
    #[must_use]
    pub fn into_outcome_unknown(self, what: &str) -> Error {
        if self.is_ambiguous() {
            Error::new(
                ErrorKind::OutcomeUnknown,
                format!("{}; {what} may have happened: look before trying again", self.message),
            )
        } else {
            self
        }
    }

    /// Returns the JSON that programs print, on one line.
    pub fn to_json(&self) -> String {
        #[expect(clippy::expect_used, reason = "strings and numbers are always written")]
        serde_json::to_string(self).expect("an error is JSON")
    }
}

/// `{"changed": false, "failed": true, "error": "<case>", "msg": "…", …}`, with the payload.
impl Serialize for Error {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let mut map = serializer.serialize_map(None)?;
        map.serialize_entry("changed", &false)?;
        map.serialize_entry("failed", &true)?;
        map.serialize_entry("error", self.kind.name())?;
        map.serialize_entry("msg", &self.message)?;
        match &self.kind {
            ErrorKind::InvalidOption { option } => map.serialize_entry("option", option)?,
            ErrorKind::Mismatch { session_id, differences } => {
                map.serialize_entry("session_id", session_id)?;
                map.serialize_entry("differences", differences)?;
            }
            ErrorKind::NodeRequired { nodes } => map.serialize_entry("nodes", nodes)?,
            ErrorKind::AccessDenied { status } | ErrorKind::Unavailable { status } | ErrorKind::Refused { status } => {
                map.serialize_entry("status", status)?;
            }
            _ => {}
        }
        map.end()
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}

/// Returns the error for a response of Consul whose status is not 200.
///
/// Matches substrings, since every hop between agents and servers adds the prefix
/// `rpc error making call: `. Consul answers a failed validation with 500 and only a message.
pub fn from_status(status: u16, body: &[u8]) -> Error {
    let reason = excerpt(body);
    let answer = format!("consul answered {status}: {reason}");
    let has = |part: &str| reason.contains(part);
    let refused = |kind: ErrorKind, hint: &str| Error::new(kind, format!("{answer}{hint}"));
    if has("Enterprise feature") {
        return Error::new(
            ErrorKind::Unsupported,
            format!(
                "this consul is Community Edition, which has no namespaces and partitions: leave the options out ({answer})"
            ),
        );
    }
    if has("No path to datacenter") || has("Remote DC has no server") {
        return Error::new(
            ErrorKind::UnknownDatacenter,
            format!("the agent knows no way to this datacenter: check `datacenter` ({answer})"),
        );
    }
    if has("Missing node registration") {
        return Error::new(
            ErrorKind::UnknownNode,
            format!("no node of this name is registered in the datacenter: check `node` ({answer})"),
        );
    }
    if has("Missing check") {
        return Error::new(
            ErrorKind::UnknownCheck,
            format!(
                "a check is not registered on the session's node: check `checks`, or give `checks=` for a node without serfHealth \
             ({answer})"
            ),
        );
    }
    if has("is in critical state") {
        return Error::new(
            ErrorKind::CriticalCheck,
            format!("a check is critical, and a session needs passing ones: try again when it passes ({answer})"),
        );
    }
    if matches!(status, 401 | 403) || has("ACL not found") || has("Permission denied") {
        return refused(ErrorKind::AccessDenied { status }, ": give a `token` that is allowed to do this");
    }
    if let Some(ambiguous) = unavailable(status, &reason) {
        let mut error = refused(ErrorKind::Unavailable { status }, ": try again later");
        error.0.ambiguous = ambiguous;
        return error;
    }
    // Consul has no response with a status between 200 and 400.
    if status < 400 || reason.starts_with('<') {
        return Error::new(
            ErrorKind::InvalidResponse,
            format!("the server at this address is not a Consul agent; check `host` and `port`: status {status}: {reason}"),
        );
    }
    let mut error = refused(ErrorKind::Refused { status }, "");
    // A disk that fails while the change is written, or a limit of time that a gateway has set.
    error.0.ambiguous = has("apply failed") || BROKEN_CONNECTION.iter().any(|part| has(part));
    error
}

/// Returns whether Consul, or a gateway before it, could not serve the request at the time, and if
/// so, whether it may have carried it out anyway.
///
/// An agent passes a request on to a server, and that one to the leader. Each adds what it knows of
/// the next one, so the text tells how far the request came.
fn unavailable(status: u16, reason: &str) -> Option<bool> {
    let has = |parts: &[&str]| parts.iter().any(|part| reason.contains(part));
    if has(&NO_LEADER_GOT_IT) {
        return Some(false);
    }
    if has(&A_LEADER_GOT_IT) || has(&["rpc error"]) && has(&BROKEN_CONNECTION) {
        return Some(true);
    }
    match status {
        // Consul counts requests before it begins them.
        429 => Some(false),
        503 => Some(has(&BROKEN_CONNECTION)),
        502 | 504 => Some(true),
        _ => None,
    }
}

/// Parts of the messages after which the request is certainly not carried out.
const NO_LEADER_GOT_IT: [&str; 11] = [
    "rate limit exceeded",
    "No cluster leader",
    "leader not found",
    "No known Consul servers",
    "Not ready to serve consistent reads",
    "shutdown waiting for leader",
    "node is not the leader",
    "leadership transfer in progress",
    "timed out enqueuing operation",
    // The connection of one agent to the next could not be opened, whatever the cause.
    "rpc error getting client",
    "lead thread didn't get connection",
];

/// Parts of the messages of a leader that stopped being one. Its successor may have the request.
const A_LEADER_GOT_IT: [&str; 3] = ["leadership lost", "raft is already shutdown", "snapshot restored"];

/// Parts of the messages about a connection that ended before the answer.
const BROKEN_CONNECTION: [&str; 12] = [
    "EOF",
    "connection reset",
    "broken pipe",
    "connection termination",
    "disconnect",
    "stream closed",
    "session shutdown",
    "closed network connection",
    "deadline reached",
    "deadline exceeded",
    "timeout",
    "timed out",
];

/// Returns the beginning of a body: one line, no control characters, at most 200 characters.
pub fn excerpt(body: &[u8]) -> String {
    let body = body.get(..800).unwrap_or(body);
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // Up to the first byte that is not UTF-8, or to a character that was cut.
        Err(error) => body.get(..error.valid_up_to()).and_then(|valid| std::str::from_utf8(valid).ok()).unwrap_or_default(),
    };
    let mut line = String::new();
    let mut gap = false;
    for (count, c) in text.chars().enumerate() {
        if count == 200 {
            line.push('…');
            break;
        }
        if c.is_control() || c == ' ' {
            gap = !line.is_empty();
            continue;
        }
        if gap {
            line.push(' ');
            gap = false;
        }
        line.push(c);
    }
    match (line.is_empty(), body.is_empty()) {
        (false, _) => line,
        (true, true) => "(nothing)".into(),
        (true, false) => "(no text)".into(),
    }
}
