//! WIT types ⇄ the core's types.
//!
//! What comes in goes through [`Options::set`], so that every value is checked in one place, whichever way it came.

use super::bindings::exports::consul_session::plugin::{desired_state, sessions};
use crate::consul::{Consistency, Listing, Query};
use crate::error::{Case, Difference, Error, Parts};
use crate::json::Json;
use crate::options::{Options, SessionId};
use crate::outcome::{self, Outcome};
use crate::session::{ServiceCheck, Session};
use std::borrow::Cow;

/// Takes the fields of a WIT record that carry an option's name.
macro_rules! take {
    ($options:expr, $record:expr, $($field:ident)*) => {
        set($options, vec![$((stringify!($field), $record.$field.map(AsValue::value))),*])
    };
}

fn set(options: &mut Options, fields: Vec<(&'static str, Option<Json>)>) -> Result<(), Error> {
    fields.into_iter().try_for_each(|(name, value)| options.set(name, &value.unwrap_or(Json::Null)))
}

/// A WIT value as [`Options::set`] takes it.
trait AsValue {
    fn value(self) -> Json<'static>;
}

macro_rules! as_value {
    ($($type:ty: $value:ident => $result:expr;)*) => {
        $(impl AsValue for $type {
            fn value(self) -> Json<'static> {
                let $value = self;
                $result
            }
        })*
    };
}

as_value! {
    String: text => Json::Text(Cow::Owned(text));
    bool: value => Json::Bool(value);
    u16: number => Json::Whole(number.into());
    f64: number => Json::Fraction(number);
    Vec<String>: list => Json::List(list.into_iter().map(|text| Json::Text(Cow::Owned(text))).collect());
    sessions::Scheme: scheme => Json::from(match scheme {
        sessions::Scheme::Http => "http",
        sessions::Scheme::Https => "https",
    });
    sessions::Behavior: behavior => Json::from(match behavior {
        sessions::Behavior::Release => "release",
        sessions::Behavior::Delete => "delete",
    });
    desired_state::State: state => Json::from(match state {
        desired_state::State::Present => "present",
        desired_state::State::Absent => "absent",
        desired_state::State::Info => "info",
        desired_state::State::Node => "node",
        desired_state::State::List => "list",
    });
    desired_state::OnMismatch: on_mismatch => Json::from(match on_mismatch {
        desired_state::OnMismatch::Fail => "fail",
        desired_state::OnMismatch::Replace => "replace",
    });
}

pub fn options(record: desired_state::Options) -> Result<Options, Error> {
    let mut options = Options::default();
    take!(&mut options, record, state id name node datacenter checks node_checks service_checks behavior delay ttl token host port
        scheme validate_certs timeout namespace partition on_mismatch dry_run)?;
    Ok(options)
}

pub fn connection(options: &mut Options, record: Option<sessions::Connection>) -> Result<(), Error> {
    match record {
        Some(record) => take!(options, record, host port scheme validate_certs token datacenter namespace partition timeout),
        None => Ok(()),
    }
}

pub fn create_options(options: &mut Options, record: sessions::CreateOptions) -> Result<(), Error> {
    set(options, vec![("delay", record.lock_delay.map(AsValue::value))])?;
    take!(options, record, name node behavior ttl node_checks service_checks)
}

/// An argument that is an option of the page too.
fn argument<T>(name: &str, value: String, field: impl FnOnce(Options) -> Option<T>) -> Result<T, Error> {
    let mut options = Options::default();
    options.set(name, &Json::Text(Cow::Owned(value)))?;
    crate::consul::need(field(options), name)
}

pub fn session_id(id: String) -> Result<SessionId, Error> {
    argument("id", id, |options| options.id)
}

pub fn node_name(node: String) -> Result<String, Error> {
    argument("node", node, |options| options.node)
}

pub fn query(record: Option<sessions::Query>) -> Result<Query, Error> {
    let Some(record) = record else { return Ok(Query::default()) };
    let index = record.index.unwrap_or(0);
    let wait = match record.wait {
        Some(_) if index == 0 => {
            return Err(Error::invalid("wait", "`wait` needs an `index` over 0: without one Consul answers at once"));
        }
        Some(wait) => Some(crate::options::wait(&wait.value())?),
        None => None,
    };
    let consistency = match record.consistency {
        None | Some(sessions::Consistency::Default) => Consistency::Default,
        Some(sessions::Consistency::Stale) => Consistency::Stale,
        Some(sessions::Consistency::Consistent) => Consistency::Consistent,
    };
    Ok(Query { consistency, index, wait })
}

impl From<Session> for sessions::Session {
    fn from(session: Session) -> Self {
        sessions::Session {
            id: session.id,
            name: session.name,
            node: session.node,
            lock_delay: session.lock_delay,
            behavior: session.behavior,
            ttl: session.ttl,
            node_checks: session.node_checks,
            service_checks: all(session.service_checks),
            checks: session.checks,
            namespace: session.namespace,
            partition: session.partition,
            create_index: session.create_index,
            modify_index: session.modify_index,
        }
    }
}

impl From<ServiceCheck> for sessions::ServiceCheck {
    fn from(check: ServiceCheck) -> Self {
        sessions::ServiceCheck { id: check.id, namespace: check.namespace }
    }
}

impl From<Listing> for sessions::Listing {
    fn from(listing: Listing) -> Self {
        let filtered = listing.may_hide();
        sessions::Listing { sessions: all(listing.sessions), index: listing.index, filtered }
    }
}

impl From<Outcome> for desired_state::Outcome {
    fn from(outcome: Outcome) -> Self {
        desired_state::Outcome {
            changed: outcome.changed,
            session_id: outcome.session_id().map(String::from),
            sessions: all(outcome.sessions),
            destroyed: outcome.destroyed,
            diff: outcome
                .diff
                .map(|diff| desired_state::Diff { before: sessions_json(&diff.before), after: sessions_json(&diff.after) }),
            filtered: outcome.filtered,
            notes: outcome.notes,
        }
    }
}

fn sessions_json(sessions: &[Session]) -> String {
    outcome::sessions_json(sessions).to_string()
}

fn all<T, U: From<T>>(list: Vec<T>) -> Vec<U> {
    list.into_iter().map(U::from).collect()
}

impl From<Difference> for sessions::Difference {
    fn from(difference: Difference) -> Self {
        sessions::Difference { option: difference.option.into(), found: difference.found, wanted: difference.wanted }
    }
}

impl From<Error> for sessions::Error {
    fn from(error: Error) -> Self {
        let Parts { case, message } = error.into_parts();
        use sessions::{Error as E, InvalidOption, Mismatch, NodeRequired, Refusal};
        match case {
            Case::InvalidOption { option } => E::InvalidOption(InvalidOption { option, message }),
            Case::Unsupported => E::Unsupported(message),
            Case::NotFound => E::NotFound(message),
            Case::Mismatch { session_id, differences } => {
                E::Mismatch(Mismatch { session_id, differences: all(differences), message })
            }
            Case::NodeRequired { nodes } => E::NodeRequired(NodeRequired { nodes, message }),
            Case::Hidden => E::Hidden(message),
            Case::UnknownNode => E::UnknownNode(message),
            Case::UnknownCheck => E::UnknownCheck(message),
            Case::CriticalCheck => E::CriticalCheck(message),
            Case::UnknownDatacenter => E::UnknownDatacenter(message),
            Case::AccessDenied { status } => E::AccessDenied(Refusal { status, message }),
            Case::Unavailable { status } => E::Unavailable(Refusal { status, message }),
            Case::Refused { status } => E::Refused(Refusal { status, message }),
            Case::Unreachable => E::Unreachable(message),
            Case::DeniedByHost => E::DeniedByHost(message),
            Case::Tls => E::Tls(message),
            Case::Timeout => E::Timeout(message),
            Case::InvalidResponse => E::InvalidResponse(message),
            Case::ResponseTooLarge => E::ResponseTooLarge(message),
            Case::OutcomeUnknown => E::OutcomeUnknown(message),
            Case::Other => E::Other(message),
        }
    }
}
