//! Conversions between the WIT's types and the core's, one line per field. The functions that check
//! JSON also check every value that comes in.

#![forbid(unsafe_code)]

use super::bindings::exports::consul_session::plugin::{desired_state as wit_state, locks as wit_locks, sessions as wit};
use crate::consul::{Connection, Consistency, Listing, NewSession, Query};
use crate::error::{Difference, Error, ErrorKind, Parts};
use crate::lock::{Acquisition, Contents, Holding, Lock};
use crate::options::{self, Behavior, DELAY, OnMismatch, Options, Scheme, State, TIMEOUT, TTL, WAIT};
use crate::outcome::{Diff, Outcome};
use crate::semaphore::{Semaphore, SlotAcquisition};
use crate::session::{ServiceCheck, Session};

/// Checks a field if it was given.
fn given<T, U>(field: Option<T>, check: impl FnOnce(T) -> Result<U, Error>) -> Result<Option<U>, Error> {
    field.map(check).transpose()
}

impl TryFrom<wit_state::Options> for Options {
    type Error = Error;

    fn try_from(record: wit_state::Options) -> Result<Options, Error> {
        Ok(Options {
            state: record.state.map(Into::into),
            id: given(record.id, |id| options::session_id("id", &id))?,
            name: given(record.name, |name| options::text("name", name))?,
            node: given(record.node, |node| options::node("node", node))?,
            datacenter: given(record.datacenter, |datacenter| options::text("datacenter", datacenter))?,
            checks: given(record.checks, |checks| options::texts("checks", checks))?,
            node_checks: given(record.node_checks, |checks| options::texts("node_checks", checks))?,
            service_checks: given(record.service_checks, |checks| options::texts("service_checks", checks))?,
            behavior: record.behavior.map(Into::into),
            delay: given(record.delay, |delay| options::seconds("delay", DELAY, delay))?,
            ttl: given(record.ttl, |ttl| options::seconds("ttl", TTL, ttl))?,
            token: given(record.token, |token| options::token("token", token))?.flatten(),
            host: given(record.host, |host| options::host("host", &host))?,
            port: given(record.port, |port| options::port("port", port))?,
            scheme: record.scheme.map(Into::into),
            validate_certs: record.validate_certs,
            timeout: given(record.timeout, |timeout| options::seconds("timeout", TIMEOUT, timeout))?,
            namespace: given(record.namespace, |namespace| options::text("namespace", namespace))?,
            partition: given(record.partition, |partition| options::text("partition", partition))?,
            on_mismatch: record.on_mismatch.map(Into::into),
            dry_run: record.dry_run,
        })
    }
}

impl TryFrom<wit::CreateOptions> for NewSession {
    type Error = Error;

    fn try_from(record: wit::CreateOptions) -> Result<NewSession, Error> {
        let options = Options {
            // First, so that it is the field that the error names if several are invalid.
            delay: given(record.lock_delay, |delay| options::seconds("delay", DELAY, delay))?,
            name: given(record.name, |name| options::text("name", name))?,
            node: given(record.node, |node| options::node("node", node))?,
            behavior: record.behavior.map(Into::into),
            ttl: given(record.ttl, |ttl| options::seconds("ttl", TTL, ttl))?,
            node_checks: given(record.node_checks, |checks| options::texts("node_checks", checks))?,
            service_checks: given(record.service_checks, |checks| options::texts("service_checks", checks))?,
            ..Options::default()
        };
        Ok(NewSession::new(&options.resolve()))
    }
}

/// Returns the connection, with the defaults for the fields that were not given.
pub fn connection(record: Option<wit::Connection>) -> Result<Connection, Error> {
    let options = match record {
        None => Options::default(),
        Some(record) => Options {
            host: given(record.host, |host| options::host("host", &host))?,
            port: given(record.port, |port| options::port("port", port))?,
            scheme: record.scheme.map(Into::into),
            validate_certs: record.validate_certs,
            token: given(record.token, |token| options::token("token", token))?.flatten(),
            datacenter: given(record.datacenter, |datacenter| options::text("datacenter", datacenter))?,
            namespace: given(record.namespace, |namespace| options::text("namespace", namespace))?,
            partition: given(record.partition, |partition| options::text("partition", partition))?,
            timeout: given(record.timeout, |timeout| options::seconds("timeout", TIMEOUT, timeout))?,
            ..Options::default()
        },
    };
    Ok(Connection::new(&options.resolve()))
}

/// Returns the query, with the defaults for the fields that were not given.
pub fn query(record: Option<wit::Query>) -> Result<Query, Error> {
    let Some(record) = record else { return Ok(Query::default()) };
    let index = record.index.unwrap_or(0);
    if record.wait.is_some() && index == 0 {
        return Err(Error::invalid("wait", "`wait` needs an `index` over 0: without one Consul answers at once"));
    }
    Ok(Query {
        consistency: record.consistency.map(Into::into).unwrap_or_default(),
        index,
        wait: given(record.wait, |wait| options::seconds("wait", WAIT, wait))?,
    })
}

impl From<wit_state::State> for State {
    fn from(state: wit_state::State) -> State {
        match state {
            wit_state::State::Present => State::Present,
            wit_state::State::Absent => State::Absent,
            wit_state::State::Info => State::Info,
            wit_state::State::Node => State::Node,
            wit_state::State::List => State::List,
        }
    }
}

impl From<wit_state::OnMismatch> for OnMismatch {
    fn from(on_mismatch: wit_state::OnMismatch) -> OnMismatch {
        match on_mismatch {
            wit_state::OnMismatch::Fail => OnMismatch::Fail,
            wit_state::OnMismatch::Replace => OnMismatch::Replace,
        }
    }
}

impl From<wit::Behavior> for Behavior {
    fn from(behavior: wit::Behavior) -> Behavior {
        match behavior {
            wit::Behavior::Release => Behavior::Release,
            wit::Behavior::Delete => Behavior::Delete,
        }
    }
}

impl From<wit::Scheme> for Scheme {
    fn from(scheme: wit::Scheme) -> Scheme {
        match scheme {
            wit::Scheme::Http => Scheme::Http,
            wit::Scheme::Https => Scheme::Https,
        }
    }
}

impl From<wit::Consistency> for Consistency {
    fn from(consistency: wit::Consistency) -> Consistency {
        match consistency {
            wit::Consistency::Default => Consistency::Default,
            wit::Consistency::Stale => Consistency::Stale,
            wit::Consistency::Consistent => Consistency::Consistent,
        }
    }
}

impl From<wit_locks::Contents> for Contents {
    fn from(contents: wit_locks::Contents) -> Contents {
        Contents { value: contents.value, flags: contents.flags }
    }
}

impl From<Session> for wit::Session {
    fn from(session: Session) -> wit::Session {
        wit::Session {
            id: session.id,
            name: session.name,
            node: session.node,
            lock_delay: session.lock_delay,
            behavior: session.behavior,
            ttl: session.ttl,
            node_checks: session.node_checks,
            service_checks: session.service_checks.into_iter().map(Into::into).collect(),
            checks: session.checks,
            namespace: session.namespace,
            partition: session.partition,
            create_index: session.create_index,
            modify_index: session.modify_index,
        }
    }
}

impl From<ServiceCheck> for wit::ServiceCheck {
    fn from(check: ServiceCheck) -> wit::ServiceCheck {
        wit::ServiceCheck { id: check.id, namespace: check.namespace }
    }
}

fn sessions(sessions: Vec<Session>) -> Vec<wit::Session> {
    sessions.into_iter().map(Into::into).collect()
}

impl From<Listing> for wit::Listing {
    fn from(listing: Listing) -> wit::Listing {
        wit::Listing { filtered: listing.may_hide(), index: listing.index, sessions: sessions(listing.sessions) }
    }
}

impl From<Listing> for wit::Lookup {
    fn from(listing: Listing) -> wit::Lookup {
        wit::Lookup {
            filtered: listing.may_hide(),
            index: listing.index,
            session: listing.sessions.into_iter().next().map(Into::into),
        }
    }
}

impl From<Outcome> for wit_state::Outcome {
    fn from(outcome: Outcome) -> wit_state::Outcome {
        wit_state::Outcome {
            changed: outcome.changed,
            session_id: outcome.session_id().map(str::to_owned),
            sessions: sessions(outcome.sessions),
            destroyed: outcome.destroyed,
            diff: outcome.diff.map(Into::into),
            filtered: outcome.filtered,
            notes: outcome.notes,
        }
    }
}

impl From<Diff> for wit_state::Diff {
    fn from(diff: Diff) -> wit_state::Diff {
        wit_state::Diff { before: sessions(diff.before), after: sessions(diff.after) }
    }
}

impl From<Lock> for wit_locks::Lock {
    fn from(lock: Lock) -> wit_locks::Lock {
        wit_locks::Lock {
            session: lock.session,
            lock_index: lock.lock_index,
            modify_index: lock.modify_index,
            create_index: lock.create_index,
            flags: lock.flags,
            value: lock.value,
        }
    }
}

impl From<Acquisition> for wit_locks::Acquisition {
    fn from(acquisition: Acquisition) -> wit_locks::Acquisition {
        match acquisition {
            Acquisition::Acquired(lock) => wit_locks::Acquisition::Acquired(lock.into()),
            Acquisition::Held => wit_locks::Acquisition::Held,
            Acquisition::Delayed => wit_locks::Acquisition::Delayed,
        }
    }
}

impl From<Holding> for wit_locks::Holding {
    fn from(holding: Holding) -> wit_locks::Holding {
        wit_locks::Holding { lock: holding.lock.map(Into::into), index: holding.index }
    }
}

impl From<SlotAcquisition> for wit_locks::SlotAcquisition {
    fn from(acquisition: SlotAcquisition) -> wit_locks::SlotAcquisition {
        match acquisition {
            SlotAcquisition::Acquired => wit_locks::SlotAcquisition::Acquired,
            SlotAcquisition::Full(index) => wit_locks::SlotAcquisition::Full(index),
            SlotAcquisition::OtherLimit(limit) => wit_locks::SlotAcquisition::OtherLimit(limit),
            SlotAcquisition::NotASemaphore => wit_locks::SlotAcquisition::NotASemaphore,
        }
    }
}

impl From<Semaphore> for wit_locks::Semaphore {
    fn from(semaphore: Semaphore) -> wit_locks::Semaphore {
        wit_locks::Semaphore { limit: semaphore.limit, holders: semaphore.holders, index: semaphore.index }
    }
}

impl From<Difference> for wit::Difference {
    fn from(difference: Difference) -> wit::Difference {
        wit::Difference { option: difference.option.to_owned(), found: difference.found, wanted: difference.wanted }
    }
}

impl From<Error> for wit::Error {
    fn from(error: Error) -> wit::Error {
        let Parts { kind, message, .. } = error.into_parts();
        match kind {
            ErrorKind::InvalidOption { option } => wit::Error::InvalidOption(wit::InvalidOption { option, message }),
            ErrorKind::Unsupported => wit::Error::Unsupported(message),
            ErrorKind::NotFound => wit::Error::NotFound(message),
            ErrorKind::Mismatch { session_id, differences } => {
                let differences = differences.into_iter().map(Into::into).collect();
                wit::Error::Mismatch(wit::Mismatch { session_id, differences, message })
            }
            ErrorKind::NodeRequired { nodes } => wit::Error::NodeRequired(wit::NodeRequired { nodes, message }),
            ErrorKind::Hidden => wit::Error::Hidden(message),
            ErrorKind::UnknownNode => wit::Error::UnknownNode(message),
            ErrorKind::UnknownCheck => wit::Error::UnknownCheck(message),
            ErrorKind::CriticalCheck => wit::Error::CriticalCheck(message),
            ErrorKind::UnknownDatacenter => wit::Error::UnknownDatacenter(message),
            ErrorKind::AccessDenied { status } => wit::Error::AccessDenied(wit::Refusal { status, message }),
            ErrorKind::Unavailable { status } => wit::Error::Unavailable(wit::Refusal { status, message }),
            ErrorKind::Refused { status } => wit::Error::Refused(wit::Refusal { status, message }),
            ErrorKind::Unreachable => wit::Error::Unreachable(message),
            ErrorKind::DeniedByHost => wit::Error::DeniedByHost(message),
            ErrorKind::Tls => wit::Error::Tls(message),
            ErrorKind::Timeout => wit::Error::Timeout(message),
            ErrorKind::InvalidResponse => wit::Error::InvalidResponse(message),
            ErrorKind::ResponseTooLarge => wit::Error::ResponseTooLarge(message),
            ErrorKind::OutcomeUnknown => wit::Error::OutcomeUnknown(message),
            ErrorKind::Other => wit::Error::Other(message),
        }
    }
}
