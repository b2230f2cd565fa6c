//! The program `consul-session`: a command line over `consul-session-host`, and the Ansible module.

mod ansible;
mod batch;
mod convert;
mod demo;
mod dev;
mod host;
mod lock;
mod manual;
mod permissions;
mod retry;
mod terminal;
mod util;
mod watch;

use consul_session::error::{Error, ErrorKind};
use consul_session_args::{self as cli, Command, Format, Invocation, Output, Parsed, Program, Source};
use consul_session_dev_agent::DevAgent;
use std::io::{self, Write};
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use tokio::runtime::Runtime;

fn main() -> ExitCode {
    let output = complete(output()).unwrap_or_else(|error| {
        let error = Error::new(ErrorKind::Other, format!("the program cannot be started: {error}"));
        cli::failure(&error, Format::Table, &terminal::style())
    });
    print(output)
}

/// Runs a future to its end, and leaves behind what still blocks a thread, such as the look-up of
/// a name. Dropping the runtime would wait for it, however long the resolver takes.
fn complete<T>(future: impl Future<Output = T>) -> io::Result<T> {
    let runtime = Runtime::new()?;
    let result = runtime.block_on(future);
    runtime.shutdown_background();
    Ok(result)
}

/// Runs the command line or the Ansible task, and returns what is to be printed.
async fn output() -> Output {
    let args: Vec<String> = match std::env::args_os().skip(1).map(std::ffi::OsString::into_string).collect() {
        Ok(args) => args,
        Err(_) => {
            let error = Error::invalid("arguments", "an argument is not UTF-8");
            return cli::failure(&error, Format::Table, &terminal::style());
        }
    };
    if let Some(file) = ansible::task_file(&args) {
        return ansible::run(file).await;
    }
    match cli::parse(Program::Host, args, &permissions::visible, &mut util::read_stdin, &terminal::style()) {
        Ok(Parsed::Print(output)) => output,
        Ok(Parsed::Run(invocation)) => {
            let format = invocation.format;
            run(*invocation).await.unwrap_or_else(|error| cli::failure(&error, format, &terminal::style()))
        }
        Err((format, error)) => cli::failure(&error, format, &terminal::style()),
    }
}

/// Prints the output, and returns the exit status. A closed standard output, as by `head`, is a
/// failure and not a panic.
fn print(output: Output) -> ExitCode {
    let mut stdout = io::stdout();
    let written = stdout
        .write_all(output.stdout.as_bytes())
        .and_then(|()| stdout.flush())
        .and_then(|()| io::stderr().write_all(output.stderr.as_bytes()));
    if written.is_ok() { output.status.into() } else { ExitCode::FAILURE }
}

/// Runs a command or the words of the options, with a dev agent if the flag asks for one.
async fn run(mut invocation: Invocation) -> Result<Output, Error> {
    let command = invocation.command.clone();
    match &command {
        Some(Command::Completions(args)) => return manual::completions(args, &invocation),
        Some(Command::Man(args)) => return manual::man(args, &invocation),
        Some(Command::Dev) => return dev::run(&invocation).await,
        _ => {}
    }
    let agent = match invocation.flags.dev {
        true => Some(start_agent(&mut invocation).await?),
        false => None,
    };
    let locks = matches!(command, Some(Command::Lock(_)));
    let host = host::build(&mut invocation, locks)?;
    match (&command, &agent) {
        (Some(Command::Demo), Some(agent)) => {
            invocation.accept(&[Format::Table, Format::Json], "demo")?;
            demo::run(&host, agent, &invocation).await.map(Output::text)
        }
        (Some(Command::Demo), None) => {
            Err(Error::invalid("dev", "`demo` needs --dev: it creates sessions and a check, which no other agent should keep"))
        }
        (Some(Command::Watch(_)), _) => watch::run(host, &invocation).await,
        (Some(Command::Apply(args)), _) => batch::apply(&host, &invocation, args).await,
        (Some(Command::Destroy(args)), _) if let Some(prefix) = &args.name_prefix => {
            batch::destroy(&host, &invocation, args, prefix).await
        }
        (Some(Command::Lock(args)), _) => lock::run(host, &invocation, args).await,
        (Some(Command::Hold(args)), _) => lock::hold(host, &invocation, args).await,
        _ => cli::run(&invocation, &mut host::Component(&host), &terminal::style()).await,
    }
}

/// Starts a dev agent on a free port, and sets `host` and `port` to it.
async fn start_agent(invocation: &mut Invocation) -> Result<DevAgent, Error> {
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
    Ok(agent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::{Duration, Instant};

    #[test]
    fn blocked_thread_does_not_delay_the_end() {
        let start = Instant::now();
        let answer = complete(async {
            // As a look-up whose name server does not answer.
            let (started, running) = tokio::sync::oneshot::channel();
            let _blocked = tokio::task::spawn_blocking(move || {
                let _ = started.send(());
                std::thread::sleep(Duration::from_secs(30));
            });
            running.await
        });
        assert!(answer.is_ok_and(|answer| answer.is_ok()));
        assert!(start.elapsed() < Duration::from_secs(10), "{:?}", start.elapsed());
    }
}
