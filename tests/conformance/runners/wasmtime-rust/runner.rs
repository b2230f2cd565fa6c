//! The conformance runner for wasmtime embedded in Rust by the library consul-session-host. It is
//! compiled into the test program and needs no protocol.

use anyhow::Result;
use consul_session_host::{CallError, Host};
use tokio::runtime::Runtime;

/// The plugin, loaded once. Each call runs in its own instance.
pub struct Runner {
    host: Host,
    runtime: Runtime,
}

impl Runner {
    /// Loads the plugin.
    pub fn new(host: Host) -> Result<Runner> {
        Ok(Runner { host, runtime: Runtime::new()? })
    }

    /// Calls `apply-json`.
    pub fn apply_json(&self, options: &str) -> Result<String, CallError> {
        self.runtime.block_on(self.host.apply_json(options))
    }
}
