//! Shared test support: real Consul agents, scripted servers, the conformance cases, and the
//! programs as operators type them. It depends on no other crate of this workspace, so that each
//! can use it.

pub mod api;
pub mod case;
pub mod certificates;
pub mod cluster;
pub mod consul;
pub mod program;
pub mod registry;
pub mod screen;
pub mod scripted;
pub mod server;
pub mod terminal;
pub mod tools;
pub mod wash;

use anyhow::{Context, Result, anyhow};
use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::LazyLock;
use tokio::runtime::Runtime;

/// A token without a character that JSON, HTML or a URL would escape, so that an echo of it is
/// always found.
pub const TOKEN: &str = "5ec2e700-0000-4000-8000-cafecafecafe";

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a tokio runtime"));

/// Runs a future on the one runtime of this program, on which the connections of plugin hosts live.
pub fn block_on<T>(future: impl Future<Output = T>) -> T {
    RUNTIME.block_on(future)
}

/// Returns a value that is started once for many tests, or a copy of the error that its start ended
/// with.
pub fn started<T>(result: &Result<T>) -> Result<&T> {
    result.as_ref().map_err(|error| anyhow!("{error:#}"))
}

/// Returns the peak memory of this process so far, in bytes; none where the system does not report it.
pub fn peak_memory() -> Result<Option<u64>> {
    if !cfg!(target_os = "linux") {
        return Ok(None);
    }
    let status = std::fs::read_to_string("/proc/self/status")?;
    let peak = status.lines().find_map(|line| line.strip_prefix("VmHWM:")?.strip_suffix("kB")?.trim().parse::<u64>().ok());
    Ok(Some(peak.context("no VmHWM")? * 1024))
}

/// Returns a free port of this machine, on which nothing listens.
pub fn unused_address() -> Result<SocketAddr> {
    Ok(std::net::TcpListener::bind((Ipv4Addr::LOCALHOST, 0))?.local_addr()?)
}

/// Returns the plugin that `CONSUL_SESSION_PLUGIN` names, or the one that `cargo xtask build`
/// makes.
///
/// # Errors
///
/// The file is missing. It can always be built, so no test is skipped without it.
pub fn plugin() -> Result<PathBuf> {
    let path = match std::env::var_os("CONSUL_SESSION_PLUGIN") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../dist/consul-session-plugin.wasm")),
    };
    path.canonicalize().with_context(|| format!("no plugin at {}: run `cargo xtask build`", path.display()))
}

/// Returns the plugin that `CONSUL_SESSION_WASIP2` names, or the one that plain `cargo build
/// --release --target wasm32-wasip2` makes.
pub fn wasip2() -> Result<PathBuf> {
    let path = match std::env::var_os("CONSUL_SESSION_WASIP2") {
        Some(path) => PathBuf::from(path),
        None => PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../target/wasm32-wasip2/release/consul_session.wasm")),
    };
    let advice = "run `cargo build --release --target wasm32-wasip2`";
    path.canonicalize().with_context(|| format!("no component at {}: {advice}", path.display()))
}

/// Returns the command component, which is in the folder of the plugin.
pub fn component() -> Result<PathBuf> {
    let path = plugin()?.with_file_name("consul-session.wasm");
    path.canonicalize().with_context(|| format!("no command at {}: run `cargo xtask build`", path.display()))
}

/// Returns whether this is a CI run, where no test is skipped.
pub fn in_ci() -> bool {
    std::env::var("CI").is_ok_and(|value| value == "true")
}
