//! The plugin's exports. Each is convert → call → convert.

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
use std::sync::atomic::{AtomicBool, Ordering};

/// What implements the interfaces of `wit/`.
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
}

fn apply(options: Options) -> Result<Outcome, Error> {
    let task = Plan::new(options)?;
    task.run(&mut WasiHttp::new(task.timeout()))
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

/// Calls with a client whose clock runs from now. `longer` is added to the call's time, in nanoseconds.
fn with_client<T>(
    connection: Option<sessions::Connection>,
    longer: i64,
    call: impl FnOnce(&mut Client) -> Result<T, Error>,
) -> Result<T, Error> {
    let connection = convert::connection(connection)?;
    let mut transport = WasiHttp::new(connection.timeout().saturating_add(longer));
    call(&mut Client { connection: &connection, transport: &mut transport })
}

/// Runs an exported function, one at a time.
///
/// A call that waits for Consul leaves its frames on the stack in linear memory. A host that enters the instance again
/// meanwhile would have the two calls return in another order than they were entered in, and overwrite each other's frames.
/// Most hosts forbid that; where one does not, the second call is refused before it does anything.
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
