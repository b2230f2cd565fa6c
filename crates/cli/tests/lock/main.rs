//! `lock` and `hold` against real Consuls: who gets the lock and when, what happens to the command
//! for each way to lose the lock, and that no session and no lock remain.

mod hold;
mod semaphore;

use anyhow::{Context, Result, anyhow, bail, ensure};
use consul_session_tests::embedded::start_dev_agent;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use std::collections::HashMap;
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Mutex, Once, PoisonError};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_support::api::Api;
use test_support::consul::{Consul, Kind, ROOT_TOKEN};
use test_support::program::{Output, consul_session, input, run};
use test_support::scripted::{Reply, Request, Scripted};
use test_support::terminal::Terminal;
use test_support::unused_address;

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");
/// The time limit of each wait.
const LIMIT: Duration = Duration::from_secs(60);
/// The shortest TTL that Consul accepts, and no lock delay.
const SHORT: &str = "--ttl 10s --delay 0";
/// The TTL in [`SHORT`].
const TTL: Duration = Duration::from_secs(10);

/// Resets the signals that a shell can make this process ignore: SIGINT for a background job,
/// SIGHUP under `nohup`. The programs that the tests start would inherit that.
fn reset_signals() {
    static RESET: Once = Once::new();
    RESET.call_once(|| {
        for signal in [libc::SIGINT, libc::SIGHUP] {
            // SAFETY: SIG_DFL is a valid action. It replaces no handler, since nothing in this
            // process installs one.
            unsafe { libc::signal(signal, libc::SIG_DFL) };
        }
    });
}

/// Returns the command that runs `lock` in this folder, with a shell script as its command.
///
/// `args` begins with the key. Spaces separate arguments.
fn lock(address: SocketAddr, args: &str, script: &str, folder: &TempDir) -> Result<Command> {
    reset_signals();
    let (ip, port) = (address.ip(), address.port());
    let line = format!("lock {args} --host {ip} --port {port} -- sh -c");
    let mut args: Vec<&str> = line.split_whitespace().collect();
    args.push(script);
    let mut command = consul_session(PROGRAM, &args, &[])?;
    command.current_dir(folder.path());
    Ok(command)
}

/// A running `lock` or `hold`. It is killed when this is dropped, and its command ends.
struct Running {
    child: Child,
    /// Its current folder, which has its output as the files `stdout` and `stderr`.
    folder: TempDir,
}

impl Running {
    /// Starts `lock` with the arguments and the script of [`lock`].
    fn start(address: SocketAddr, args: &str, script: &str) -> Result<Running> {
        let folder = TempDir::new()?;
        let command = lock(address, args, script, &folder)?;
        Running::start_in(command, folder)
    }

    /// Starts a command whose current folder is this one. Its output is the files `stdout` and
    /// `stderr` there.
    fn start_in(mut command: Command, folder: TempDir) -> Result<Running> {
        let file = |name: &str| std::fs::File::create(folder.path().join(name));
        let child = command.stdout(file("stdout")?).stderr(file("stderr")?).spawn()?;
        Ok(Running { child, folder })
    }

    /// Starts `lock` and waits until its command runs. The command ends at a signal, or when its
    /// folder has a file `go`; see [`Running::go`].
    fn hold(address: SocketAddr, args: &str) -> Result<Running> {
        let script = "echo $$ > pid; env > env; echo $CONSUL_LOCK_FENCE > fence; while [ ! -e go ]; do sleep 0.05; done";
        let running = Running::start(address, args, script)?;
        running.wait_for("fence")?;
        Ok(running)
    }

    /// Returns the content of a file, which is empty if there is no such file.
    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }

    /// Waits until a file has a complete line, and returns its content.
    fn wait_for(&self, file: &str) -> Result<String> {
        self.wait_until(file, |text| text.ends_with('\n')).map(|text| text.trim().to_owned())
    }

    /// Waits until `accept` holds of the content of a file, and returns the content.
    ///
    /// # Errors
    ///
    /// Fails after [`LIMIT`], or as soon as `lock` reports an error.
    fn wait_until(&self, file: &str, accept: impl Fn(&str) -> bool) -> Result<String> {
        let stderr = || self.read("stderr");
        let text = poll(|| Some(self.read(file)).filter(|text| accept(text) || stderr().starts_with("error (")));
        let text = text.with_context(|| format!("{file}: {}; {}", self.read(file), stderr()))?;
        ensure!(accept(&text), "{}", stderr());
        Ok(text)
    }

    /// Ends the command of [`Running::hold`].
    fn go(&self) -> Result<()> {
        Ok(std::fs::write(self.folder.path().join("go"), "")?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Waits until the program ends, and returns its exit status and standard error.
    ///
    /// The status is the negative number of the signal if one ended the program.
    fn wait(&mut self) -> Result<(i32, String)> {
        let status = poll(|| self.child.try_wait().ok().flatten()).context("the program does not end")?;
        let code = status.code().or(status.signal().map(|signal| -signal)).context("no status")?;
        Ok((code, self.read("stderr")))
    }

    /// Returns whether the command still runs.
    fn command_runs(&self) -> Result<bool> {
        is_running(&self.wait_for("pid")?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // The command outlives a killed `lock`, and ends when it finds `go`.
        let _ = self.go();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Returns whether a process exists.
fn is_running(pid: &str) -> Result<bool> {
    let pid = Pid::from_raw(pid.parse()?).context("not a process id")?;
    Ok(test_kill_process(pid).is_ok())
}

/// Calls `check` until it returns a value, and returns that.
fn poll<T>(mut check: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match check() {
            Some(value) => return Ok(value),
            None if start.elapsed() > LIMIT => bail!("timeout after {LIMIT:?}"),
            None => sleep(Duration::from_millis(20)),
        }
    }
}

/// Returns a key's entry as Consul stores it.
fn key(api: &Api, key: &str) -> Result<Value> {
    Ok(api.get(&format!("/v1/kv/{key}"))?[0].clone())
}

/// Fails if there is a session, or if a session holds the key.
fn ensure_released(api: &Api, name: &str) -> Result<()> {
    let sessions = api.sessions()?;
    ensure!(sessions.is_empty(), "{sessions:?}");
    let answer = api.send("GET", &format!("/v1/kv/{name}"), None)?;
    ensure!(!answer.text.contains("\"Session\""), "{}", answer.text);
    Ok(())
}

/// Returns a client of the agent without ACLs at this address.
fn plain(address: SocketAddr) -> Api {
    Api::new(address, Kind::Plain)
}

/// Checks the statuses, the output and the environment of commands that run with the lock.
fn check_command_at(address: SocketAddr) -> Result<()> {
    let (api, folder) = (plain(address), TempDir::new()?);
    for (script, stdout, stderr, status) in [
        ("exit 0", "", "", 0),
        ("echo out; echo err >&2; exit 7", "out\n", "err\n", 7),
        ("kill -9 $$", "", "", 137),
        // The command reads the standard input.
        ("cat", "typed\n", "", 0),
    ] {
        let output = run(lock(address, "k", script, &folder)?.stdin(input("typed\n")?))?;
        ensure!((&*output.stdout, &*output.stderr, output.status) == (stdout, stderr, status), "{script}: {output:?}");
        ensure_released(&api, "k")?;
    }

    let before = key(&api, "k")?;
    let mut running = Running::hold(address, "a/k --name mine --ttl 20s --delay 3s --behavior delete --checks=")?;
    let held = key(&api, "a/k")?;
    ensure!(held["LockIndex"] == 1 && held["Flags"] == 3_304_740_253_564_472_344_u64, "{held}");
    let environment = running.read("env");
    for (name, value) in [
        ("HELD", "true".to_owned()),
        ("KEY", "a/k".to_owned()),
        ("SESSION", held["Session"].as_str().context("no session")?.to_owned()),
        ("INDEX", held["LockIndex"].to_string()),
        ("FENCE", held["ModifyIndex"].to_string()),
    ] {
        let line = format!("CONSUL_LOCK_{name}={value}");
        ensure!(environment.lines().any(|found| found == line), "no {line} in {environment}");
    }
    let sessions = api.sessions()?;
    let session = &sessions[0];
    ensure!(session["Name"] == "mine" && session["TTL"] == "20s" && session["LockDelay"] == 3_000_000_000_u64, "{session}");
    ensure!(session["Behavior"] == "delete" && session["NodeChecks"] == json!([]) && sessions.len() == 1, "{sessions:?}");
    running.go()?;
    ensure!(running.wait()? == (0, String::new()));
    ensure_released(&api, "a/k")?;

    // A command that cannot be started leaves no session, and increases the key's `LockIndex`.
    let (ip, port) = (address.ip().to_string(), address.port().to_string());
    std::fs::write(folder.path().join("data"), "no program")?;
    let commands = [("no-such-command", 127), ("./no-such-command", 127), ("./data", 126), ("./", 126)];
    for (command, status) in commands {
        let args = ["lock", "k", "--host", &ip, "--port", &port, "--", command];
        let output = run(consul_session(PROGRAM, &args, &[])?.current_dir(folder.path()))?;
        let expected = format!("error (other): the command cannot be started: {command}: ");
        ensure!(output.status == status && output.stderr.starts_with(&expected), "{output:?}");
        ensure_released(&api, "k")?;
    }
    let (before, after) = (before["LockIndex"].as_u64(), key(&api, "k")?["LockIndex"].as_u64());
    ensure!(after == before.map(|index| index + commands.len() as u64), "{before:?} {after:?}");
    Ok(())
}

#[test]
fn command_status_signal_and_environment_are_passed_on() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    check_command_at(agent.http())
}

#[test]
fn command_status_signal_and_environment_are_passed_on_at_the_dev_agent() -> Result<()> {
    check_command_at(start_dev_agent(unused_address()?)?.addr())
}

/// Checks that a second program waits for the lock, and that others give up.
fn check_waiting_at(address: SocketAddr) -> Result<()> {
    let (api, folder) = (plain(address), TempDir::new()?);
    // A lock delay of 60 s would exceed the time limit, so none must apply here.
    let mut first = Running::hold(address, "k --ttl 10s --delay 60")?;
    let held = key(&api, "k")?;
    let holder = held["Session"].as_str().context("no session")?;
    let mut second = Running::start(address, "k --ttl 10s --delay 60", "echo $CONSUL_LOCK_FENCE > fence")?;
    second.wait_until("stderr", |text| text.contains("waiting"))?;

    let pid = first.child.id();
    let names_holder = |text: &str| {
        text.contains(&format!("session {holder} holds it, value: {{")) && text.contains(&format!("\"pid\":{pid}}}"))
    };
    for args in ["k --wait 0", "k --wait 1s"] {
        let output = run(&mut lock(address, args, "echo ran", &folder)?)?;
        ensure!(output.status == 124 && output.stdout.is_empty(), "{output:?}");
        ensure!(output.stderr.contains("error (refused): no lock on `k`: ") && names_holder(&output.stderr), "{output:?}");
    }
    let output = run(&mut lock(address, "k --wait 0 --format json", "echo ran", &folder)?)?;
    let error = output.json()?;
    ensure!(
        output.status == 124 && output.stderr.is_empty() && error["error"] == "refused" && error["status"] == 409,
        "{output:?}"
    );
    ensure!(names_holder(error["msg"].as_str().unwrap_or_default()), "{output:?}");
    // The failed attempts leave no session.
    ensure!(api.sessions()?.len() == 2, "{:?}", api.sessions()?);

    first.go()?;
    ensure!(first.wait()? == (0, String::new()));
    let (status, stderr) = second.wait()?;
    ensure!(status == 0 && stderr.lines().count() == 1 && names_holder(&stderr), "{status}: {stderr}");
    let fence = |running: &Running| -> Result<u64> { Ok(running.wait_for("fence")?.parse()?) };
    ensure!(fence(&second)? > fence(&first)?);
    ensure_released(&api, "k")
}

#[test]
fn waiting_caller_gets_the_lock_when_it_is_free() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    check_waiting_at(agent.http())
}

#[test]
fn waiting_caller_gets_the_lock_when_it_is_free_at_the_dev_agent() -> Result<()> {
    check_waiting_at(start_dev_agent(unused_address()?)?.addr())
}

#[test]
fn own_dev_agent_is_used() -> Result<()> {
    let output =
        run(&mut consul_session(PROGRAM, &["--dev", "lock", "k", "--", "sh", "-c", "echo $CONSUL_LOCK_KEY; exit 4"], &[])?)?;
    ensure!((&*output.stdout, &*output.stderr, output.status) == ("k\n", "", 4), "{output:?}");
    Ok(())
}

#[test]
fn wrong_usage_is_rejected() -> Result<()> {
    for (args, option, message) in [
        ("lock", "arguments", "`lock` needs <KEY> <COMMAND>...; see `consul-session help lock`"),
        ("lock k", "arguments", "`lock` needs <COMMAND>..."),
        ("lock k true", "arguments", ""),
        ("lock k --state list -- true", "state", "unknown flag `--state`"),
        ("lock k ttl=15s -- true", "arguments", "after `lock`, options are written --ttl VALUE"),
        ("lock k --dry-run -- true", "dry_run", "unknown flag `--dry-run`"),
        ("lock k --ttl 0 -- true", "ttl", "`lock` needs one"),
        ("lock k --ttl 5 -- true", "ttl", "10s to 86400s"),
        ("lock k --wait soon -- true", "wait", "not a duration"),
        ("lock k --wait -1 -- true", "wait", ""),
        ("lock k --kill-after x -- true", "kill_after", "not a duration"),
        ("lock k -n 0 -- true", "semaphore", ""),
        ("lock /k -- true", "key", "begins with `/`"),
    ] {
        let args: Vec<&str> = ["--dev", "--format", "json"].into_iter().chain(args.split(' ')).collect();
        let output = run(&mut consul_session(PROGRAM, &args, &[])?)?;
        let error = output.json()?;
        let found = error["msg"].as_str().unwrap_or_default();
        ensure!(output.status == 2 && error["option"] == option && found.contains(message), "{args:?}: {output:?}");
    }
    Ok(())
}

#[test]
fn agent_that_does_not_answer_is_a_failure_with_status_1() -> Result<()> {
    let output = run(&mut lock(unused_address()?, "k --wait 1s", "echo ran", &TempDir::new()?)?)?;
    ensure!((output.status, &*output.stdout) == (1, ""), "{output:?}");
    ensure!(output.stderr.starts_with("error (unreachable): "), "{output:?}");
    Ok(())
}

/// Where nothing listens, since a session must not be created for a key that is refused.
#[test]
fn key_is_checked_before_any_request() -> Result<()> {
    let port = unused_address()?.port().to_string();
    for key in ["service//leader", "service/../leader", " leader"] {
        let args = ["lock", key, "--host", "127.0.0.1", "--port", &port, "--format", "json", "--", "true"];
        let output = run(&mut consul_session(PROGRAM, &args, &[])?)?;
        ensure!(output.status == 2 && output.json()?["option"] == "key", "{key}: {output:?}");
    }
    Ok(())
}

#[test]
fn key_with_other_data_is_left_alone() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (api, folder) = (agent.api(), TempDir::new()?);
    let session = api.put("/v1/session/create", Some(&json!({"LockDelay": "0s"})))?;
    let id = session["ID"].as_str().context("no id")?;
    api.put("/v1/kv/free", Some(&json!("data")))?;
    api.put("/v1/kv/zero", None)?;
    api.put(&format!("/v1/kv/held?flags=5&acquire={id}"), Some(&json!("data")))?;
    for (name, flags) in [("free", 0), ("zero", 0), ("held", 5)] {
        let before = key(&api, name)?;
        let output = run(&mut lock(agent.http(), name, "echo ran", &folder)?)?;
        let expected =
            format!("error (refused): no lock on `{name}`: it holds something other than a lock (its flags are {flags})");
        ensure!(output.status == 1 && output.stdout.is_empty() && output.stderr.starts_with(&expected), "{output:?}");
        ensure!(key(&api, name)? == before);
    }
    ensure!(api.sessions()?.len() == 1, "{:?}", api.sessions()?);
    Ok(())
}

/// Creates a session that holds a key as `lock` does, and returns its id.
fn acquire(api: &Api, key: &str, delay: &str) -> Result<String> {
    let session = api.put("/v1/session/create", Some(&json!({"LockDelay": delay})))?;
    let id = session["ID"].as_str().context("no id")?.to_owned();
    let acquired = api.put(&format!("/v1/kv/{key}?flags=3304740253564472344&acquire={id}"), None)?;
    ensure!(acquired == true, "{acquired}");
    Ok(id)
}

#[test]
fn lock_delay_is_waited_for() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (api, folder) = (agent.api(), TempDir::new()?);
    let id = acquire(&api, "k", "3s")?;
    api.put(&format!("/v1/session/destroy/{id}"), None)?;
    let output = run(&mut lock(agent.http(), "k --wait 0", "echo ran", &folder)?)?;
    ensure!(
        output.status == 124 && output.stderr.contains("error (refused): ") && output.stderr.contains("lock delay"),
        "{output:?}"
    );
    let output = run(&mut lock(agent.http(), "k", "echo ran", &folder)?)?;
    let note = "lock k: the session that held it has ended, and its lock delay runs, for 60 seconds at most; waiting\n";
    ensure!((&*output.stdout, &*output.stderr, output.status) == ("ran\n", note, 0), "{output:?}");
    ensure_released(&api, "k")
}

/// Waits until the program ends. Fails unless it reports this reason for the loss of its lock,
/// returns the status for a lost lock, and its command has ended.
fn ensure_lost(running: &mut Running, why: &str) -> Result<()> {
    let session = running.read("env").lines().find_map(|line| line.strip_prefix("CONSUL_LOCK_SESSION=").map(str::to_owned));
    let session = session.context("no session")?;
    let (found, stderr) = running.wait()?;
    ensure!(stderr.contains(&format!(": lost: session {session}: ")) && stderr.contains(why), "{stderr}");
    ensure!(stderr.contains("; ending the command\n") && found == 125, "{found}: {stderr}");
    ensure!(!running.command_runs()?, "the command still runs");
    Ok(())
}

#[test]
fn destroyed_session_ends_the_command() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    // The status of the command does not matter.
    for script in ["", "trap 'exit 0' TERM; ", "trap 'exit 9' TERM; "] {
        let script = format!("{script}echo $$ > pid; env > env; echo > held; while [ ! -e go ]; do sleep 0.05; done");
        let mut running = Running::start(agent.http(), &format!("k {SHORT}"), &script)?;
        running.wait_for("held")?;
        let holder = key(&api, "k")?["Session"].as_str().context("no session")?.to_owned();
        api.put(&format!("/v1/session/destroy/{holder}"), None)?;
        ensure_lost(&mut running, "")?;
        ensure_released(&api, "k")?;
    }
    Ok(())
}

#[test]
fn deleted_or_taken_key_ends_the_command() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let mut running = Running::hold(agent.http(), &format!("k {SHORT}"))?;
    api.send("DELETE", "/v1/kv/k", None)?;
    ensure_lost(&mut running, "the key was deleted")?;
    ensure_released(&api, "k")?;

    let mut running = Running::hold(agent.http(), &format!("k {SHORT}"))?;
    let holder = key(&api, "k")?["Session"].clone();
    let other = api.put("/v1/session/create", None)?["ID"].clone();
    let operation = |verb: &str, session: &Value| json!({"KV": {"Verb": verb, "Key": "k", "Session": session, "Flags": 1}});
    api.put("/v1/txn", Some(&json!([operation("unlock", &holder), operation("lock", &other)])))?;
    let other = other.as_str().context("no id")?;
    ensure_lost(&mut running, &format!("session {other} holds the key"))?;
    // The program does not release a lock that it has lost.
    ensure!(key(&api, "k")?["Session"] == other);
    ensure!(api.sessions()?.len() == 1, "{:?}", api.sessions()?);
    Ok(())
}

#[test]
fn command_that_ignores_sigterm_is_killed() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let forever = "while [ ! -e go ]; do sleep 0.05; done";
    // The shell ends and leaves a child behind, or does not end. No process of either remains.
    for outer in ["trap 'exit 3' TERM", "trap '' TERM"] {
        let script = format!(
            "{outer}; sh -c 'trap \"\" TERM; echo $$ > inner; {forever}' & echo $$ > pid; env > env; echo > held; {forever}"
        );
        let mut running = Running::start(agent.http(), &format!("k {SHORT} --kill-after 1s"), &script)?;
        let inner = running.wait_for("inner")?;
        running.wait_for("held")?;
        api.send("DELETE", "/v1/kv/k", None)?;
        ensure_lost(&mut running, "")?;
        poll(|| (!is_running(&inner).ok()?).then_some(())).context("the inner process still runs")?;
        ensure_released(&api, "k")?;
    }
    Ok(())
}

#[test]
fn agent_gone_past_the_ttl_ends_the_command() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let mut running = Running::hold(agent.http(), &format!("k {SHORT} --timeout 2"))?;
    agent.pause()?;
    ensure_lost(&mut running, "it could not be renewed within its TTL: ")?;
    let stderr = running.read("stderr");
    ensure!(stderr.contains("; the destruction of session ") && stderr.contains("ends it by itself within 20s"), "{stderr}");
    agent.resume()?;
    poll(|| ensure_released(&agent.api(), "k").ok())
}

/// Returns the id of the session that holds the lock of [`Running::hold`].
fn session_of(running: &Running) -> Result<String> {
    let environment = running.read("env");
    let session = environment.lines().find_map(|line| line.strip_prefix("CONSUL_LOCK_SESSION="));
    session.map(str::to_owned).context("no session")
}

#[test]
fn session_is_destroyed_although_the_release_is_refused() -> Result<()> {
    let agent = Consul::start(Kind::Acl)?;
    let api = agent.api();
    let rules = |key: &str| format!(r#"session_prefix "" {{ policy = "write" }} key_prefix "" {{ policy = "{key}" }}"#);
    let policy = api.put("/v1/acl/policy", Some(&json!({"Name": "lock", "Rules": rules("write")})))?;
    let token = api.put("/v1/acl/token", Some(&json!({"Policies": [{"Name": "lock"}]})))?;
    let token = token["SecretID"].as_str().context("no token")?;
    let mut running = Running::hold(agent.http(), &format!("k --ttl 1h --delay 3s --token {token}"))?;
    let session = session_of(&running)?;
    let id = policy["ID"].as_str().context("no policy")?;
    api.put(&format!("/v1/acl/policy/{id}"), Some(&json!({"Name": "lock", "Rules": rules("read")})))?;
    running.go()?;
    let (status, stderr) = running.wait()?;
    ensure!(status == 0 && stderr.starts_with("lock k: the release of the key failed: consul answered "), "{status}: {stderr}");
    let expected = format!("; session {session} was destroyed instead, which frees the key after its lock delay of 3s\n");
    ensure!(stderr.ends_with(&expected) && stderr.lines().count() == 1, "{stderr}");
    ensure_released(&api, "k")
}

#[test]
fn key_that_may_stay_held_is_a_failure() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let mut running = Running::hold(agent.http(), "k --ttl 10m --delay 3s --timeout 1")?;
    let session = session_of(&running)?;
    agent.pause()?;
    running.go()?;
    let (status, stderr) = running.wait()?;
    ensure!(status == 125 && stderr.starts_with("lock k: the release of the key failed: "), "{status}: {stderr}");
    let expected = format!(
        "; session {session} may hold the key; if it still exists, Consul ends it by itself within 20m, twice its ttl, and the \
         key is free after its lock delay of 3s\n"
    );
    ensure!(stderr.contains(&format!("; the destruction of session {session} failed: ")), "{stderr}");
    ensure!(stderr.ends_with(&expected) && stderr.lines().count() == 1, "{stderr}");
    Ok(())
}

#[test]
fn signal_ends_the_clean_up() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let args = "k --ttl 1h --delay 0 --timeout 1h";
    // The command ends by itself, or by a first signal.
    for first in [None, Some(Signal::TERM)] {
        let mut running = Running::hold(agent.http(), args)?;
        let session = session_of(&running)?;
        agent.pause()?;
        match first {
            None => running.go()?,
            Some(signal) => running.signal(signal)?,
        }
        poll(|| (!running.command_runs().ok()?).then_some(())).context("the command still runs")?;
        running.signal(Signal::INT)?;
        let (status, stderr) = running.wait()?;
        let expected = format!(
            "lock k: the clean-up was interrupted; session {session} may hold the key; if it still exists, Consul ends it by \
             itself within 2h, twice its ttl\n"
        );
        ensure!(status == 130 && stderr == expected, "{first:?}: {status}: {stderr}");
        agent.resume()?;
        agent.api().put(&format!("/v1/session/destroy/{session}"), None)?;
    }
    // The first signal ends the wait, the second the clean-up.
    acquire(&agent.api(), "k", "0s")?;
    let mut running = Running::start(agent.http(), args, "echo ran")?;
    running.wait_until("stderr", |text| text.contains("waiting"))?;
    agent.pause()?;
    running.signal(Signal::TERM)?;
    running.signal(Signal::INT)?;
    let (status, stderr) = running.wait()?;
    ensure!(matches!(status, 130 | 143) && stderr.contains("interrupted; session "), "{status}: {stderr}");
    ensure!(stderr.contains(" does not hold the key; if it still exists, "), "{stderr}");
    Ok(())
}

#[test]
fn signal_for_the_program_and_its_command_does_not_end_the_clean_up() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = TempDir::new()?;
    for _ in 0..5 {
        let output = run(&mut lock(agent.http(), &format!("k {SHORT}"), "kill -TERM $PPID $$", &folder)?)?;
        ensure!(output.status == 143 && output.stderr.is_empty(), "{output:?}");
        ensure_released(&agent.api(), "k")?;
    }
    Ok(())
}

/// The id of the only session of [`scripted`].
const SESSION: &str = "adf4238a-882b-9ddc-4a9d-5b6758e4159e";

/// Starts a server that answers as Consul does while a session locks the key `k`, except where
/// `script` has another reply. That gets the request, and the number of requests with the same
/// method and path before.
fn scripted(script: impl Fn(&Request, usize) -> Option<Reply> + Send + Sync + 'static) -> Result<Scripted> {
    let held = AtomicBool::new(false);
    let before = Mutex::new(HashMap::<String, usize>::new());
    let server = Scripted::start(move |request| {
        let line = request.line();
        let path = line.split('?').next().unwrap_or_default().to_owned();
        let count = {
            let mut before = before.lock().unwrap_or_else(PoisonError::into_inner);
            let count = before.entry(path.clone()).or_default();
            *count += 1;
            *count - 1
        };
        if let Some(reply) = script(request, count) {
            return reply;
        }
        match path.trim_end_matches(SESSION) {
            "PUT /v1/session/create" => Reply::json(&json!({"ID": SESSION}).to_string()),
            "PUT /v1/session/renew/" => Reply::json(&json!([{"ID": SESSION}]).to_string()),
            "PUT /v1/session/destroy/" => Reply::json("true"),
            "PUT /v1/txn" => {
                held.store(request.body().contains("\"lock\""), Ordering::SeqCst);
                Reply::json(&json!({"Results": [{"KV": stored(None)}]}).to_string())
            }
            _ if held.load(Ordering::SeqCst) => entry(SESSION, "X-Consul-Index: 7\r\n"),
            _ => Reply::http(404, "X-Consul-Index: 7\r\n", ""),
        }
    });
    Ok(server?)
}

/// Returns the key `k` as in Consul's JSON.
fn stored(session: Option<&str>) -> Value {
    let flags = 3_304_740_253_564_472_344_u64;
    json!({"Key": "k", "Session": session, "LockIndex": 1, "ModifyIndex": 7, "CreateIndex": 7, "Flags": flags, "Value": null})
}

/// Returns the answer to a read of the key `k` that this session holds, with these headers.
fn entry(session: &str, headers: &str) -> Reply {
    Reply::http(200, headers, &json!([stored(Some(session))]).to_string())
}

/// Returns how many of the requests begin with this method and path.
fn count(server: &Scripted, line: &str) -> usize {
    server.requests().iter().filter(|request| request.line().starts_with(line)).count()
}

#[test]
fn release_and_destruction_are_tried_again() -> Result<()> {
    let server = scripted(|request, count| {
        let unlocks = request.body().contains("\"unlock\"");
        let fails = unlocks && count == 1 || request.line().starts_with("PUT /v1/session/destroy/") && count == 0;
        fails.then(|| Reply::http(500, "", "something else went wrong"))
    })?;
    let output = run(&mut lock(server.address(), "k --ttl 1h", "exit 0", &TempDir::new()?)?)?;
    ensure!((output.status, &*output.stderr) == (0, ""), "{output:?}");
    ensure!(count(&server, "PUT /v1/txn") == 3 && count(&server, "PUT /v1/session/destroy/") == 2);
    Ok(())
}

#[test]
fn release_whose_answer_was_lost_is_not_a_lost_lock() -> Result<()> {
    let server = scripted(|request, count| {
        let unlocks = request.body().contains("\"unlock\"");
        match count {
            // The first release frees the key, and its answer is lost.
            1 if unlocks => Some(Reply::close()),
            2.. if unlocks => {
                let error = json!({"Errors": [{"OpIndex": 0, "What": "failed to unlock key \"k\", lock isn't held, or is held by another session"}]});
                Some(Reply::http(409, "Content-Type: application/json\r\n", &error.to_string()))
            }
            _ => None,
        }
    })?;
    let output = run(&mut lock(server.address(), "k --ttl 1h", "exit 0", &TempDir::new()?)?)?;
    ensure!((output.status, &*output.stderr) == (0, ""), "{output:?}");
    ensure!(count(&server, "PUT /v1/session/destroy/") == 1);
    Ok(())
}

#[test]
fn holder_that_reads_do_not_show_is_polled_at_intervals() -> Result<()> {
    let start = || {
        scripted(|request, _| {
            let error = json!({"Errors": [{"OpIndex": 0, "What": "failed to lock key \"k\", lock is already held"}]});
            let locks = request.line().starts_with("PUT /v1/txn");
            locks.then(|| Reply::http(409, "Content-Type: application/json\r\n", &error.to_string()))
        })
    };
    for wait in ["3s", "0"] {
        let (server, folder) = (start()?, TempDir::new()?);
        let output = run(&mut lock(server.address(), &format!("k --ttl 1h --wait {wait}"), "echo ran", &folder)?)?;
        let expected = "error (refused): no lock on `k`: another session holds it, or did a moment ago\n";
        ensure!(output.status == 124 && output.stdout.is_empty() && output.stderr.ends_with(expected), "{output:?}");
        let tried = count(&server, "PUT /v1/txn");
        ensure!((2..20).contains(&tried), "{tried} attempts in {wait}");
    }
    Ok(())
}

#[test]
fn answers_without_an_index_are_polled() -> Result<()> {
    const OTHER: &str = "5b6758e4-159e-882b-9ddc-4a9dadf4238a";
    // Another session holds the key at first. It is free after three reads, and deleted after
    // three more, while the command runs.
    let server = scripted(|request, count| {
        request.line().starts_with("GET /v1/kv/k").then(|| match count {
            0..=2 => entry(OTHER, ""),
            4..=6 => entry(SESSION, ""),
            _ => Reply::http(404, "", ""),
        })
    })?;
    let mut running = Running::hold(server.address(), "k --ttl 1h")?;
    let waited = format!("lock k: session {OTHER} holds it, value: empty; waiting\n");
    ensure!(running.read("stderr") == waited, "{}", running.read("stderr"));
    ensure_lost(&mut running, "the key was deleted")?;
    let reads = server.requests().into_iter().map(|request| request.line()).filter(|line| line.starts_with("GET "));
    let reads: Vec<String> = reads.collect();
    ensure!(reads.len() >= 8 && !reads.iter().any(|line| line.contains("index=") || line.contains("wait=")), "{reads:?}");
    Ok(())
}

#[test]
fn process_that_left_the_group_goes_on() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let forever = "while [ ! -e go ]; do sleep 0.05; done";
    let script = format!("setsid sh -c 'echo $$ > outside; {forever}' & echo $$ > pid; env > env; {forever}");
    let mut running = Running::start(agent.http(), &format!("k {SHORT}"), &script)?;
    let outside = running.wait_for("outside")?;
    running.wait_until("env", |text| text.contains("CONSUL_LOCK_FENCE"))?;
    agent.api().send("DELETE", "/v1/kv/k", None)?;
    ensure_lost(&mut running, "the key was deleted")?;
    ensure!(is_running(&outside)?);
    Ok(())
}

#[test]
fn signal_kills_a_command_that_is_being_ended() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let script = "trap 'echo term >> term' TERM
        echo $$ > pid; env > env; echo > held; while [ ! -e go ]; do sleep 0.05; done";
    let mut running = Running::start(agent.http(), &format!("k {SHORT} --kill-after 1h"), script)?;
    running.wait_for("held")?;
    agent.api().send("DELETE", "/v1/kv/k", None)?;
    running.wait_for("term")?;
    running.signal(Signal::INT)?;
    ensure_lost(&mut running, "the key was deleted")?;
    ensure_released(&agent.api(), "k")
}

#[test]
fn agent_restart_keeps_the_lock() -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let mut running = Running::hold(agent.http(), "k --ttl 20s --delay 0")?;
    let start = Instant::now();
    agent.kill()?;
    agent.restart()?;
    // Without a renewal the session would have expired by then.
    sleep((2 * TTL + Duration::from_secs(2)).saturating_sub(start.elapsed()));
    ensure!(running.command_runs()?, "{}", running.read("stderr"));
    running.go()?;
    ensure!(running.wait()? == (0, String::new()));
    ensure_released(&agent.api(), "k")
}

#[test]
fn session_lost_while_waiting_is_replaced() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let mut first = Running::hold(agent.http(), &format!("k {SHORT} --name first"))?;
    let mut second = Running::start(agent.http(), &format!("k {SHORT} --name second"), "echo > fence")?;
    second.wait_until("stderr", |text| text.contains("waiting"))?;
    let sessions = api.sessions()?;
    let waiting = sessions.iter().find(|session| session["Name"] == "second").context("no session")?;
    api.put(&format!("/v1/session/destroy/{}", waiting["ID"].as_str().context("no id")?), None)?;
    second.wait_until("stderr", |text| text.contains("Consul has ended it; going on with another\n"))?;
    first.go()?;
    ensure!(first.wait()?.0 == 0 && second.wait()?.0 == 0, "{}", second.read("stderr"));
    ensure_released(&api, "k")
}

#[test]
fn signals_end_the_wait_and_the_command() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let args = format!("k {SHORT}");
    let forever = "echo > held; while [ ! -e go ]; do sleep 0.05; done";
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut running = Running::start(agent.http(), &args, forever)?;
        running.wait_for("held")?;
        // A second program waits, and ends first.
        let mut other = Running::start(agent.http(), &args, "echo ran")?;
        other.wait_until("stderr", |text| text.contains("waiting"))?;
        other.signal(signal)?;
        let (found, stderr) = other.wait()?;
        ensure!(found == status && stderr.lines().count() == 1, "{found}: {stderr}");
        ensure!(api.sessions()?.len() == 1, "{:?}", api.sessions()?);
        running.signal(signal)?;
        ensure!(running.wait()? == (status, String::new()), "{signal:?}");
        ensure_released(&api, "k")?;
    }
    // The command decides what the first signal does. The second signal kills it.
    let mut running = Running::start(agent.http(), &args, &format!("trap 'echo term >> term; exit 3' TERM; {forever}"))?;
    running.wait_for("held")?;
    running.signal(Signal::TERM)?;
    // The shell might report that its own child was terminated.
    let status_and_reported = |(status, stderr): (i32, String)| (status, stderr.contains("lock k: "));
    ensure!(
        status_and_reported(running.wait()?) == (3, false) && running.read("term") == "term\n",
        "{}",
        running.read("stderr")
    );
    let mut running = Running::start(agent.http(), &args, &format!("trap 'echo term >> term' TERM; {forever}"))?;
    running.wait_for("held")?;
    running.signal(Signal::TERM)?;
    running.wait_for("term")?;
    ensure!(running.child.try_wait()?.is_none());
    running.signal(Signal::TERM)?;
    ensure!(status_and_reported(running.wait()?) == (137, false), "{}", running.read("stderr"));
    ensure_released(&api, "k")?;

    // A signal that the program inherits as ignored is not passed on.
    let folder = TempDir::new()?;
    let command = lock(agent.http(), &args, &format!("echo $$ > pid; {forever}"), &folder)?;
    let mut nohup = Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(PROGRAM).args(command.get_args()).current_dir(folder.path());
    nohup.envs(command.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("CONSUL_HTTP_ADDR");
    let mut running = Running::start_in(nohup, folder)?;
    running.wait_for("held")?;
    running.signal(Signal::HUP)?;
    running.signal(Signal::INT)?;
    ensure!(running.wait()? == (130, String::new()));
    ensure_released(&api, "k")
}

/// Runs a program at its own terminal, in this folder, after writing the script to `run.sh` there.
fn at_terminal(args: &[&str], script: &str, folder: &TempDir) -> Result<(Terminal, Child)> {
    reset_signals();
    std::fs::write(folder.path().join("run.sh"), script)?;
    let args: Vec<&str> = ["--ctty"].iter().chain(args).copied().collect();
    Terminal::control(consul_session("setsid", &args, &[("PS1", "$ ")])?.current_dir(folder.path()), 80)
}

#[test]
fn terminal_belongs_to_the_command_and_ctrl_c_arrives_once() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = TempDir::new()?;
    let script =
        "trap 'echo int >> int' INT; echo > ready; read x; echo $x > line; while [ ! -e go ]; do sleep 0.05; done; exit 5";
    let line = format!("{PROGRAM} lock k {SHORT} --host {} --port {} -- sh run.sh", agent.http().ip(), agent.http().port());
    let args: Vec<&str> = line.split(' ').collect();
    let (terminal, child) = at_terminal(&args, script, &folder)?;
    let mut running = Running { child, folder };
    running.wait_for("ready")?;
    terminal.type_in("typed\n")?;
    ensure!(running.wait_for("line")? == "typed");
    terminal.type_in("\u{3}")?;
    running.wait_for("int")?;
    // A second signal would arrive within this time.
    sleep(Duration::from_millis(300));
    ensure!(running.read("int") == "int\n", "{}", running.read("int"));
    running.go()?;
    ensure!(running.wait()?.0 == 5, "{}", terminal.text());
    ensure_released(&agent.api(), "k")
}

/// A shell or a debugger expects any number of Ctrl-C, as without `lock`.
#[test]
fn every_ctrl_c_goes_to_the_command_alone() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = TempDir::new()?;
    let script = "trap 'echo int >> int' INT; echo $$ > pid; while [ ! -e go ]; do sleep 0.05; done";
    let line = format!("{PROGRAM} lock k {SHORT} --host {} --port {} -- sh run.sh", agent.http().ip(), agent.http().port());
    let args: Vec<&str> = line.split(' ').collect();
    let (terminal, child) = at_terminal(&args, script, &folder)?;
    let mut running = Running { child, folder };
    running.wait_for("pid")?;
    for count in 1..=3 {
        terminal.type_in("\u{3}")?;
        running.wait_until("int", |text| text.lines().count() == count)?;
    }
    ensure!(running.command_runs()?);
    // Ctrl-\ ends a command that does not handle it.
    terminal.type_in("\u{1c}")?;
    ensure!(running.wait()?.0 == 131, "{}", terminal.text());
    ensure_released(&agent.api(), "k")
}

/// A pipeline at a terminal: the command asks for a password, and its output goes to `tee`.
#[test]
fn command_in_a_pipeline_reads_from_the_terminal() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (ip, port) = (agent.http().ip(), agent.http().port());
    for to in ["< /dev/tty | cat > piped", "< input"] {
        let folder = TempDir::new()?;
        std::fs::write(folder.path().join("input"), "")?;
        let script = "trap 'echo int >> int' INT; echo > ready; while [ ! -e int ]; do sleep 0.05; done
            read x < /dev/tty; echo $x > line; while [ ! -e go ]; do sleep 0.05; done; exit 5";
        let line = format!("{PROGRAM} lock k {SHORT} --host {ip} --port {port} -- sh run.sh {to}");
        let (terminal, child) = at_terminal(&["sh", "-c", &format!("trap : INT; {line}; true")], script, &folder)?;
        let mut running = Running { child, folder };
        running.wait_for("ready")?;
        // The program has the terminal at first, and passes Ctrl-C on.
        terminal.type_in("\u{3}")?;
        running.wait_for("int")?;
        terminal.type_in("typed\n")?;
        ensure!(running.wait_for("line").with_context(|| terminal.text())? == "typed");
        running.go()?;
        running.wait()?;
        ensure!(running.read("int") == "int\n", "{}", running.read("int"));
        ensure_released(&agent.api(), "k")?;
    }
    Ok(())
}

#[test]
fn ctrl_c_ends_the_wait() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = TempDir::new()?;
    let mut first = Running::hold(agent.http(), &format!("k {SHORT}"))?;
    let line = format!("{PROGRAM} lock k {SHORT} --host {} --port {} -- sh run.sh", agent.http().ip(), agent.http().port());
    let args: Vec<&str> = line.split(' ').collect();
    let (terminal, child) = at_terminal(&args, "echo ran", &folder)?;
    let mut running = Running { child, folder };
    terminal.wait_for(|text| text.contains("waiting"))?;
    terminal.type_in("\u{3}")?;
    ensure!(running.wait()?.0 == 130, "{}", terminal.text());
    first.go()?;
    ensure!(first.wait()?.0 == 0);
    ensure_released(&agent.api(), "k")
}

#[test]
fn ctrl_z_stops_both_and_fg_continues_both() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = TempDir::new()?;
    // The script starts no program. A shell that is stopped while it starts one (vfork) does not
    // show as stopped.
    let script = "echo $$ > pid; read x; echo $x > line; exit 6";
    let (terminal, child) = at_terminal(&["sh", "-i"], script, &folder)?;
    let mut running = Running { child, folder };
    terminal.wait_for(|text| text.contains('$'))?;
    terminal.type_in(&format!(
        "{PROGRAM} lock k --ttl 60s --host {} --port {} -- sh run.sh\n",
        agent.http().ip(),
        agent.http().port()
    ))?;
    let pid = running.wait_for("pid")?;
    let is_stopped = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find(|line| line.starts_with("State:")).map(|line| line.contains("stopped"))
    };
    terminal.type_in("\u{1a}")?;
    poll(|| is_stopped()?.then_some(()))?;
    // The shell has the terminal back, and lists the job as stopped.
    terminal.type_in("jobs > jobs; echo > shell\n")?;
    running.wait_for("shell")?;
    ensure!(running.read("jobs").contains("Stopped") && is_stopped() == Some(true), "{}", running.read("jobs"));
    terminal.type_in("fg; echo $? > status\n")?;
    poll(|| (!is_stopped()?).then_some(()))?;
    terminal.type_in("typed\n")?;
    ensure!(running.wait_for("line")? == "typed" && running.wait_for("status")? == "6");
    terminal.type_in("exit\n")?;
    running.wait()?;
    ensure_released(&agent.api(), "k")
}

#[test]
fn tokens_and_acls_are_respected() -> Result<()> {
    let (agent, folder) = (Consul::start(Kind::Acl)?, TempDir::new()?);
    let api = agent.api();
    let rules =
        r#"session_prefix "" { policy = "write" } key_prefix "mine" { policy = "write" } key "seen" { policy = "read" }"#;
    api.put("/v1/acl/policy", Some(&json!({"Name": "lock", "Rules": rules})))?;
    let token = api.put("/v1/acl/token", Some(&json!({"Policies": [{"Name": "lock"}]})))?;
    let token = token["SecretID"].as_str().context("no token")?;
    ensure!(token != ROOT_TOKEN);
    let file = folder.path().join("token");
    std::fs::write(&file, token)?;
    let run_lock = |args: &str, variables: &[(&str, &str)]| -> Result<Output> {
        let output = run(lock(agent.http(), args, "env", &folder)?.envs(variables.iter().copied()))?;
        ensure!(!output.stderr.contains(token), "{output:?}");
        let inherited = variables.iter().any(|(_, value)| *value == token);
        // The command inherits the variables, and gets the token in no other one.
        ensure!(output.stdout.contains(token) == (inherited && output.status == 0), "{args}: {output:?}");
        Ok(output)
    };
    let variable = [("CONSUL_HTTP_TOKEN", token)];
    for key in ["mine", "mine/.lock", "mine/a/b", "mine/\u{fc}"] {
        ensure!(run_lock(key, &variable)?.status == 0, "{key}");
        ensure_released(&api, "mine")?;
    }
    let path = file.display().to_string();
    ensure!(run_lock("mine", &[("CONSUL_HTTP_TOKEN_FILE", &path)])?.status == 0);
    ensure!(run_lock(&format!("mine --token-file {path}"), &[])?.status == 0);
    ensure!(run_lock(&format!("mine --token {token}"), &[])?.status == 0);
    for (key, variables) in [("seen", &variable[..]), ("hidden", &variable), ("mine", &[])] {
        let output = run_lock(key, variables)?;
        ensure!(output.status == 1 && output.stderr.starts_with("error (access-denied): "), "{key}: {output:?}");
        ensure_released(&api, key)?;
    }
    Ok(())
}

#[test]
fn consul_lock_and_lock_exclude_each_other() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (api, folder) = (agent.api(), TempDir::new()?);
    let consul_lock = |args: &[&str]| -> Result<Command> {
        let mut command = Command::new(Consul::binary().context("no Consul program")?);
        command.arg("lock").arg(format!("-http-addr=http://{}", agent.http())).args(args).current_dir(folder.path());
        Ok(command)
    };
    let mut first = consul_lock(&["p", "echo > held; while [ ! -e go ]; do sleep 0.05; done"])?.spawn()?;
    poll(|| folder.path().join("held").exists().then_some(()))?;
    let output = run(&mut lock(agent.http(), "p/.lock --wait 0", "echo ran", &folder)?)?;
    let holder = key(&api, "p/.lock")?["Session"].as_str().context("no session")?.to_owned();
    let session = api.sessions()?[0].clone();
    let name = session["Name"].as_str().filter(|name| name.starts_with("Consul lock for ")).context("another name")?;
    let node = session["Node"].as_str().context("no node")?;
    // Its key has no value: the session says who it is.
    let expected = format!("no lock on `p/.lock`: session {holder} (\"{name}\" on node {node}) holds it\n");
    ensure!(output.status == 124 && output.stderr == format!("error (refused): {expected}"), "{output:?}");
    let mut second =
        Running::start(agent.http(), &format!("p/.lock {SHORT}"), "echo > held; while [ ! -e go ]; do sleep 0.05; done")?;
    second.wait_until("stderr", |text| text.contains("waiting"))?;
    ensure!(second.read("held").is_empty());
    std::fs::write(folder.path().join("go"), "")?;
    ensure!(first.wait()?.success());
    second.wait_for("held")?;

    let output = consul_lock(&["-try=1s", "p", "echo ran"])?.output()?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    second.go()?;
    ensure!(second.wait()?.0 == 0);
    let output = consul_lock(&["p", "echo ran"])?.output()?;
    ensure!(output.status.success() && output.stdout == b"ran\n", "{output:?}");
    poll(|| ensure_released(&api, "p/.lock").ok())
}

/// The number of threads that contend for one lock.
const CONTENDERS: usize = 20;
/// How often each of them takes the lock.
const ROUNDS: usize = 50;

#[test]
fn twenty_contenders_never_overlap() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = TempDir::new()?;
    let file = folder.path().join("count");
    std::fs::write(&file, "0\n")?;
    scope(|scope| {
        let contend = || -> Result<()> {
            for _ in 0..ROUNDS {
                let output =
                    run(&mut lock(agent.http(), "k --delay 0 --ttl 60s", "n=$(cat count); echo $((n+1)) > count", &folder)?)?;
                ensure!(output.status == 0 && output.stderr.lines().count() <= 1, "{output:?}");
            }
            Ok(())
        };
        let contenders: Vec<_> = (0..CONTENDERS).map(|_| scope.spawn(contend)).collect();
        contenders.into_iter().try_for_each(|contender| contender.join().map_err(|_| anyhow!("panicked"))?)
    })?;
    let count = std::fs::read_to_string(&file)?;
    ensure!(count == format!("{}\n", CONTENDERS * ROUNDS), "{count}");
    ensure_released(&agent.api(), "k")
}

/// A resource that the lock protects. It rejects a fence lower than the highest that it has seen.
#[derive(Default)]
struct Store {
    highest: u64,
    content: &'static str,
}

impl Store {
    /// Writes the content unless the fence is too low, and returns whether it did.
    fn write(&mut self, fence: u64, content: &'static str) -> bool {
        let accepted = fence >= self.highest;
        if accepted {
            (self.highest, self.content) = (fence, content);
        }
        accepted
    }
}

#[test]
fn holder_stopped_past_its_ttl_is_told_and_its_late_write_refused() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let mut store = Store::default();
    let script = "trap 'echo $CONSUL_LOCK_FENCE > late; exit 0' TERM
        echo $$ > pid; env > env; echo $CONSUL_LOCK_FENCE > fence; while [ ! -e go ]; do sleep 0.05; done";
    let mut first = Running::start(agent.http(), &format!("k {SHORT}"), script)?;
    let fence = |running: &Running, file: &str| -> Result<u64> { Ok(running.wait_for(file)?.parse()?) };
    ensure!(store.write(fence(&first, "fence")?, "first"));
    let command = Pid::from_raw(first.wait_for("pid")?.parse()?).context("not a process id")?;
    // The program and its command stop, as on a machine that is suspended.
    first.signal(Signal::STOP)?;
    kill_process(command, Signal::STOP)?;

    let mut second = Running::hold(agent.http(), &format!("k {SHORT}"))?;
    ensure!(fence(&second, "fence")? > fence(&first, "fence")?);
    ensure!(store.write(fence(&second, "fence")?, "second"));

    kill_process(command, Signal::CONT)?;
    first.signal(Signal::CONT)?;
    ensure_lost(&mut first, "it was not renewed within its TTL")?;
    ensure!(!store.write(fence(&first, "late")?, "late") && store.content == "second");
    second.go()?;
    ensure!(second.wait()?.0 == 0);
    ensure_released(&agent.api(), "k")
}
