//! The plugin embedded in wasmtime by `consul_session_host`: one plugin host and one async runtime
//! for all tests of a program, since compiling the component takes seconds.

use anyhow::{Context, Result, anyhow, bail};
use consul_session_dev_agent::DevAgent;
use consul_session_host::{CallError, Connection, Error, Host, InvalidOption, Options};
use std::fmt::Debug;
use std::net::SocketAddr;
use std::sync::LazyLock;
use std::time::Duration;
use test_support::api::Api;
use test_support::consul::Kind;
use test_support::{block_on, plugin, started};

/// The time that a call may take beyond its timeout, on a busy machine.
pub const SLACK: Duration = Duration::from_secs(5);

/// Returns the plugin host of this program. It allows every address, and larger answers than the
/// plugin reads.
pub fn host() -> Result<&'static Host> {
    static HOST: LazyLock<Result<Host>> = LazyLock::new(load);
    started(&HOST)
}

/// Makes a plugin host as [`host`] returns it.
pub fn load() -> Result<Host> {
    let host = Host::builder().allow("*:*".parse()?).limit("response", "1GiB")?.build(plugin()?);
    host.map_err(|error| anyhow!("{error:?}"))
}

/// Starts a dev agent with the checks that the tests rely on.
pub fn start_dev_agent(listen: SocketAddr) -> Result<DevAgent> {
    let agent = block_on(DevAgent::start(listen))?;
    Api::new(agent.addr(), Kind::Plain).register_checks()?;
    Ok(agent)
}

/// Returns the answer of a call that must end within `limit` and [`SLACK`].
///
/// # Errors
///
/// The call took longer, or the component trapped or was stopped.
pub async fn within<T>(limit: Duration, call: impl Future<Output = Result<T, CallError>>) -> Result<Answer<T>> {
    let answer = tokio::time::timeout(limit + SLACK, call).await;
    let answer = answer.with_context(|| format!("no answer within {limit:?} and {SLACK:?} more"))?;
    match answer {
        Ok(value) => Ok(Answer(Ok(value))),
        Err(CallError::Plugin(error)) => Ok(Answer(Err(error))),
        Err(error) => Err(anyhow!("{error:?}")),
    }
}

/// Returns the answer of a call with the default timeout of 10 seconds; see [`within`].
pub async fn answer<T>(call: impl Future<Output = Result<T, CallError>>) -> Result<Answer<T>> {
    within(Duration::from_secs(10), call).await
}

/// The answer of the plugin.
#[derive(Debug)]
pub struct Answer<T>(pub Result<T, Error>);

impl<T: Debug> Answer<T> {
    /// Returns the value.
    ///
    /// # Errors
    ///
    /// The plugin answered with an error.
    pub fn value(self) -> Result<T> {
        self.0.map_err(|error| anyhow!("{}: {}", error.name(), error.message()))
    }

    /// Returns the message of an error of this case.
    ///
    /// # Errors
    ///
    /// Any other answer.
    pub fn error(self, case: &str) -> Result<String> {
        match self.0 {
            Ok(value) => bail!("expected `{case}`, found {value:?}"),
            Err(error) if error.name() == case => Ok(error.message().to_owned()),
            Err(error) => bail!("expected `{case}`, found {error:?}"),
        }
    }

    /// Returns the option and the message of an invalid option.
    ///
    /// # Errors
    ///
    /// Any other answer.
    pub fn invalid_option(self) -> Result<(String, String)> {
        match self.0 {
            Err(Error::InvalidOption(InvalidOption { option, message })) => Ok((option, message)),
            other => bail!("expected `invalid-option`, found {other:?}"),
        }
    }
}

/// Returns a connection to this address.
pub fn connection(address: SocketAddr) -> Connection {
    Connection { host: Some(address.ip().to_string()), port: Some(address.port()), ..Connection::default() }
}

/// Returns options for this address.
pub fn options(address: SocketAddr) -> Options {
    Options { host: Some(address.ip().to_string()), port: Some(address.port()), ..Options::default() }
}
