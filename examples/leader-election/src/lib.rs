//! A leader election among programs that know Consul's sessions and no HTTP. `cargo xtask compose` plugs `consul-session-plugin`
//! into it and makes `dist/leader-election.wasm`, one file that any runtime for `wasi:cli` with outgoing HTTP runs:
//!
//! ```console
//! $ wasmtime run -S http dist/leader-election.wasm NAME ROUNDS [PORT]
//! ```
//!
//! Every contender creates a session called NAME, and the one with the oldest session leads: for ROUNDS rounds of half a second,
//! then it stops, and the next oldest leads. A contender that dies loses its session one to two TTLs later.
//!
//! What that guarantees: of the sessions called NAME in the datacenter one is the oldest, for Raft has put them in an order, and
//! a new session never comes before an old one. What it does not: that a leader knows at once that its session has ended. One
//! that is cut off or halted for longer than the TTL may go on while the next one leads already. It is no lock with a fence:
//! where that matters, hand `create-index` of the session, which grows from leader to leader, to whatever is being protected,
//! and let that refuse lower numbers. And anyone who may create a session may call it NAME, and so take part.
//!
//! Not by `desired-state.apply` with `state: present`, though it too lets one caller win: `changed` does not say who. If the
//! answer to a creation is lost, `apply` looks for the session by its name, and may find another caller's.

// An empty crate elsewhere, so that the whole workspace still builds natively.
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

/// The shortest that Consul allows, in seconds.
const TTL: f64 = 10.0;
/// In nanoseconds.
const ROUND: u64 = 500_000_000;

struct LeaderElection;

bindings::export!(LeaderElection with_types_in bindings);

impl Guest for LeaderElection {
    fn run() -> Result<(), ()> {
        // The first word is the program's own name.
        let words: Vec<String> = environment::get_arguments().into_iter().skip(1).collect();
        let ended = match read(&words) {
            Some((name, rounds, port)) => contend(name, rounds, &Connection { port, ..Connection::default() }),
            None => Err(Error::Other("usage: leader-election NAME ROUNDS [PORT]".into())),
        };
        ended.map_err(|error| print(&stderr::get_stderr(), &format!("{error:?}")))
    }
}

fn read(words: &[String]) -> Option<(&str, u32, Option<u16>)> {
    match words {
        [name, rounds] => Some((name, rounds.parse().ok()?, None)),
        [name, rounds, port] => Some((name, rounds.parse().ok()?, Some(port.parse().ok()?))),
        _ => None,
    }
}

/// Any error ends it: who cannot reach Consul, or whose session has ended, must not go on leading.
fn contend(name: &str, rounds: u32, connection: &Connection) -> Result<(), Error> {
    let say = |text: &str| print(&stdout::get_stdout(), text);
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
                say(&format!("{mine} follows {}", oldest.id));
                followed = oldest.id;
            }
            _ => {}
        }
        // The next answer comes as soon as a session comes or goes, and in time for the next renewal.
        query = Query { index: Some(listing.index), wait: Some(TTL / 4.0), ..query };
        sessions::renew(&mine, Some(connection))?;
    }
    say(&format!("{mine} leads"));
    for _ in 0..rounds {
        sessions::renew(&mine, Some(connection))?;
        // What only the leader may do stands here.
        monotonic_clock::subscribe_duration(ROUND).block();
    }
    // Before the session ends, since from then on another may lead.
    say(&format!("{mine} stops"));
    sessions::destroy(&mine, Some(connection))
}

fn print(stream: &OutputStream, line: &str) {
    // Whoever does not listen any more still counts on the election.
    let _ = stream.blocking_write_and_flush(format!("{line}\n").as_bytes());
}
