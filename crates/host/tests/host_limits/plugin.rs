//! The plugin on the host of this test program.

use anyhow::{Result, anyhow};
use consul_session_host::{Connection, Host, Options};
use std::net::SocketAddr;
use std::sync::LazyLock;
use test_support::started;

/// Returns the shared host, which allows every authority, and responses larger than the plugin
/// reads.
pub fn host() -> Result<&'static Host> {
    static HOST: LazyLock<Result<Host>> = LazyLock::new(load);
    started(&HOST)
}

/// Loads a new host with the same settings.
pub fn load() -> Result<Host> {
    let host = Host::builder().allow("*:*".parse()?).limit("response", "1GiB")?.build(test_support::plugin()?);
    host.map_err(|error| anyhow!("{error:?}"))
}

/// Returns the connection options for this address.
pub fn connection(address: SocketAddr) -> Connection {
    Connection { host: Some(address.ip().to_string()), port: Some(address.port()), ..Connection::default() }
}

/// Returns the options for this address.
pub fn options(address: SocketAddr) -> Options {
    Options { host: Some(address.ip().to_string()), port: Some(address.port()), ..Options::default() }
}
