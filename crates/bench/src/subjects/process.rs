//! Programs that do one call and end.

use super::{ONCE, Round, Subject};
use crate::place::Place;
use crate::workload::Workload;
use anyhow::{Context, Result, ensure};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use std::time::Instant;
use test_support::tools::{command, root};
use test_support::{component, tools};

/// The command that reads the session of this id from the agent at this address.
type Info = Box<dyn Fn(SocketAddr, &str) -> Command>;

/// A program. Its time is from exec to its end, its output read.
pub struct Process {
    name: &'static str,
    info: Info,
}

impl Process {
    /// Those that are there, and why the others are not.
    pub fn all(go: Option<PathBuf>) -> Result<(Vec<Process>, Vec<String>)> {
        let mut there = Vec::new();
        let mut missing = Vec::new();
        let mut add = |name, info: Info| there.push(Process { name, info });
        if command("curl").arg("--version").output().is_ok() {
            add(
                "curl",
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
            "native Rust",
            Box::new(move |address, id| {
                let mut native = command(&this);
                native.args([ONCE, &address.to_string(), id]);
                native
            }),
        );
        for (name, cache) in [
            ("consul-session with its cache", Some(root().join("target/tmp/bench-cache"))),
            ("consul-session that compiles", None),
        ] {
            let host = host.clone();
            add(
                name,
                Box::new(move |address, id| {
                    let mut host = command(&host);
                    host.env("CONSUL_SESSION_CACHE", cache.clone().unwrap_or_default());
                    words(&mut host, address, id);
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
                    words(&mut wasmtime, address, id);
                    wasmtime
                }),
            ),
            (Err(error), _) | (_, Err(error)) => missing.push(format!("wasmtime run: {error:#}")),
        }
        if let Some(go) = go {
            add(
                "Consul's Go client",
                Box::new(move |address, id| {
                    let mut go = command(&go);
                    go.args([ONCE, &address.to_string(), id]);
                    go
                }),
            );
        }
        Ok((there, missing))
    }
}

/// The words of both command lines.
fn words(command: &mut Command, address: SocketAddr, id: &str) {
    let (host, port) = (address.ip(), address.port());
    command.args(["state=info".into(), format!("id={id}"), format!("host={host}"), format!("port={port}")]);
}

impl Subject for Process {
    fn name(&self) -> String {
        self.name.into()
    }

    fn does(&self, work: Workload) -> bool {
        work == Workload::Cold
    }

    fn run(&mut self, work: Workload, place: &Place, calls: usize) -> Result<Round> {
        let mut times = Vec::new();
        for _ in 0..calls {
            let mut command = (self.info)(place.address(work), &place.id);
            let start = Instant::now();
            let output = command.output().with_context(|| format!("{command:?}"))?;
            times.push(start.elapsed());
            let said = [output.stdout, output.stderr].concat();
            ensure!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&said));
            // The two that only read it say nothing.
            ensure!(said.is_empty() || String::from_utf8_lossy(&said).contains(&place.id), "{command:?}: no session");
        }
        Ok(Round { times, cpu: None })
    }
}
