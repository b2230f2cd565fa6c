//! The `consul_session` options as one table: names, defaults, accepted values, and the checks.
//!
//! An option is a field of [`Options`], a field of [`Resolved`] and a row of [`TABLE`]. The help,
//! the table of the reference and the checks are derived from these. The WIT record `options` has
//! the same names, which a test compares.

#![forbid(unsafe_code)]

use crate::duration::{self, MILLISECOND, SECOND};
use crate::error::Error;
use serde::Serialize;
use serde_json::{Map, Number, Value};
use std::fmt;
use std::net::Ipv6Addr;
use std::str::FromStr;
use strum::{EnumString, IntoStaticStr, VariantNames};

/// The options that were given, each checked on its own. The others are `None`; see
/// [`Options::resolve`].
#[derive(Clone, Debug, Default, PartialEq)]
#[expect(missing_docs, reason = "each option is described in `TABLE`")]
pub struct Options {
    pub state: Option<State>,
    pub id: Option<SessionId>,
    pub name: Option<String>,
    pub node: Option<String>,
    pub datacenter: Option<String>,
    pub checks: Option<Vec<String>>,
    pub node_checks: Option<Vec<String>>,
    pub service_checks: Option<Vec<String>>,
    pub behavior: Option<Behavior>,
    /// Nanoseconds.
    pub delay: Option<i64>,
    /// Nanoseconds; 0 means none.
    pub ttl: Option<i64>,
    pub token: Option<Token>,
    pub host: Option<Host>,
    pub port: Option<u16>,
    pub scheme: Option<Scheme>,
    pub validate_certs: Option<bool>,
    /// Nanoseconds.
    pub timeout: Option<i64>,
    pub namespace: Option<String>,
    pub partition: Option<String>,
    pub on_mismatch: Option<OnMismatch>,
    pub dry_run: Option<bool>,
}

/// The options with their defaults. Options without a default stay `None` if they were not given.
#[derive(Clone, Debug, PartialEq)]
#[expect(missing_docs, reason = "each option is described in `TABLE`")]
pub struct Resolved {
    pub state: State,
    pub id: Option<SessionId>,
    pub name: Option<String>,
    pub node: Option<String>,
    pub datacenter: Option<String>,
    pub checks: Option<Vec<String>>,
    pub node_checks: Option<Vec<String>>,
    pub service_checks: Option<Vec<String>>,
    pub behavior: Behavior,
    /// Nanoseconds.
    pub delay: i64,
    /// Nanoseconds; 0 means none.
    pub ttl: Option<i64>,
    pub token: Option<Token>,
    pub host: Host,
    pub port: u16,
    pub scheme: Scheme,
    pub validate_certs: bool,
    /// Nanoseconds.
    pub timeout: i64,
    pub namespace: Option<String>,
    pub partition: Option<String>,
    pub on_mismatch: OnMismatch,
    pub dry_run: bool,
}

/// A row of [`TABLE`].
#[derive(Clone, Copy, Debug)]
pub struct Info {
    /// Name of the option.
    pub name: &'static str,
    /// The values that the option accepts.
    pub kind: Kind,
    /// The default as a user writes it, if the option has one.
    pub default: Option<&'static str>,
    /// The default in words, if Consul or its agent decides.
    pub default_note: &'static str,
    /// Purpose of the option, in one sentence.
    pub help: &'static str,
    /// Checks a value and stores it.
    set: fn(&mut Options, &Value) -> Result<(), Reason>,
}

impl PartialEq for Info {
    fn eq(&self, other: &Info) -> bool {
        self.name == other.name
    }
}

/// The values that an option accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any string that is not empty.
    Text,
    /// The name of a node.
    Node,
    /// A string that is never shown.
    Secret,
    /// A session id.
    Uuid,
    /// A list of strings.
    List,
    /// One of these strings.
    Choice(&'static [&'static str]),
    /// A boolean in one of Ansible's spellings.
    Boolean,
    /// A host name or an address.
    Host,
    /// A port, 1 to 65535.
    Port,
    /// A duration within these bounds.
    Duration(Bounds),
}

/// The durations that an option accepts, in whole milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bounds {
    /// Minimum, in nanoseconds.
    min: i64,
    /// Maximum, in nanoseconds.
    max: i64,
    /// Meaning of 0, if it is accepted in addition.
    zero: Option<&'static str>,
}

/// Bounds of `delay`.
pub const DELAY: Bounds = Bounds { min: 0, max: 60 * SECOND, zero: None };
/// Bounds of `ttl`.
pub const TTL: Bounds = Bounds { min: 10 * SECOND, max: 86_400 * SECOND, zero: Some("none") };
/// Bounds of `timeout`.
pub const TIMEOUT: Bounds = Bounds { min: MILLISECOND, max: 86_400 * SECOND, zero: None };
/// Bounds of the longest time of a blocking query, which is an argument of reads, not an option.
pub const WAIT: Bounds = Bounds { min: MILLISECOND, max: 600 * SECOND, zero: None };

/// The options, in the order of the help and of the reference.
pub const TABLE: &[Info] = &[
    Info {
        name: "state",
        kind: Kind::Choice(State::VARIANTS),
        default: Some("present"),
        default_note: "",
        help: "Operation: ensure that a session exists or is gone, or read one, a node's, or all",
        set: |options, value| put(&mut options.state, value, choice),
    },
    Info {
        name: "id",
        kind: Kind::Uuid,
        default: None,
        default_note: "",
        help: "Id of one session; required by `info`",
        set: |options, value| put(&mut options.id, value, |value| read_session_id(string(value))),
    },
    Info {
        name: "name",
        kind: Kind::Text,
        default: None,
        default_note: "",
        help: "Name of the session, not unique in Consul; filters reads",
        set: |options, value| put(&mut options.name, value, text_value),
    },
    Info {
        name: "node",
        kind: Kind::Node,
        default: None,
        default_note: "the agent's",
        help: "Name of the node that the session is tied to; required by `node`, filters other reads",
        set: |options, value| put(&mut options.node, value, node_value),
    },
    Info {
        name: "datacenter",
        kind: Kind::Text,
        default: None,
        default_note: "the agent's",
        help: "Datacenter to ask, on every request",
        set: |options, value| put(&mut options.datacenter, value, text_value),
    },
    Info {
        name: "checks",
        kind: Kind::List,
        default: None,
        default_note: "serfHealth",
        help: "Checks that keep the session alive, beside serfHealth; the empty list means none at all",
        set: |options, value| put(&mut options.checks, value, texts_of),
    },
    Info {
        name: "node_checks",
        kind: Kind::List,
        default: None,
        default_note: "",
        help: "The node checks, exactly; not together with `checks`",
        set: |options, value| put(&mut options.node_checks, value, texts_of),
    },
    Info {
        name: "service_checks",
        kind: Kind::List,
        default: None,
        default_note: "",
        help: "The service checks, exactly; not together with `checks`",
        set: |options, value| put(&mut options.service_checks, value, texts_of),
    },
    Info {
        name: "behavior",
        kind: Kind::Choice(Behavior::VARIANTS),
        default: Some("release"),
        default_note: "",
        help: "What happens to held locks when the session ends: released, or their keys deleted",
        set: |options, value| put(&mut options.behavior, value, choice),
    },
    Info {
        name: "delay",
        kind: Kind::Duration(DELAY),
        default: Some("15"),
        default_note: "",
        help: "How long a lock of the ended session stays blocked",
        set: |options, value| put(&mut options.delay, value, |value| DELAY.check(nanoseconds_of(value))),
    },
    Info {
        name: "ttl",
        kind: Kind::Duration(TTL),
        default: None,
        default_note: "none",
        help: "Time to live without a renewal",
        set: |options, value| put(&mut options.ttl, value, |value| TTL.check(nanoseconds_of(value))),
    },
    Info {
        name: "token",
        kind: Kind::Secret,
        default: None,
        default_note: "",
        help: "ACL token; sent only in the header `X-Consul-Token`, never shown",
        set: |options, value| {
            options.token = match value {
                Value::Null => None,
                value => read_token(text_of(value).map_err(|_| "not a string")?)?,
            };
            Ok(())
        },
    },
    Info {
        name: "host",
        kind: Kind::Host,
        default: Some("localhost"),
        default_note: "",
        help: "Name or address of the Consul agent",
        set: |options, value| put(&mut options.host, value, |value| read_host(string(value))),
    },
    Info {
        name: "port",
        kind: Kind::Port,
        default: Some("8500"),
        default_note: "",
        help: "Port of the agent's HTTP API",
        set: |options, value| {
            put(&mut options.port, value, |value| {
                read_port(text_of(value).ok().and_then(|text| text.trim_ascii().parse().ok()))
            })
        },
    },
    Info {
        name: "scheme",
        kind: Kind::Choice(Scheme::VARIANTS),
        default: Some("http"),
        default_note: "",
        help: "Protocol of the agent's HTTP API",
        set: |options, value| put(&mut options.scheme, value, choice),
    },
    Info {
        name: "validate_certs",
        kind: Kind::Boolean,
        default: Some("true"),
        default_note: "",
        help: "Whether the agent's certificate is verified; `false` needs a host that permits it",
        set: |options, value| put(&mut options.validate_certs, value, boolean),
    },
    Info {
        name: "timeout",
        kind: Kind::Duration(TIMEOUT),
        default: Some("10"),
        default_note: "",
        help: "Overall timeout of the call",
        set: |options, value| put(&mut options.timeout, value, |value| TIMEOUT.check(nanoseconds_of(value))),
    },
    Info {
        name: "namespace",
        kind: Kind::Text,
        default: None,
        default_note: "",
        help: "Namespace (Consul Enterprise)",
        set: |options, value| put(&mut options.namespace, value, text_value),
    },
    Info {
        name: "partition",
        kind: Kind::Text,
        default: None,
        default_note: "",
        help: "Admin partition (Consul Enterprise)",
        set: |options, value| put(&mut options.partition, value, text_value),
    },
    Info {
        name: "on_mismatch",
        kind: Kind::Choice(OnMismatch::VARIANTS),
        default: Some("fail"),
        default_note: "",
        help: "What to do with a session that differs: fail, or replace it and keep what was not given",
        set: |options, value| put(&mut options.on_mismatch, value, choice),
    },
    Info {
        name: "dry_run",
        kind: Kind::Boolean,
        default: Some("false"),
        default_note: "",
        help: "Change nothing, and say what would change",
        set: |options, value| put(&mut options.dry_run, value, boolean),
    },
];

impl Options {
    /// Parses a JSON object with the options' names. Of two equal names the last counts.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](crate::error::ErrorKind::InvalidOption). The message never shows the value
    /// of an unknown option, which may be a misspelt `token`.
    pub fn from_json(text: &str) -> Result<Options, Error> {
        let mut options = Options::default();
        for (name, value) in &json_object(text)? {
            options.set(name, value)?;
        }
        Ok(options)
    }

    /// Checks a value and stores it. An option of any kind accepts a string, as on the command
    /// line; `null` means that the option is not given.
    ///
    /// # Errors
    ///
    /// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
    pub fn set(&mut self, name: &str, value: &Value) -> Result<(), Error> {
        let info = info(name).ok_or_else(|| unknown(name))?;
        (info.set)(self, value).map_err(|reason| {
            let shown = match value {
                Value::String(text) => quoted(text),
                other => json(other),
            };
            refused(info.name, info.kind, &shown, reason)
        })
    }

    /// Adds the defaults of the options that were not given.
    pub fn resolve(self) -> Resolved {
        Resolved {
            state: self.state.unwrap_or(State::Present),
            id: self.id,
            name: self.name,
            node: self.node,
            datacenter: self.datacenter,
            checks: self.checks,
            node_checks: self.node_checks,
            service_checks: self.service_checks,
            behavior: self.behavior.unwrap_or(Behavior::Release),
            delay: self.delay.unwrap_or(15 * SECOND),
            ttl: self.ttl,
            token: self.token,
            host: self.host.unwrap_or_else(|| Host("localhost".to_owned())),
            port: self.port.unwrap_or(8500),
            scheme: self.scheme.unwrap_or(Scheme::Http),
            validate_certs: self.validate_certs.unwrap_or(true),
            timeout: self.timeout.unwrap_or(10 * SECOND),
            namespace: self.namespace,
            partition: self.partition,
            on_mismatch: self.on_mismatch.unwrap_or(OnMismatch::Fail),
            dry_run: self.dry_run.unwrap_or(false),
        }
    }
}

/// Parses a JSON object of options without checking its members.
///
/// # Errors
///
/// [`InvalidOption`](crate::error::ErrorKind::InvalidOption) for the option `options`.
pub fn json_object(text: &str) -> Result<Map<String, Value>, Error> {
    let json = serde_json::from_str(text).map_err(|error| {
        Error::invalid(
            "options",
            format!("the options are not JSON: {error}; expected an object such as {{\"name\": \"session1\"}}"),
        )
    })?;
    match json {
        Value::Object(object) => Ok(object),
        _ => Err(Error::invalid("options", "the options are not a JSON object; expected one such as {\"name\": \"session1\"}")),
    }
}

/// Returns the row with this name.
pub fn info(name: &str) -> Option<&'static Info> {
    TABLE.iter().find(|info| info.name == name)
}

/// Returns the error for a name that is not in the table. It suggests the nearest one that is.
pub fn unknown(name: &str) -> Error {
    let hint = match nearest(name, TABLE.iter().map(|info| info.name)) {
        Some(near) => format!("did you mean `{near}`?"),
        None => format!("known are {}", TABLE.iter().map(|info| info.name).collect::<Vec<_>>().join(", ")),
    };
    Error::invalid(name, format!("unknown option `{}`: {hint}", line(name)))
}

/// Returns the known name nearest to this one, if it is near enough for a typo.
pub fn nearest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let name = name.to_ascii_lowercase().replace('-', "_");
    let distances = known.map(|candidate| (strsim::levenshtein(&name, candidate), candidate));
    // One typo in three letters, two in six; two swapped letters count as two edits.
    let near =
        distances.filter(|(distance, candidate)| *distance <= (candidate.len() / 3).max(1) + 1 && *distance < candidate.len());
    near.min_by_key(|(distance, _)| *distance).map(|(_, candidate)| candidate)
}

impl Kind {
    /// Describes the accepted values for help and errors.
    fn accepted(&self) -> String {
        match self {
            Kind::Node => "the name of a node".into(),
            Kind::Text | Kind::Secret => "a string".into(),
            Kind::Uuid => "a UUID such as adf4238a-882b-9ddc-4a9d-5b6758e4159e".into(),
            Kind::List => "a list: a,b".into(),
            Kind::Choice(names) => names.join(", "),
            Kind::Boolean => "yes or no, true or false, on or off, 1 or 0".into(),
            Kind::Host => "a host name, an IPv4 or an IPv6 address".into(),
            Kind::Port => "a number from 1 to 65535".into(),
            Kind::Duration(Bounds { min, max, zero }) => {
                let (min, max) = (duration::format(*min), duration::format(*max));
                let zero = zero.map(|meaning| format!(", or 0 for {meaning}")).unwrap_or_default();
                format!("seconds or a duration: 20, 20s or 1m30s, {min} to {max}{zero}")
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.accepted())
    }
}

/// Returns the name in `name=value` if the value may be a token, which no error repeats.
pub fn name_of_token(text: &str) -> Option<&str> {
    text.split_once('=').map(|(name, _)| name).filter(|name| resembles_token(name))
}

/// Returns whether a name may be meant as `token`.
pub fn resembles_token(name: &str) -> bool {
    name.contains("tok") || nearest(name, ["token"].into_iter()).is_some()
}

/// Formats a value for an error message, without what may be a token.
fn shown(text: &str) -> String {
    name_of_token(text).map_or_else(|| line(text), |name| line(name) + "=…")
}

/// Formats a text for an error message: one line, at most 80 characters.
fn line(text: &str) -> String {
    let line: String = text.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    if text.chars().nth(80).is_some() { line + "…" } else { line }
}

/// Formats a string for an error message.
fn quoted(text: &str) -> String {
    format!("`{}`", shown(text))
}

/// Formats a value of another type for an error message.
fn json(value: &impl Serialize) -> String {
    shown(&serde_json::to_string(value).unwrap_or_default())
}

/// Why a value is invalid. Follows the value in the error message.
type Reason = &'static str;

fn refused(name: &str, kind: Kind, shown: &str, reason: Reason) -> Error {
    let value = if kind == Kind::Secret { String::new() } else { format!(" {shown}") };
    Error::invalid(name, format!("invalid value{value} for `{name}`: {reason} (expected {kind})"))
}

/// Reads a JSON value into a field. `null` clears the field.
fn put<T>(field: &mut Option<T>, value: &Value, read: impl Fn(&Value) -> Result<T, Reason>) -> Result<(), Reason> {
    *field = match value {
        Value::Null => None,
        value => Some(read(value)?),
    };
    Ok(())
}

// Reading of JSON values, which may be strings that a user typed.

/// Returns a value as a string. Whole numbers are accepted, since YAML reads `name: 2024` as one.
/// Other numbers and booleans are not, since their original spelling is lost.
fn text_of(value: &Value) -> Result<String, Reason> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Number(number) if number.is_i64() => Ok(number.to_string()),
        _ => Err("not a string; put it in quotes if it is meant as one"),
    }
}

fn text_value(value: &Value) -> Result<String, Reason> {
    let text = text_of(value)?;
    not_empty(&text)?;
    Ok(text)
}

fn node_value(value: &Value) -> Result<String, Reason> {
    let text = text_of(value)?;
    path_segment(&text)?;
    Ok(text)
}

/// Returns the string, or the empty one for a value of another type.
fn string(value: &Value) -> &str {
    value.as_str().unwrap_or_default()
}

fn texts_of(value: &Value) -> Result<Vec<String>, Reason> {
    let items = match value {
        Value::Array(items) => items.iter().map(text_of).collect::<Result<_, _>>()?,
        Value::String(text) if text.trim_ascii().is_empty() => Vec::new(),
        Value::String(text) => text.split(',').map(|item| item.trim_ascii().to_owned()).collect(),
        other => vec![text_of(other).map_err(|_| "not a list of strings")?],
    };
    no_empty_element(&items)?;
    Ok(items)
}

/// Converts a duration to nanoseconds.
fn nanoseconds_of(value: &Value) -> Option<i64> {
    match value {
        Value::String(text) => duration::parse(text),
        Value::Number(number) => match number.as_i64() {
            Some(seconds) => seconds.checked_mul(SECOND),
            None => duration::from_seconds(number.as_f64()?),
        },
        _ => None,
    }
}

fn boolean(value: &Value) -> Result<bool, Reason> {
    let text = match value {
        Value::Bool(value) => return Ok(*value),
        value => text_of(value).unwrap_or_default(),
    };
    match text.trim_ascii().to_ascii_lowercase().as_str() {
        "yes" | "y" | "true" | "t" | "on" | "1" | "1.0" => Ok(true),
        "no" | "n" | "false" | "f" | "off" | "0" | "0.0" => Ok(false),
        _ => Err("neither yes nor no"),
    }
}

fn choice<T: FromStr>(value: &Value) -> Result<T, Reason> {
    string(value).parse().map_err(|_| "unknown")
}

// Checks of each kind, shared by JSON values and typed values.

fn not_empty(text: &str) -> Result<(), Reason> {
    // An empty name would select every unnamed session; other empty strings are unset variables.
    if text.is_empty() { Err("empty; leave the option out instead") } else { Ok(()) }
}

fn path_segment(text: &str) -> Result<(), Reason> {
    not_empty(text)?;
    // Consul redirects such a path to another one.
    match text.split('/').any(|part| matches!(part, "" | "." | "..")) {
        true => Err("not possible in the path of a URL"),
        false => Ok(()),
    }
}

fn no_empty_element(items: &[String]) -> Result<(), Reason> {
    if items.iter().any(String::is_empty) { Err("a list with an empty element") } else { Ok(()) }
}

impl Bounds {
    /// Checks a number of nanoseconds; `None` stands for a value that is not a duration.
    fn check(self, nanoseconds: Option<i64>) -> Result<i64, Reason> {
        let nanoseconds = nanoseconds.ok_or("not a duration")?;
        if nanoseconds % MILLISECOND != 0 {
            Err("finer than a millisecond")
        } else if (self.min..=self.max).contains(&nanoseconds) || (nanoseconds == 0 && self.zero.is_some()) {
            Ok(nanoseconds)
        } else {
            Err("out of range")
        }
    }
}

fn read_session_id(text: &str) -> Result<SessionId, Reason> {
    SessionId::parse(text.trim_ascii()).ok_or("not a session id")
}

fn read_port(number: Option<u64>) -> Result<u16, Reason> {
    match number.and_then(|number| u16::try_from(number).ok()) {
        Some(port) if port > 0 => Ok(port),
        _ => Err("not a port"),
    }
}

fn read_token(token: String) -> Result<Option<Token>, Reason> {
    if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err("a space or another character that a header cannot hold");
    }
    // Consul treats an empty header as no token.
    Ok((!token.is_empty()).then_some(Token(token)))
}

fn read_host(text: &str) -> Result<Host, Reason> {
    let text = text.trim_ascii();
    let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
    let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
    match bare.split_once(':') {
        Some(_) if bare.parse::<Ipv6Addr>().is_ok() => Ok(Host(format!("[{bare}]"))),
        Some((_, rest)) if rest.starts_with('/') => Err("a URL; give `scheme`, `host` and `port` each by itself"),
        Some(_) => Err("not a host; give the port as `port`"),
        None if bare.is_empty() || bare.len() != text.len() || !bare.bytes().all(allowed) => Err("not a host"),
        None => Ok(Host(bare.to_owned())),
    }
}

// Checks of typed values, as the WIT has them. `name` is the option's name for the error.

/// Checks a string that must not be empty.
///
/// # Errors
///
/// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
pub fn text(name: &str, text: String) -> Result<String, Error> {
    not_empty(&text).map_err(|reason| refused(name, Kind::Text, &quoted(&text), reason))?;
    Ok(text)
}

/// Checks the name of a node.
///
/// # Errors
///
/// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
pub fn node(name: &str, text: String) -> Result<String, Error> {
    path_segment(&text).map_err(|reason| refused(name, Kind::Node, &quoted(&text), reason))?;
    Ok(text)
}

/// Checks a list of strings, none of which must be empty.
///
/// # Errors
///
/// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
pub fn texts(name: &str, items: Vec<String>) -> Result<Vec<String>, Error> {
    no_empty_element(&items).map_err(|reason| refused(name, Kind::List, &json(&items), reason))?;
    Ok(items)
}

/// Checks a number of seconds and returns it in nanoseconds.
///
/// # Errors
///
/// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
pub fn seconds(name: &str, bounds: Bounds, seconds: f64) -> Result<i64, Error> {
    bounds.check(duration::from_seconds(seconds)).map_err(|reason| {
        let shown = Number::from_f64(seconds).map_or("a number that is not finite".to_owned(), |number| number.to_string());
        refused(name, Kind::Duration(bounds), &shown, reason)
    })
}

/// Checks the id of a session.
///
/// # Errors
///
/// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
pub fn session_id(name: &str, text: &str) -> Result<SessionId, Error> {
    read_session_id(text).map_err(|reason| refused(name, Kind::Uuid, &quoted(text), reason))
}

/// Checks a port.
///
/// # Errors
///
/// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
pub fn port(name: &str, number: u16) -> Result<u16, Error> {
    read_port(Some(number.into())).map_err(|reason| refused(name, Kind::Port, &number.to_string(), reason))
}

/// Checks a token; the empty string means none.
///
/// # Errors
///
/// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
pub fn token(name: &str, token: String) -> Result<Option<Token>, Error> {
    read_token(token).map_err(|reason| refused(name, Kind::Secret, "", reason))
}

/// Checks a host name or an address.
///
/// # Errors
///
/// [`InvalidOption`](crate::error::ErrorKind::InvalidOption).
pub fn host(name: &str, text: &str) -> Result<Host, Error> {
    read_host(text).map_err(|reason| refused(name, Kind::Host, &quoted(text), reason))
}

/// The operation; see `wit/desired-state.wit`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum State {
    /// Ensures that the session exists and is as the options say.
    Present,
    /// Ensures that the session does not exist.
    Absent,
    /// Reads one session.
    Info,
    /// Reads the sessions of a node.
    Node,
    /// Reads all sessions.
    List,
}

/// What happens to held locks when a session ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Behavior {
    /// The locks are released.
    Release,
    /// The keys are deleted.
    Delete,
}

/// The protocol of the agent's HTTP API.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum Scheme {
    /// Plain HTTP.
    Http,
    /// HTTP over TLS.
    Https,
}

/// The handling of a session that differs from the options.
#[derive(Clone, Copy, Debug, PartialEq, Eq, EnumString, IntoStaticStr, VariantNames)]
#[strum(serialize_all = "snake_case")]
pub enum OnMismatch {
    /// Fails and changes nothing.
    Fail,
    /// Creates a new session, then destroys the old one.
    Replace,
}

impl State {
    /// Returns the name as users write it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Behavior {
    /// Returns the name as users write it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl Scheme {
    /// Returns the name as users write it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

impl OnMismatch {
    /// Returns the name as users write it.
    pub fn name(self) -> &'static str {
        self.into()
    }
}

/// The id of a session: a UUID in lower case, which is safe in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionId(String);

impl SessionId {
    /// Parses an id; `None` if it is not a UUID. Consul itself accepts any string, and answers 200
    /// to the destruction of a session that cannot exist.
    pub fn parse(text: &str) -> Option<SessionId> {
        let well_formed = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        well_formed.then(|| SessionId(text.to_ascii_lowercase()))
    }

    /// Returns the string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// An ACL token. `Debug` does not show it.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(String);

impl Token {
    /// Returns the secret, for the header.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

/// A host name or an address in its form in a URL: IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(String);

impl Host {
    /// Returns the string.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}
