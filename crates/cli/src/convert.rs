//! Conversions between the core's types and those of the plugin's WIT, one line per field.

use consul_session::consul::expand_checks;
use consul_session::error::{Difference, Error, ErrorKind};
use consul_session::options::{self, Options, Resolved};
use consul_session::outcome::{Diff, Outcome};
use consul_session::session::{ServiceCheck, Session};
use consul_session_host::{self as wit, CallError};

/// Returns the connection of these options.
pub fn connection(options: &Resolved) -> wit::Connection {
    wit::Connection {
        host: Some(options.host.as_str().to_owned()),
        port: Some(options.port),
        scheme: Some(scheme(options.scheme)),
        validate_certs: Some(options.validate_certs),
        token: options.token.as_ref().map(|token| token.secret().to_owned()),
        datacenter: options.datacenter.clone(),
        namespace: options.namespace.clone(),
        partition: options.partition.clone(),
        timeout: Some(seconds(options.timeout)),
    }
}

/// Returns the session that these options create.
pub fn create_options(options: &Resolved) -> wit::CreateOptions {
    wit::CreateOptions {
        name: options.name.clone(),
        node: options.node.clone(),
        lock_delay: Some(seconds(options.delay)),
        behavior: Some(behavior(options.behavior)),
        ttl: options.ttl.map(seconds),
        node_checks: options.checks.as_deref().map(expand_checks).or_else(|| options.node_checks.clone()),
        service_checks: options.service_checks.clone(),
    }
}

/// Converts options to the WIT's.
pub fn options(options: &Options) -> wit::Options {
    wit::Options {
        state: options.state.map(state),
        id: options.id.as_ref().map(|id| id.as_str().to_owned()),
        name: options.name.clone(),
        node: options.node.clone(),
        datacenter: options.datacenter.clone(),
        checks: options.checks.clone(),
        node_checks: options.node_checks.clone(),
        service_checks: options.service_checks.clone(),
        behavior: options.behavior.map(behavior),
        delay: options.delay.map(seconds),
        ttl: options.ttl.map(seconds),
        token: options.token.as_ref().map(|token| token.secret().to_owned()),
        host: options.host.as_ref().map(|host| host.as_str().to_owned()),
        port: options.port,
        scheme: options.scheme.map(scheme),
        validate_certs: options.validate_certs,
        timeout: options.timeout.map(seconds),
        namespace: options.namespace.clone(),
        partition: options.partition.clone(),
        on_mismatch: options.on_mismatch.map(on_mismatch),
        dry_run: options.dry_run,
    }
}

fn state(state: options::State) -> wit::State {
    match state {
        options::State::Present => wit::State::Present,
        options::State::Absent => wit::State::Absent,
        options::State::Info => wit::State::Info,
        options::State::Node => wit::State::Node,
        options::State::List => wit::State::List,
    }
}

fn behavior(behavior: options::Behavior) -> wit::Behavior {
    match behavior {
        options::Behavior::Release => wit::Behavior::Release,
        options::Behavior::Delete => wit::Behavior::Delete,
    }
}

fn scheme(scheme: options::Scheme) -> wit::Scheme {
    match scheme {
        options::Scheme::Http => wit::Scheme::Http,
        options::Scheme::Https => wit::Scheme::Https,
    }
}

fn on_mismatch(on_mismatch: options::OnMismatch) -> wit::OnMismatch {
    match on_mismatch {
        options::OnMismatch::Fail => wit::OnMismatch::Fail,
        options::OnMismatch::Replace => wit::OnMismatch::Replace,
    }
}

/// Converts nanoseconds, the core's durations, to seconds.
fn seconds(nanoseconds: i64) -> f64 {
    nanoseconds as f64 / 1e9
}

/// Converts a session to the core's, which has its JSON form.
pub fn session(session: wit::Session) -> Session {
    let service_check = |check: wit::ServiceCheck| ServiceCheck { id: check.id, namespace: check.namespace };
    Session {
        id: session.id,
        name: session.name,
        node: session.node,
        lock_delay: session.lock_delay,
        behavior: session.behavior,
        ttl: session.ttl,
        node_checks: session.node_checks,
        service_checks: session.service_checks.into_iter().map(service_check).collect(),
        checks: session.checks,
        namespace: session.namespace,
        partition: session.partition,
        create_index: session.create_index,
        modify_index: session.modify_index,
    }
}

/// Converts an outcome to the core's, which has its JSON form.
pub fn outcome(outcome: wit::Outcome) -> Outcome {
    let all = |sessions: Vec<wit::Session>| sessions.into_iter().map(session).collect();
    let sessions: Vec<Session> = all(outcome.sessions);
    // The session of the options has this id; in the dry run of a creation it has none yet.
    let id = outcome.session_id.unwrap_or_default();
    Outcome {
        changed: outcome.changed,
        session: sessions.iter().find(|session| session.id == id).cloned(),
        sessions,
        destroyed: outcome.destroyed,
        diff: outcome.diff.map(|diff| Diff { before: all(diff.before), after: all(diff.after) }),
        filtered: outcome.filtered,
        notes: outcome.notes,
    }
}

/// Converts an error to the core's, which has its JSON form. An error that is not the plugin's
/// own is `other`.
pub fn error(error: CallError) -> Error {
    let CallError::Plugin(error) = error else { return Error::new(ErrorKind::Other, error.to_string()) };
    let (kind, message) = match error {
        wit::Error::InvalidOption(wit::InvalidOption { option, message }) => (ErrorKind::InvalidOption { option }, message),
        wit::Error::Unsupported(message) => (ErrorKind::Unsupported, message),
        wit::Error::NotFound(message) => (ErrorKind::NotFound, message),
        wit::Error::Mismatch(mismatch) => {
            let known = |name: &str| options::info(name).map_or("", |info| info.name);
            let differences = mismatch
                .differences
                .into_iter()
                .map(|one| Difference { option: known(&one.option), found: one.found, wanted: one.wanted })
                .collect();
            (ErrorKind::Mismatch { session_id: mismatch.session_id, differences }, mismatch.message)
        }
        wit::Error::NodeRequired(required) => (ErrorKind::NodeRequired { nodes: required.nodes }, required.message),
        wit::Error::Hidden(message) => (ErrorKind::Hidden, message),
        wit::Error::UnknownNode(message) => (ErrorKind::UnknownNode, message),
        wit::Error::UnknownCheck(message) => (ErrorKind::UnknownCheck, message),
        wit::Error::CriticalCheck(message) => (ErrorKind::CriticalCheck, message),
        wit::Error::UnknownDatacenter(message) => (ErrorKind::UnknownDatacenter, message),
        wit::Error::AccessDenied(wit::Refusal { status, message }) => (ErrorKind::AccessDenied { status }, message),
        wit::Error::Unavailable(wit::Refusal { status, message }) => (ErrorKind::Unavailable { status }, message),
        wit::Error::Refused(wit::Refusal { status, message }) => (ErrorKind::Refused { status }, message),
        wit::Error::Unreachable(message) => (ErrorKind::Unreachable, message),
        wit::Error::DeniedByHost(message) => (ErrorKind::DeniedByHost, message),
        wit::Error::Tls(message) => (ErrorKind::Tls, message),
        wit::Error::Timeout(message) => (ErrorKind::Timeout, message),
        wit::Error::InvalidResponse(message) => (ErrorKind::InvalidResponse, message),
        wit::Error::ResponseTooLarge(message) => (ErrorKind::ResponseTooLarge, message),
        wit::Error::OutcomeUnknown(message) => (ErrorKind::OutcomeUnknown, message),
        wit::Error::Other(message) => (ErrorKind::Other, message),
    };
    Error::new(kind, message)
}
