//! The plugin embedded in wasmtime, as a program has it that uses `consul_session_host`: one host and one runtime for all
//! tests of a program, since compiling the component takes seconds.

use crate::consul::Consul;
use anyhow::{Context, Result, anyhow, bail};
use consul_session_dev_agent::DevAgent;
use consul_session_host::{CallError, Case, Connection, Error, Host, Options};
use libtest_mimic::{Arguments, Failed, Trial};
use std::fmt::Debug;
use std::net::{Ipv4Addr, SocketAddr};
use std::process::ExitCode;
use std::sync::LazyLock;
use std::time::Duration;
use tokio::runtime::Runtime;

/// How much longer than its own timeout a call may take on a busy machine.
pub const SLACK: Duration = Duration::from_secs(5);

/// A token with no letter that JSON, HTML or a URL would write otherwise, so that an echo of it is always found.
pub const TOKEN: &str = "5ec2e700-0000-4000-8000-cafecafecafe";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a tokio runtime"));

/// Runs a future on the runtime on which the host's connections live.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// The host of this program, which lets the plugin connect to wherever a test says, and read more than the plugin will.
pub fn host() -> Result<&'static Host> {
    static HOST: LazyLock<Result<Host>> = LazyLock::new(load);
    started(&HOST)
}

/// Such a host.
pub fn load() -> Result<Host> {
    let host = Host::builder().allow("*:*".parse()?).limit("response", "1GiB")?.build(crate::plugin()?);
    host.map_err(|error| anyhow!("{error:?}"))
}

/// What was started once for many tests. The error stays with it; every test that needs it tells it again.
pub fn started<T>(thing: &Result<T>) -> Result<&T> {
    thing.as_ref().map_err(|error| anyhow!("{error:#}"))
}

/// Starts a dev agent with the checks that the tests count on.
pub fn start_dev_agent(listen: SocketAddr) -> Result<DevAgent> {
    let agent = block_on(DevAgent::start(listen))?;
    crate::agent::Api::new(agent.addr(), crate::consul::Kind::Plain).register_checks()?;
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
        self.0.map_err(|error| anyhow!("{}: {error}", error.case.name()))
    }

    /// The text of an error of this case; anything else fails the test.
    pub fn error(self, case: &str) -> Result<String> {
        match self.0 {
            Ok(value) => bail!("expected `{case}`, and it succeeded: {value:?}"),
            Err(error) if error.case.name() == case => Ok(error.into_parts().message),
            Err(error) => bail!("expected `{case}`, not {error:?}"),
        }
    }

    /// The name and the text of an option that was refused; anything else fails the test.
    pub fn invalid_option(self) -> Result<(String, String)> {
        let Err(error) = self.0 else { bail!("expected `invalid-option`, not {:?}", self.0) };
        let Case::InvalidOption { option } = &error.case else { bail!("expected `invalid-option`, not {error:?}") };
        Ok((option.clone(), error.message.clone()))
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

/// A free port of this machine, on which nothing listens.
pub fn unused_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// A test whose failure shows the whole chain of causes.
pub fn trial(name: impl Into<String>, test: impl FnOnce() -> Result<()> + Send + 'static) -> Trial {
    Trial::test(name, move || test().map_err(|error| Failed::from(format!("{error:#}"))))
}

/// A test as a program lists it.
pub type Test = fn() -> Result<()>;

/// Runs a program's tests as its command line says. Those that need a Consul are shown as ignored where there is none.
pub fn run_tests<const N: usize, const M: usize>(
    without_consul: [(&'static str, Test); N],
    with_consul: [(&'static str, Test); M],
) -> ExitCode {
    let no_consul = Consul::is_missing();
    let trials = without_consul
        .into_iter()
        .map(|(name, test)| trial(name, test))
        .chain(with_consul.into_iter().map(|(name, test)| trial(name, test).with_ignored_flag(no_consul)))
        .collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}
