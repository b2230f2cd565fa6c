//! The plugin embedded in wasmtime, as a program has it that uses `consul_session_host`: one host and one runtime for all
//! tests of a program, since compiling the component takes seconds.

use anyhow::{Context, Result, anyhow, bail};
use consul_session_dev_agent::DevAgent;
use consul_session_host::{CallError, Connection, Error, Host, InvalidOption, Options};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;
use test_support::agent::Api;
use test_support::consul::Kind;
use test_support::{block_on, plugin, started};

/// How much longer than its own timeout a call may take on a busy machine.
pub const SLACK: Duration = Duration::from_secs(5);

/// The host of this program, which lets the plugin connect to wherever a test says, and read more than the plugin will.
pub fn host() -> Result<&'static Host> {
    static HOST: LazyLock<Result<Host>> = LazyLock::new(load);
    started(&HOST)
}

/// Such a host.
pub fn load() -> Result<Host> {
    let host = Host::builder().allow("*:*".parse()?).limit("response", "1GiB")?.build(plugin()?);
    host.map_err(|error| anyhow!("{error:?}"))
}

/// Starts a dev agent with the checks that the tests count on.
pub fn start_dev_agent(listen: SocketAddr) -> Result<DevAgent> {
    let agent = block_on(DevAgent::start(listen))?;
    Api::new(agent.addr(), Kind::Plain).register_checks()?;
    Ok(agent)
}

/// The answer of a call, which must come in no more than this and [`SLACK`]; a component that trapped or was stopped is an error.
pub async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, CallError>>) -> Result<Answer<T>> {
    let answer = tokio::time::timeout(limit + SLACK, call).await;
    let answer = answer.with_context(|| format!("no answer within {limit:?} and {SLACK:?} more"))?;
    match answer {
        Ok(value) => Ok(Answer(Ok(value))),
        Err(CallError::Plugin(error)) => Ok(Answer(Err(error))),
        Err(error) => Err(anyhow!("{error:?}")),
    }
}

/// The answer of a call that has the default timeout of 10 seconds.
pub async fn answer<T>(call: impl Future<Output = Result<T, CallError>>) -> Result<Answer<T>> {
    within(Duration::from_secs(10), call).await
}

/// What the plugin answered.
#[derive(Debug)]
pub struct Answer<T>(pub Result<T, Error>);

impl<T: Debug> Answer<T> {
    /// The value; an error of the plugin fails the test.
    pub fn value(self) -> Result<T> {
        self.0.map_err(|error| anyhow!("{}: {}", error.name(), error.message()))
    }

    /// The text of an error of this case; anything else fails the test.
    pub fn error(self, case: &str) -> Result<String> {
        match self.0 {
            Ok(value) => bail!("expected `{case}`, and it succeeded: {value:?}"),
            Err(error) if error.name() == case => Ok(error.message().to_owned()),
            Err(error) => bail!("expected `{case}`, not {error:?}"),
        }
    }

    /// The name and the text of an option that was refused; anything else fails the test.
    pub fn invalid_option(self) -> Result<(String, String)> {
        match self.0 {
            Err(Error::InvalidOption(InvalidOption { option, message })) => Ok((option, message)),
            other => bail!("expected `invalid-option`, not {other:?}"),
        }
    }
}

/// A connection to this address.
pub fn connection(address: SocketAddr) -> Connection {
    Connection { host: Some(address.ip().to_string()), port: Some(address.port()), ..Connection::default() }
}

/// Options for this address.
pub fn options(address: SocketAddr) -> Options {
    Options { host: Some(address.ip().to_string()), port: Some(address.port()), ..Options::default() }
}
