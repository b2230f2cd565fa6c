//! The plugin on a host of the test's own.

use anyhow::{Result, anyhow};
use consul_session_host::{Connection, Host, Options};
use std::net::SocketAddr;
use std::sync::LazyLock;
use test_support::started;

/// The host of this program, which lets the plugin connect to wherever a test says, and read more than the plugin will.
pub fn host() -> Result<&'static Host> {
    static HOST: LazyLock<Result<Host>> = LazyLock::new(load);
    started(&HOST)
}

/// Such a host.
pub fn load() -> Result<Host> {
    let host = Host::builder().allow("*:*".parse()?).limit("response", "1GiB")?.build(test_support::plugin()?);
    host.map_err(|error| anyhow!("{error:?}"))
}

/// A connection to this address.
pub fn connection(address: SocketAddr) -> Connection {
    Connection { host: Some(address.ip().to_string()), port: Some(address.port()), ..Connection::default() }
}

/// Options for this address.
pub fn options(address: SocketAddr) -> Options {
    Options { host: Some(address.ip().to_string()), port: Some(address.port()), ..Options::default() }
}
