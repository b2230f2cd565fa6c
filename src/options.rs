//! The option page as one table: names, defaults, what is accepted, and the check of each value.
//!
//! Everything else is derived from this table: the fields of [`Options`], the help, the README's table, the checks. The WIT
//! record `options` has the same names, which a test compares.

use crate::duration::{self, MILLISECOND, SECOND};
use crate::error::{Error, cut, split};
use crate::json::Json;
use crate::text::{List, Text};
use crate::whole;
use alloc::borrow::ToOwned;
use alloc::string::{String, ToString};
use alloc::vec;
use alloc::vec::Vec;
use core::fmt;

/// What an option accepts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Any text but the empty one.
    Text,
    /// The name of a node.
    Node,
    /// A text that is never shown.
    Secret,
    /// A session id.
    Uuid,
    /// A list of texts.
    List,
    /// One of these.
    Choice(&'static [&'static str]),
    /// As Ansible reads them.
    Boolean,
    /// A host name or an address.
    Host,
    /// 1 to 65535.
    Port,
    /// Nanoseconds from `min` to `max`, or zero where it has a meaning.
    Duration {
        /// Least.
        min: i64,
        /// Most.
        max: i64,
        /// What 0 means, if it means something of its own.
        zero: Option<&'static str>,
    },
}

/// A row of the table.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Info {
    /// Name, as on the page.
    pub name: &'static str,
    /// What is accepted.
    pub kind: Kind,
    /// The default as it would be written, if the option has one.
    pub default: Option<&'static str>,
    /// The default in words, where Consul or its agent decides.
    #[cfg(feature = "cli")]
    pub default_note: &'static str,
    /// What the option is for, in a sentence.
    #[cfg(feature = "cli")]
    pub help: &'static str,
}

/// Makes the table, the record and the way from a name to its field out of one list.
macro_rules! options {
    ($($(#[doc = $help:literal])+ $name:ident: $type:ty, $kind:expr, $default:expr, $note:literal;)*) => {
        /// The option page, in its order.
        pub const TABLE: &[Info] = &[$(Info {
            name: stringify!($name),
            kind: $kind,
            default: $default,
            #[cfg(feature = "cli")]
            default_note: $note,
            #[cfg(feature = "cli")]
            help: concat!($($help),+),
        }),*];

        /// Options that were given. What was not given is `None`; see [`Options::or_default`].
        #[derive(Clone, Debug, Default, PartialEq)]
        pub struct Options {
            $($(#[doc = $help])+ pub $name: Option<$type>,)*
        }

        impl Options {
            /// Checks and takes one value by the option's name. `null` is an option that is not given.
            ///
            /// Errors: [`InvalidOption`](crate::error::Case::InvalidOption).
            pub fn set(&mut self, name: &str, value: &Json) -> Result<(), Error> {
                // Not `match`, which calls a function for each name, whatever its length.
                $(if name.len() == stringify!($name).len() && name == stringify!($name) {
                    return read(&mut self.$name, name, $kind, value);
                })*
                Err(unknown(name))
            }

            /// These options, and the page's defaults for the others.
            pub fn or_default(&self) -> Result<Options, Error> {
                let mut all = self.clone();
                $(if let (None, Some(default)) = (&all.$name, $default) {
                    read(&mut all.$name, stringify!($name), $kind, &Json::from(default))?;
                })*
                Ok(all)
            }
        }
    };
}

const NONE: Option<&str> = None;

options! {
    /// What is wanted: make or find a session, destroy one, or read one, those of a node, or all
    state: State, Kind::Choice(State::NAMES), Some("present"), "";
    /// Id of one session; required by `info`
    id: SessionId, Kind::Uuid, NONE, "";
    /// Name of the session, not unique in Consul; filters what is read
    name: Text, Kind::Text, NONE, "";
    /// Name of the node that the session is tied to; required by `node`, filters other reads
    node: Text, Kind::Node, NONE, "the agent's";
    /// Datacenter to ask, on every request
    datacenter: Text, Kind::Text, NONE, "the agent's";
    /// Checks that keep the session alive, beside serfHealth; the empty list means none at all
    checks: List<Text>, Kind::List, NONE, "serfHealth";
    /// The node checks, exactly; not together with `checks`
    node_checks: List<Text>, Kind::List, NONE, "";
    /// The service checks, exactly; not together with `checks`
    service_checks: List<Text>, Kind::List, NONE, "";
    /// What happens to held locks when the session ends: released, or their keys deleted
    behavior: Behavior, Kind::Choice(Behavior::NAMES), Some("release"), "";
    /// How long a lock of the ended session stays blocked
    delay: i64, Kind::Duration { min: 0, max: 60 * SECOND, zero: None }, Some("15"), "";
    /// Time to live without a renewal
    ttl: i64, Kind::Duration { min: 10 * SECOND, max: 86_400 * SECOND, zero: Some("none") }, NONE, "none";
    /// ACL token; sent only in the header `X-Consul-Token`, never shown
    token: Token, Kind::Secret, NONE, "";
    /// Name or address of the Consul agent
    host: Host, Kind::Host, Some("localhost"), "";
    /// Port of the agent's HTTP API
    port: u16, Kind::Port, Some("8500"), "";
    /// Protocol of the agent's HTTP API
    scheme: Scheme, Kind::Choice(Scheme::NAMES), Some("http"), "";
    /// Whether the agent's certificate is verified; `false` needs a host that grants it
    validate_certs: bool, Kind::Boolean, Some("true"), "";
    /// Bound on the whole call
    timeout: i64, Kind::Duration { min: MILLISECOND, max: 86_400 * SECOND, zero: None }, Some("10"), "";
    /// Namespace (Consul Enterprise)
    namespace: Text, Kind::Text, NONE, "";
    /// Admin partition (Consul Enterprise)
    partition: Text, Kind::Text, NONE, "";
    /// What to do with a session that differs from the options: fail, or create a new one and destroy it
    on_mismatch: OnMismatch, Kind::Choice(OnMismatch::NAMES), Some("fail"), "";
    /// Change nothing, and say what would change
    dry_run: bool, Kind::Boolean, Some("false"), "";
}

impl Options {
    /// Reads a JSON object with the page's names.
    ///
    /// Errors: [`InvalidOption`](crate::error::Case::InvalidOption). No text shows the value of an unknown option, which may be
    /// a misspelt `token`.
    pub fn from_json(text: &str) -> Result<Options, Error> {
        let json = Json::parse(text.as_bytes()).map_err(|error| {
            Error::invalid(
                "options",
                text!["the options are not JSON: ", error.message(), "; an object such as {\"name\": \"session1\"} is wanted"],
            )
        })?;
        let Json::Object(object) = &json else {
            return Err(Error::invalid(
                "options",
                "the options are not a JSON object; one such as {\"name\": \"session1\"} is wanted",
            ));
        };
        let mut options = Options::default();
        for (name, value) in object {
            options.set(name, value)?;
        }
        Ok(options)
    }
}

/// The row of this name.
pub fn info(name: &str) -> Option<&'static Info> {
    TABLE.iter().find(|info| info.name == name)
}

/// Checks the longest time of a blocking query: an argument of the reads, no option of the page. Nanoseconds.
pub fn wait(value: &Json) -> Result<i64, Error> {
    let kind = Kind::Duration { min: MILLISECOND, max: 600 * SECOND, zero: None };
    let mut wait = None;
    read(&mut wait, "wait", kind, value)?;
    wait.ok_or_else(|| Error::invalid("wait", "`wait` is missing"))
}

/// The error for a name that is not in the table, with the nearest one that is.
pub fn unknown(name: &str) -> Error {
    let near = nearest(name, TABLE.iter().map(|info| info.name));
    let hint = match near {
        Some(near) => text!["did you mean `", near, "`?"],
        None => text!["known are ", join(&TABLE.iter().map(|info| info.name).collect::<Vec<_>>())],
    };
    Error::invalid(name, text!["unknown option `", shown(name), "`: ", hint])
}

/// The known word nearest to this one, if one is near enough to be a slip of it.
pub fn nearest<'a>(word: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    let word = word.to_ascii_lowercase().replace('-', "_");
    let mut nearest = None;
    for candidate in known {
        let distance = distance(word.as_bytes(), candidate.as_bytes());
        // One slip in three letters, two in six; a pair of swapped letters counts as two.
        let near = distance <= (candidate.len() / 3).max(1) + 1 && distance < candidate.len();
        if near && nearest.is_none_or(|(least, _)| distance < least) {
            nearest = Some((distance, candidate));
        }
    }
    nearest.map(|(_, candidate)| candidate)
}

/// Levenshtein's distance, on bytes: the known words are ASCII. By hand: the crate for it is four times as large.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let mut row: Vec<usize> = (0..b.len() + 1).collect();
    for (i, x) in a.iter().enumerate() {
        let (mut diagonal, mut left) = (i, i + 1);
        for (above, y) in row.iter_mut().skip(1).zip(b) {
            let best = (diagonal + usize::from(x != y)).min(left + 1).min(*above + 1);
            diagonal = core::mem::replace(above, best);
            left = best;
        }
        if let Some(first) = row.first_mut() {
            *first = i + 1;
        }
    }
    row.last().copied().unwrap_or(0)
}

impl Kind {
    /// What is accepted, for help and errors.
    pub fn accepted(&self) -> String {
        match self {
            Kind::Node => "the name of a node".into(),
            Kind::Text | Kind::Secret => "a text".into(),
            Kind::Uuid => "a UUID such as adf4238a-882b-9ddc-4a9d-5b6758e4159e".into(),
            Kind::List => "a list: a,b".into(),
            Kind::Choice(names) => join(names),
            Kind::Boolean => "yes or no, true or false, on or off, 1 or 0".into(),
            Kind::Host => "a host name, an IPv4 or an IPv6 address".into(),
            Kind::Port => "a number from 1 to 65535".into(),
            Kind::Duration { min, max, zero } => {
                let (min, max) = (duration::format(*min), duration::format(*max));
                let zero = zero.map(|meaning| text![", or 0 for ", meaning]).unwrap_or_default();
                text!["seconds or a duration (20, 20s, 1m30s), ", min, " to ", max, zero]
            }
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.accepted())
    }
}

/// `a, b, c`.
pub fn join<T: AsRef<str>>(words: &[T]) -> String {
    let mut line = String::new();
    for word in words {
        if !line.is_empty() {
            line.push_str(", ");
        }
        line.push_str(word.as_ref());
    }
    line
}

/// A value for an error text: one line, not too long.
fn shown(text: &str) -> String {
    let mut line = String::new();
    for c in text.chars().take(80) {
        line.push(if c.is_control() { '\u{fffd}' } else { c });
    }
    if line.len() < text.len() { line + "…" } else { line }
}

/// Checks and takes one value. `null` is no value.
fn read<T: FromValue>(option: &mut Option<T>, name: &str, kind: Kind, value: &Json) -> Result<(), Error> {
    *option = match value {
        Json::Null => None,
        value => T::from_value(kind, value).map_err(|reason| refuse(name, kind, value, reason))?,
    };
    Ok(())
}

fn refuse(name: &str, kind: Kind, value: &Json, reason: Reason) -> Error {
    let given = match (kind, value) {
        (Kind::Secret, _) => String::new(),
        (_, Json::Text(text)) => text![" `", shown(text), "`"],
        (_, other) => text![" ", shown(&other.to_text())],
    };
    Error::invalid(name, text!["option `", name, "`:", given, " ", reason, "; accepted: ", kind.accepted()])
}

/// Why a value is refused: what is wrong with it, to stand behind the value.
type Reason = &'static str;

/// A type that an option's value can have.
trait FromValue: Sized {
    /// `Ok(None)` is a value that means the same as none.
    fn from_value(kind: Kind, value: &Json) -> Result<Option<Self>, Reason>;
}

/// The text of a value. Whole numbers may stand for texts, since YAML makes one of `name: 2024`; of other numbers and of
/// booleans the digits or the word that was written cannot be known.
fn text(value: &Json) -> Result<Text, Reason> {
    match value {
        Json::Text(text) => Ok(text.to_string().into()),
        Json::Whole(number) => Ok(whole(*number).into()),
        _ => Err("is not a text; put it in quotes if it is meant as one"),
    }
}

impl FromValue for Text {
    fn from_value(kind: Kind, value: &Json) -> Result<Option<Text>, Reason> {
        match text(value)? {
            // An empty name would mean every unnamed session, and an empty node or datacenter is a variable left empty.
            text if text.is_empty() => Err("is empty; leave the option out instead"),
            // Consul answers such a path with a redirect to another one.
            text if kind == Kind::Node && split(&text, "/").iter().any(|part| matches!(*part, "" | "." | "..")) => {
                Err("cannot stand in a URL's path")
            }
            text => Ok(Some(text)),
        }
    }
}

impl FromValue for List<Text> {
    fn from_value(_: Kind, value: &Json) -> Result<Option<List<Text>>, Reason> {
        let items: Vec<Text> = match value {
            Json::List(list) => {
                let mut items = Vec::new();
                for item in list {
                    items.push(text(item)?);
                }
                items
            }
            Json::Text(text) if text.trim_ascii().is_empty() => Vec::new(),
            Json::Text(text) => {
                let mut items = Vec::new();
                for item in split(text, ",") {
                    items.push(item.trim_ascii().to_owned().into());
                }
                items
            }
            other => vec![text(other).map_err(|_| "is not a list of texts")?],
        };
        if items.iter().any(|item| item.is_empty()) { Err("has an empty element") } else { Ok(Some(items.into())) }
    }
}

impl FromValue for bool {
    fn from_value(_: Kind, value: &Json) -> Result<Option<bool>, Reason> {
        let word = match value {
            Json::Bool(value) => return Ok(Some(*value)),
            Json::Text(text) => text.trim_ascii().to_ascii_lowercase(),
            Json::Whole(number) => whole(*number),
            _ => return Err("is neither yes nor no"),
        };
        match word.as_str() {
            "yes" | "y" | "true" | "t" | "on" | "1" | "1.0" => Ok(Some(true)),
            "no" | "n" | "false" | "f" | "off" | "0" | "0.0" => Ok(Some(false)),
            _ => Err("is neither yes nor no"),
        }
    }
}

impl FromValue for i64 {
    fn from_value(kind: Kind, value: &Json) -> Result<Option<i64>, Reason> {
        let nanoseconds = match value {
            Json::Text(text) => duration::parse(text),
            Json::Whole(seconds) => seconds.checked_mul(SECOND),
            Json::Fraction(seconds) => duration::from_seconds(*seconds),
            _ => None,
        }
        .ok_or("is no duration")?;
        let Kind::Duration { min, max, zero } = kind else { return Err("is no duration") };
        if nanoseconds % MILLISECOND != 0 {
            Err("is finer than a millisecond")
        } else if (min..=max).contains(&nanoseconds) || (nanoseconds == 0 && zero.is_some()) {
            Ok(Some(nanoseconds))
        } else {
            Err("is out of range")
        }
    }
}

impl FromValue for u16 {
    fn from_value(_: Kind, value: &Json) -> Result<Option<u16>, Reason> {
        let number: Option<u64> = text(value).ok().and_then(|text| text.trim_ascii().parse().ok());
        match number.and_then(|number| u16::try_from(number).ok()) {
            Some(port) if port > 0 => Ok(Some(port)),
            _ => Err("is no port"),
        }
    }
}

/// Makes an enum with its words.
macro_rules! choice {
    ($(#[doc = $help:literal])+ $type:ident { $($word:literal => $(#[doc = $case_help:literal])+ $case:ident,)* }) => {
        $(#[doc = $help])+
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type { $($(#[doc = $case_help])+ $case,)* }

        impl $type {
            /// The words, as on the page.
            pub const NAMES: &[&str] = &[$($word),*];

            /// The word, as on the page.
            pub fn name(self) -> &'static str {
                match self { $($type::$case => $word,)* }
            }
        }

        impl FromValue for $type {
            fn from_value(_: Kind, value: &Json) -> Result<Option<$type>, Reason> {
                match value.text() {
                    $($word => Ok(Some($type::$case)),)*
                    _ => Err("is not known"),
                }
            }
        }
    };
}

choice! {
    /// What is wanted; see `wit/desired-state.wit`.
    State {
        "present" => /// It exists, as the options say.
        Present,
        "absent" => /// It does not exist.
        Absent,
        "info" => /// Read one.
        Info,
        "node" => /// Read those of a node.
        Node,
        "list" => /// Read all.
        List,
    }
}

choice! {
    /// What happens to held locks when a session ends.
    Behavior {
        "release" => /// They are released.
        Release,
        "delete" => /// Their keys are deleted.
        Delete,
    }
}

choice! {
    /// The agent's protocol.
    Scheme {
        "http" => /// Plain.
        Http,
        "https" => /// Over TLS.
        Https,
    }
}

choice! {
    /// What to do with a session that differs.
    OnMismatch {
        "fail" => /// Nothing; an error.
        Fail,
        "replace" => /// Create a new one, then destroy it.
        Replace,
    }
}

/// The id of a session: a UUID in lower case, so that it can stand in a URL.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SessionId(Text);

impl SessionId {
    /// Checks an id. Consul itself takes any text, answers 200 to its destruction, and means nothing by it.
    pub fn parse(text: &str) -> Option<SessionId> {
        let well_formed = text.len() == 36
            && text.bytes().enumerate().all(|(at, byte)| match at {
                8 | 13 | 18 | 23 => byte == b'-',
                _ => byte.is_ascii_hexdigit(),
            });
        well_formed.then(|| SessionId(text.to_ascii_lowercase().into()))
    }

    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromValue for SessionId {
    fn from_value(_: Kind, value: &Json) -> Result<Option<SessionId>, Reason> {
        match SessionId::parse(value.text().trim_ascii()) {
            Some(id) => Ok(Some(id)),
            None => Err("is no session id"),
        }
    }
}

/// An ACL token. Not shown by `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Token(Text);

impl Token {
    /// The secret, for the header.
    pub fn secret(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Token {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Token(…)")
    }
}

impl FromValue for Token {
    fn from_value(_: Kind, value: &Json) -> Result<Option<Token>, Reason> {
        let token = text(value).map_err(|_| "the token is not a text")?;
        if !token.bytes().all(|byte| byte.is_ascii_graphic()) {
            return Err("the token has a space or another character that cannot stand in a header");
        }
        // Consul takes an empty header for none.
        Ok((!token.is_empty()).then_some(Token(token)))
    }
}

/// A host name or an address, in the form that stands in a URL: IPv6 in brackets.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Host(Text);

impl Host {
    /// The text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl FromValue for Host {
    fn from_value(_: Kind, value: &Json) -> Result<Option<Host>, Reason> {
        let text = value.text().trim_ascii();
        let bare = text.strip_prefix('[').and_then(|rest| rest.strip_suffix(']')).unwrap_or(text);
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_');
        match cut(bare, ":") {
            Some(_) if is_ipv6(bare) => Ok(Some(Host(text!["[", bare, "]"].into()))),
            Some((_, rest)) if rest.starts_with('/') => Err("is a URL; give `scheme`, `host` and `port` each by itself"),
            Some(_) => Err("is no host; give the port as `port`"),
            None if bare.is_empty() || bare.len() != text.len() || !bare.bytes().all(allowed) => Err("is no host"),
            None => Ok(Some(Host(bare.to_owned().into()))),
        }
    }
}

/// Whether this is an IPv6 address in one of its shorter or longer forms. By hand: std's parser is ten times as large.
fn is_ipv6(text: &str) -> bool {
    let group = |group: &str| (1..=4).contains(&group.len()) && group.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Neither a leading zero, which some take for octal, nor a sign.
    let octet = |octet: &str| {
        let plain = octet == "0" || matches!(octet.bytes().next(), Some(b'1'..=b'9'));
        plain && octet.parse().is_ok_and(|number: u64| number < 256)
    };
    let count = |list: &str| {
        let groups = if list.is_empty() { Vec::new() } else { split(list, ":") };
        groups.into_iter().try_fold(0, |count, part| {
            let octets = split(part, ".");
            // The last two groups may be written as an IPv4 address.
            let last = octets.len() == 4 && octets.into_iter().all(octet);
            if group(part) { Some(count + 1) } else { last.then_some(count + 2) }
        })
    };
    let (dot, colon) = (text.bytes().position(|byte| byte == b'.'), text.bytes().rposition(|byte| byte == b':'));
    if dot.zip(colon).is_some_and(|(dot, colon)| dot < colon) {
        return false;
    }
    match cut(text, "::") {
        Some((head, tail)) => count(head).zip(count(tail)).is_some_and(|(head, tail)| head + tail < 8),
        None => count(text) == Some(8),
    }
}
