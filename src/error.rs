//! What can go wrong, by what the caller does next, and the one function from an answer of Consul to it.
//!
//! Texts are lower case, name the cause first and the remedy second, and never hold a token. The cases are those of `variant
//! error` in `wit/sessions.wit`, where each is described.

#![forbid(unsafe_code)]

use serde::ser::{Serialize, SerializeMap, Serializer};
use std::fmt;
use std::ops::Deref;

/// An error of this component: a case and a text.
///
/// In a box, since it is moved by every `?` and made by few calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Parts>);

/// What an [`Error`] is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// For programs.
    pub kind: ErrorKind,
    /// For people.
    pub message: String,
}

/// The cases of `variant error`, with what they carry beside their text. See `wit/sessions.wit`.
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

/// A field in which a session differs from what was asked for.
#[derive(Clone, Debug, PartialEq, Eq, serde::Serialize)]
pub struct Difference {
    /// The option's name.
    pub option: &'static str,
    /// What the session has.
    pub found: String,
    /// What was asked for.
    pub wanted: String,
}

impl ErrorKind {
    /// The case's name, as in WIT.
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
    /// Returns an error of this kind with this text.
    pub fn new(kind: ErrorKind, message: impl Into<String>) -> Error {
        Error(Box::new(Parts { kind, message: message.into() }))
    }

    /// Its two parts.
    pub fn into_parts(self) -> Parts {
        *self.0
    }

    /// An option that was refused.
    pub fn invalid(option: &str, message: impl Into<String>) -> Error {
        Error::new(ErrorKind::InvalidOption { option: option.to_owned() }, message)
    }

    /// The same error with more to say.
    #[must_use]
    pub fn context(mut self, more: &str) -> Error {
        self.0.message.push_str("; ");
        self.0.message.push_str(more);
        self
    }

    /// Takes a secret out of the text, should Consul or a proxy have echoed it: whole, or as far as the answer is shown.
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

    /// Whether a change that ended with this error may have happened all the same.
    pub fn is_ambiguous(&self) -> bool {
        match self.kind {
            ErrorKind::Timeout
            | ErrorKind::InvalidResponse
            | ErrorKind::ResponseTooLarge
            | ErrorKind::OutcomeUnknown
            | ErrorKind::Other => true,
            // A gateway that gave up, or a server that lost its leader or its connection half-way.
            ErrorKind::Refused { status } | ErrorKind::Unavailable { status } => {
                matches!(status, 502 | 504)
                    || ["leadership lost", "timed out", "timeout", "deadline", "EOF", "connection reset", "disconnect"]
                        .iter()
                        .any(|part| self.message.contains(part))
            }
            _ => false,
        }
    }

    /// The error of a change: [`ErrorKind::OutcomeUnknown`] if it may have happened all the same.
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

    /// The JSON that programs print, on one line.
    pub fn to_json(&self) -> String {
        #[expect(clippy::expect_used, reason = "strings and numbers are always written")]
        serde_json::to_string(self).expect("an error is JSON")
    }
}

/// `{"changed": false, "failed": true, "error": "<case>", "msg": "…", …}`, with what the case carries.
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

/// The error in an answer of Consul whose status is not 200.
///
/// By substring: every hop between agents and servers puts `rpc error making call: ` in front. Validation failures come as
/// 500, and with texts only.
pub fn from_status(status: u16, body: &[u8]) -> Error {
    let said = excerpt(body);
    let answer = format!("consul answered {status}: {said}");
    let has = |part: &str| said.contains(part);
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
    if matches!(status, 429 | 502..=504)
        || ["rate limit exceeded", "No cluster leader", "leader not found", "No known Consul servers", "leadership lost"]
            .iter()
            .any(|part| has(part))
    {
        return refused(ErrorKind::Unavailable { status }, ": try again later");
    }
    // Consul answers nothing between 200 and 400.
    if status < 400 || said.starts_with('<') {
        return Error::new(
            ErrorKind::InvalidResponse,
            format!("what answers at this address is not consul's HTTP API: check `host` and `port` (status {status}: {said})"),
        );
    }
    refused(ErrorKind::Refused { status }, "")
}

/// The beginning of a body for a text: one line, no control characters, at most 200 characters.
pub fn excerpt(body: &[u8]) -> String {
    let body = body.get(..800).unwrap_or(body);
    let text = match std::str::from_utf8(body) {
        Ok(text) => text,
        // Up to what is no text, or was cut through.
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
