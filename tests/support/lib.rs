//! What the tests stand on: a real Consul agent, the dev agent behind the same face, a server that follows a script, the plugin
//! embedded in wasmtime, the conformance cases, and the runtimes that they run in.

pub mod agent;
pub mod case;
pub mod certificates;
pub mod cluster;
pub mod consul;
pub mod embedded;
pub mod program;
pub mod report;
pub mod runtime;
pub mod scripted;
pub mod terminal;
pub mod tools;

use anyhow::{Context, Result};
use std::path::PathBuf;

/// The plugin that `cargo xtask build` makes, or the one that `CONSUL_SESSION_PLUGIN` names.
///
/// A missing file is an error: it is always buildable, so its absence excuses no test.
pub fn plugin() -> Result<PathBuf> {
    let path = match std::env::var_os("CONSUL_SESSION_PLUGIN") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../dist/consul-session-plugin.wasm")),
    };
    path.canonicalize().with_context(|| format!("no plugin at {}: run `cargo xtask build`", path.display()))
}

/// The plugin as plain `cargo build --release --target wasm32-wasip2` makes it, or the one that `CONSUL_SESSION_WASIP2` names.
pub fn wasip2() -> Result<PathBuf> {
    let path = match std::env::var_os("CONSUL_SESSION_WASIP2") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../target/wasm32-wasip2/release/consul_session.wasm")),
    };
    let advice = "run `cargo build --release --target wasm32-wasip2`";
    path.canonicalize().with_context(|| format!("no component at {}: {advice}", path.display()))
}

/// The command component, which lies beside the plugin.
pub fn component() -> Result<PathBuf> {
    let path = plugin()?.with_file_name("consul-session.wasm");
    path.canonicalize().with_context(|| format!("no command at {}: run `cargo xtask build`", path.display()))
}

/// Whether this is a CI run, where nothing is skipped.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
