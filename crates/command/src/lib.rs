//! The command component `consul-session.wasm`: exports `wasi:cli/run`, with the command line of
//! `consul-session-args`.

// The crate is empty on other targets.
#![cfg(target_arch = "wasm32")]
#![deny(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use consul_session::apply::Plan;
use consul_session::component::WasiHttp;
use consul_session::consul::{Client, Connection, NewSession};
use consul_session::error::{Error, ErrorKind};
use consul_session::options::{Options, Resolved};
use consul_session::{Outcome, Session};
use consul_session_args::{self as cli, Calls, Invocation, Output, Parsed, Program, TerminalStyles};
use serde_json::Value;
use std::pin::pin;
use std::task::{Context, Poll, Waker};
use wasi::cli::{environment, stderr, stdin, stdout};
use wasi::exports::cli::run::Guest;
use wasi::io::streams::{OutputStream, StreamError};

/// Bytes requested in one read.
const READ_SIZE: u64 = 64 * 1024;

/// The implementation of `wasi:cli/run`.
pub struct Command;

impl Guest for Command {
    fn run() -> Result<(), ()> {
        // The first argument is the program's own name.
        let args = environment::get_arguments().into_iter().skip(1).collect();
        let variables = environment::get_environment();
        let variable = |name: &str| variables.iter().find(|(variable, _)| variable == name).map(|(_, value)| value.clone());
        let styles = TerminalStyles::default();
        let output = match cli::parse(Program::Component, args, &variable, &mut read_all, &styles) {
            Ok(Parsed::Print(output)) => output,
            Ok(Parsed::Run(invocation)) => {
                run(&invocation).unwrap_or_else(|error| cli::failure(&error, invocation.format, &styles))
            }
            Err((format, error)) => cli::failure(&error, format, &styles),
        };
        let written = print(&stdout::get_stdout(), &output.stdout).and_then(|()| print(&stderr::get_stderr(), &output.stderr));
        if output.status == Output::DONE { written.map_err(|_| ()) } else { Err(()) }
    }
}

fn run(invocation: &Invocation) -> Result<Output, Error> {
    if let Some(socket) = &invocation.socket {
        // Unix sockets are not supported here; the option's own check makes the error.
        Options::default().set("host", &Value::from(socket.as_str()))?;
    }
    let (mut consul, styles) = (Consul, TerminalStyles::default());
    let future = pin!(cli::run(invocation, &mut consul, &styles));
    match future.poll(&mut Context::from_waker(Waker::noop())) {
        Poll::Ready(result) => result,
        // Each call below waits for its answer itself.
        Poll::Pending => Err(Error::new(ErrorKind::Other, "a call did not end")),
    }
}

/// Calls Consul itself, over `wasi:http`.
struct Consul;

impl Calls for Consul {
    async fn apply(&mut self, options: &Options) -> Result<Outcome, Error> {
        let plan = Plan::new(options.clone())?;
        plan.run(&mut WasiHttp::new(plan.timeout()))
    }

    async fn create(&mut self, options: &Options) -> Result<String, Error> {
        let options = options.clone().resolve();
        let created = with_client(&options, |client| client.create(&NewSession::new(&options)));
        let id = created.map_err(|error| error.into_outcome_unknown("the creation of the session"))?;
        Ok(id.as_str().to_owned())
    }

    async fn renew(&mut self, options: &Options) -> Result<Session, Error> {
        let options = options.clone().resolve();
        let id = options.id.clone().ok_or_else(|| Error::invalid("id", "`renew` needs the id of a session"))?;
        with_client(&options, |client| client.renew(&id))
    }
}

fn with_client<T>(options: &Resolved, call: impl FnOnce(&mut Client) -> Result<T, Error>) -> Result<T, Error> {
    let connection = Connection::new(options);
    let mut transport = WasiHttp::new(connection.timeout());
    call(&mut Client { connection: &connection, transport: &mut transport })
}

/// Reads standard input to its end.
fn read_all() -> Result<String, Error> {
    let invalid = |reason: &str| Error::invalid("options", format!("the options on standard input cannot be read: {reason}"));
    let stream = stdin::get_stdin();
    let mut bytes = Vec::new();
    loop {
        match stream.blocking_read(READ_SIZE) {
            Ok(piece) => bytes.extend(piece),
            Err(StreamError::Closed) => break,
            Err(StreamError::LastOperationFailed(_)) => return Err(Error::new(ErrorKind::Other, "standard input broke off")),
        }
    }
    String::from_utf8(bytes).map_err(|_| invalid("they are not UTF-8"))
}

/// Writes all of the text, in chunks of 4096 bytes, the most that `wasi:io` accepts in one write.
fn print(stream: &OutputStream, text: &str) -> Result<(), StreamError> {
    text.as_bytes().chunks(4096).try_for_each(|piece| stream.blocking_write_and_flush(piece))
}

/// The component's export.
#[allow(unsafe_code, reason = "generated: the canonical ABI")]
mod exports {
    use super::Command;

    wasi::cli::command::export!(Command);
}
