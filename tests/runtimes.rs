//! `locks` in every runtime. The conformance cases call `apply-json`, which any runtime can with a text; these functions take and
//! give records, lists of bytes, variants and whole numbers of 64 bits, which each runtime maps in its own way.

use anyhow::{Context, Result, ensure};
use libtest_mimic::{Arguments, Trial};
use serde_json::json;
use std::process::{Command, ExitCode};
use test_support::consul::{Consul, Kind};
use test_support::tools::{self, Transpiled, root, transpiled};
use test_support::trial::trial;
use test_support::{in_ci, plugin};

fn main() -> ExitCode {
    let no_consul = Consul::is_missing();
    let runs = |name: &str, missing: bool, run: fn(&Locks) -> Result<String>| -> Trial {
        trial(format!("locks in {name}"), move || Locks::check(run)).with_ignored_flag(no_consul || (missing && !in_ci()))
    };
    let trials = vec![
        runs("wasmtime run --invoke", tools::wasmtime().is_err(), invoke),
        runs("wasmtime-py", tools::python().is_err(), |locks| {
            let script = root().join("tests/conformance/runners/wasmtime-py/locks.py");
            locks.run(tools::command(tools::python()?).arg(script).arg(plugin()?))
        }),
        runs("jco (Node)", tools::node_modules().is_err(), |locks| {
            let script = root().join("tests/conformance/runners/jco-node/locks.mjs");
            locks.run(tools::command("node").arg(script).arg(transpiled(Transpiled::Node)?))
        }),
        trial("a call while another waits is refused in jco (Chromium)", reentry)
            .with_ignored_flag(no_consul || (tools::node_modules().and(tools::chromium()).is_err() && !in_ci())),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// The browser's script says what has to be so; it prints the id of the one session that it made.
fn reentry() -> Result<()> {
    let consul = Consul::start(Kind::Plain)?;
    let script = root().join("tests/conformance/runners/browser/reentry.mjs");
    let mut node = tools::command("node");
    node.arg(script).arg(transpiled(Transpiled::Browser)?).arg(consul.http().port().to_string());
    let output = node.output()?;
    ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
    let sessions = consul.api().sessions()?;
    ensure!(sessions.len() == 1 && sessions[0]["ID"] == String::from_utf8(output.stdout)?.trim(), "{sessions:?}");
    Ok(())
}

/// An agent, and two sessions that want its key `key`.
struct Locks {
    consul: Consul,
    sessions: [String; 2],
}

impl Locks {
    /// The runtime lets the first session acquire the key and release it, and then the second acquire it; it answers with the
    /// fencing number, which must be what Consul has stored.
    fn check(run: fn(&Locks) -> Result<String>) -> Result<()> {
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

    /// Runs a script with the agent's port and the sessions; what it prints.
    fn run(&self, command: &mut Command) -> Result<String> {
        let output = command.arg(self.consul.http().port().to_string()).args(&self.sessions).output()?;
        ensure!(output.status.success(), "{}: {}", output.status, String::from_utf8_lossy(&output.stderr));
        Ok(String::from_utf8(output.stdout)?)
    }
}

/// By hand, as one types it, and each call in a process of its own.
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
