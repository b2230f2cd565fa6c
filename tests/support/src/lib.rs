//! What the tests of every crate stand on: real Consul agents, servers that follow a script, the conformance cases, and the
//! programs as people type them. It knows no other crate of this workspace, so that each may use it.

pub mod agent;
pub mod case;
pub mod certificates;
pub mod cluster;
pub mod consul;
pub mod program;
pub mod scripted;
pub mod terminal;
pub mod tools;
pub mod trial;

use anyhow::{Context, Result, anyhow};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;
use tokio::runtime::Runtime;

/// A token with no letter that JSON, HTML or a URL would write otherwise, so that an echo of it is always found.
pub const TOKEN: &str = "5ec2e700-0000-4000-8000-cafecafecafe";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a tokio runtime"));

/// Runs a future on the one runtime of this program, on which a host's connections live.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// What was started once for many tests. The error stays with it; every test that needs it tells it again.
pub fn started<T>(thing: &Result<T>) -> Result<&T> {
    thing.as_ref().map_err(|error| anyhow!("{error:#}"))
}

/// A free port of this machine, on which nothing listens.
pub fn unused_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// The plugin that `cargo xtask build` makes, or the one that `CONSUL_SESSION_PLUGIN` names.
///
/// A missing file is an error: it is always buildable, so its absence excuses no test.
pub fn plugin() -> Result<PathBuf> {
    let path = match std::env::var_os("CONSUL_SESSION_PLUGIN") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/consul-session-plugin.wasm")),
    };
    path.canonicalize().with_context(|| format!("no plugin at {}: run `cargo xtask build`", path.display()))
}

/// The plugin as plain `cargo build --release --target wasm32-wasip2` makes it, or the one that `CONSUL_SESSION_WASIP2` names.
pub fn wasip2() -> Result<PathBuf> {
    let path = match std::env::var_os("CONSUL_SESSION_WASIP2") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/wasm32-wasip2/release/consul_session.wasm")),
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
