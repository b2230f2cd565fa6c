//! What can go wrong, by what the caller does next, and the one function from an answer of Consul to it.
//!
//! Texts are lower case, name the cause first and the remedy second, and never hold a token. The cases are those of `variant
//! error` in `wit/sessions.wit`, where each is described.

use crate::decimal;
use crate::json::Json;
use crate::text::Text;
use alloc::boxed::Box;
use alloc::string::String;
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;
use core::ops::Deref;

/// An error of this component: a case and a text.
///
/// In a box, since it is moved by every `?` and made by few calls.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Error(Box<Parts>);

/// What an [`Error`] is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Parts {
    /// For programs.
    pub case: Case,
    /// For people.
    pub message: String,
}

/// The cases of `variant error`, with what they carry beside their text. See `wit/sessions.wit`.
#[derive(Clone, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "each case and field is described in wit/sessions.wit")]
pub enum Case {
    InvalidOption { option: Text },
    Unsupported,
    NotFound,
    Mismatch { session_id: Text, differences: Vec<Difference> },
    NodeRequired { nodes: Vec<Text> },
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
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Difference {
    /// The option's name.
    pub option: &'static str,
    /// What the session has.
    pub found: Text,
    /// What was asked for.
    pub wanted: Text,
}

impl Case {
    /// The case's name, as in WIT.
    pub fn name(&self) -> &'static str {
        match self {
            Case::InvalidOption { .. } => "invalid-option",
            Case::Unsupported => "unsupported",
            Case::NotFound => "not-found",
            Case::Mismatch { .. } => "mismatch",
            Case::NodeRequired { .. } => "node-required",
            Case::Hidden => "hidden",
            Case::UnknownNode => "unknown-node",
            Case::UnknownCheck => "unknown-check",
            Case::CriticalCheck => "critical-check",
            Case::UnknownDatacenter => "unknown-datacenter",
            Case::AccessDenied { .. } => "access-denied",
            Case::Unavailable { .. } => "unavailable",
            Case::Refused { .. } => "refused",
            Case::Unreachable => "unreachable",
            Case::DeniedByHost => "denied-by-host",
            Case::Tls => "tls",
            Case::Timeout => "timeout",
            Case::InvalidResponse => "invalid-response",
            Case::ResponseTooLarge => "response-too-large",
            Case::OutcomeUnknown => "outcome-unknown",
            Case::Other => "other",
        }
    }

    /// This case with its text.
    pub fn because(self, message: impl Into<String>) -> Error {
        Error(Box::new(Parts { case: self, message: message.into() }))
    }
}

impl Deref for Error {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}

/// Where a text stands in another. `str::find` is faster, which does not matter here, and three times as large.
pub(crate) fn find(text: &str, part: &str) -> Option<usize> {
    text.as_bytes().windows(part.len().max(1)).position(|window| window == part.as_bytes())
}

/// A text before and behind the first such sign in it. As [`find`], smaller than std's.
pub(crate) fn cut<'a>(text: &'a str, sign: &str) -> Option<(&'a str, &'a str)> {
    let at = find(text, sign)?;
    Some((text.get(..at)?, text.get(at + sign.len()..)?))
}

/// The parts of a text between such signs.
pub(crate) fn split<'a>(text: &'a str, sign: &str) -> Vec<&'a str> {
    let (mut parts, mut rest) = (Vec::new(), text);
    while let Some((part, tail)) = cut(rest, sign) {
        parts.push(part);
        rest = tail;
    }
    parts.push(rest);
    parts
}

impl Error {
    /// Its two parts.
    pub fn into_parts(self) -> Parts {
        *self.0
    }

    /// An option that was refused.
    pub fn invalid(option: &str, message: impl Into<String>) -> Error {
        Case::InvalidOption { option: String::from(option).into() }.because(message)
    }

    /// The same error with more to say.
    #[must_use]
    pub fn and(mut self, more: &str) -> Error {
        self.0.message.push_str("; ");
        self.0.message.push_str(more);
        self
    }

    /// Takes a secret out of the text, should Consul or a proxy have echoed it: whole, or as far as the answer is shown.
    #[must_use]
    pub fn without(mut self, secret: &str) -> Error {
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
    pub fn leaves_doubt(&self) -> bool {
        match self.case {
            Case::Timeout | Case::InvalidResponse | Case::ResponseTooLarge | Case::OutcomeUnknown | Case::Other => true,
            // A gateway that gave up, or a server that lost its leader or its connection half-way.
            Case::Refused { status } | Case::Unavailable { status } => {
                matches!(status, 502 | 504)
                    || ["leadership lost", "timed out", "timeout", "deadline", "EOF", "connection reset", "disconnect"]
                        .iter()
                        .any(|sign| find(&self.message, sign).is_some())
            }
            _ => false,
        }
    }

    /// The error of a change: [`Case::OutcomeUnknown`] if it may have happened all the same.
    #[must_use]
    pub fn of_a_change(self, what: &str) -> Error {
        if self.leaves_doubt() {
            Case::OutcomeUnknown.because(text![
                self.message,
                "; ",
                what,
                " may have happened all the same: look before trying again"
            ])
        } else {
            self
        }
    }

    /// As the command line prints it: `{"changed": false, "failed": true, "error": "<case>", "msg": "…", …}`.
    pub fn to_json(&self) -> Json<'_> {
        let mut fields = vec![
            ("changed", Json::Bool(false)),
            ("failed", Json::Bool(true)),
            ("error", self.case.name().into()),
            ("msg", self.message.as_str().into()),
        ];
        match &self.case {
            Case::InvalidOption { option } => fields.push(("option", option.into())),
            Case::Mismatch { session_id, differences } => {
                fields.push(("session_id", session_id.into()));
                fields.push(("differences", differences.iter().collect()));
            }
            Case::NodeRequired { nodes } => fields.push(("nodes", Json::Texts(nodes))),
            Case::AccessDenied { status } | Case::Unavailable { status } | Case::Refused { status } => {
                fields.push(("status", Json::Whole((*status).into())));
            }
            _ => {}
        }
        Json::object(fields)
    }
}

impl<'a> From<&'a Difference> for Json<'a> {
    fn from(difference: &'a Difference) -> Json<'a> {
        Json::object(vec![
            ("option", difference.option.into()),
            ("found", (&difference.found).into()),
            ("wanted", (&difference.wanted).into()),
        ])
    }
}

impl AsRef<str> for Error {
    fn as_ref(&self) -> &str {
        &self.message
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl core::error::Error for Error {}

/// The error in an answer of Consul whose status is not 200.
///
/// By substring: every hop between agents and servers puts `rpc error making call: ` in front. Validation failures come as
/// 500, and with texts only.
pub fn from_status(status: u16, body: &[u8]) -> Error {
    let said = excerpt(body);
    let has = |sign: &str| find(&said, sign).is_some();
    let answer = text!["consul answered ", decimal(status.into()), ": ", said];
    let refused = |case: Case, hint: &str| case.because(text![answer, hint]);
    if has("Enterprise feature") {
        return Case::Unsupported.because(text![
            "this consul is Community Edition, which has no namespaces and partitions: leave the options out (",
            answer,
            ")"
        ]);
    }
    if has("No path to datacenter") || has("Remote DC has no server") {
        return Case::UnknownDatacenter.because(text![
            "the agent knows no way to this datacenter: check `datacenter` (",
            answer,
            ")"
        ]);
    }
    if has("Missing node registration") {
        return Case::UnknownNode.because(text![
            "no node of this name is registered in the datacenter: check `node` (",
            answer,
            ")"
        ]);
    }
    if has("Missing check") {
        return Case::UnknownCheck.because(text!["a check is not registered on the session's node: check `checks`, or give `checks=` for a node without serfHealth (", answer, ")"]);
    }
    if has("is in critical state") {
        return Case::CriticalCheck.because(text![
            "a check is critical, and a session needs passing ones: try again when it passes (",
            answer,
            ")"
        ]);
    }
    if matches!(status, 401 | 403) || has("ACL not found") || has("Permission denied") {
        return refused(Case::AccessDenied { status }, ": give a `token` that is allowed to do this");
    }
    if matches!(status, 429 | 502..=504)
        || ["rate limit exceeded", "No cluster leader", "leader not found", "No known Consul servers", "leadership lost"]
            .iter()
            .any(|sign| has(sign))
    {
        return refused(Case::Unavailable { status }, ": try again later");
    }
    // Consul answers nothing between 200 and 400.
    if status < 400 || said.starts_with('<') {
        return Case::InvalidResponse.because(text![
            "what answers at this address is not consul's HTTP API: check `host` and `port` (status ",
            decimal(status.into()),
            ": ",
            said,
            ")"
        ]);
    }
    refused(Case::Refused { status }, "")
}

/// The beginning of a body for a text: one line, no control characters, at most 200 characters.
pub fn excerpt(body: &[u8]) -> String {
    let body = body.get(..800).unwrap_or(body);
    let text = match core::str::from_utf8(body) {
        Ok(text) => text,
        // Up to what is no text, or was cut through.
        Err(error) => body.get(..error.valid_up_to()).and_then(|valid| core::str::from_utf8(valid).ok()).unwrap_or_default(),
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
