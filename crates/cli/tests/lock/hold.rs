//! `hold`: how long the session lives, and what happens when it ends.

use super::*;

/// Returns the command that runs `hold` in this folder. Spaces separate arguments; a script, if
/// any, is its command.
fn hold(address: SocketAddr, args: &str, script: Option<&str>, folder: &TempDir) -> Result<Command> {
    reset_signals();
    let line = format!("hold {args} --host {} --port {}", address.ip(), address.port());
    let mut args: Vec<&str> = line.split_whitespace().collect();
    args.extend(script.iter().flat_map(|script| ["--", "sh", "-c", script]));
    let mut command = consul_session(PROGRAM, &args, &[])?;
    command.current_dir(folder.path());
    Ok(command)
}

/// Starts `hold` with the arguments of [`hold()`].
fn start(address: SocketAddr, args: &str, script: Option<&str>) -> Result<Running> {
    let folder = TempDir::new()?;
    let command = hold(address, args, script, &folder)?;
    Running::start_in(command, folder)
}

/// Checks `hold` without and with a command.
fn check_at(address: SocketAddr) -> Result<()> {
    let api = plain(address);
    for signal in [Signal::TERM, Signal::INT, Signal::HUP] {
        let mut running = start(address, "worker-7 --ttl 20s --delay 3s --behavior delete", None)?;
        let id = running.wait_for("stdout")?;
        let sessions = api.sessions()?;
        let session = &sessions[0];
        ensure!(session["ID"] == *id && session["Name"] == "worker-7" && session["TTL"] == "20s", "{session}");
        ensure!(session["LockDelay"] == 3_000_000_000_u64 && session["Behavior"] == "delete" && sessions.len() == 1);
        running.signal(signal)?;
        ensure!(running.wait()? == (0, String::new()), "{signal:?}");
        ensure!(running.read("stdout") == format!("{id}\n") && api.sessions()?.is_empty());
    }
    let mut running = start(address, "worker-7 -o json", None)?;
    let text = running.wait_for("stdout")?;
    let answer: Value = serde_json::from_str(&text)?;
    ensure!(api.sessions()?[0]["ID"] == answer["session_id"] && answer["name"] == "worker-7", "{text}");
    ensure!(api.sessions()?[0]["TTL"] == "15s", "{:?}", api.sessions()?);
    running.signal(Signal::TERM)?;
    ensure!(running.wait()? == (0, String::new()));

    let folder = TempDir::new()?;
    let script = "echo \"$CONSUL_SESSION_NAME $CONSUL_SESSION_ID\"; cat; exit 7";
    let output = run(hold(address, "w", Some(script), &folder)?.stdin(input("typed\n")?))?;
    let (first, rest) = output.stdout.split_once('\n').context("no line")?;
    let id = first.strip_prefix("w ").context("no name")?;
    ensure!((id.len(), rest, &*output.stderr, output.status) == (36, "typed\n", "", 7), "{output:?}");
    ensure!(api.sessions()?.is_empty(), "{:?}", api.sessions()?);
    Ok(())
}

#[test]
fn held_session_lives_until_the_end() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    check_at(agent.http())
}

#[test]
fn held_session_lives_until_the_end_at_the_dev_agent() -> Result<()> {
    check_at(start_dev_agent(unused_address()?)?.addr())
}

#[test]
fn held_session_is_renewed() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let script = "while [ ! -e go ]; do sleep 0.05; done; echo $CONSUL_SESSION_ID";
    let mut running = start(agent.http(), "w --ttl 10s --delay 0", Some(script))?;
    poll(|| (!agent.api().sessions().ok()?.is_empty()).then_some(()))?;
    // Without a renewal the session would have expired by then.
    sleep(2 * TTL + Duration::from_secs(5));
    running.go()?;
    let sessions = agent.api().sessions()?;
    ensure!(running.wait()? == (0, String::new()));
    ensure!(sessions[0]["ID"] == *running.wait_for("stdout")? && agent.api().sessions()?.is_empty(), "{sessions:?}");
    Ok(())
}

#[test]
fn held_session_that_ends_is_a_loss() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let destroy = || api.put(&format!("/v1/session/destroy/{}", api.sessions()?[0]["ID"].as_str().context("no id")?), None);
    // Long before the renewal.
    let mut running = start(agent.http(), "w --ttl 1h", None)?;
    let id = running.wait_for("stdout")?;
    destroy()?;
    let (status, stderr) = running.wait()?;
    ensure!((status, &*stderr) == (125, &*format!("hold w: lost: session {id}: Consul has ended it\n")), "{status}: {stderr}");

    // The status of the command does not matter.
    let script = "trap 'echo term > term; exit 0' TERM; echo $$ > pid; while [ ! -e go ]; do sleep 0.05; done";
    let mut running = start(agent.http(), "w --ttl 1h", Some(script))?;
    running.wait_for("pid")?;
    destroy()?;
    let (status, stderr) = running.wait()?;
    ensure!(status == 125 && stderr.starts_with("hold w: lost: session "), "{status}: {stderr}");
    // The shell might report that its own child was terminated.
    ensure!(stderr.contains(": Consul has ended it; ending the command\n") && running.read("term") == "term\n", "{stderr}");

    // A session that ends just before its command is lost, too.
    let address = agent.http().to_string();
    let script = "curl -sS -X PUT http://$ADDRESS/v1/session/destroy/$CONSUL_SESSION_ID > gone; exit 0";
    let folder = TempDir::new()?;
    let output = run(hold(agent.http(), "w --ttl 1h", Some(script), &folder)?.env("ADDRESS", address))?;
    ensure!(output.status == 125 && output.stderr.contains("lost"), "{output:?}");
    Ok(())
}

#[test]
fn held_session_that_cannot_be_renewed_is_a_loss() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let mut running = start(agent.http(), "w --ttl 10s --timeout 2", None)?;
    let id = running.wait_for("stdout")?;
    agent.pause()?;
    let (status, stderr) = running.wait()?;
    agent.resume()?;
    let lost = format!("hold w: lost: session {id}: it could not be renewed within its TTL: ");
    ensure!(status == 125 && stderr.starts_with(&lost), "{status}: {stderr}");
    ensure!(stderr.ends_with("may still exist: then Consul ends it by itself within 20s, twice its ttl\n"), "{stderr}");
    poll(|| agent.api().sessions().ok()?.is_empty().then_some(()))
}

#[test]
fn session_that_may_stay_is_a_failure() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let mut running = start(agent.http(), "w --ttl 10m --timeout 1", None)?;
    let id = running.wait_for("stdout")?;
    agent.pause()?;
    running.signal(Signal::TERM)?;
    let (status, stderr) = running.wait()?;
    agent.resume()?;
    let expected = format!("; session {id} may still exist: then Consul ends it by itself within 20m, twice its ttl\n");
    ensure!(status == 125 && stderr.ends_with(&expected) && stderr.lines().count() == 1, "{status}: {stderr}");
    ensure!(stderr.starts_with(&format!("hold w: the destruction of session {id} failed: ")), "{stderr}");
    Ok(())
}

#[test]
fn held_session_is_destroyed_when_its_command_cannot_be_run() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (ip, port) = (agent.http().ip().to_string(), agent.http().port().to_string());
    for (command, status) in [("no-such-command", 127), ("/", 126)] {
        let output = run(&mut consul_session(PROGRAM, &["hold", "w", "--host", &ip, "--port", &port, "--", command], &[])?)?;
        ensure!(output.status == status && output.stderr.contains(&format!("{command}: ")), "{output:?}");
        ensure!(agent.api().sessions()?.is_empty());
    }
    Ok(())
}

#[test]
fn wrong_usage_of_hold_is_rejected() -> Result<()> {
    for (args, option, message) in [
        ("hold -o json", "arguments", "`hold` needs <NAME>"),
        ("hold w --ttl 0 -o json", "ttl", "`hold` needs one"),
        ("hold w true -o json", "arguments", ""),
        ("hold w --name x -o json", "name", "unknown flag `--name`"),
    ] {
        let args: Vec<&str> = ["--dev"].into_iter().chain(args.split(' ')).collect();
        let output = run(&mut consul_session(PROGRAM, &args, &[])?)?;
        let error = output.json()?;
        let found = error["msg"].as_str().unwrap_or_default();
        ensure!(output.status == 2 && error["option"] == option && found.contains(message), "{args:?}: {output:?}");
    }
    let output = run(&mut consul_session(PROGRAM, &["--dev", "hold", "w", "-o", "wide"], &[])?)?;
    ensure!(output.status == 2 && output.stderr.contains("`hold` cannot print it"), "{output:?}");
    Ok(())
}
