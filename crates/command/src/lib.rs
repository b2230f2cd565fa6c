//! The command component `consul-session.wasm`: exports `wasi:cli/run`, with the command line of
//! `consul-session-args`.

// The crate is empty on other targets.
#![cfg(target_arch = "wasm32")]
#![deny(unsafe_code)]
#![deny(clippy::unwrap_used, clippy::expect_used, clippy::panic, clippy::indexing_slicing)]

use consul_session::apply::Plan;
use consul_session::component::WasiHttp;
use consul_session::error::{Error, ErrorKind};
use consul_session::options::Options;
use consul_session_args::{self as cli, Action, Invocation, Output, Program, TerminalStyle, TerminalStyles};
use serde_json::Value;
use wasi::cli::{environment, stderr, stdin, stdout};
use wasi::exports::cli::run::Guest;
use wasi::io::streams::{OutputStream, StreamError};

const PROGRAM: Program = Program { name: "consul-session", flags: &[], settings: &[], environment: &[], commands: &[] };

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
        let output = match cli::parse(&PROGRAM, args, &variable, &mut read_all) {
            Ok(invocation) => {
                run(&invocation).unwrap_or_else(|error| cli::failure(&error, invocation.format, &TerminalStyles::default()))
            }
            Err((format, error)) => cli::failure(&error, format, &TerminalStyles::default()),
        };
        let written = print(&stdout::get_stdout(), &output.stdout).and_then(|()| print(&stderr::get_stderr(), &output.stderr));
        if output.success { written.map_err(|_| ()) } else { Err(()) }
    }
}

fn run(invocation: &Invocation) -> Result<Output, Error> {
    match invocation.action {
        Action::Apply => {
            if let Some(socket) = &invocation.socket {
                // Unix sockets are not supported here; the option's own check makes the error.
                Options::default().set("host", &Value::from(socket.as_str()))?;
            }
            let plan = Plan::new(invocation.options.clone())?;
            let outcome = plan.run(&mut WasiHttp::new(plan.timeout()))?;
            Ok(cli::success(&outcome, invocation, &TerminalStyles::default()))
        }
        // This program has no commands.
        Action::Command(_) | Action::Help(_) | Action::HelpOf(_) | Action::Version => {
            Ok(cli::about(&PROGRAM, &invocation.action, TerminalStyle::default()))
        }
    }
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
