//! `lock`, as a person types it, against real Consuls: who gets the lock and when, what becomes of the command when the lock is
//! lost in each way that it can be, and that nothing is left.

use anyhow::{Context, Result, anyhow, bail, ensure};
use consul_session_tests::embedded::start_dev_agent;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use serde_json::{Value, json};
use std::net::SocketAddr;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, Command, ExitCode, Stdio};
use std::thread::{scope, sleep};
use std::time::{Duration, Instant};
use tempfile::TempDir;
use test_support::agent::Api;
use test_support::consul::{Consul, Kind, ROOT_TOKEN};
use test_support::program::{Ran, host, input, run};
use test_support::terminal::Terminal;
use test_support::trial::{Test, run_tests};
use test_support::unused_address;

fn main() -> ExitCode {
    // A shell that is not at a terminal has what it runs in the background ignore SIGINT, and `nohup` SIGHUP: and so would the
    // programs that are started here.
    for signal in [libc::SIGINT, libc::SIGHUP] {
        // SAFETY: there is no other thread yet, and no handler.
        unsafe { libc::signal(signal, libc::SIG_DFL) };
    }
    let without_consul: [(&str, Test); 4] = [
        ("dev agent: the command's status, signal and environment", || endings_at(start_dev_agent(unused_address()?)?.addr())),
        ("dev agent: a second one gets it at once, a third one gives up", || {
            queue_at(start_dev_agent(unused_address()?)?.addr())
        }),
        ("--dev", dev),
        ("what is typed wrongly", mistakes),
    ];
    let with_consul: [(&str, Test); 17] = [
        // First, since it computes while the others wait.
        ("20 contenders add 50 times each to a file", || with_plain(contenders_at)),
        ("the command's status, signal and environment", || with_plain(endings_at)),
        ("a second one gets it at once, a third one gives up", || with_plain(queue_at)),
        ("a key that holds something else is left alone", || with_plain(data_at)),
        ("a lock delay is waited for", || with_plain(delay_at)),
        ("a session destroyed from outside", || with_plain(destroyed_at)),
        ("a key deleted from outside, or taken over", || with_plain(taken_at)),
        ("a command that does not want to end", || with_plain(stubborn_at)),
        ("an agent that is gone for longer than the TTL", agent_gone),
        ("an agent that is gone for a moment", agent_restarted),
        ("the session is lost while waiting", || with_plain(lost_waiting_at)),
        ("signals, with the lock and without", || with_plain(signals_at)),
        ("a terminal: the command has it, and gets Ctrl-C once", || with_plain(terminal_at)),
        ("a terminal: Ctrl-Z stops both, and fg lets them go on", || with_plain(job_control_at)),
        ("tokens and ACLs", acls),
        ("consul lock and this exclude each other", || with_plain(consul_lock_at)),
        ("one that is stopped past its TTL is told, and its late write refused", || with_plain(stopped_at)),
    ];
    run_tests(without_consul, with_consul)
}

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");
/// The longest that anything here may take.
const LIMIT: Duration = Duration::from_secs(60);
/// The shortest TTL that Consul takes, and a delay that costs no time.
const SHORT: &str = "ttl=10s delay=0";
const TTL: Duration = Duration::from_secs(10);

fn with_plain(test: fn(SocketAddr) -> Result<()>) -> Result<()> {
    test(Consul::start(Kind::Plain)?.http())
}

/// The program with these words, of which the first is the key, then `--` and a shell with this script, in a folder of its own.
fn lock(agent: SocketAddr, words: &str, script: &str, folder: &TempDir) -> Result<Command> {
    let (ip, port) = (agent.ip(), agent.port());
    let line = format!("lock {words} host={ip} port={port} -- sh -c");
    let mut words: Vec<&str> = line.split_whitespace().collect();
    words.push(script);
    let mut command = host(PROGRAM, &words, &[])?;
    command.current_dir(folder.path());
    Ok(command)
}

/// One that runs beside the test.
struct Running {
    child: Child,
    folder: TempDir,
}

impl Running {
    fn start(agent: SocketAddr, words: &str, script: &str) -> Result<Running> {
        let folder = TempDir::new()?;
        let mut command = lock(agent, words, script, &folder)?;
        let log = std::fs::File::create(folder.path().join("stderr"))?;
        let child = command.stdout(Stdio::null()).stderr(log).spawn()?;
        Ok(Running { child, folder })
    }

    /// Starts one whose command holds the lock until it is told to end, or `touch go` is done in its folder.
    fn hold(agent: SocketAddr, words: &str) -> Result<Running> {
        let script = "echo $$ > pid; env > env; echo $CONSUL_LOCK_FENCE > fence; while [ ! -e go ]; do sleep 0.05; done";
        let running = Running::start(agent, words, script)?;
        running.wait_for("fence")?;
        Ok(running)
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.folder.path().join(file)).unwrap_or_default()
    }

    /// The content of a file, as soon as there is a line in it.
    fn wait_for(&self, file: &str) -> Result<String> {
        self.wait_until(file, |text| text.ends_with('\n')).map(|text| text.trim().to_owned())
    }

    fn wait_until(&self, file: &str, holds: impl Fn(&str) -> bool) -> Result<String> {
        let said = || self.read("stderr");
        let text = until(|| Some(self.read(file)).filter(|text| holds(text) || said().starts_with("error (")));
        let text = text.with_context(|| format!("{file}: {}; {}", self.read(file), said()))?;
        ensure!(holds(&text), "{}", said());
        Ok(text)
    }

    fn go(&self) -> Result<()> {
        Ok(std::fs::write(self.folder.path().join("go"), "")?)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        Ok(kill_process(Pid::from_child(&self.child), signal)?)
    }

    /// Its exit status and what it said.
    fn end(&mut self) -> Result<(i32, String)> {
        let status = until(|| self.child.try_wait().ok().flatten()).context("it does not end")?;
        let code = status.code().or(status.signal().map(|signal| -signal)).context("no status")?;
        Ok((code, self.read("stderr")))
    }

    /// Whether the command still runs.
    fn command_runs(&self) -> Result<bool> {
        runs(&self.wait_for("pid")?)
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // What it started ends by itself when it may go.
        let _ = self.go();
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

fn runs(pid: &str) -> Result<bool> {
    let pid = Pid::from_raw(pid.parse()?).context("no process")?;
    Ok(test_kill_process(pid).is_ok())
}

/// What there is in the end.
fn until<T>(mut look: impl FnMut() -> Option<T>) -> Result<T> {
    let start = Instant::now();
    loop {
        match look() {
            Some(found) => return Ok(found),
            None if start.elapsed() > LIMIT => bail!("not in {LIMIT:?}"),
            None => sleep(Duration::from_millis(20)),
        }
    }
}

/// The key as Consul stores it.
fn key(api: &Api, key: &str) -> Result<Value> {
    Ok(api.get(&format!("/v1/kv/{key}"))?[0].clone())
}

/// Fails unless there is no session, and nobody holds the key.
fn nothing_left(api: &Api, name: &str) -> Result<()> {
    let sessions = api.sessions()?;
    ensure!(sessions.is_empty(), "{sessions:?}");
    let answer = api.send("GET", &format!("/v1/kv/{name}"), None)?;
    ensure!(!answer.text.contains("\"Session\""), "{}", answer.text);
    Ok(())
}

fn plain(agent: SocketAddr) -> Api {
    Api::new(agent, Kind::Plain)
}

fn endings_at(agent: SocketAddr) -> Result<()> {
    let (api, folder) = (plain(agent), TempDir::new()?);
    for (script, stdout, stderr, status) in [
        ("exit 0", "", "", 0),
        ("echo out; echo err >&2; exit 7", "out\n", "err\n", 7),
        ("kill -9 $$", "", "", 137),
        // The standard input is the command's.
        ("cat", "typed\n", "", 0),
    ] {
        let ran = run(lock(agent, "k", script, &folder)?.stdin(input("typed\n")?))?;
        ensure!((&*ran.stdout, &*ran.stderr, ran.status) == (stdout, stderr, status), "{script}: {ran:?}");
        nothing_left(&api, "k")?;
    }

    let before = key(&api, "k")?;
    let mut running = Running::hold(agent, "a/k name=mine ttl=20s delay=3s behavior=delete checks=")?;
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
    ensure!(running.end()? == (0, String::new()));
    nothing_left(&api, "a/k")?;

    // Each time a higher number; what is started in vain leaves nothing.
    let (ip, port) = (agent.ip().to_string(), agent.port().to_string());
    let words = ["lock", "k", &format!("host={ip}"), &format!("port={port}"), "--", "no-such-command"];
    let ran = run(&mut host(PROGRAM, &words, &[])?)?;
    let expected = "error (other): the command cannot be started: no-such-command: ";
    ensure!(ran.status == 1 && ran.stderr.starts_with(expected), "{ran:?}");
    nothing_left(&api, "k")?;
    let after = key(&api, "k")?;
    ensure!(after["LockIndex"].as_u64() == before["LockIndex"].as_u64().map(|index| index + 1), "{before} {after}");
    Ok(())
}

fn queue_at(agent: SocketAddr) -> Result<()> {
    let (api, folder) = (plain(agent), TempDir::new()?);
    // A lock delay would be longer than anything here may take.
    let mut first = Running::hold(agent, "k ttl=10s delay=60")?;
    let held = key(&api, "k")?;
    let holder = held["Session"].as_str().context("no session")?;
    let mut second = Running::start(agent, "k ttl=10s delay=60", "echo $CONSUL_LOCK_FENCE > fence")?;
    second.wait_until("stderr", |text| text.contains("waiting"))?;

    let pid = first.child.id();
    let told = |text: &str| {
        text.contains(&format!("session {holder} holds it, and says of itself: {{"))
            && text.contains(&format!("\"pid\":{pid}}}"))
    };
    for words in ["k --wait 0", "k --wait 1s"] {
        let ran = run(&mut lock(agent, words, "echo ran", &folder)?)?;
        ensure!(ran.status == 1 && ran.stdout.is_empty(), "{ran:?}");
        ensure!(ran.stderr.contains("error (refused): no lock on `k`: ") && told(&ran.stderr), "{ran:?}");
    }
    let ran = run(&mut lock(agent, "k --wait 0 --format json", "echo ran", &folder)?)?;
    let error = ran.json()?;
    ensure!(ran.status == 1 && ran.stderr.is_empty() && error["error"] == "refused" && error["status"] == 409, "{ran:?}");
    ensure!(told(error["msg"].as_str().unwrap_or_default()), "{ran:?}");
    // What was tried in vain leaves no session.
    ensure!(api.sessions()?.len() == 2, "{:?}", api.sessions()?);

    first.go()?;
    ensure!(first.end()? == (0, String::new()));
    let (status, said) = second.end()?;
    ensure!(status == 0 && said.lines().count() == 1 && told(&said), "{status}: {said}");
    let number = |running: &Running| -> Result<u64> { Ok(running.wait_for("fence")?.parse()?) };
    ensure!(number(&second)? > number(&first)?);
    nothing_left(&api, "k")
}

fn dev() -> Result<()> {
    let ran = run(&mut host(PROGRAM, &["--dev", "lock", "k", "--", "sh", "-c", "echo $CONSUL_LOCK_KEY; exit 4"], &[])?)?;
    ensure!((&*ran.stdout, &*ran.stderr, ran.status) == ("k\n", "", 4), "{ran:?}");
    Ok(())
}

fn mistakes() -> Result<()> {
    for (words, option, message) in [
        ("lock", "arguments", "`lock` needs KEY"),
        ("lock k", "arguments", "`lock` needs `-- COMMAND [ARG]...`"),
        ("lock k state=list -- true", "state", "option `state` means nothing to `lock`"),
        ("lock k --dry-run -- true", "dry_run", "means nothing to `lock`"),
        ("lock k ttl=0 -- true", "ttl", "`lock` needs one"),
        ("lock k ttl=5 -- true", "ttl", "10s to 86400s"),
        ("lock k --wait soon -- true", "wait", "invalid value `soon` for --wait: not a duration"),
        ("lock k --wait -1 -- true", "wait", "invalid value `-1` for --wait: not a duration"),
        ("lock k --kill-after x -- true", "kill-after", "--kill-after: `x`"),
        ("lock /k -- true", "key", "begins with `/`"),
    ] {
        let words: Vec<&str> = ["--dev", "--format", "json"].into_iter().chain(words.split(' ')).collect();
        let ran = run(&mut host(PROGRAM, &words, &[])?)?;
        let error = ran.json()?;
        let said = error["msg"].as_str().unwrap_or_default();
        ensure!(ran.status == 1 && error["option"] == option && said.contains(message), "{words:?}: {ran:?}");
    }
    Ok(())
}

fn data_at(agent: SocketAddr) -> Result<()> {
    let (api, folder) = (plain(agent), TempDir::new()?);
    let session = api.put("/v1/session/create", Some(&json!({"LockDelay": "0s"})))?;
    let id = session["ID"].as_str().context("no id")?;
    api.put("/v1/kv/free", Some(&json!("data")))?;
    api.put("/v1/kv/zero", None)?;
    api.put(&format!("/v1/kv/held?flags=5&acquire={id}"), Some(&json!("data")))?;
    for (name, flags) in [("free", 0), ("zero", 0), ("held", 5)] {
        let before = key(&api, name)?;
        let ran = run(&mut lock(agent, name, "echo ran", &folder)?)?;
        let expected =
            format!("error (invalid-option): `key`: `{name}` holds something else than a lock (its flags are {flags})");
        ensure!(ran.status == 1 && ran.stdout.is_empty() && ran.stderr.starts_with(&expected), "{ran:?}");
        ensure!(key(&api, name)? == before);
    }
    ensure!(api.sessions()?.len() == 1, "{:?}", api.sessions()?);
    Ok(())
}

/// A session that holds this key as `lock` does.
fn other_holder(api: &Api, key: &str, delay: &str) -> Result<String> {
    let session = api.put("/v1/session/create", Some(&json!({"LockDelay": delay})))?;
    let id = session["ID"].as_str().context("no id")?.to_owned();
    let got = api.put(&format!("/v1/kv/{key}?flags=3304740253564472344&acquire={id}"), None)?;
    ensure!(got == true, "{got}");
    Ok(id)
}

fn delay_at(agent: SocketAddr) -> Result<()> {
    let (api, folder) = (plain(agent), TempDir::new()?);
    let id = other_holder(&api, "k", "3s")?;
    api.put(&format!("/v1/session/destroy/{id}"), None)?;
    let ran = run(&mut lock(agent, "k --wait 0", "echo ran", &folder)?)?;
    ensure!(ran.status == 1 && ran.stderr.contains("error (refused): ") && ran.stderr.contains("lock delay"), "{ran:?}");
    let ran = run(&mut lock(agent, "k", "echo ran", &folder)?)?;
    let said = "lock k: the session that held it has ended, and its lock delay runs, for 60 seconds at most; waiting\n";
    ensure!((&*ran.stdout, &*ran.stderr, ran.status) == ("ran\n", said, 0), "{ran:?}");
    nothing_left(&api, "k")
}

/// Fails unless it ends with this status after saying this of its session, and its command is gone.
fn lost(running: &mut Running, status: i32, why: &str) -> Result<()> {
    let session = running.read("env").lines().find_map(|line| line.strip_prefix("CONSUL_LOCK_SESSION=").map(str::to_owned));
    let session = session.context("no session")?;
    let (found, said) = running.end()?;
    ensure!(said.contains(&format!(": lost: session {session}: ")) && said.contains(why), "{said}");
    ensure!(said.contains("; ending the command\n") && found == status, "{found}: {said}");
    ensure!(!running.command_runs()?, "the command still runs");
    Ok(())
}

fn destroyed_at(agent: SocketAddr) -> Result<()> {
    let api = plain(agent);
    for (script, status) in [
        ("", 143),
        // Success without the lock is none.
        ("trap 'exit 0' TERM; ", 1),
        ("trap 'exit 9' TERM; ", 9),
    ] {
        let script = format!("{script}echo $$ > pid; env > env; echo > held; while [ ! -e go ]; do sleep 0.05; done");
        let mut running = Running::start(agent, &format!("k {SHORT}"), &script)?;
        running.wait_for("held")?;
        let holder = key(&api, "k")?["Session"].as_str().context("no session")?.to_owned();
        api.put(&format!("/v1/session/destroy/{holder}"), None)?;
        lost(&mut running, status, "")?;
        nothing_left(&api, "k")?;
    }
    Ok(())
}

fn taken_at(agent: SocketAddr) -> Result<()> {
    let api = plain(agent);
    let mut running = Running::hold(agent, &format!("k {SHORT}"))?;
    api.send("DELETE", "/v1/kv/k", None)?;
    lost(&mut running, 143, "the key was deleted")?;
    nothing_left(&api, "k")?;

    let mut running = Running::hold(agent, &format!("k {SHORT}"))?;
    let holder = key(&api, "k")?["Session"].clone();
    let other = api.put("/v1/session/create", None)?["ID"].clone();
    let operation = |verb: &str, session: &Value| json!({"KV": {"Verb": verb, "Key": "k", "Session": session, "Flags": 1}});
    api.put("/v1/txn", Some(&json!([operation("unlock", &holder), operation("lock", &other)])))?;
    let other = other.as_str().context("no id")?;
    lost(&mut running, 143, &format!("session {other} holds the key"))?;
    // What it lost is not its own to release.
    ensure!(key(&api, "k")?["Session"] == other);
    ensure!(api.sessions()?.len() == 1, "{:?}", api.sessions()?);
    Ok(())
}

fn stubborn_at(agent: SocketAddr) -> Result<()> {
    let api = plain(agent);
    let forever = "while [ ! -e go ]; do sleep 0.05; done";
    // One that ends and leaves another behind, and one that does not end: nothing of either is left.
    for (outer, status) in [("trap 'exit 3' TERM", 3), ("trap '' TERM", 137)] {
        let script = format!(
            "{outer}; sh -c 'trap \"\" TERM; echo $$ > inner; {forever}' & echo $$ > pid; env > env; echo > held; {forever}"
        );
        let mut running = Running::start(agent, &format!("k {SHORT} --kill-after 1s"), &script)?;
        let inner = running.wait_for("inner")?;
        running.wait_for("held")?;
        api.send("DELETE", "/v1/kv/k", None)?;
        // Its status is that of the shell, which the other process outlives.
        lost(&mut running, status, "")?;
        until(|| (!runs(&inner).ok()?).then_some(())).context("the inner process still runs")?;
        nothing_left(&api, "k")?;
    }
    Ok(())
}

fn agent_gone() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let mut running = Running::hold(agent.http(), &format!("k {SHORT} timeout=2"))?;
    agent.pause()?;
    lost(&mut running, 143, "it could not be renewed within its TTL: ")?;
    let said = running.read("stderr");
    ensure!(said.contains("the session could not be destroyed: ") && said.contains("in up to 20 seconds"), "{said}");
    agent.resume()?;
    until(|| nothing_left(&agent.api(), "k").ok())
}

fn agent_restarted() -> Result<()> {
    let mut agent = Consul::start_persistent(Kind::Plain)?;
    let mut running = Running::hold(agent.http(), "k ttl=20s delay=0")?;
    let start = Instant::now();
    agent.kill()?;
    agent.restart()?;
    // Without a renewal it would be lost by then.
    sleep((2 * TTL + Duration::from_secs(2)).saturating_sub(start.elapsed()));
    ensure!(running.command_runs()?, "{}", running.read("stderr"));
    running.go()?;
    ensure!(running.end()? == (0, String::new()));
    nothing_left(&agent.api(), "k")
}

fn lost_waiting_at(agent: SocketAddr) -> Result<()> {
    let api = plain(agent);
    let mut first = Running::hold(agent, &format!("k {SHORT} name=first"))?;
    let mut second = Running::start(agent, &format!("k {SHORT} name=second"), "echo > fence")?;
    second.wait_until("stderr", |text| text.contains("waiting"))?;
    let sessions = api.sessions()?;
    let waiting = sessions.iter().find(|session| session["Name"] == "second").context("no session")?;
    api.put(&format!("/v1/session/destroy/{}", waiting["ID"].as_str().context("no id")?), None)?;
    second.wait_until("stderr", |text| text.contains("Consul has ended it; going on with another\n"))?;
    first.go()?;
    ensure!(first.end()?.0 == 0 && second.end()?.0 == 0, "{}", second.read("stderr"));
    nothing_left(&api, "k")
}

fn signals_at(agent: SocketAddr) -> Result<()> {
    let api = plain(agent);
    let words = format!("k {SHORT}");
    let forever = "echo > held; while [ ! -e go ]; do sleep 0.05; done";
    for (signal, status) in [(Signal::TERM, 143), (Signal::INT, 130), (Signal::HUP, 129)] {
        let mut running = Running::start(agent, &words, forever)?;
        running.wait_for("held")?;
        // Another one waits, and is ended first.
        let mut other = Running::start(agent, &words, "echo ran")?;
        other.wait_until("stderr", |text| text.contains("waiting"))?;
        other.signal(signal)?;
        let (found, said) = other.end()?;
        ensure!(found == status && said.lines().count() == 1, "{found}: {said}");
        ensure!(api.sessions()?.len() == 1, "{:?}", api.sessions()?);
        running.signal(signal)?;
        ensure!(running.end()? == (status, String::new()), "{signal:?}");
        nothing_left(&api, "k")?;
    }
    // The command decides what becomes of it, and the second one kills it.
    let mut running = Running::start(agent, &words, &format!("trap 'echo told >> told; exit 3' TERM; {forever}"))?;
    running.wait_for("held")?;
    running.signal(Signal::TERM)?;
    // The shell itself may say of what it ran that it was ended.
    let quiet = |(status, said): (i32, String)| (status, said.contains("lock k: "));
    ensure!(quiet(running.end()?) == (3, false) && running.read("told") == "told\n", "{}", running.read("stderr"));
    let mut running = Running::start(agent, &words, &format!("trap 'echo told >> told' TERM; {forever}"))?;
    running.wait_for("held")?;
    running.signal(Signal::TERM)?;
    running.wait_for("told")?;
    ensure!(running.child.try_wait()?.is_none());
    running.signal(Signal::TERM)?;
    ensure!(quiet(running.end()?) == (137, false), "{}", running.read("stderr"));
    nothing_left(&api, "k")?;

    // What this program is told to ignore is not passed on.
    let folder = TempDir::new()?;
    let typed = lock(agent, &words, &format!("echo $$ > pid; {forever}"), &folder)?;
    let mut nohup = Command::new("sh");
    nohup.args(["-c", "trap '' HUP; exec \"$0\" \"$@\""]).arg(PROGRAM).args(typed.get_args()).current_dir(folder.path());
    nohup.envs(typed.get_envs().filter_map(|(name, value)| Some((name, value?)))).env_remove("CONSUL_HTTP_ADDR");
    let log = std::fs::File::create(folder.path().join("stderr"))?;
    let child = nohup.stdout(Stdio::null()).stderr(log).spawn()?;
    let mut running = Running { child, folder };
    running.wait_for("held")?;
    running.signal(Signal::HUP)?;
    running.signal(Signal::INT)?;
    ensure!(running.end()? == (130, String::new()));
    nothing_left(&api, "k")
}

/// The words of a program at a terminal of its own, in this folder, in which `run.sh` is this script.
fn at_terminal(words: &[&str], script: &str, folder: &TempDir) -> Result<(Terminal, Child)> {
    std::fs::write(folder.path().join("run.sh"), script)?;
    let words: Vec<&str> = ["--ctty"].iter().chain(words).copied().collect();
    Terminal::control(host("setsid", &words, &[("PS1", "$ ")])?.current_dir(folder.path()), 80)
}

fn terminal_at(agent: SocketAddr) -> Result<()> {
    let folder = TempDir::new()?;
    let script =
        "trap 'echo int >> int' INT; echo > ready; read x; echo $x > line; while [ ! -e go ]; do sleep 0.05; done; exit 5";
    let line = format!("{PROGRAM} lock k {SHORT} host={} port={} -- sh run.sh", agent.ip(), agent.port());
    let words: Vec<&str> = line.split(' ').collect();
    let (terminal, child) = at_terminal(&words, script, &folder)?;
    let mut running = Running { child, folder };
    running.wait_for("ready")?;
    terminal.type_in("typed\n")?;
    ensure!(running.wait_for("line")? == "typed");
    terminal.type_in("\u{3}")?;
    running.wait_for("int")?;
    // A second one would come as fast.
    sleep(Duration::from_millis(300));
    ensure!(running.read("int") == "int\n", "{}", running.read("int"));
    running.go()?;
    ensure!(running.end()?.0 == 5, "{}", terminal.text());
    nothing_left(&plain(agent), "k")
}

fn job_control_at(agent: SocketAddr) -> Result<()> {
    let folder = TempDir::new()?;
    // It starts nothing: a shell whose start of another program is stopped half-way is not stopped itself (vfork).
    let script = "echo $$ > pid; read x; echo $x > line; exit 6";
    let (terminal, child) = at_terminal(&["sh", "-i"], script, &folder)?;
    let mut running = Running { child, folder };
    terminal.wait_for(|text| text.contains('$'))?;
    terminal.type_in(&format!("{PROGRAM} lock k ttl=60s host={} port={} -- sh run.sh\n", agent.ip(), agent.port()))?;
    let pid = running.wait_for("pid")?;
    let is_stopped = || {
        let status = std::fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
        status.lines().find(|line| line.starts_with("State:")).map(|line| line.contains("stopped"))
    };
    terminal.type_in("\u{1a}")?;
    until(|| is_stopped()?.then_some(()))?;
    // The shell has the terminal, and knows why.
    terminal.type_in("jobs > jobs; echo > shell\n")?;
    running.wait_for("shell")?;
    ensure!(running.read("jobs").contains("Stopped") && is_stopped() == Some(true), "{}", running.read("jobs"));
    terminal.type_in("fg; echo $? > status\n")?;
    until(|| (!is_stopped()?).then_some(()))?;
    terminal.type_in("typed\n")?;
    ensure!(running.wait_for("line")? == "typed" && running.wait_for("status")? == "6");
    terminal.type_in("exit\n")?;
    running.end()?;
    nothing_left(&plain(agent), "k")
}

fn acls() -> Result<()> {
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
    let typed = |words: &str, variables: &[(&str, &str)]| -> Result<Ran> {
        let ran = run(lock(agent.http(), words, "env", &folder)?.envs(variables.iter().copied()))?;
        ensure!(!ran.stderr.contains(token), "{ran:?}");
        let given = variables.iter().any(|(_, value)| *value == token);
        // What was inherited is left, and nothing put beside it.
        ensure!(ran.stdout.contains(token) == (given && ran.status == 0), "{words}: {ran:?}");
        Ok(ran)
    };
    let variable = [("CONSUL_HTTP_TOKEN", token)];
    for key in ["mine", "mine/.lock", "mine/a/b", "mine/\u{fc}"] {
        ensure!(typed(key, &variable)?.status == 0, "{key}");
        nothing_left(&api, "mine")?;
    }
    let path = file.display().to_string();
    ensure!(typed("mine", &[("CONSUL_HTTP_TOKEN_FILE", &path)])?.status == 0);
    ensure!(typed(&format!("mine --token-file {path}"), &[])?.status == 0);
    ensure!(typed(&format!("mine token={token}"), &[])?.status == 0);
    for (key, variables) in [("seen", &variable[..]), ("hidden", &variable), ("mine", &[])] {
        let ran = typed(key, variables)?;
        ensure!(ran.status == 1 && ran.stderr.starts_with("error (access-denied): "), "{key}: {ran:?}");
        nothing_left(&api, key)?;
    }
    Ok(())
}

fn consul_lock_at(agent: SocketAddr) -> Result<()> {
    let (api, folder) = (plain(agent), TempDir::new()?);
    let consul = |words: &[&str]| -> Result<Command> {
        let mut command = Command::new(Consul::binary().context("no Consul")?);
        command.arg("lock").arg(format!("-http-addr=http://{agent}")).args(words).current_dir(folder.path());
        Ok(command)
    };
    let mut first = consul(&["p", "echo > held; while [ ! -e go ]; do sleep 0.05; done"])?.spawn()?;
    until(|| folder.path().join("held").exists().then_some(()))?;
    let ran = run(&mut lock(agent, "p/.lock --wait 0", "echo ran", &folder)?)?;
    ensure!(ran.status == 1 && ran.stderr.contains("error (refused): no lock on `p/.lock`: session "), "{ran:?}");
    let mut ours = Running::start(agent, &format!("p/.lock {SHORT}"), "echo > held; while [ ! -e go ]; do sleep 0.05; done")?;
    ours.wait_until("stderr", |text| text.contains("waiting"))?;
    ensure!(ours.read("held").is_empty());
    std::fs::write(folder.path().join("go"), "")?;
    ensure!(first.wait()?.success());
    ours.wait_for("held")?;

    let output = consul(&["-try=1s", "p", "echo ran"])?.output()?;
    ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
    ours.go()?;
    ensure!(ours.end()?.0 == 0);
    let output = consul(&["p", "echo ran"])?.output()?;
    ensure!(output.status.success() && output.stdout == b"ran\n", "{output:?}");
    until(|| nothing_left(&api, "p/.lock").ok())
}

/// How many programs at once, and how often each.
const CONTENDERS: usize = 20;
const TIMES: usize = 50;

fn contenders_at(agent: SocketAddr) -> Result<()> {
    let folder = TempDir::new()?;
    let file = folder.path().join("count");
    std::fs::write(&file, "0\n")?;
    scope(|scope| {
        let contend = || -> Result<()> {
            for _ in 0..TIMES {
                let ran = run(&mut lock(agent, "k delay=0 ttl=60s", "n=$(cat count); echo $((n+1)) > count", &folder)?)?;
                ensure!(ran.status == 0 && ran.stderr.lines().count() <= 1, "{ran:?}");
            }
            Ok(())
        };
        let contenders: Vec<_> = (0..CONTENDERS).map(|_| scope.spawn(contend)).collect();
        contenders.into_iter().try_for_each(|contender| contender.join().map_err(|_| anyhow!("a panic"))?)
    })?;
    let count = std::fs::read_to_string(&file)?;
    ensure!(count == format!("{}\n", CONTENDERS * TIMES), "{count}");
    nothing_left(&plain(agent), "k")
}

/// What the lock protects: it refuses a number lower than one that it has seen.
#[derive(Default)]
struct Store {
    highest: u64,
    content: &'static str,
}

impl Store {
    fn write(&mut self, fence: u64, content: &'static str) -> bool {
        let accepted = fence >= self.highest;
        if accepted {
            (self.highest, self.content) = (fence, content);
        }
        accepted
    }
}

fn stopped_at(agent: SocketAddr) -> Result<()> {
    let mut store = Store::default();
    let script = "trap 'echo $CONSUL_LOCK_FENCE > late; exit 0' TERM
        echo $$ > pid; env > env; echo $CONSUL_LOCK_FENCE > fence; while [ ! -e go ]; do sleep 0.05; done";
    let mut first = Running::start(agent, &format!("k {SHORT}"), script)?;
    let number = |running: &Running, file: &str| -> Result<u64> { Ok(running.wait_for(file)?.parse()?) };
    ensure!(store.write(number(&first, "fence")?, "first"));
    let command = Pid::from_raw(first.wait_for("pid")?.parse()?).context("no process")?;
    // As on a machine that sleeps.
    first.signal(Signal::STOP)?;
    kill_process(command, Signal::STOP)?;

    let mut second = Running::hold(agent, &format!("k {SHORT}"))?;
    ensure!(number(&second, "fence")? > number(&first, "fence")?);
    ensure!(store.write(number(&second, "fence")?, "second"));

    kill_process(command, Signal::CONT)?;
    first.signal(Signal::CONT)?;
    lost(&mut first, 1, "it was not renewed within its TTL")?;
    ensure!(!store.write(number(&first, "late")?, "late") && store.content == "second");
    second.go()?;
    ensure!(second.end()?.0 == 0);
    nothing_left(&plain(agent), "k")
}
