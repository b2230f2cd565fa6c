//! The plugin's exports. Each converts its arguments, calls the core and converts the result.

#![forbid(unsafe_code)]

use super::bindings::exports::consul_session::plugin::{desired_state, locks, sessions};
use super::convert;
use super::wasi_http::WasiHttp;
use crate::apply::Plan;
use crate::consul::{Client, Listing, NewSession, Scope, Verb};
use crate::error::{Error, ErrorKind};
use crate::lock::{Acquisition, Contents, Key};
use crate::options::{self, Options};
use crate::outcome::Outcome;
use crate::semaphore::Prefix;
use std::sync::atomic::{AtomicBool, Ordering};

/// The implementation of the interfaces in `wit/`.
pub struct Plugin;

impl sessions::Guest for Plugin {
    fn create(options: sessions::CreateOptions, connection: Option<sessions::Connection>) -> Result<String, sessions::Error> {
        exported(|| {
            let session = NewSession::try_from(options)?;
            let created = with_client(connection, 0, |client| client.create(&session));
            let id = created.map_err(|error| error.into_outcome_unknown("the creation of the session"))?;
            Ok(id.as_str().to_owned())
        })
    }

    fn destroy(id: String, connection: Option<sessions::Connection>) -> Result<(), sessions::Error> {
        exported(|| {
            let id = options::session_id("id", &id)?;
            with_client(connection, 0, |client| client.destroy(&id))
        })
    }

    fn renew(id: String, connection: Option<sessions::Connection>) -> Result<sessions::Session, sessions::Error> {
        exported(|| {
            let id = options::session_id("id", &id)?;
            with_client(connection, 0, |client| client.renew(&id)).map(Into::into)
        })
    }

    fn info(
        id: String,
        query: Option<sessions::Query>,
        connection: Option<sessions::Connection>,
    ) -> Result<sessions::Lookup, sessions::Error> {
        exported(|| {
            let scope = Scope::Id(options::session_id("id", &id)?);
            read(&scope, query, connection).map(Into::into)
        })
    }

    fn node(
        node: String,
        query: Option<sessions::Query>,
        connection: Option<sessions::Connection>,
    ) -> Result<sessions::Listing, sessions::Error> {
        exported(|| {
            let scope = Scope::Node(options::node("node", node)?);
            read(&scope, query, connection).map(Into::into)
        })
    }

    fn list_sessions(
        query: Option<sessions::Query>,
        connection: Option<sessions::Connection>,
    ) -> Result<sessions::Listing, sessions::Error> {
        exported(|| read(&Scope::All, query, connection).map(Into::into))
    }
}

impl desired_state::Guest for Plugin {
    fn apply(options: desired_state::Options) -> Result<desired_state::Outcome, sessions::Error> {
        exported(|| apply(options.try_into()?).map(Into::into))
    }

    fn apply_json(options: String) -> Result<String, sessions::Error> {
        exported(|| apply(Options::from_json(&options)?).map(|outcome| outcome.to_json()))
    }
}

impl locks::Guest for Plugin {
    fn acquire(
        key: String,
        session_id: String,
        contents: Option<locks::Contents>,
        connection: Option<sessions::Connection>,
    ) -> Result<locks::Acquisition, sessions::Error> {
        exported(|| lock(Verb::Lock, &key, &session_id, contents, connection).map(Into::into))
    }

    fn release(
        key: String,
        session_id: String,
        contents: Option<locks::Contents>,
        connection: Option<sessions::Connection>,
    ) -> Result<bool, sessions::Error> {
        exported(|| {
            let done = lock(Verb::Unlock, &key, &session_id, contents, connection)?;
            Ok(matches!(done, Acquisition::Acquired(_)))
        })
    }

    fn holder(
        key: String,
        query: Option<sessions::Query>,
        connection: Option<sessions::Connection>,
    ) -> Result<locks::Holding, sessions::Error> {
        exported(|| {
            let (key, query) = (Key::parse(&key)?, convert::query(query)?);
            with_client(connection, query.longest_wait(), |client| client.holder(&key, &query)).map(Into::into)
        })
    }

    fn acquire_slot(
        prefix: String,
        session_id: String,
        limit: u32,
        value: Option<Vec<u8>>,
        connection: Option<sessions::Connection>,
    ) -> Result<locks::SlotAcquisition, sessions::Error> {
        exported(|| {
            let (prefix, id) = (Prefix::parse(&prefix)?, options::session_id("id", &session_id)?);
            if limit == 0 {
                return Err(Error::invalid("limit", "`limit`: 0 slots; give 1 or more"));
            }
            let value = value.unwrap_or_default();
            with_client(connection, 0, |client| client.acquire_slot(&prefix, &id, limit, &value)).map(Into::into)
        })
    }

    fn release_slot(
        prefix: String,
        session_id: String,
        connection: Option<sessions::Connection>,
    ) -> Result<bool, sessions::Error> {
        exported(|| {
            let (prefix, id) = (Prefix::parse(&prefix)?, options::session_id("id", &session_id)?);
            with_client(connection, 0, |client| client.release_slot(&prefix, &id))
        })
    }

    fn slot_holders(
        prefix: String,
        query: Option<sessions::Query>,
        connection: Option<sessions::Connection>,
    ) -> Result<locks::Semaphore, sessions::Error> {
        exported(|| {
            let (prefix, query) = (Prefix::parse(&prefix)?, convert::query(query)?);
            with_client(connection, query.longest_wait(), |client| client.semaphore(&prefix, &query)).map(Into::into)
        })
    }
}

fn apply(options: Options) -> Result<Outcome, Error> {
    let plan = Plan::new(options)?;
    plan.run(&mut WasiHttp::new(plan.timeout()))
}

fn read(scope: &Scope, query: Option<sessions::Query>, connection: Option<sessions::Connection>) -> Result<Listing, Error> {
    let query = convert::query(query)?;
    with_client(connection, query.longest_wait(), |client| client.sessions(scope, &query))
}

fn lock(
    verb: Verb,
    key: &str,
    session_id: &str,
    contents: Option<locks::Contents>,
    connection: Option<sessions::Connection>,
) -> Result<Acquisition, Error> {
    let (key, id) = (Key::parse(key)?, options::session_id("id", session_id)?);
    let contents = contents.map(Contents::from);
    with_client(connection, 0, |client| client.lock(verb, &key, &id, contents.as_ref()))
}

/// Calls `call` with a client whose timeout starts now, longer by `extra` nanoseconds.
fn with_client<T>(
    connection: Option<sessions::Connection>,
    extra: i64,
    call: impl FnOnce(&mut Client) -> Result<T, Error>,
) -> Result<T, Error> {
    let connection = convert::connection(connection)?;
    let mut transport = WasiHttp::new(connection.timeout().saturating_add(extra));
    call(&mut Client { connection: &connection, transport: &mut transport })
}

/// Runs an exported function, one at a time.
///
/// A call that waits for Consul keeps its frames on the stack in linear memory. If the host enters
/// the instance again meanwhile, the two calls may return in another order than they were entered
/// in and overwrite each other's frames. Most hosts forbid that. For the others, the second call is
/// rejected before it does anything.
fn exported<T>(function: impl FnOnce() -> Result<T, Error>) -> Result<T, sessions::Error> {
    static ENTERED: AtomicBool = AtomicBool::new(false);
    if ENTERED.swap(true, Ordering::Relaxed) {
        let message = "this instance is busy with another call: let that one end first, or use an instance for each call";
        return Err(Error::new(ErrorKind::Other, message).into());
    }
    let result = function();
    ENTERED.store(false, Ordering::Relaxed);
    result.map_err(Into::into)
}
