//! The arguments of a task as Ansible's `argument_spec` would have them: which are known, which a
//! state ignores, and the errors in Ansible's words, as playbooks and their authors know them.
//!
//! The checks themselves are the core's. This module only puts Ansible's sentence before the
//! error of a check, which names the value and what is accepted.

use super::CA_PATH;
use consul_session::duration;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::{self, Kind, TABLE};
use serde_json::{Map, Value};

/// Arguments that community.general's module accepts and ignores in a state. In this module too,
/// so that its plays find the same sessions: it requires `name` with `state: node`, for example.
const IGNORED: [(&str, &[&str]); 3] = [("info", &["name", "node"]), ("node", &["name", "id"]), ("list", &["id"])];
/// Arguments that cannot be combined.
const MUTUALLY_EXCLUSIVE: [[&str; 2]; 2] = [["checks", "node_checks"], ["checks", "service_checks"]];
/// Arguments that a state requires: `all` or `any` of them.
const REQUIRED_IF: [(&str, &str, &[&str]); 3] =
    [("info", "all", &["id"]), ("node", "all", &["node"]), ("absent", "any", &["id", "name"])];

/// Returns whether the state of the task ignores this argument.
pub fn is_ignored(arguments: &Map<String, Value>, name: &str) -> bool {
    let state = state(arguments);
    IGNORED.iter().any(|(ignoring, names)| *ignoring == state && names.contains(&name))
}

fn state(arguments: &Map<String, Value>) -> &str {
    arguments.get("state").and_then(Value::as_str).unwrap_or("present")
}

/// Rejects arguments that the module does not have.
///
/// # Errors
///
/// [`InvalidOption`](ErrorKind::InvalidOption), which suggests the nearest known names. It never
/// shows a value: the argument may be a misspelt `token`.
pub fn reject_unknown(module: &str, arguments: &Map<String, Value>) -> Result<(), Error> {
    let mut known: Vec<&str> = TABLE.iter().map(|info| info.name).chain([CA_PATH]).collect();
    let mut unknown: Vec<&str> = arguments.keys().map(String::as_str).filter(|name| !known.contains(name)).collect();
    known.sort_unstable();
    unknown.sort_unstable();
    let Some(first) = unknown.first() else { return Ok(()) };
    let mut message = format!(
        "Unsupported parameters for ({module}) module: {}. Supported parameters include: {}.",
        unknown.join(", "),
        known.join(", ")
    );
    let near: Vec<&str> = unknown.iter().filter_map(|name| options::nearest(name, known.iter().copied())).collect();
    if !near.is_empty() {
        message += &format!(" Did you mean {}?", near.join(", "));
    }
    Err(Error::invalid(first, message))
}

/// Puts Ansible's sentence before the error about one value.
pub fn rejected(name: &str, value: &Value, error: Error) -> Error {
    match options::info(name).and_then(|info| sentence(name, info.kind, value)) {
        // The sentence has the value and what is accepted.
        Some(Sentence::Choice(text)) => Error::invalid(name, text),
        Some(Sentence::Type(text)) => Error::invalid(name, format!("{text}: {}", error.message)),
        None => error,
    }
}

/// Returns the error for a `ca_path` that is not a string.
pub fn rejected_ca_path(value: &Value) -> Error {
    let text = unconvertible(&format!("argument '{CA_PATH}'"), value, "str");
    Error::invalid(CA_PATH, format!("{text}: it is the path of a file or a folder"))
}

/// Puts Ansible's sentence before an error about arguments that are missing or cannot be
/// combined.
pub fn rejected_together(arguments: &Map<String, Value>, error: Error) -> Error {
    let ErrorKind::InvalidOption { option } = &error.kind else { return error };
    let is_given = |name: &&str| arguments.contains_key(*name);
    let exclusive: Vec<String> =
        MUTUALLY_EXCLUSIVE.iter().filter(|names| names.iter().all(is_given)).map(|names| names.join("|")).collect();
    let state = state(arguments);
    let missing = REQUIRED_IF.iter().find(|(required_by, _, names)| *required_by == state && !names.iter().any(is_given));
    let sentence = match missing {
        _ if !exclusive.is_empty() => format!("parameters are mutually exclusive: {}", exclusive.join(", ")),
        Some((_, how_many, names)) => {
            format!("state is {state} but {how_many} of the following are missing: {}", names.join(", "))
        }
        None => return error,
    };
    Error::invalid(option, format!("{sentence} ({})", error.message))
}

/// Returns the type of an option in Ansible's documentation. A duration is a number or a string.
pub fn type_of(kind: Kind) -> &'static str {
    match kind {
        Kind::Text | Kind::Node | Kind::Secret | Kind::Uuid | Kind::Choice(_) | Kind::Host => "str",
        Kind::List => "list",
        Kind::Boolean => "bool",
        Kind::Port => "int",
        Kind::Duration(_) => "raw",
    }
}

enum Sentence {
    Choice(String),
    Type(String),
}

/// Returns Ansible's sentence about a value, if it is not of the option's type or not one of its
/// choices.
fn sentence(name: &str, kind: Kind, value: &Value) -> Option<Sentence> {
    let argument = format!("argument '{name}'");
    let text = match (kind, value) {
        (Kind::Choice(choices), value) => {
            let mut choices = choices.to_vec();
            choices.sort_unstable();
            let got = value.as_str().map_or_else(|| value.to_string(), str::to_owned);
            return Some(Sentence::Choice(format!("value of {name} must be one of: {}, got: {got}", choices.join(", "))));
        }
        (Kind::Boolean, value) => unconvertible(&argument, value, type_of(kind)),
        (Kind::Duration(_), value) if !is_duration(value) => unconvertible(&argument, value, "duration"),
        (Kind::Port, value) if !is_integer(value) => unconvertible(&argument, value, type_of(kind)),
        (Kind::List, Value::Array(items)) => {
            let item = items.iter().find(|item| !is_text(item))?;
            unconvertible(&format!("Elements value for option '{name}'"), item, "str")
        }
        (Kind::List | Kind::Text | Kind::Node | Kind::Secret | Kind::Uuid | Kind::Host, value) if !is_text(value) => {
            unconvertible(&argument, value, type_of(kind))
        }
        _ => return None,
    };
    Some(Sentence::Type(text))
}

fn unconvertible(argument: &str, value: &Value, wanted: &str) -> String {
    format!("{argument} is of type {} and we were unable to convert to {wanted}", python_type(value))
}

fn is_text(value: &Value) -> bool {
    value.is_string() || value.is_i64()
}

fn is_integer(value: &Value) -> bool {
    value.is_i64() || value.as_str().is_some_and(|text| text.trim_ascii().parse::<i64>().is_ok())
}

fn is_duration(value: &Value) -> bool {
    value.is_number() || value.as_str().is_some_and(|text| duration::parse(text).is_some())
}

/// Returns the name of the Python type that a value has in Ansible.
fn python_type(value: &Value) -> &'static str {
    match value {
        Value::Null => "NoneType",
        Value::Bool(_) => "bool",
        Value::Number(number) if number.is_f64() => "float",
        Value::Number(_) => "int",
        Value::String(_) => "str",
        Value::Array(_) => "list",
        Value::Object(_) => "dict",
    }
}
