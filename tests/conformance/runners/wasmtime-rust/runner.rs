//! The conformance runner for wasmtime embedded in Rust, by the library consul-session-host. In the test program itself, so that it
//! has no protocol.

use anyhow::Result;
use consul_session_host::{CallError, Host};
use tokio::runtime::Runtime;

/// The plugin, loaded once; each call runs in an instance of its own.
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
