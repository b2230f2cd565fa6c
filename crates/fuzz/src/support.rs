//! What several targets share.

use consul_session::Options;
use consul_session::duration;
use consul_session::error::{Error, ErrorKind};
use serde_json::{Map, Value};

/// A value that no message may show. It is not a valid token, and would be refused as one.
pub const SECRET: &str = "s3cr3t v4lue";

/// Returns the options as JSON, each in the spelling that the documentation calls for.
pub fn canonical(options: &Options) -> Map<String, Value> {
    let Options {
        state,
        id,
        name,
        node,
        datacenter,
        checks,
        node_checks,
        service_checks,
        behavior,
        delay,
        ttl,
        token,
        host,
        port,
        scheme,
        validate_certs,
        timeout,
        namespace,
        partition,
        on_mismatch,
        dry_run,
    } = options;
    let text = |text: &Option<String>| text.clone().map(Value::from);
    let duration = |nanoseconds: &Option<i64>| nanoseconds.map(|nanoseconds| Value::from(duration::format(nanoseconds)));
    let values = [
        ("state", state.map(|state| state.name().into())),
        ("id", id.as_ref().map(|id| id.as_str().into())),
        ("name", text(name)),
        ("node", text(node)),
        ("datacenter", text(datacenter)),
        ("checks", checks.clone().map(Value::from)),
        ("node_checks", node_checks.clone().map(Value::from)),
        ("service_checks", service_checks.clone().map(Value::from)),
        ("behavior", behavior.map(|behavior| behavior.name().into())),
        ("delay", duration(delay)),
        ("ttl", duration(ttl)),
        ("token", token.as_ref().map(|token| token.secret().into())),
        ("host", host.as_ref().map(|host| host.as_str().into())),
        ("port", port.map(Value::from)),
        ("scheme", scheme.map(|scheme| scheme.name().into())),
        ("validate_certs", validate_certs.map(Value::from)),
        ("timeout", duration(timeout)),
        ("namespace", text(namespace)),
        ("partition", text(partition)),
        ("on_mismatch", on_mismatch.map(|on_mismatch| on_mismatch.name().into())),
        ("dry_run", dry_run.map(Value::from)),
    ];
    values.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// Checks the error of a value that was refused: it is about an option, which its one line names.
#[track_caller]
pub fn check_refusal(error: &Error) {
    let ErrorKind::InvalidOption { option } = &error.kind else { panic!("{error:?}") };
    let shown: String = option.chars().take(80).map(|c| if c.is_control() { '\u{fffd}' } else { c }).collect();
    assert!(error.message.contains(&shown), "the message does not name `{option}`: {error:?}");
    assert!(!error.message.contains(char::is_control), "not one line: {error:?}");
    assert!(serde_json::from_str::<Value>(&error.to_json()).is_ok(), "{error:?}");
}

/// Checks that a message does not show the secret.
#[track_caller]
pub fn check_redacted(message: &str) {
    assert!(!message.contains(SECRET), "a secret is shown: {message}");
}
