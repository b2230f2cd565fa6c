//! The plugin's exports. Each is convert → call → convert.

use super::bindings::exports::consul_session::plugin::{desired_state, sessions};
use super::wasi_http::WasiHttp;
use super::{apply, bindings, convert};
use crate::consul::{Client, Connection, NewSession, Query, Scope};
use crate::error::Error;
use crate::options::Options;

struct Plugin;

bindings::export!(Plugin with_types_in bindings);

impl sessions::Guest for Plugin {
    fn create(options: sessions::CreateOptions, connection: Option<sessions::Connection>) -> Result<String, sessions::Error> {
        with(connection, 0, |client| {
            let mut all = Options::default();
            convert::create_options(&mut all, options)?;
            let session = NewSession::new(&all.or_default()?)?;
            let id = client.create(&session).map_err(|error| error.of_a_change("the creation of the session"))?;
            Ok(id.as_str().into())
        })
    }

    fn destroy(id: String, connection: Option<sessions::Connection>) -> Result<(), sessions::Error> {
        with(connection, 0, |client| client.destroy(&convert::session_id(id)?))
    }

    fn renew(id: String, connection: Option<sessions::Connection>) -> Result<sessions::Session, sessions::Error> {
        with(connection, 0, |client| Ok(client.renew(&convert::session_id(id)?)?.into()))
    }

    fn info(
        id: String,
        query: Option<sessions::Query>,
        connection: Option<sessions::Connection>,
    ) -> Result<sessions::Lookup, sessions::Error> {
        let listing = read(convert::session_id(id).map(Scope::Id), query, connection)?;
        Ok(sessions::Lookup { session: listing.sessions.into_iter().next(), index: listing.index, filtered: listing.filtered })
    }

    fn node(
        node: String,
        query: Option<sessions::Query>,
        connection: Option<sessions::Connection>,
    ) -> Result<sessions::Listing, sessions::Error> {
        read(convert::node_name(node).map(Scope::Node), query, connection)
    }

    fn list_sessions(
        query: Option<sessions::Query>,
        connection: Option<sessions::Connection>,
    ) -> Result<sessions::Listing, sessions::Error> {
        read(Ok(Scope::All), query, connection)
    }
}

impl desired_state::Guest for Plugin {
    fn apply(options: desired_state::Options) -> Result<desired_state::Outcome, desired_state::Error> {
        Ok(apply(convert::options(options)?)?.into())
    }

    fn apply_json(options: String) -> Result<String, desired_state::Error> {
        Ok(apply(Options::from_json(&options)?)?.to_json().to_string())
    }
}

fn read(
    scope: Result<Scope, Error>,
    query: Option<sessions::Query>,
    connection: Option<sessions::Connection>,
) -> Result<sessions::Listing, sessions::Error> {
    let scope = scope?;
    let query: Query = convert::query(query)?;
    with(connection, query.longest_wait(), |client| Ok(client.sessions(&scope, &query)?.into()))
}

/// Does something with a client whose clock runs from now. `longer` is added to its time, in nanoseconds.
fn with<T>(
    connection: Option<sessions::Connection>,
    longer: i64,
    call: impl FnOnce(&mut Client) -> Result<T, Error>,
) -> Result<T, sessions::Error> {
    let mut options = Options::default();
    convert::connection(&mut options, connection)?;
    let connection = Connection::new(&options.or_default()?)?;
    let mut transport = WasiHttp::new(connection.timeout().saturating_add(longer));
    Ok(call(&mut Client { connection: &connection, transport: &mut transport })?)
}
