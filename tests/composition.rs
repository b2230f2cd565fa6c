//! `examples/leader-election` composed with the plugin into one component, in two runtimes, against
//! a real Consul.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use std::path::PathBuf;
use std::process::{Command, ExitStatus};
use std::time::Duration;
use tempfile::NamedTempFile;
use test_support::block_on;
use test_support::consul::{Consul, Kind};
use test_support::tools;
use tokio::process::Child;
use tokio::time::{sleep, timeout};
use wit_component::DecodedWasm;

/// The longest that a step of an election takes. A runtime needs seconds to start on a busy
/// machine, and Consul needs one to two TTLs of 10 seconds to end the session of a killed
/// contender.
const LIMIT: Duration = Duration::from_secs(60);

/// The name of the sessions.
const NAME: &str = "service";

/// Makes the command that runs the composed component in a runtime.
type Runtime = fn() -> Result<Command>;

fn composed() -> Result<PathBuf> {
    let path = tools::root().join("dist/leader-election.wasm");
    path.canonicalize().with_context(|| format!("no {}: run `cargo xtask compose`", path.display()))
}

fn wasmtime() -> Result<Command> {
    let mut wasmtime = tools::command(tools::wasmtime()?);
    wasmtime.args(["run", "-S", "http"]).arg(composed()?);
    Ok(wasmtime)
}

fn jco() -> Result<Command> {
    let mut jco = tools::command(tools::node_modules()?.join(".bin/jco"));
    jco.arg("run").arg(composed()?);
    Ok(jco)
}

#[test]
fn composition_imports_what_the_plugin_does_and_wasi_cli() -> Result<()> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&std::fs::read(composed()?)?)? else {
        anyhow::bail!("the file is not a component")
    };
    let world = &resolve.worlds[world];
    let mut imports: Vec<String> = world.imports.keys().map(|key| resolve.name_world_key(key)).collect();
    let exports: Vec<String> = world.exports.keys().map(|key| resolve.name_world_key(key)).collect();
    imports.sort();
    let expected = [
        "wasi:cli/environment@0.2.0",
        "wasi:cli/stderr@0.2.0",
        "wasi:cli/stdout@0.2.0",
        "wasi:clocks/monotonic-clock@0.2.0",
        "wasi:http/outgoing-handler@0.2.0",
        "wasi:http/types@0.2.0",
        "wasi:io/error@0.2.0",
        "wasi:io/poll@0.2.0",
        "wasi:io/streams@0.2.0",
    ];
    ensure!(imports == expected && exports == ["wasi:cli/run@0.2.0"], "imports {imports:?}, exports {exports:?}");
    Ok(())
}

/// An agent, and the output of all contenders in one file, so that the order of the lines is that
/// of the events.
struct Election {
    agent: Consul,
    output: NamedTempFile,
}

impl Election {
    fn new() -> Result<Election> {
        Ok(Election { agent: Consul::start(Kind::Plain)?, output: NamedTempFile::new()? })
    }

    fn contender(&self, runtime: Runtime, rounds: u32) -> Result<Child> {
        let mut command = runtime()?;
        command.args([NAME, &rounds.to_string(), &self.agent.http().port().to_string()]);
        // The handles share one position in the file.
        command.stdout(self.output.as_file().try_clone()?).stderr(self.output.as_file().try_clone()?);
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true).spawn().with_context(|| format!("{command:?}"))
    }

    /// Returns the lines so far, each split into words.
    fn lines(&self) -> Result<Vec<Vec<String>>> {
        let text = std::fs::read_to_string(self.output.path())?;
        Ok(text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect())
    }

    /// Waits for `count` lines that have these words after the id.
    async fn wait_for_lines(&self, count: usize, words: &[&str]) -> Result<()> {
        let all = async {
            while self.lines()?.iter().filter(|line| line.get(1..).is_some_and(|rest| rest == words)).count() < count {
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        timeout(LIMIT, all).await.with_context(|| format!("expected {count} lines with {words:?}, found {:?}", self.lines()))?
    }

    async fn end(&self, mut contender: Child) -> Result<ExitStatus> {
        let ended = timeout(LIMIT, contender.wait()).await;
        Ok(ended.with_context(|| format!("a contender did not end: {:?}", self.lines()))??)
    }
}

#[test]
fn election_under_wasmtime_has_one_leader_at_a_time() -> Result<()> {
    check_election(&[wasmtime, wasmtime, wasmtime])
}

#[test]
fn election_under_jco_has_one_leader_at_a_time() -> Result<()> {
    check_election(&[jco, jco])
}

#[test]
fn election_under_both_has_one_leader_at_a_time() -> Result<()> {
    check_election(&[wasmtime, jco, wasmtime])
}

/// Checks that one contender leads at a time, and that each has led in the end.
fn check_election(runtimes: &[Runtime]) -> Result<()> {
    let election = Election::new()?;
    let api = election.agent.api();
    // The test holds the first session, so that all contenders wait when it ends.
    let first = api.put("/v1/session/create", Some(&json!({ "Name": NAME })))?;
    let first = first["ID"].as_str().context("no session")?;
    block_on(async {
        let contenders = runtimes.iter().map(|runtime| election.contender(*runtime, 1)).collect::<Result<Vec<_>>>()?;
        election.wait_for_lines(runtimes.len(), &["follows", first]).await?;
        api.put(&format!("/v1/session/destroy/{first}"), None)?;
        for contender in contenders {
            let status = election.end(contender).await?;
            ensure!(status.success(), "{status}: {:?}", election.lines());
        }
        Ok(())
    })?;
    let lines = election.lines()?;
    let (mut leader, mut led) = (None, Vec::new());
    for line in &lines {
        match &line[..] {
            [id, leads] if leads == "leads" && leader.is_none() && !led.contains(&id) => leader = Some(id),
            [id, stops] if stops == "stops" && leader == Some(id) => led.extend(leader.take()),
            [id, follows, other] if follows == "follows" && id != other => {}
            _ => anyhow::bail!("{line:?} in {lines:?}"),
        }
    }
    ensure!(led.len() == runtimes.len() && leader.is_none(), "{lines:?}");
    ensure!(api.sessions()?.is_empty(), "a session is left: {lines:?}");
    Ok(())
}

/// Consul ends the session of the killed leader, one to two TTLs later.
#[test]
fn killed_leader_has_a_successor() -> Result<()> {
    let election = Election::new()?;
    block_on(async {
        let mut leader = election.contender(wasmtime, u32::MAX)?;
        election.wait_for_lines(1, &["leads"]).await?;
        let id = election.lines()?[0][0].clone();
        let follower = election.contender(wasmtime, 1)?;
        election.wait_for_lines(1, &["follows", &id]).await?;
        leader.kill().await?;
        election.wait_for_lines(2, &["leads"]).await?;
        ensure!(election.end(follower).await?.success(), "{:?}", election.lines());
        Ok(())
    })
}
