//! Typed calls through each runtime's bindings. The conformance cases call `apply-json`, which
//! takes and returns a string; the functions of `locks` take and return records, lists of bytes,
//! variants and 64-bit integers, which each runtime maps differently.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::process::Command;
use test_support::consul::{Consul, Kind};
use test_support::plugin;
use test_support::tools::{self, Transpiled, root, transpiled};

#[test]
fn locks_work_in_wasmtime_run_invoke() -> Result<()> {
    Locks::check(invoke)
}

#[test]
fn locks_work_in_wasmtime_py() -> Result<()> {
    Locks::check(|locks| {
        let script = root().join("tests/conformance/runners/wasmtime-py/locks.py");
        locks.run(tools::command(tools::python()?).arg(script).arg(plugin()?))
    })
}

#[test]
fn locks_work_in_jco_on_node() -> Result<()> {
    Locks::check(|locks| {
        let script = root().join("tests/conformance/runners/jco-node/locks.mjs");
        locks.run(tools::command("node").arg(script).arg(transpiled(Transpiled::Node)?))
    })
}

/// The script checks the results and prints the id of the one session that it created.
#[test]
fn call_while_another_waits_is_refused_in_jco_in_chromium() -> Result<()> {
    let consul = Consul::start(Kind::Plain)?;
    tools::chromium()?;
    let script = root().join("tests/conformance/runners/browser/reentry.mjs");
    let mut node = tools::command("node");
    node.arg(script).arg(transpiled(Transpiled::Browser)?).arg(consul.http().port().to_string());
    let output = node.output()?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let sessions = consul.api().sessions()?;
    ensure!(sessions.len() == 1 && sessions[0]["ID"] == String::from_utf8(output.stdout)?.trim(), "{sessions:?}");
    Ok(())
}

/// An agent and two sessions that contend for its key `key`.
struct Locks {
    consul: Consul,
    sessions: [String; 2],
}

impl Locks {
    /// Checks a runtime: with the first session it acquires and releases the key, then it acquires
    /// it with the second session and returns the fencing number, which must be what Consul has
    /// stored.
    fn check(run: impl FnOnce(&Locks) -> Result<String>) -> Result<()> {
        let consul = Consul::start(Kind::Plain)?;
        let session = || -> Result<String> {
            let answer = consul.api().put("/v1/session/create", Some(&json!({"LockDelay": "0s"})))?;
            Ok(answer["ID"].as_str().context("no id")?.to_owned())
        };
        let sessions = [session()?, session()?];
        let locks = Locks { consul, sessions };
        let number = run(&locks)?;
        let key = &locks.consul.api().get("/v1/kv/key")?[0];
        let expected = json!({
            "Key": "key", "Session": locks.sessions[1], "LockIndex": 2, "ModifyIndex": number.trim().parse::<u64>()?,
            "CreateIndex": key["CreateIndex"], "Flags": 3_304_740_253_564_472_344_u64, "Value": "AP8+",
        });
        ensure!(*key == expected, "{key:#}");
        Ok(())
    }

    /// Runs a script with the agent's port and the sessions, and returns its output.
    fn run(&self, command: &mut Command) -> Result<String> {
        let output = command.arg(self.consul.http().port().to_string()).args(&self.sessions).output()?;
        ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// Calls the functions as an operator types them, each call in a process of its own.
fn invoke(locks: &Locks) -> Result<String> {
    const CONTENTS: &str = "{value: [0, 255, 62], flags: 3304740253564472344}";
    let connection = format!("{{port: {}}}", locks.consul.http().port());
    let [first, second] = &locks.sessions;
    let call = |call: String| -> Result<String> {
        let mut wasmtime = tools::command(tools::wasmtime()?);
        let output = wasmtime.args(["run", "-S", "http", "--invoke", &call]).arg(plugin()?).output()?;
        ensure!(output.status.success(), "{call}: {}", String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?.trim().to_owned())
    };
    let on_key = |function: &str, session: &str| call(format!("{function}(\"key\", \"{session}\", {CONTENTS}, {connection})"));
    let acquired = on_key("acquire", first)?;
    let lock = acquired.strip_prefix("ok(acquired(").and_then(|rest| rest.strip_suffix("))"));
    let lock = lock.with_context(|| acquired.clone())?;
    ensure!(on_key("acquire", second)? == "ok(held)");
    let holding = call(format!("holder(\"key\", none, {connection})"))?;
    ensure!(holding.starts_with(&format!("ok({{lock: some({lock}), index: ")), "{holding}, after {lock}");
    ensure!(lock.contains(first) && lock.contains("[0, 255, 62]"), "{lock}");
    ensure!(on_key("release", second)? == "ok(false)");
    ensure!(on_key("release", first)? == "ok(true)");
    let refused = call(format!("acquire(\"\", \"{second}\", {CONTENTS}, {connection})"))?;
    ensure!(refused.starts_with("err(invalid-option({option: \"key\""), "{refused}");
    let acquired = on_key("acquire", second)?;
    let number = acquired.split_once("modify-index: ").and_then(|(_, rest)| rest.split_once(','));
    Ok(number.with_context(|| acquired.clone())?.0.to_owned())
}
