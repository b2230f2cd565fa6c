//! `lock --semaphore`: how many get in, and that real Consul's `consul lock -n` counts the same.

use super::*;
use base64::prelude::{BASE64_STANDARD, Engine as _};

/// The script of a command that runs until its folder has a file `go`.
const FOREVER: &str = "echo $$ > pid; env > env; while [ ! -e go ]; do sleep 0.05; done";

/// Returns the ids of the sessions that have a slot, as Consul stores them, in order.
fn holders(api: &Api, prefix: &str) -> Result<Vec<String>> {
    let entry = key(api, &format!("{prefix}/.lock"))?;
    let value = BASE64_STANDARD.decode(entry["Value"].as_str().context("no value")?)?;
    let value: Value = serde_json::from_slice(&value)?;
    let mut ids: Vec<String> = value["Holders"].as_object().context("no holders")?.keys().cloned().collect();
    ids.sort();
    Ok(ids)
}

/// Fails if there is a session or a key of the semaphore.
fn ensure_gone(api: &Api, prefix: &str) -> Result<()> {
    ensure!(api.sessions()?.is_empty(), "{:?}", api.sessions()?);
    let answer = api.send("GET", &format!("/v1/kv/{prefix}/?recurse"), None)?;
    ensure!(answer.status == 404, "{}", answer.text);
    Ok(())
}

fn start(address: SocketAddr, args: &str) -> Result<Running> {
    Running::start(address, args, FOREVER)
}

/// Checks that two get in and the third waits.
fn check_at(address: SocketAddr) -> Result<()> {
    let (api, folder) = (plain(address), TempDir::new()?);
    let args = "a/p -n 2 --ttl 10s";
    let (mut first, mut second) = (start(address, args)?, start(address, args)?);
    let environment = first.wait_until("env", |text| text.contains("CONSUL_LOCK_SESSION"))?;
    second.wait_for("pid")?;
    for line in ["CONSUL_LOCK_HELD=true", "CONSUL_LOCK_KEY=a/p"] {
        ensure!(environment.lines().any(|found| found == line), "no {line} in {environment}");
    }
    ensure!(!environment.contains("CONSUL_LOCK_FENCE") && !environment.contains("CONSUL_LOCK_INDEX"), "{environment}");
    ensure!(holders(&api, "a/p")?.contains(&session_of(&first)?));
    ensure!(api.sessions()?.iter().all(|session| session["Behavior"] == "delete"), "{:?}", api.sessions()?);

    let mut third = start(address, args)?;
    let waiting = third.wait_until("stderr", |text| text.contains("waiting"))?;
    let [one, two] = &holders(&api, "a/p")?[..] else { bail!("not two holders") };
    ensure!(waiting == format!("lock a/p: sessions {one} and {two} have its 2 slots; waiting\n"), "{waiting}");
    for wait in ["0", "1s"] {
        let output = run(&mut lock(address, &format!("{args} --wait {wait}"), "echo ran", &folder)?)?;
        let expected = format!("error (refused): no slot of `a/p`: sessions {one} and {two} have its 2 slots\n");
        ensure!(output.status == 124 && output.stdout.is_empty() && output.stderr.ends_with(&expected), "{output:?}");
    }
    ensure!(third.read("pid").is_empty() && api.sessions()?.len() == 3);

    let output = run(&mut lock(address, "a/p --semaphore 3", "echo ran", &folder)?)?;
    let expected = "error (refused): no slot of `a/p`: its holders use the limit 2, not 3";
    ensure!(output.status == 1 && output.stdout.is_empty() && output.stderr.starts_with(expected), "{output:?}");

    first.go()?;
    ensure!(first.wait()? == (0, String::new()));
    third.wait_for("pid")?;
    for running in [&mut second, &mut third] {
        running.go()?;
        ensure!(running.wait()?.0 == 0);
    }
    ensure_gone(&api, "a/p")
}

#[test]
fn slots_let_two_in_and_the_third_waits() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    check_at(agent.http())
}

#[test]
fn slots_let_two_in_and_the_third_waits_at_the_dev_agent() -> Result<()> {
    check_at(start_dev_agent(unused_address()?)?.addr())
}

#[test]
fn fence_of_another_lock_is_not_inherited() -> Result<()> {
    let (agent, folder) = (Consul::start(Kind::Plain)?, TempDir::new()?);
    let (ip, port) = (agent.http().ip(), agent.http().port());
    let inner = format!("exec {PROGRAM} lock p -n 2 --host {ip} --port {port} -- env");
    let output = run(&mut lock(agent.http(), "k", &inner, &folder)?)?.succeeded()?;
    let mut names: Vec<&str> = output.stdout.lines().filter_map(|line| line.split('=').next()).collect();
    names.retain(|name| name.starts_with("CONSUL_LOCK_"));
    names.sort_unstable();
    ensure!(names == ["CONSUL_LOCK_HELD", "CONSUL_LOCK_KEY", "CONSUL_LOCK_SESSION"], "{names:?}");
    ensure!(output.stdout.contains("CONSUL_LOCK_KEY=p\n"), "{}", output.stdout);
    Ok(())
}

#[test]
fn slot_of_a_holder_that_dies_is_free() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let mut first = start(agent.http(), "p -n 1 --ttl 10s")?;
    first.wait_until("env", |text| text.contains("CONSUL_LOCK_SESSION"))?;
    let mut second = start(agent.http(), "p -n 1 --ttl 10s")?;
    second.wait_until("stderr", |text| text.contains("waiting"))?;
    let died = session_of(&first)?;
    first.child.kill()?;
    first.wait()?;
    second.wait_for("pid")?;
    let holders = holders(&api, "p")?;
    ensure!(holders.len() == 1 && holders[0] != died, "{holders:?}");
    second.go()?;
    ensure!(second.wait()?.0 == 0);
    ensure_gone(&api, "p")
}

#[test]
fn lost_slot_ends_the_command() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    // The contender's key, the key with the holders, and the session.
    for lose in 0..3 {
        let mut running = start(agent.http(), "p -n 2 --ttl 1h")?;
        running.wait_until("env", |text| text.contains("CONSUL_LOCK_SESSION"))?;
        let session = session_of(&running)?;
        match lose {
            0 => drop(api.send("DELETE", &format!("/v1/kv/p/{session}"), None)?),
            1 => drop(api.send("DELETE", "/v1/kv/p/.lock", None)?),
            _ => drop(api.put(&format!("/v1/session/destroy/{session}"), None)?),
        }
        ensure_lost(&mut running, "it has no slot any more")?;
        ensure!(api.sessions()?.is_empty(), "{:?}", api.sessions()?);
    }
    Ok(())
}

#[test]
fn slots_of_a_key_with_other_data_are_refused() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (api, folder) = (agent.api(), TempDir::new()?);
    acquire(&api, "p/.lock", "0s")?;
    let before = key(&api, "p/.lock")?;
    let output = run(&mut lock(agent.http(), "p -n 2", "echo ran", &folder)?)?;
    let expected = "error (refused): no slot of `p`: `p/.lock` is not the key of a semaphore: it may be a lock, ";
    ensure!(output.status == 1 && output.stderr.starts_with(expected), "{output:?}");
    ensure!(key(&api, "p/.lock")? == before && api.sessions()?.len() == 1);
    // Neither does a lock take the key of a semaphore.
    let mut holder = start(agent.http(), "q -n 2")?;
    holder.wait_for("pid")?;
    let output = run(&mut lock(agent.http(), "q/.lock", "echo ran", &folder)?)?;
    let expected = "error (refused): no lock on `q/.lock`: it holds something other than a lock";
    ensure!(output.status == 1 && output.stderr.starts_with(expected), "{output:?}");
    holder.go()?;
    holder.wait()?;
    Ok(())
}

#[test]
fn slot_needs_write_permission_for_the_prefix() -> Result<()> {
    let (agent, folder) = (Consul::start(Kind::Acl)?, TempDir::new()?);
    let api = agent.api();
    let rules = r#"session_prefix "" { policy = "write" } key_prefix "mine/" { policy = "write" }"#;
    api.put("/v1/acl/policy", Some(&json!({"Name": "slots", "Rules": rules})))?;
    let token = api.put("/v1/acl/token", Some(&json!({"Policies": [{"Name": "slots"}]})))?;
    let token = token["SecretID"].as_str().context("no token")?;
    for (prefix, stdout, status) in [("mine", "ran\n", 0), ("mine/a", "ran\n", 0), ("other", "", 1)] {
        let output = run(lock(agent.http(), &format!("{prefix} -n 2"), "echo ran", &folder)?.env("CONSUL_HTTP_TOKEN", token))?;
        ensure!((&*output.stdout, output.status) == (stdout, status) && !output.stderr.contains(token), "{output:?}");
        ensure!(output.stderr.is_empty() || output.stderr.starts_with("error ("), "{output:?}");
        ensure_gone(&api, prefix)?;
    }
    Ok(())
}

#[test]
fn consul_lock_n_and_semaphore_share_the_slots() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let api = agent.api();
    let consul_lock = |args: &[&str], folder: &TempDir| -> Result<Command> {
        let mut command = Command::new(Consul::binary().context("no Consul program")?);
        command.arg("lock").arg(format!("-http-addr=http://{}", agent.http())).args(args).current_dir(folder.path());
        Ok(command)
    };
    let started = |args: &[&str]| -> Result<Running> {
        let folder = TempDir::new()?;
        Running::start_in(consul_lock(args, &folder)?, folder)
    };
    // One of each has both slots, whoever came first.
    for ours_first in [false, true] {
        let theirs = || started(&["-n", "2", "p", FOREVER]);
        let ours = || start(agent.http(), "p -n 2 --ttl 10s");
        let mut first = if ours_first { ours()? } else { theirs()? };
        first.wait_for("pid")?;
        let mut second = if ours_first { theirs()? } else { ours()? };
        second.wait_for("pid")?;
        ensure!(holders(&api, "p")?.len() == 2);
        let folder = TempDir::new()?;
        let output = run(&mut lock(agent.http(), "p -n 2 --wait 0", "echo ran", &folder)?)?;
        ensure!(output.status == 124 && output.stderr.contains(" have its 2 slots\n"), "{output:?}");
        let output = consul_lock(&["-n", "2", "-try=1s", "p", "echo ran"], &folder)?.output()?;
        ensure!(!output.status.success() && output.stdout.is_empty(), "{output:?}");
        let output = run(&mut lock(agent.http(), "p -n 3", "echo ran", &folder)?)?;
        ensure!(output.status == 1 && output.stderr.contains("the limit 2, not 3"), "{output:?}");

        // The slot of each goes to one of the other kind.
        let mut third = if ours_first { theirs()? } else { ours()? };
        first.go()?;
        ensure!(first.wait()?.0 == 0);
        third.wait_for("pid")?;
        let mut fourth = if ours_first { ours()? } else { theirs()? };
        second.go()?;
        ensure!(second.wait()?.0 == 0);
        fourth.wait_for("pid")?;
        for running in [&mut third, &mut fourth] {
            running.go()?;
            ensure!(running.wait()?.0 == 0, "{}", running.read("stderr"));
        }
        // `consul lock` may end before it destroys its session.
        let is_theirs = |session: &Value| session["Name"].as_str().is_some_and(|name| name.starts_with("Consul lock for "));
        ensure!(api.sessions()?.iter().all(is_theirs), "{:?}", api.sessions()?);
    }
    Ok(())
}

#[test]
fn twelve_contenders_never_exceed_three_slots() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let folder = TempDir::new()?;
    let inside = folder.path().join("inside");
    std::fs::create_dir(&inside)?;
    // Each command has a file while it runs, and counts those of all.
    let script = "touch inside/$$; ls inside | wc -l >> counts; sleep 0.05; rm inside/$$";
    scope(|scope| {
        let contend = || -> Result<()> {
            for _ in 0..5 {
                let output = run(&mut lock(agent.http(), "p -n 3 --ttl 60s", script, &folder)?)?;
                ensure!(output.status == 0, "{output:?}");
            }
            Ok(())
        };
        let contenders: Vec<_> = (0..12).map(|_| scope.spawn(contend)).collect();
        contenders.into_iter().try_for_each(|contender| contender.join().map_err(|_| anyhow!("panicked"))?)
    })?;
    let counts = std::fs::read_to_string(folder.path().join("counts"))?;
    let counts = counts.lines().map(|count| Ok(count.trim().parse()?)).collect::<Result<Vec<usize>>>()?;
    ensure!(counts.len() == 60 && counts.iter().all(|count| (1..=3).contains(count)), "{counts:?}");
    ensure_gone(&agent.api(), "p")
}
