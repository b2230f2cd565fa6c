//! The plugin in `consul-session-host`.

use super::{Caller, Client};
use anyhow::{Result, anyhow, ensure};
use consul_session_host::{CallError, Connection, CreateOptions, Host, Instance, Options, Pool};
use std::net::SocketAddr;
use std::path::Path;

/// The plugin under test, in names of subjects. Another plugin has its file's name there.
pub const PLUGIN: &str = "plugin";
/// [`Kept`] in names of subjects.
pub const KEPT: &str = "kept instance";
/// [`Pooled`] in names of subjects.
pub const POOLED: &str = "pooled instances";
/// [`Fresh`] in names of subjects.
pub const FRESH: &str = "fresh instance";

/// Returns the name of the subject that calls this plugin with these instances.
pub fn named(plugin: &str, instances: &str) -> String {
    format!("{plugin}, {instances}")
}

/// A plugin, by its name, with one instance for all calls of a caller.
pub struct Kept(pub String, pub Host);

/// A plugin, by its name, with the instances of one pool for all callers.
pub struct Pooled(pub String, pub Pool);

/// A plugin, by its name, with a fresh instance for each call.
pub struct Fresh(pub String, pub Host);

/// Returns a host of the plugin under test, as [`load`] does.
pub fn host() -> Result<Host> {
    load(&test_support::plugin()?)
}

/// Returns a host of this plugin that may connect to this machine, with defaults for everything
/// else.
pub fn load(plugin: &Path) -> Result<Host> {
    let builder = Host::builder().allow("127.0.0.1:*".parse()?);
    builder.build(plugin).map_err(|error| anyhow!("{error:?}"))
}

/// Returns the plugin's argument for an agent at this address.
pub fn connection(address: SocketAddr) -> Connection {
    Connection { host: Some(address.ip().to_string()), port: Some(address.port()), ..Connection::default() }
}

/// A caller by a host, a pool or an instance, which have the same functions.
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
caller!(Pool);

impl Client for Kept {
    type Caller = PluginCaller<Instance>;

    fn name(&self) -> String {
        named(&self.0, KEPT)
    }

    async fn caller(&self, address: SocketAddr) -> Result<PluginCaller<Instance>> {
        let instance: Result<Instance, CallError> = self.1.instance().await;
        Ok(PluginCaller::new(instance?, address))
    }
}

impl Client for Pooled {
    type Caller = PluginCaller<Pool>;

    fn name(&self) -> String {
        named(&self.0, POOLED)
    }

    async fn caller(&self, address: SocketAddr) -> Result<PluginCaller<Pool>> {
        Ok(PluginCaller::new(self.1.clone(), address))
    }
}

impl Client for Fresh {
    type Caller = PluginCaller<Host>;

    fn name(&self) -> String {
        named(&self.0, FRESH)
    }

    async fn caller(&self, address: SocketAddr) -> Result<PluginCaller<Host>> {
        Ok(PluginCaller::new(self.1.clone(), address))
    }
}
