//! The plugin's exports. Each is convert → call → convert.

use super::abi::{Answer, Maybe, Text};
use super::wasi_http::WasiHttp;
use super::{apply, convert, heap, types};
use crate::consul::{Client, Connection, Listing, NewSession, Scope, Verb};
use crate::error::Error;
use crate::lock::{Acquisition, Holding, Key};
use crate::options::Options;
use crate::session::Session;
use alloc::borrow::ToOwned;
use alloc::boxed::Box;
use alloc::string::String;

/// Exports a function under its name in WIT, and beside it the one by which the host gives the answer back.
macro_rules! export {
    ($interface:literal, $function:literal, $name:ident($arguments:ident: $type:ty) -> $answer:ty $body:block) => {
        #[unsafe(export_name = concat!("consul-session:plugin/", $interface, "@0.1.0#", $function))]
        extern "C" fn $name($arguments: Box<$type>) -> Box<Answer<$answer, types::Error>> {
            answer($body)
        }

        free!($interface, $function, $answer);
    };
}

macro_rules! free {
    ($interface:literal, $function:literal, $answer:ty) => {
        const _: () = {
            #[unsafe(export_name = concat!("cabi_post_consul-session:plugin/", $interface, "@0.1.0#", $function))]
            extern "C" fn free(_: &Answer<$answer, types::Error>) {
                // Safety: the host has read the answer, which was the last of the call.
                unsafe { heap::clear() };
            }
        };
    };
}

export!("sessions", "create", create(arguments: types::CreateArguments) -> Text {
    created(&arguments)
});

export!("sessions", "destroy", destroy(arguments: types::DestroyArguments) -> () {
    convert::session_id(&arguments.id).and_then(|id| open(&arguments.connection, 0)?.client().destroy(&id))
});

export!("sessions", "renew", renew(arguments: types::RenewArguments) -> Session {
    convert::session_id(&arguments.id).and_then(|id| open(&arguments.connection, 0)?.client().renew(&id))
});

export!("sessions", "info", info(arguments: types::InfoArguments) -> types::Lookup {
    read(convert::session_id(&arguments.id).map(Scope::Id), &arguments.query, &arguments.connection)
});

export!("sessions", "node", node(arguments: types::NodeArguments) -> types::Listing {
    read(convert::node_name(&arguments.node).map(Scope::Node), &arguments.query, &arguments.connection)
});

export!("sessions", "list-sessions", list_sessions(arguments: types::ListSessionsArguments) -> types::Listing {
    read(Ok(Scope::All), &arguments.query, &arguments.connection)
});

export!("desired-state", "apply", apply_options(arguments: types::ApplyArguments) -> types::Outcome {
    convert::options(&arguments.options).and_then(apply)
});

export!("locks", "acquire", acquire(arguments: types::AcquireArguments) -> Acquisition {
    lock(Verb::Lock, &arguments)
});

export!("locks", "release", release(arguments: types::ReleaseArguments) -> bool {
    lock(Verb::Unlock, &arguments).map(|done| matches!(done, Acquisition::Acquired(_)))
});

export!("locks", "holder", holder(arguments: types::HolderArguments) -> Holding {
    holding(&arguments)
});

/// Its one argument comes as it is: a text's two parts.
#[unsafe(export_name = "consul-session:plugin/desired-state@0.1.0#apply-json")]
unsafe extern "C" fn apply_json(start: *mut u8, length: usize) -> Box<Answer<Text, types::Error>> {
    // Safety: the host calls this with a `string`.
    let options = unsafe { Text::from_parts(start, length) };
    answer(Options::from_json(&options).and_then(apply).map(|outcome| outcome.to_json().to_text()))
}

free!("desired-state", "apply-json", Text);

fn answer<T, U: From<T>>(result: Result<T, Error>) -> Box<Answer<U, types::Error>> {
    Box::new(match result {
        Ok(value) => Answer::Ok(value.into()),
        Err(error) => Answer::Err(error.into()),
    })
}

fn created(arguments: &types::CreateArguments) -> Result<String, Error> {
    let mut all = Options::default();
    convert::create_options(&mut all, &arguments.options)?;
    let session = NewSession::new(&all.or_default()?)?;
    let id = open(&arguments.connection, 0)?.client().create(&session);
    Ok(id.map_err(|error| error.of_a_change("the creation of the session"))?.as_str().to_owned())
}

fn read(
    scope: Result<Scope, Error>,
    query: &Maybe<types::Query>,
    connection: &Maybe<types::Connection>,
) -> Result<Listing, Error> {
    let scope = scope?;
    let query = convert::query(query)?;
    open(connection, query.longest_wait())?.client().sessions(&scope, &query)
}

fn lock(verb: Verb, arguments: &types::AcquireArguments) -> Result<Acquisition, Error> {
    let (key, id) = (Key::parse(&arguments.key)?, convert::session_id(&arguments.session_id)?);
    open(&arguments.connection, 0)?.client().lock(verb, &key, &id, arguments.contents.as_ref())
}

fn holding(arguments: &types::HolderArguments) -> Result<Holding, Error> {
    let (key, query) = (Key::parse(&arguments.key)?, convert::query(&arguments.query)?);
    open(&arguments.connection, query.longest_wait())?.client().holder(&key, &query)
}

/// A connection, and a transport whose clock runs from now.
struct Opened(Connection, WasiHttp);

impl Opened {
    fn client(&mut self) -> Client<'_> {
        Client { connection: &self.0, transport: &mut self.1 }
    }
}

/// `longer` is added to the call's time, in nanoseconds.
fn open(connection: &Maybe<types::Connection>, longer: i64) -> Result<Opened, Error> {
    let connection = connection_of(connection)?;
    let transport = WasiHttp::new(connection.timeout().saturating_add(longer));
    Ok(Opened(connection, transport))
}

fn connection_of(record: &Maybe<types::Connection>) -> Result<Connection, Error> {
    let mut options = Options::default();
    convert::connection(&mut options, record)?;
    Connection::new(&options.or_default()?)
}
