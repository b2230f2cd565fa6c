//! A leader election among programs that use the plugin's `sessions` and no HTTP.
//!
//! Each contender creates a session with the same name. The contender with the oldest session leads
//! for some rounds, then destroys its session, and the next oldest leads. The README has the
//! guarantees.

// An empty crate on other targets, so that the whole workspace builds natively.
#![cfg(target_arch = "wasm32")]

mod bindings {
    wit_bindgen::generate!({
        path: ["../../wit", "wit"],
        world: "consul-session:leader-election/leader-election",
        generate_all,
        pub_export_macro: true,
        additional_type_attributes: {
            "consul-session:plugin/sessions@0.1.0/connection": [#[derive(Default)]],
            "consul-session:plugin/sessions@0.1.0/create-options": [#[derive(Default)]],
        },
        // A cdylib for wasm32-unknown-unknown has no constructors to run before each export.
        disable_run_ctors_once_workaround: true,
    });
}

use bindings::consul_session::plugin::sessions::{self, Connection, Consistency, CreateOptions, Error, Query};
use bindings::exports::wasi::cli::run::Guest;
use bindings::wasi::cli::{environment, stderr, stdout};
use bindings::wasi::clocks::monotonic_clock;
use bindings::wasi::io::streams::OutputStream;

/// TTL of the sessions in seconds, the shortest that Consul allows.
const TTL: f64 = 10.0;
/// Time of a round in nanoseconds.
const ROUND: u64 = 500_000_000;

struct LeaderElection;

bindings::export!(LeaderElection with_types_in bindings);

impl Guest for LeaderElection {
    fn run() -> Result<(), ()> {
        // The first argument is the program's own name.
        let args: Vec<String> = environment::get_arguments().into_iter().skip(1).collect();
        let result = match parse(&args) {
            Some((name, rounds, port)) => contend(name, rounds, &Connection { port, ..Connection::default() }),
            None => Err(Error::Other("usage: leader-election NAME ROUNDS [PORT]".into())),
        };
        result.map_err(|error| print(&stderr::get_stderr(), &format!("{error:?}")))
    }
}

/// Parses name, rounds and port.
fn parse(args: &[String]) -> Option<(&str, u32, Option<u16>)> {
    match args {
        [name, rounds] => Some((name, rounds.parse().ok()?, None)),
        [name, rounds, port] => Some((name, rounds.parse().ok()?, Some(port.parse().ok()?))),
        _ => None,
    }
}

/// Waits to lead, leads, and stops. Any error ends the program: a contender that cannot reach
/// Consul, or whose session has ended, must not lead.
fn contend(name: &str, rounds: u32, connection: &Connection) -> Result<(), Error> {
    let report = |text: &str| print(&stdout::get_stdout(), text);
    let candidate = CreateOptions { name: Some(name.into()), ttl: Some(TTL), ..CreateOptions::default() };
    let mine = sessions::create(&candidate, Some(connection))?;
    let mut query = Query { consistency: Some(Consistency::Consistent), index: None, wait: None };
    let mut followed = String::new();
    loop {
        let listing = sessions::list_sessions(Some(query), Some(connection))?;
        if listing.filtered {
            return Err(Error::Hidden("ACLs may hide an older session".into()));
        }
        match listing.sessions.into_iter().find(|session| session.name == name) {
            Some(oldest) if oldest.id == mine => break,
            Some(oldest) if oldest.id != followed => {
                report(&format!("{mine} follows {}", oldest.id));
                followed = oldest.id;
            }
            _ => {}
        }
        // Consul answers when a session is created or ends, at the latest in time for the next
        // renewal.
        query = Query { index: Some(listing.index), wait: Some(TTL / 4.0), ..query };
        sessions::renew(&mine, Some(connection))?;
    }
    report(&format!("{mine} leads"));
    for _ in 0..rounds {
        sessions::renew(&mine, Some(connection))?;
        // Here comes the work that only the leader may do.
        monotonic_clock::subscribe_duration(ROUND).block();
    }
    // Before the session ends: from then on another contender may lead.
    report(&format!("{mine} stops"));
    sessions::destroy(&mine, Some(connection))
}

fn print(stream: &OutputStream, line: &str) {
    // The election goes on if nobody reads the output.
    let _ = stream.blocking_write_and_flush(format!("{line}\n").as_bytes());
}
