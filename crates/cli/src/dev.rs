//! `dev`: the dev agent alone, for programs that want a Consul to try things out with.

use crate::terminal;
use consul_session::error::{Error, ErrorKind};
use consul_session_args::{Format, Invocation, Output};
use consul_session_dev_agent::DevAgent;
use std::io::Write;
use std::net::{Ipv4Addr, SocketAddr};
use tokio::signal::unix::{SignalKind, signal};

/// Starts the agent on the port of the options, and waits for SIGINT or SIGTERM, which is success.
pub async fn run(invocation: &Invocation) -> Result<Output, Error> {
    invocation.accept(&[Format::Table], "dev")?;
    let failed = |what: String| Error::new(ErrorKind::Other, what);
    let (mut interrupt, mut terminate) = signal(SignalKind::interrupt())
        .and_then(|interrupt| Ok((interrupt, signal(SignalKind::terminate())?)))
        .map_err(|error| failed(format!("signals cannot be listened for: {error}")))?;
    let address = SocketAddr::from((Ipv4Addr::LOCALHOST, invocation.options.clone().resolve().port));
    let agent = DevAgent::start(address)
        .await
        .map_err(|error| failed(format!("the dev agent cannot listen on {address}: {error}; give another --port")))?;
    let text =
        format!("dev agent at http://{}, until interrupted; it keeps nothing, and has sessions and keys only", agent.addr());
    // A closed standard output does not end the agent.
    let _ = writeln!(std::io::stdout(), "{}", terminal::style().stdout.fold(&text));
    tokio::select! {
        _ = interrupt.recv() => {}
        _ = terminate.recv() => {}
    }
    Ok(Output::text(String::new()))
}
