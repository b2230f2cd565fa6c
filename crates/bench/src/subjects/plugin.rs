//! The plugin in `consul-session-host`.

use super::{Caller, Client};
use anyhow::{Result, anyhow, ensure};
use consul_session_host::{CallError, Connection, CreateOptions, Host, Instance, Options};
use std::net::SocketAddr;

/// The plugin with a fresh instance for each call.
pub struct Fresh(pub Host);

/// The plugin with one instance for all calls of a caller.
pub struct Kept(pub Host);

/// Returns a host that may connect to this machine, with defaults for everything else.
pub fn host() -> Result<Host> {
    let builder = Host::builder().allow("127.0.0.1:*".parse()?);
    builder.build(test_support::plugin()?).map_err(|error| anyhow!("{error:?}"))
}

/// Returns the plugin's argument for an agent at this address.
pub fn connection(address: SocketAddr) -> Connection {
    Connection { host: Some(address.ip().to_string()), port: Some(address.port()), ..Connection::default() }
}

/// A caller by a host or an instance, which have the same functions.
pub struct PluginCaller<T> {
    callee: T,
    address: SocketAddr,
    connection: Connection,
}

impl<T> PluginCaller<T> {
    fn new(callee: T, address: SocketAddr) -> PluginCaller<T> {
        PluginCaller { callee, address, connection: connection(address) }
    }
}

macro_rules! caller {
    ($callee:ty) => {
        impl Caller for PluginCaller<$callee> {
            async fn info(&mut self, id: &str) -> Result<()> {
                let found = self.callee.info(id, None, Some(&self.connection)).await?;
                ensure!(found.session.is_some(), "no session");
                Ok(())
            }

            async fn create(&mut self, name: &str) -> Result<String> {
                let options = CreateOptions { name: Some(name.into()), ..CreateOptions::default() };
                Ok(self.callee.create(&options, Some(&self.connection)).await?)
            }

            async fn destroy(&mut self, id: &str) -> Result<()> {
                Ok(self.callee.destroy(id, Some(&self.connection)).await?)
            }

            async fn present(&mut self, name: &str) -> Result<bool> {
                let (host, port) = (Some(self.address.ip().to_string()), Some(self.address.port()));
                let options = Options { name: Some(name.into()), host, port, ..Options::default() };
                Ok(self.callee.apply(&options).await?.changed)
            }

            async fn list(&mut self) -> Result<usize> {
                Ok(self.callee.list_sessions(None, Some(&self.connection)).await?.sessions.len())
            }
        }
    };
}

caller!(Host);
caller!(Instance);

impl Client for Fresh {
    const NAME: &str = "plugin, fresh instance";
    type Caller = PluginCaller<Host>;

    async fn caller(&self, address: SocketAddr) -> Result<PluginCaller<Host>> {
        Ok(PluginCaller::new(self.0.clone(), address))
    }
}

impl Client for Kept {
    const NAME: &str = "plugin, kept instance";
    type Caller = PluginCaller<Instance>;

    async fn caller(&self, address: SocketAddr) -> Result<PluginCaller<Instance>> {
        let instance: Result<Instance, CallError> = self.0.instance().await;
        Ok(PluginCaller::new(instance?, address))
    }
}
