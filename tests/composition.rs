//! `examples/leader-election` with the plugin plugged into it: one file, in two runtimes, against a real Consul.

use anyhow::{Context, Result, ensure};
use libtest_mimic::Arguments;
use serde_json::json;
use std::path::PathBuf;
use std::process::{Command, ExitCode, ExitStatus};
use std::time::Duration;
use tempfile::NamedTempFile;
use test_support::block_on;
use test_support::consul::{Consul, Kind};
use test_support::trial::trial;
use test_support::{in_ci, tools};
use tokio::process::Child;
use tokio::time::{sleep, timeout};
use wit_component::DecodedWasm;

/// No step of an election may take longer. A runtime needs seconds to start on a busy machine, and Consul one to two TTLs of
/// 10 seconds to end the session of one that was killed.
const LIMIT: Duration = Duration::from_secs(60);

const NAME: &str = "service";

type Runtime = fn() -> Result<Command>;

fn main() -> ExitCode {
    let no_consul = Consul::is_missing();
    let no_jco = no_consul || (tools::node_modules().is_err() && !in_ci());
    let trials = vec![
        trial("it imports what the plugin does, and wasi:cli", surface),
        trial("an election under wasmtime", || election(&[wasmtime, wasmtime, wasmtime])).with_ignored_flag(no_consul),
        trial("an election under jco", || election(&[jco, jco])).with_ignored_flag(no_jco),
        trial("one election of both", || election(&[wasmtime, jco, wasmtime])).with_ignored_flag(no_jco),
        trial("a leader that is killed has a successor", killed).with_ignored_flag(no_consul),
    ];
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

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

fn surface() -> Result<()> {
    let DecodedWasm::Component(resolve, world) = wit_component::decode(&std::fs::read(composed()?)?)? else {
        anyhow::bail!("it is no component")
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

/// An agent, and what the contenders say, all of them into one file: so the order of the lines is that of the events.
struct Election {
    agent: Consul,
    said: NamedTempFile,
}

impl Election {
    fn new() -> Result<Election> {
        Ok(Election { agent: Consul::start(Kind::Plain)?, said: NamedTempFile::new()? })
    }

    fn contender(&self, runtime: Runtime, rounds: u32) -> Result<Child> {
        let mut command = runtime()?;
        command.args([NAME, &rounds.to_string(), &self.agent.http().port().to_string()]);
        // All have the same position in the file.
        command.stdout(self.said.as_file().try_clone()?).stderr(self.said.as_file().try_clone()?);
        let mut command = tokio::process::Command::from(command);
        command.kill_on_drop(true).spawn().with_context(|| format!("{command:?}"))
    }

    /// What was said so far, each line in words.
    fn lines(&self) -> Result<Vec<Vec<String>>> {
        let text = std::fs::read_to_string(self.said.path())?;
        Ok(text.lines().map(|line| line.split_whitespace().map(str::to_owned).collect()).collect())
    }

    /// Waits until so many have said this.
    async fn heard(&self, count: usize, words: &[&str]) -> Result<()> {
        let all = async {
            while self.lines()?.iter().filter(|line| line.get(1..).is_some_and(|said| said == words)).count() < count {
                sleep(Duration::from_millis(20)).await;
            }
            Ok(())
        };
        timeout(LIMIT, all).await.with_context(|| format!("no {count} said {words:?}, but {:?}", self.lines()))?
    }

    async fn end(&self, mut contender: Child) -> Result<ExitStatus> {
        let ended = timeout(LIMIT, contender.wait()).await;
        Ok(ended.with_context(|| format!("a contender goes on: {:?}", self.lines()))??)
    }
}

/// One leads at a time, and in the end everyone has.
fn election(runtimes: &[Runtime]) -> Result<()> {
    let election = Election::new()?;
    let api = election.agent.api();
    // The first session is the test's, so that all of them wait when it ends.
    let first = api.put("/v1/session/create", Some(&json!({ "Name": NAME })))?;
    let first = first["ID"].as_str().context("no session")?;
    block_on(async {
        let contenders = runtimes.iter().map(|runtime| election.contender(*runtime, 1)).collect::<Result<Vec<_>>>()?;
        election.heard(runtimes.len(), &["follows", first]).await?;
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

/// Nobody destroys its session; Consul does, one to two TTLs later.
fn killed() -> Result<()> {
    let election = Election::new()?;
    block_on(async {
        let mut leader = election.contender(wasmtime, u32::MAX)?;
        election.heard(1, &["leads"]).await?;
        let id = election.lines()?[0][0].clone();
        let follower = election.contender(wasmtime, 1)?;
        election.heard(1, &["follows", &id]).await?;
        leader.kill().await?;
        election.heard(2, &["leads"]).await?;
        ensure!(election.end(follower).await?.success(), "{:?}", election.lines());
        Ok(())
    })
}
