//! WIT types ⇄ the core's types.
//!
//! What comes in goes through [`Options::set`], so that every value is checked in one place, whichever way it came.

use super::abi::{List, Maybe, Text};
use super::types;
use crate::consul::{Consistency, Listing, Query};
use crate::error::{Case, Difference, Error, Parts};
use crate::json::Json;
use crate::options::{Options, SessionId};
use crate::outcome::{self, Outcome};
use crate::session::Session;
use alloc::string::String;

/// Takes the fields of a WIT record that carry an option's name.
macro_rules! take {
    ($options:expr, $record:expr, $($field:ident)*) => {
        set($options, &[$((stringify!($field), &$record.$field)),*])
    };
}

/// Into options that have none of the fields yet.
fn set(options: &mut Options, fields: &[(&str, &dyn Value)]) -> Result<(), Error> {
    for (name, value) in fields {
        match value.value() {
            Json::Null => {}
            value => options.set(name, &value)?,
        }
    }
    Ok(())
}

/// A WIT value as [`Options::set`] takes it.
trait Value {
    fn value(&self) -> Json<'_>;
}

impl<T: Value> Value for Maybe<T> {
    fn value(&self) -> Json<'_> {
        self.as_ref().map_or(Json::Null, T::value)
    }
}

macro_rules! values {
    ($($type:ty: $value:ident => $result:expr;)*) => {
        $(impl Value for $type {
            fn value(&self) -> Json<'_> {
                let $value = self;
                $result
            }
        })*
    };
}

values! {
    Text: text => Json::from(&**text);
    List<Text>: list => list.iter().map(|text| &**text).collect();
    bool: value => Json::Bool(*value);
    u16: number => Json::Whole((*number).into());
    f64: number => Json::Fraction(*number);
    types::Behavior: behavior => Json::from(behavior.word());
    types::OnMismatch: on_mismatch => Json::from(on_mismatch.word());
    types::Scheme: scheme => Json::from(scheme.word());
    types::State: state => Json::from(state.word());
}

pub fn options(record: &types::Options) -> Result<Options, Error> {
    let mut options = Options::default();
    take!(&mut options, record, state id name node datacenter checks node_checks service_checks behavior delay ttl token host port
        scheme validate_certs timeout namespace partition on_mismatch dry_run)?;
    Ok(options)
}

pub fn connection(options: &mut Options, record: &Maybe<types::Connection>) -> Result<(), Error> {
    match record {
        Maybe::Some(record) => {
            take!(options, record, host port scheme validate_certs token datacenter namespace partition timeout)
        }
        Maybe::None => Ok(()),
    }
}

pub fn create_options(options: &mut Options, record: &types::CreateOptions) -> Result<(), Error> {
    options.set("delay", &record.lock_delay.value())?;
    take!(options, record, name node behavior ttl node_checks service_checks)
}

/// An argument that is an option of the page too.
fn argument<T>(name: &str, value: &Text, field: impl FnOnce(Options) -> Option<T>) -> Result<T, Error> {
    let mut options = Options::default();
    options.set(name, &value.value())?;
    crate::consul::need(field(options), name)
}

pub fn session_id(id: &Text) -> Result<SessionId, Error> {
    argument("id", id, |options| options.id)
}

pub fn node_name(node: &Text) -> Result<Text, Error> {
    argument("node", node, |options| options.node)
}

pub fn query(record: &Maybe<types::Query>) -> Result<Query, Error> {
    let Maybe::Some(record) = record else { return Ok(Query::default()) };
    let index = record.index.as_ref().copied().unwrap_or(0);
    let wait = match record.wait.as_ref() {
        Some(_) if index == 0 => {
            return Err(Error::invalid("wait", "`wait` needs an `index` over 0: without one Consul answers at once"));
        }
        Some(wait) => Some(crate::options::wait(&wait.value())?),
        None => None,
    };
    let consistency = match record.consistency {
        Maybe::None | Maybe::Some(types::Consistency::Default) => Consistency::Default,
        Maybe::Some(types::Consistency::Stale) => Consistency::Stale,
        Maybe::Some(types::Consistency::Consistent) => Consistency::Consistent,
    };
    Ok(Query { consistency, index, wait })
}

impl From<Listing> for types::Listing {
    fn from(listing: Listing) -> Self {
        let filtered = listing.may_hide();
        types::Listing { sessions: listing.sessions.into(), index: listing.index, filtered }
    }
}

impl From<Listing> for types::Lookup {
    fn from(listing: Listing) -> Self {
        let filtered = listing.may_hide();
        types::Lookup { session: listing.sessions.into_iter().next().into(), index: listing.index, filtered }
    }
}

impl From<Outcome> for types::Outcome {
    fn from(outcome: Outcome) -> Self {
        types::Outcome {
            changed: outcome.changed,
            session_id: outcome.session_id().map(String::from).into(),
            sessions: outcome.sessions.into(),
            destroyed: outcome.destroyed.into(),
            diff: outcome
                .diff
                .map(|diff| types::Diff { before: sessions_json(&diff.before), after: sessions_json(&diff.after) })
                .into(),
            filtered: outcome.filtered,
            notes: outcome.notes.into(),
        }
    }
}

fn sessions_json(sessions: &[Session]) -> Text {
    outcome::sessions_json(sessions).to_text().into()
}

impl From<Difference> for types::Difference {
    fn from(difference: Difference) -> Self {
        types::Difference { option: difference.option.into(), found: difference.found.into(), wanted: difference.wanted.into() }
    }
}

impl From<Error> for types::Error {
    fn from(error: Error) -> Self {
        let Parts { case, message } = error.into_parts();
        let message = message.into();
        use types::{Error as E, InvalidOption, Mismatch, NodeRequired, Refusal};
        match case {
            Case::InvalidOption { option } => E::InvalidOption(InvalidOption { option: option.into(), message }),
            Case::Unsupported => E::Unsupported(message),
            Case::NotFound => E::NotFound(message),
            Case::Mismatch { session_id, differences } => {
                E::Mismatch(Mismatch { session_id: session_id.into(), differences: differences.into(), message })
            }
            Case::NodeRequired { nodes } => E::NodeRequired(NodeRequired { nodes: nodes.into(), message }),
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
