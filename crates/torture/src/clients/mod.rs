//! Clients: by the library in this process, and by the program. Every call is recorded.

pub mod child;
pub mod holder;
pub mod library;
pub mod locker;
pub mod program;
pub mod watcher;

use crate::history::{Answer, Event};
use crate::recorder::{Recorder, Subject, lock};
use crate::register::Register;
use anyhow::anyhow;
use consul_session_host::{Connection, Host};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::runtime::Handle;

/// The longest that a call may take beyond its timeout on a busy machine. A call that takes longer has
/// broken the promise that it ends in time.
const SLACK: Duration = Duration::from_secs(20);
/// What all clients of a run share.
pub struct Shared {
    /// The history.
    pub recorder: Arc<Recorder>,
    /// What the locks protect.
    pub register: Arc<Register>,
    /// The register's socket.
    pub socket: PathBuf,
    /// The program `consul-session`.
    pub program: PathBuf,
    /// The program of this package, which has the command of the program's locks.
    pub torture: PathBuf,
    /// The folder of the run. The messages of programs go there, one file a client.
    pub folder: PathBuf,
    /// libfaketime.
    pub faketime: PathBuf,
    /// What no call may do, such as to trap, or to end later than its timeout.
    pub breaches: Mutex<Vec<String>>,
}

impl Shared {
    /// Notes a breach, and prints it at once: the run can fail for another reason before its end.
    pub fn breach(&self, text: String) {
        eprintln!("{text}");
        lock(&self.breaches).push(text);
    }
}

/// A network host with clients, which all ask one server.
pub struct Place {
    /// The name of the host.
    pub host: String,
    /// The number of the server.
    pub server: usize,
    /// The name of the server's node.
    pub node: String,
    /// The address of the server's HTTP API.
    pub address: SocketAddr,
    /// The runtime of the host, whose threads are in its network namespace.
    pub runtime: Handle,
    /// The plugin, for calls on this runtime.
    pub library: Host,
    /// What all clients share.
    pub shared: Arc<Shared>,
}

/// How a client calls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Way {
    /// By the library.
    Library,
    /// By the program, one process a call.
    Program,
}

/// A client.
#[derive(Clone)]
pub struct Client {
    /// Its name.
    pub name: String,
    /// Where it is.
    pub place: Arc<Place>,
    /// How it calls.
    pub way: Way,
    /// The timeout of its calls; none for the default.
    pub timeout: Option<f64>,
    /// Whether it leaves out the node where that is its server's.
    pub omits_node: bool,
}

impl Client {
    /// Calls on the runtime of the client's host, and records the call.
    pub async fn call(&self, event: Event) -> Answer {
        let client = self.clone();
        let call = self.place.runtime.spawn(async move { client.call_here(event).await });
        call.await.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
    }

    async fn call_here(&self, event: Event) -> Answer {
        let shared = &self.place.shared;
        let answer = async {
            let answer = async {
                match self.way {
                    Way::Library => library::answer(self, &event).await,
                    Way::Program => program::answer(self, &event).await,
                }
            };
            let limit = self.limit() + SLACK;
            let answer = tokio::time::timeout(limit, answer).await;
            answer.unwrap_or_else(|_| Err(anyhow!("no answer in {limit:?}"))).unwrap_or_else(|error| {
                let message = format!("{error:#}");
                shared.breach(format!("{}: {event:?}: {message}", self.name));
                // Nobody knows what it did.
                Answer::Error { case: OUTCOME_UNKNOWN.into(), message, session: None }
            })
        };
        shared.recorder.call(&self.subject(), event.clone(), answer).await
    }

    /// Returns who the records of this client are about.
    pub fn subject(&self) -> Subject {
        let Place { host, server, .. } = &*self.place;
        Subject { client: self.name.clone(), host: host.clone(), server: Some(*server) }
    }

    /// Returns the node to name in a call that means this one.
    fn names_node(&self, node: &str) -> Option<String> {
        (!self.omits_node || node != self.place.node).then(|| node.to_owned())
    }

    /// Returns the connection of its calls.
    fn connection(&self) -> Connection {
        let address = self.place.address;
        Connection {
            host: Some(address.ip().to_string()),
            port: Some(address.port()),
            timeout: self.timeout,
            ..Connection::default()
        }
    }

    /// Returns the timeout of its calls.
    fn limit(&self) -> Duration {
        Duration::from_secs_f64(self.timeout.unwrap_or(10.0))
    }
}

/// Returns whether nobody can know whether a change of this answer has happened.
pub fn is_unknown(answer: &Answer) -> bool {
    matches!(answer, Answer::Error { case, .. } if case == OUTCOME_UNKNOWN)
}

/// The case of a change whose answer was lost.
pub const OUTCOME_UNKNOWN: &str = "outcome-unknown";
