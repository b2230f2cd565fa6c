//! Calls by the library.

use super::Client;
use crate::history::{Answer, Event, Session, Wish};
use anyhow::{Result, anyhow};
use consul_session::duration;
use consul_session_host::{
    self as wit, Acquisition, Behavior, CallError, Connection, Consistency, CreateOptions, Error, OnMismatch, Options, Outcome,
    Query, SlotAcquisition, State,
};

/// Nanoseconds in a millisecond.
const MILLISECOND: i64 = 1_000_000;

/// Calls the library as the event says.
///
/// # Errors
///
/// The component was stopped at a limit of the host, or trapped.
pub async fn answer(client: &Client, event: &Event) -> Result<Answer> {
    let (host, to) = (&client.place.library, client.connection());
    let answer = match event {
        Event::Present { name, node, wish, replace } => {
            let on_mismatch = replace.then_some(OnMismatch::Replace);
            let node = client.names_node(node);
            let options = Options { name: Some(name.clone()), node, on_mismatch, ..options(&to, wish) };
            host.apply(&options).await.map(outcome)
        }
        Event::Absent { name, node, session } => {
            let state = Some(State::Absent);
            let (name, id) = (name.clone(), session.clone());
            let node = node.as_ref().and_then(|node| client.names_node(node));
            let options = Options { state, name, node, id, ..options(&to, &Wish::default()) };
            host.apply(&options).await.map(outcome)
        }
        Event::Create { name, node, wish } => {
            let options = CreateOptions { name: name.clone(), node: Some(node.clone()), ..create_options(wish) };
            host.create(&options, Some(&to)).await.map(|session| Answer::Created { session })
        }
        Event::Destroy { session } => host.destroy(session, Some(&to)).await.map(|()| Answer::Done),
        Event::Renew { session } => {
            host.renew(session, Some(&to)).await.map(|renewed| Answer::Renewed { session: stored(renewed) })
        }
        Event::Read { name, consistent } => host
            .list_sessions(query(*consistent), Some(&to))
            .await
            .map(|listing| Answer::Sessions { sessions: named(listing.sessions.into_iter().map(stored), name.as_deref()) }),
        Event::Acquire { key, session } => host.acquire(key, session, None, Some(&to)).await.map(|answer| match answer {
            Acquisition::Acquired(lock) => Answer::Acquired { fence: lock.modify_index, lock_index: lock.lock_index },
            Acquisition::Held => Answer::Held,
            Acquisition::Delayed => Answer::Delayed,
        }),
        Event::Release { key, session } => {
            host.release(key, session, None, Some(&to)).await.map(|held| Answer::Released { held })
        }
        Event::AcquireSlot { prefix, session, limit } => {
            host.acquire_slot(prefix, session, *limit, None, Some(&to)).await.map(|answer| match answer {
                SlotAcquisition::Acquired => Answer::Slot,
                SlotAcquisition::Full(_) => Answer::Full,
                // Nobody else uses the prefix.
                other => Answer::Error { case: "semaphore".into(), message: format!("{other:?}"), session: None },
            })
        }
        Event::ReleaseSlot { prefix, session } => {
            host.release_slot(prefix, session, Some(&to)).await.map(|held| Answer::Released { held })
        }
        other => unreachable!("{other:?} is not a call"),
    };
    answer.or_else(error)
}

/// Returns the holder of a key, by a consistent read.
pub async fn holder(client: &Client, key: &str) -> Result<Option<String>> {
    let found = client.place.library.holder(key, query(true), Some(&client.connection())).await;
    Ok(found.map_err(|error| anyhow!("{error:?}"))?.lock.and_then(|lock| lock.session))
}

fn query(consistent: bool) -> Option<Query> {
    consistent.then_some(Query { consistency: Some(Consistency::Consistent), index: None, wait: None })
}

fn options(to: &Connection, wish: &Wish) -> Options {
    let CreateOptions { lock_delay, behavior, ttl, .. } = create_options(wish);
    Options {
        host: to.host.clone(),
        port: to.port,
        timeout: to.timeout,
        delay: lock_delay,
        behavior,
        ttl,
        checks: wish.checks.clone(),
        ..Options::default()
    }
}

fn create_options(wish: &Wish) -> CreateOptions {
    #[expect(clippy::cast_precision_loss, reason = "a few seconds")]
    let seconds = |milliseconds: u64| milliseconds as f64 / 1000.0;
    CreateOptions {
        behavior: wish.behavior.as_ref().map(|behavior| match behavior.as_str() {
            "delete" => Behavior::Delete,
            _ => Behavior::Release,
        }),
        lock_delay: wish.delay.map(seconds),
        ttl: wish.ttl.map(seconds),
        node_checks: wish.checks.as_deref().map(consul_session::consul::expand_checks),
        ..CreateOptions::default()
    }
}

fn outcome(outcome: Outcome) -> Answer {
    Answer::Outcome {
        changed: outcome.changed,
        session: outcome.session_id,
        sessions: outcome.sessions.into_iter().map(stored).collect(),
        destroyed: outcome.destroyed,
        before: outcome.diff.map(|diff| diff.before.into_iter().map(stored).collect()).unwrap_or_default(),
        notes: outcome.notes,
    }
}

/// Returns the sessions of this name, or all.
pub fn named(sessions: impl Iterator<Item = Session>, name: Option<&str>) -> Vec<Session> {
    sessions.filter(|session| name.is_none_or(|name| session.name == name)).collect()
}

fn stored(session: wit::Session) -> Session {
    let service_checks = session.service_checks.into_iter().map(|check| check.id);
    Session {
        id: session.id,
        name: session.name,
        node: session.node,
        index: session.create_index,
        behavior: session.behavior,
        delay: milliseconds(session.lock_delay),
        ttl: duration::parse_go(&session.ttl).map_or(0, milliseconds),
        checks: session.node_checks.into_iter().chain(session.checks).chain(service_checks).collect(),
    }
}

/// Converts nanoseconds, of which this run makes no negative ones.
pub fn milliseconds(nanoseconds: i64) -> u64 {
    (nanoseconds / MILLISECOND).unsigned_abs()
}

/// Returns the answer of a call that failed.
fn error(error: CallError) -> Result<Answer> {
    match error {
        CallError::Plugin(error) => {
            let session = match &error {
                Error::Mismatch(mismatch) => Some(mismatch.session_id.clone()),
                _ => None,
            };
            Ok(Answer::Error { case: error.name().to_owned(), message: error.message().to_owned(), session })
        }
        other => Err(anyhow!("{other:?}")),
    }
}
