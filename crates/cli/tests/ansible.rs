//! The program as Ansible's module `consul_session`: one file in a playbook's `library/`, run by Ansible against a real Consul. The
//! playbooks say themselves what each task must answer; here is checked what they cannot see.

use anyhow::{Context, Result, bail, ensure};
use libtest_mimic::Arguments;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::process::ExitCode;
use tempfile::{TempDir, tempdir};
use test_support::certificates::Certificate;
use test_support::consul::{Consul, Kind, Settings};
use test_support::in_ci;
use test_support::program::{Ran, file, run};
use test_support::tools::{ansible_playbook, command, root};
use test_support::trial::trial;

type Test = fn() -> Result<()>;

fn main() -> ExitCode {
    let ansible = ansible_playbook();
    if let Err(error) = &ansible {
        eprintln!("ignored: {error:#}");
    }
    let ignored = Consul::is_missing() || (ansible.is_err() && !in_ci());
    let tests: [(&str, Test); 8] = [
        ("the page's examples, and a second run that changes nothing", examples),
        ("every option and every state", options),
        ("check mode changes nothing", check_mode),
        ("diff mode shows before and after", diff_mode),
        ("failures are said, and change nothing", failures),
        ("a handler runs for a change only", handler),
        ("a token is never shown", token),
        ("TLS and a Unix socket", tls),
    ];
    let tests = tests.into_iter().map(|(name, test)| trial(name, test).with_ignored_flag(ignored));
    let trials = tests.chain([trial("a file in, one object out", by_hand)]).collect();
    libtest_mimic::run(&Arguments::from_args(), trials).exit_code()
}

/// A folder with the playbooks, and in its `library/` the program and nothing else.
struct Project(TempDir);

impl Project {
    fn new() -> Result<Project> {
        let folder = tempdir()?;
        for entry in fs::read_dir(root().join("crates/cli/tests/playbooks"))? {
            let entry = entry?;
            fs::copy(entry.path(), folder.path().join(entry.file_name()))?;
        }
        fs::create_dir(folder.path().join("library"))?;
        fs::copy(env!("CARGO_BIN_EXE_consul-session"), folder.path().join("library/consul_session"))?;
        Ok(Project(folder))
    }

    /// Runs a playbook to its end, whatever that is.
    fn run(&self, playbook: &str, agent: SocketAddr, words: &[&str], environment: &[(&str, &str)]) -> Result<Ran> {
        let folder = self.0.path();
        let mut ansible = command(ansible_playbook()?);
        ansible.arg(playbook).args(["-e", &format!("agent_port={}", agent.port())]).args(words).current_dir(folder);
        ansible.envs([("LC_ALL", "C.UTF-8"), ("ANSIBLE_NOCOLOR", "1")]);
        // Nothing of the user's is read, and nothing is left behind.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANSIBLE_")) {
            ansible.env_remove(name);
        }
        ansible.env("ANSIBLE_HOME", folder.join("home")).env("ANSIBLE_REMOTE_TEMP", folder.join("remote"));
        ansible.env("ANSIBLE_ASYNC_DIR", folder.join("async"));
        ansible.env("CONSUL_SESSION_CACHE", root().join("target/tmp/compiled"));
        ansible.envs(environment.iter().copied());
        run(&mut ansible)
    }

    /// Runs a playbook that must succeed; what it printed, and how many tasks changed something.
    fn plays(&self, playbook: &str, agent: SocketAddr, words: &[&str]) -> Result<(String, u32)> {
        let ran = self.run(playbook, agent, words, &[])?;
        ensure!(ran.status == 0, "{playbook}: {}{}", ran.stdout, ran.stderr);
        let changed = ran.stdout.split_once(" changed=").and_then(|(_, rest)| rest.split_whitespace().next());
        let changed = changed.and_then(|count| count.parse().ok()).with_context(|| format!("no recap: {}", ran.stdout))?;
        Ok((ran.stdout, changed))
    }
}

fn examples() -> Result<()> {
    let (agent, project) = (Consul::start(Kind::Plain)?, Project::new()?);
    let check = json!({"ID": "existing_check_name", "Name": "existing", "TTL": "1000h", "Status": "passing"});
    agent.api().put("/v1/agent/check/register", Some(&check))?;
    while !agent.api().has_checks("agent-node", &["existing_check_name"])? {
        std::thread::yield_now();
    }
    ensure!(project.plays("examples.yml", agent.http(), &[])?.1 == 3);
    let sessions = agent.api().sessions()?;
    let (shown, changed) = project.plays("examples.yml", agent.http(), &[])?;
    ensure!(changed == 0 && agent.api().sessions()? == sessions && sessions.len() == 3, "{shown}");
    Ok(())
}

fn options() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (shown, _) = Project::new()?.plays("options.yml", agent.http(), &[])?;
    ensure!(agent.api().sessions()?.is_empty(), "{shown}");
    Ok(())
}

/// An agent with the sessions that `change.yml` counts on.
fn prepared() -> Result<Consul> {
    let agent = Consul::start(Kind::Plain)?;
    for name in ["old", "doomed", "same"] {
        agent.api().put("/v1/session/create", Some(&json!({"Name": name, "LockDelay": "15s"})))?;
    }
    Ok(agent)
}

fn names(agent: &Consul) -> Result<Vec<String>> {
    let name = |session: &Value| format!("{} {}", session["Name"].as_str().unwrap_or_default(), session["LockDelay"]);
    let mut names: Vec<String> = agent.api().sessions()?.iter().map(name).collect();
    names.sort();
    Ok(names)
}

fn check_mode() -> Result<()> {
    let (agent, project) = (prepared()?, Project::new()?);
    let before = agent.api().sessions()?;
    for words in [&["--check"][..], &["--check", "--diff"]] {
        let (shown, changed) = project.plays("change.yml", agent.http(), words)?;
        ensure!(changed == 3 && agent.api().sessions()? == before, "{shown}");
    }
    // And the same for good.
    ensure!(project.plays("change.yml", agent.http(), &[])?.1 == 3);
    let after = names(&agent)?;
    ensure!(after == ["new 15000000000", "old 42000000000", "same 15000000000"], "{after:?}");
    Ok(())
}

fn diff_mode() -> Result<()> {
    let (agent, project) = (prepared()?, Project::new()?);
    let (shown, changed) = project.plays("change.yml", agent.http(), &["--diff"])?;
    ensure!(changed == 3, "{shown}");
    for line in [
        "\n+            \"Name\": \"new\"",
        "\n-            \"LockDelay\": 15000000000",
        "\n+            \"LockDelay\": 42000000000",
    ] {
        ensure!(shown.contains(line), "{line} is not in {shown}");
    }
    let (shown, _) = Project::new()?.plays("handler.yml", agent.http(), &[])?;
    ensure!(!shown.contains("LockDelay"), "{shown}");
    Ok(())
}

fn failures() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    agent.api().put("/v1/session/create", Some(&json!({"Name": "old"})))?;
    let before = agent.api().sessions()?;
    let (shown, changed) = Project::new()?.plays("failures.yml", agent.http(), &[])?;
    ensure!(changed == 0 && agent.api().sessions()? == before, "{shown}");
    Ok(())
}

fn handler() -> Result<()> {
    let (agent, project) = (Consul::start(Kind::Plain)?, Project::new()?);
    const TOLD: &str = "the session is new";
    let (shown, changed) = project.plays("handler.yml", agent.http(), &[])?;
    ensure!(changed == 1 && shown.contains(TOLD), "{shown}");
    let (shown, changed) = project.plays("handler.yml", agent.http(), &[])?;
    ensure!(changed == 0 && !shown.contains(TOLD), "{shown}");
    Ok(())
}

fn token() -> Result<()> {
    const SECRET: &str = "5ec2e700-0000-4000-8000-cafecafecafe";
    let (agent, project) = (Consul::start(Kind::Acl)?, Project::new()?);
    let token = json!({"SecretID": SECRET, "Policies": [{"Name": "global-management"}]});
    agent.api().put("/v1/acl/token", Some(&token))?;
    let ran = project.run("token.yml", agent.http(), &["-vvv", "--diff"], &[("SECRET", SECRET)])?;
    let shown = (ran.stdout + &ran.stderr).replace(SECRET, "SHOWN");
    ensure!(ran.status == 0 && !shown.contains("SHOWN"), "{shown}");
    ensure!(shown.contains("VALUE_SPECIFIED_IN_NO_LOG_PARAMETER") && agent.api().sessions()?.len() == 2, "{shown}");
    Ok(())
}

fn tls() -> Result<()> {
    let settings = Settings { https: Some(Certificate::Good), unix_socket: true, ..Settings::default() };
    let (agent, _) = Consul::start_secure(settings)?;
    let (Some(address), Some(socket)) = (agent.https(), agent.socket()) else { bail!("no HTTPS, or no socket") };
    let project = Project::new()?;
    // The agent's own folder has keys and the socket in it too.
    let folder = project.0.path().join("ca");
    fs::create_dir(&folder)?;
    fs::copy(agent.ca(), folder.join("ca.pem"))?;
    let variables = [("ca", &agent.ca()), ("ca_folder", &folder), ("socket", &socket)];
    let variables = serde_json::to_string(&BTreeMap::from(variables))?;
    // One session: the first task that gets through makes it.
    let (shown, changed) = project.plays("tls.yml", address, &["-e", &variables])?;
    ensure!(changed == 1 && agent.api().sessions()?.len() == 1, "{shown}");
    Ok(())
}

/// As a module is tried without Ansible.
fn by_hand() -> Result<()> {
    let (folder, project) = (tempdir()?, Project::new()?);
    let answer = |name: &str, content: &str| -> Result<Value> {
        let path = file(&folder, name, content)?;
        let ran = run(command(project.0.path().join("library/consul_session")).arg(path))?;
        ensure!(ran.status == 1 && ran.stderr.is_empty() && ran.stdout.lines().count() == 1, "{content}: {ran:?}");
        ran.json()
    };
    // Port 1, where nothing listens.
    let unreachable = answer(
        "args",
        r#"{"name": "s", "port": 1, "token": "sesame", "id": null, "_ansible_version": "2.19.14", "_ansible_check_mode": false}"#,
    )?;
    let shown = json!({"name": "s", "port": 1, "token": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"});
    ensure!(unreachable["error"] == "unreachable" && unreachable["invocation"]["module_args"] == shown, "{unreachable}");
    let unknown =
        answer("task.json", r#"{"name": "sesame", "tokn": "abracadabra", "token": "sesame", "_ansible_module_name": "own"}"#)?;
    let shown = json!({"name": "********", "token": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"});
    ensure!(unknown["invocation"]["module_args"] == shown, "{unknown}");
    let message = unknown["msg"].as_str().unwrap_or_default();
    ensure!(
        message.starts_with("Unsupported parameters for (own) module: tokn. Supported parameters include: behavior, "),
        "{unknown}"
    );
    for (content, part) in [("[]", "are not a JSON object"), ("token=sesame", "are not JSON: "), ("", "are not JSON: ")] {
        let broken = answer("args", content)?;
        ensure!(broken["failed"] == true && broken["msg"].as_str().unwrap_or_default().contains(part), "{broken}");
        ensure!(!broken.to_string().contains("sesame"), "{broken}");
    }
    Ok(())
}
