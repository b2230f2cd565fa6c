//! Programs that make one call and exit.

use super::{GO, NATIVE, ONCE, Round, Subject};
use crate::backend::Backend;
use crate::workload::Workload;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use test_support::tools::{command, root};
use test_support::{component, tools};

/// Name of curl in the tables.
pub const CURL: &str = "curl";
/// Name of the program that finds the compiled plugin in its cache.
pub const CACHED: &str = "consul-session with its cache";
/// Name of the program that has no cache.
pub const COMPILES: &str = "consul-session that compiles";

/// Returns the command that reads the session with this ID from the agent at this address.
type Info = Box<dyn Fn(SocketAddr, &str) -> Command>;

/// A program. Its time is from exec to exit, with its output read.
pub struct Process {
    name: &'static str,
    info: Info,
}

impl Process {
    /// Returns the programs that are installed, and for each other one why it is not measured.
    pub fn all(go: Option<PathBuf>) -> Result<(Vec<Process>, Vec<String>)> {
        let mut installed = Vec::new();
        let mut missing = Vec::new();
        let mut add = |name, info: Info| installed.push(Process { name, info });
        if command("curl").arg("--version").output().is_ok() {
            add(
                CURL,
                Box::new(|address, id| {
                    let mut curl = command("curl");
                    curl.args(["--silent", "--show-error", "--fail", &format!("http://{address}/v1/session/info/{id}")]);
                    curl
                }),
            );
        } else {
            missing.push("curl: not on PATH".into());
        }
        let this = std::env::current_exe()?;
        let host = this.with_file_name("consul-session");
        ensure!(host.is_file(), "no {}: `cargo xtask bench` builds it", host.display());
        add(
            NATIVE,
            Box::new(move |address, id| {
                let mut native = command(&this);
                native.args([ONCE, &address.to_string(), id]);
                native
            }),
        );
        for (name, cache) in [(CACHED, Some(root().join("target/tmp/bench-cache"))), (COMPILES, None)] {
            let host = host.clone();
            add(
                name,
                Box::new(move |address, id| {
                    let mut host = command(&host);
                    host.env("CONSUL_SESSION_CACHE", cache.clone().unwrap_or_default());
                    add_args(&mut host, address, id);
                    host
                }),
            );
        }
        match (tools::wasmtime(), component()) {
            (Ok(wasmtime), Ok(component)) => add(
                "wasmtime run on the command component",
                Box::new(move |address, id| {
                    let mut wasmtime = command(&wasmtime);
                    wasmtime.args(["run", "-S", "http"]).arg(&component);
                    add_args(&mut wasmtime, address, id);
                    wasmtime
                }),
            ),
            (Err(error), _) | (_, Err(error)) => missing.push(format!("wasmtime run: {error:#}")),
        }
        if let Some(go) = go {
            add(
                GO,
                Box::new(move |address, id| {
                    let mut go = command(&go);
                    go.args([ONCE, &address.to_string(), id]);
                    go
                }),
            );
        }
        Ok((installed, missing))
    }
}

/// Adds the arguments of `consul-session` and of the command component.
fn add_args(command: &mut Command, address: SocketAddr, id: &str) {
    let (host, port) = (address.ip(), address.port());
    command.args(["state=info".into(), format!("id={id}"), format!("host={host}"), format!("port={port}")]);
}

impl Subject for Process {
    fn name(&self) -> String {
        self.name.into()
    }

    fn supports(&self, workload: Workload) -> bool {
        workload == Workload::Cold
    }

    fn run(&mut self, workload: Workload, backend: &Backend, calls: usize) -> Result<Round> {
        let mut times = Vec::new();
        for _ in 0..calls {
            let mut command = (self.info)(backend.address(workload), &backend.id);
            let start = Instant::now();
            let output = command.output().with_context(|| format!("{command:?}"))?;
            times.push(start.elapsed());
            let printed = [output.stdout, output.stderr].concat();
            ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&printed));
            // Native Rust and the Go client print nothing.
            ensure!(printed.is_empty() || String::from_utf8_lossy(&printed).contains(&backend.id), "{command:?}: no session");
        }
        Ok(Round { times, cpu: None })
    }
}
