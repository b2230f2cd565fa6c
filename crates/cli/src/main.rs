//! `consul-session`: the command line over the library.

mod ansible;
mod batch;
mod convert;
mod demo;
mod lock;
mod manual;
mod permissions;
mod terminal;
mod watch;

use consul_session::error::{Error, ErrorKind};
use consul_session::{Options, Outcome};
use consul_session_args::{self as cli, Action, Command, DIM, Format, Invocation, Output, Program, Source};
use consul_session_dev_agent::DevAgent;
use consul_session_host::{Host, TlsSetupError};
use serde_json::Value;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;

const DEV: &str = Program::OWN_AGENT;
const DEMO: &str = "demo";
const VERBOSE: &str = "verbose";

const PROGRAM: Program = Program {
    name: "consul-session",
    flags: &[
        (DEV, "Start an embedded dev agent on a free port and use it: nothing needs to be installed, and nothing is kept"),
        (VERBOSE, "Tell on standard error of each request: method, URL, status, size, time; never of a header"),
    ],
    settings: permissions::SETTINGS,
    environment: permissions::ENVIRONMENT,
    commands: &[
        Command {
            name: DEMO,
            args: &[],
            rest: None,
            flags: &[],
            settings: &[],
            help: "Walk through the five examples of consul_session's page; needs --dev",
        },
        watch::COMMAND,
        batch::APPLY,
        batch::DESTROY,
        lock::COMMAND,
        manual::COMPLETIONS,
        manual::MAN,
    ],
};

/// The component, where `cargo xtask build` puts it.
const PLUGIN: &str = "dist/consul-session-plugin.wasm";

/// The same as a part of this program, so that one file is all there is to install.
#[cfg(feature = "embedded")]
const EMBEDDED: Option<&[u8]> = Some(include_bytes!("../../../dist/consul-session-plugin.wasm"));
#[cfg(not(feature = "embedded"))]
const EMBEDDED: Option<&[u8]> = None;

#[tokio::main]
async fn main() -> ExitCode {
    let args: Vec<String> = match std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect() {
        Ok(args) => args,
        Err(_) => {
            return print(cli::failure(
                &Error::new(ErrorKind::InvalidOption { option: "arguments".into() }, "an argument is not UTF-8"),
                Format::Table,
                &terminal::style(),
            ));
        }
    };
    if let Some(file) = ansible::task_file(&args) {
        return print(ansible::run(file).await);
    }
    let output = match cli::parse(&PROGRAM, args, &permissions::visible, &mut read_all) {
        Ok(invocation) => {
            let format = invocation.format;
            run(invocation).await.unwrap_or_else(|error| cli::failure(&error, format, &terminal::style()))
        }
        Err((format, error)) => cli::failure(&error, format, &terminal::style()),
    };
    print(output)
}

fn print(output: Output) -> ExitCode {
    // A reader that went away, such as `head`, is no reason to panic.
    let written = std::io::stdout()
        .write_all(output.stdout.as_bytes())
        .and_then(|()| std::io::stderr().write_all(output.stderr.as_bytes()));
    if output.success && written.is_ok() { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

async fn run(mut invocation: Invocation) -> Result<Output, Error> {
    match invocation.action {
        Action::Help(_) | Action::HelpOf(_) | Action::Version => {
            return Ok(cli::about(&PROGRAM, &invocation.action, terminal::style().stdout));
        }
        Action::Command(name) if name == manual::COMPLETIONS.name => return manual::completions(&invocation),
        Action::Command(name) if name == manual::MAN.name => return manual::man(&invocation),
        Action::Command(_) | Action::Apply => {}
    }
    let agent = if invocation.flags.contains(&DEV) {
        if let Some(option) = ["host", "port", "scheme"].into_iter().find(|option| invocation.is_given(option)) {
            return Err(Error::invalid(
                option,
                format!("option `{option}` cannot be combined with --dev, which starts an agent of its own"),
            ));
        }
        let agent = DevAgent::start(SocketAddr::from((Ipv4Addr::LOCALHOST, 0)))
            .await
            .map_err(|error| Error::new(ErrorKind::Other, format!("the dev agent cannot be started: {error}")))?;
        invocation.give("host", &agent.addr().ip().to_string().into(), Source::Arguments)?;
        invocation.give("port", &agent.addr().port().into(), Source::Arguments)?;
        Some(agent)
    } else {
        None
    };
    let host = host(&mut invocation)?;
    match (invocation.action.clone(), &agent) {
        (Action::Command(DEMO), Some(agent)) => {
            invocation.accept(&[Format::Table, Format::Json], DEMO)?;
            let stdout = demo::run(&host, agent, &invocation).await?;
            Ok(Output { stdout, stderr: String::new(), success: true })
        }
        (Action::Command(name), _) if name == watch::COMMAND.name => watch::run(host, &invocation).await,
        (Action::Command(name), _) if name == batch::APPLY.name => batch::apply(&host, &invocation).await,
        (Action::Command(name), _) if name == batch::DESTROY.name => batch::destroy(&host, &invocation).await,
        (Action::Command(name), _) if name == lock::COMMAND.name => lock::run(host, &invocation).await,
        (Action::Command(command), None) => Err(Error::invalid(
            "arguments",
            format!("`{command}` needs --dev: it makes sessions and a check to show, and no other agent should keep them"),
        )),
        _ => Ok(cli::success(&apply(&host, &invocation.options).await?, &invocation, &terminal::style())),
    }
}

/// The host with what was granted and the component: the one that `CONSUL_SESSION_PLUGIN` names, else the one in this program, else
/// the one in `dist/`, else one beside this program.
fn host(invocation: &mut Invocation) -> Result<Host, Error> {
    let mut builder = permissions::builder(invocation)?;
    if invocation.flags.contains(&VERBOSE) {
        let terminal = terminal::style().stderr;
        builder = builder.on_request(move |exchange| {
            let line = terminal.paint(DIM, &terminal.fold(&cli::printable(&exchange.to_string())));
            // A standard error that nobody reads is no reason to stop.
            let _ = writeln!(std::io::stderr(), "{line}");
        });
    }
    if invocation.action == Action::Command(lock::COMMAND.name) {
        builder = builder.locks(true);
    }
    let host = match (std::env::var_os("CONSUL_SESSION_PLUGIN"), EMBEDDED) {
        (Some(path), _) => builder.build(path),
        (None, Some(wasm)) => builder.build_from_bytes(wasm),
        (None, None) => builder.build(plugin()?),
    };
    host.map_err(|error| match error.downcast_ref::<TlsSetupError>() {
        Some(error) => {
            let text = error.to_string();
            Error::invalid(text.split(' ').next().unwrap_or_default(), &text)
        }
        None => Error::new(ErrorKind::Other, format!("{error:#}")),
    })
}

/// Has the component apply the options.
async fn apply(host: &Host, options: &Options) -> Result<Outcome, Error> {
    host.apply(&convert::options(options)).await.map(convert::outcome).map_err(convert::error)
}

/// Adds the members of an object to another.
fn merge(object: &mut Value, more: Value) {
    if let (Value::Object(object), Value::Object(more)) = (object, more) {
        object.extend(more);
    }
}

/// All of standard input.
fn read_all() -> Result<String, Error> {
    std::io::read_to_string(std::io::stdin())
        .map_err(|error| Error::invalid("options", format!("the options on standard input cannot be read: {error}")))
}

/// The component's file, for a program that has none in it.
fn plugin() -> Result<PathBuf, Error> {
    let beside = std::env::current_exe().ok().and_then(|program| Some(program.parent()?.join(Path::new(PLUGIN).file_name()?)));
    [Some(PathBuf::from(PLUGIN)), beside].into_iter().flatten().find(|path| path.is_file()).ok_or_else(|| {
        Error::new(ErrorKind::Other, format!("the component is neither at {PLUGIN} nor beside this program: run `cargo xtask build`, or name it in CONSUL_SESSION_PLUGIN"))
    })
}
