//! Flags and output that `apply` and `destroy` share.

use super::pool::{INTERRUPTED, Interrupt};
use crate::convert;
use consul_session::duration::Seconds;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::Options;
use consul_session_args::{Format, Invocation, Output};
use consul_session_host::{Connection, Consistency, Query};
use serde_json::Value;
use std::hash::Hash;
use std::io::Write;
use std::time::Duration;

/// The most mistakes or failures that are printed one by one.
const MAX_LINES: usize = 20;

/// Consistent reads, for decisions.
pub const CONSISTENT: Query = Query { consistency: Some(Consistency::Consistent), index: None, wait: None };

/// Returns whether to show progress: for people, and if no other lines are printed meanwhile.
pub fn shows_progress(invocation: &Invocation) -> bool {
    invocation.format != Format::Json && !invocation.flags.verbose
}

/// Listens for the signals that interrupt the command.
pub fn listen() -> Result<Interrupt, Error> {
    Interrupt::listen().map_err(|error| Error::new(ErrorKind::Other, format!("signals cannot be listened for: {error}")))
}

/// Returns the output, or prints it and exits if the command was interrupted: an [`Output`] has
/// no such exit status.
pub fn exit_if_interrupted(output: Output, interrupt: &Interrupt) -> Output {
    if !interrupt.is_set() {
        return output;
    }
    // A closed output does not change the exit status.
    let _ = std::io::stdout().write_all(output.stdout.as_bytes());
    let _ = std::io::stderr().write_all(output.stderr.as_bytes());
    std::process::exit(INTERRUPTED.into())
}

/// Returns the number of each kind as a JSON object.
pub fn counts_json(counts: impl Iterator<Item = (&'static str, usize)>) -> Value {
    Value::Object(counts.map(|(kind, count)| (kind.replace(' ', "_"), count.into())).collect())
}

/// Returns the first of these lines, and the number of the others.
pub fn first_lines(lines: &[String], what: &str) -> String {
    let mut text: String = lines.iter().take(MAX_LINES).map(String::as_str).collect();
    if lines.len() > MAX_LINES {
        text += &format!("and {} more {what}; -o json has them all\n", lines.len() - MAX_LINES);
    }
    text
}

/// Returns a duration as text: `1.5 s`.
pub fn duration_text(time: Duration) -> String {
    format!("{:.1} s", time.as_secs_f64())
}

/// Returns a duration in whole milliseconds.
pub fn seconds(time: Duration) -> Seconds {
    Seconds(i64::try_from(time.as_millis() * 1_000_000).unwrap_or(i64::MAX))
}

/// Returns the connection that the options name, and its key, which is the same for records that
/// can share their reads.
pub fn connection(options: &Options) -> (impl Eq + Hash + use<>, Connection) {
    let options = options.clone().resolve();
    let connection = convert::connection(&options);
    let Connection { host, port, validate_certs, token, datacenter, namespace, partition, .. } = connection.clone();
    let scheme = options.scheme.name();
    let key = (host, port, scheme, validate_certs, token, options.timeout, datacenter, namespace, partition);
    (key, connection)
}

/// Returns whether every further request to the same agent would fail with this error.
pub fn fails_all(error: &Error) -> bool {
    matches!(
        error.kind,
        ErrorKind::Unreachable
            | ErrorKind::DeniedByHost
            | ErrorKind::Tls
            | ErrorKind::Timeout
            | ErrorKind::Unavailable { .. }
            | ErrorKind::UnknownDatacenter
            | ErrorKind::InvalidResponse
            | ErrorKind::OutcomeUnknown
    )
}
