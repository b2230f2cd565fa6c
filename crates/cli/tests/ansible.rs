//! The program as the Ansible module `consul_session`: one file in a playbook's `library/`, which
//! Ansible runs against a real Consul. The playbooks check what each task answers; the tests check
//! the rest.

use anyhow::{Context, Result, bail, ensure};
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use tempfile::{TempDir, tempdir};
use test_support::TOKEN;
use test_support::certificates::Certificate;
use test_support::consul::{Consul, Kind, Settings};
use test_support::program::{Output, file, run};
use test_support::scripted::{Reply, Scripted};
use test_support::tools::{ansible_playbook, command, root};

/// A folder with the playbooks and with a `library/` that contains only the program.
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

    /// Runs a playbook until it ends, in success or failure.
    fn run(&self, playbook: &str, agent: SocketAddr, args: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
        let folder = self.0.path();
        let mut ansible = command(ansible_playbook()?);
        ansible.arg(playbook).args(["-e", &format!("agent_port={}", agent.port())]).args(args).current_dir(folder);
        ansible.envs([("LC_ALL", "C.UTF-8"), ("ANSIBLE_NOCOLOR", "1")]);
        // Ansible reads no configuration of the user, and leaves nothing outside the folder.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANSIBLE_")) {
            ansible.env_remove(name);
        }
        ansible.env("ANSIBLE_HOME", folder.join("home")).env("ANSIBLE_REMOTE_TEMP", folder.join("remote"));
        ansible.env("ANSIBLE_ASYNC_DIR", folder.join("async"));
        ansible.env("CONSUL_SESSION_CACHE", root().join("target/tmp/compiled"));
        ansible.envs(environment.iter().copied());
        run(&mut ansible)
    }

    /// Runs a playbook that must succeed. Returns its output and the number of tasks with a change.
    fn play(&self, playbook: &str, agent: SocketAddr, args: &[&str]) -> Result<(String, u32)> {
        let output = self.run(playbook, agent, args, &[])?;
        ensure!(output.status == 0, "{playbook}: {}{}", output.stdout, output.stderr);
        let changed = output.stdout.split_once(" changed=").and_then(|(_, rest)| rest.split_whitespace().next());
        let changed = changed.and_then(|count| count.parse().ok()).with_context(|| format!("no recap: {}", output.stdout))?;
        Ok((output.stdout, changed))
    }
}

#[test]
fn examples_change_nothing_when_repeated() -> Result<()> {
    let (agent, project) = (Consul::start(Kind::Plain)?, Project::new()?);
    let check = json!({"ID": "existing_check_name", "Name": "existing", "TTL": "1000h", "Status": "passing"});
    agent.api().put("/v1/agent/check/register", Some(&check))?;
    while !agent.api().has_checks("agent-node", &["existing_check_name"])? {
        std::thread::yield_now();
    }
    ensure!(project.play("examples.yml", agent.http(), &[])?.1 == 3);
    let sessions = agent.api().sessions()?;
    let (output, changed) = project.play("examples.yml", agent.http(), &[])?;
    ensure!(changed == 0 && agent.api().sessions()? == sessions && sessions.len() == 3, "{output}");
    Ok(())
}

#[test]
fn every_option_and_state_is_supported() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    let (output, _) = Project::new()?.play("options.yml", agent.http(), &[])?;
    ensure!(agent.api().sessions()?.is_empty(), "{output}");
    Ok(())
}

/// Starts an agent that has the sessions that `change.yml` relies on.
fn agent_with_sessions() -> Result<Consul> {
    let agent = Consul::start(Kind::Plain)?;
    for name in ["old", "doomed", "same"] {
        agent.api().put("/v1/session/create", Some(&json!({"Name": name, "LockDelay": "15s"})))?;
    }
    Ok(agent)
}

/// Returns the name and the lock delay of each session, in order.
fn names_and_delays(agent: &Consul) -> Result<Vec<String>> {
    let describe = |session: &Value| format!("{} {}", session["Name"].as_str().unwrap_or_default(), session["LockDelay"]);
    let mut sessions: Vec<String> = agent.api().sessions()?.iter().map(describe).collect();
    sessions.sort();
    Ok(sessions)
}

#[test]
fn check_mode_changes_nothing() -> Result<()> {
    let (agent, project) = (agent_with_sessions()?, Project::new()?);
    let before = agent.api().sessions()?;
    for args in [&["--check"][..], &["--check", "--diff"]] {
        let (output, changed) = project.play("change.yml", agent.http(), args)?;
        ensure!(changed == 3 && agent.api().sessions()? == before, "{output}");
    }
    // Without check mode, the same tasks change the sessions.
    ensure!(project.play("change.yml", agent.http(), &[])?.1 == 3);
    let after = names_and_delays(&agent)?;
    ensure!(after == ["new 15000000000", "old 42000000000", "same 15000000000"], "{after:?}");
    Ok(())
}

#[test]
fn diff_mode_shows_before_and_after() -> Result<()> {
    let (agent, project) = (agent_with_sessions()?, Project::new()?);
    let (output, changed) = project.play("change.yml", agent.http(), &["--diff"])?;
    ensure!(changed == 3, "{output}");
    for line in [
        "\n+            \"Name\": \"new\"",
        "\n-            \"LockDelay\": 15000000000",
        "\n+            \"LockDelay\": 42000000000",
    ] {
        ensure!(output.contains(line), "{line} is not in {output}");
    }
    let (output, _) = Project::new()?.play("handler.yml", agent.http(), &[])?;
    ensure!(!output.contains("LockDelay"), "{output}");
    Ok(())
}

#[test]
fn failures_are_reported_and_change_nothing() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    agent.api().put("/v1/session/create", Some(&json!({"Name": "old"})))?;
    let before = agent.api().sessions()?;
    let (output, changed) = Project::new()?.play("failures.yml", agent.http(), &[])?;
    ensure!(changed == 0 && agent.api().sessions()? == before, "{output}");
    Ok(())
}

#[test]
fn handler_runs_only_after_a_change() -> Result<()> {
    let (agent, project) = (Consul::start(Kind::Plain)?, Project::new()?);
    const MESSAGE: &str = "the session is new";
    let (output, changed) = project.play("handler.yml", agent.http(), &[])?;
    ensure!(changed == 1 && output.contains(MESSAGE), "{output}");
    let (output, changed) = project.play("handler.yml", agent.http(), &[])?;
    ensure!(changed == 0 && !output.contains(MESSAGE), "{output}");
    Ok(())
}

#[test]
fn token_is_redacted() -> Result<()> {
    let (agent, project) = (Consul::start(Kind::Acl)?, Project::new()?);
    let token = json!({"SecretID": TOKEN, "Policies": [{"Name": "global-management"}]});
    agent.api().put("/v1/acl/token", Some(&token))?;
    let output = project.run("token.yml", agent.http(), &["-vvv", "--diff"], &[("SECRET", TOKEN)])?;
    let text = (output.stdout + &output.stderr).replace(TOKEN, "SHOWN");
    ensure!(output.status == 0 && !text.contains("SHOWN"), "{text}");
    ensure!(text.contains("VALUE_SPECIFIED_IN_NO_LOG_PARAMETER") && agent.api().sessions()?.len() == 2, "{text}");
    Ok(())
}

#[test]
fn tls_and_unix_socket_options_are_honored() -> Result<()> {
    let settings = Settings { https: Some(Certificate::Good), unix_socket: true, ..Settings::default() };
    let (agent, _) = Consul::start_secure(settings)?;
    let (Some(address), Some(socket)) = (agent.https(), agent.socket()) else { bail!("no HTTPS, or no socket") };
    let project = Project::new()?;
    // The agent's own folder is not used, since it also contains keys and the socket.
    let folder = project.0.path().join("ca");
    fs::create_dir(&folder)?;
    fs::copy(agent.ca(), folder.join("ca.pem"))?;
    let variables = [("ca", &agent.ca()), ("ca_folder", &folder), ("socket", &socket)];
    let variables = serde_json::to_string(&BTreeMap::from(variables))?;
    // There is one session, which the first successful task creates.
    let (output, changed) = project.play("tls.yml", address, &["-e", &variables])?;
    ensure!(changed == 1 && agent.api().sessions()?.len() == 1, "{output}");
    Ok(())
}

/// Runs the module with a file of arguments, which is how a module runs without Ansible.
#[test]
fn module_without_ansible_prints_one_object() -> Result<()> {
    let (folder, project) = (tempdir()?, Project::new()?);
    let answer = |name: &str, content: &str| -> Result<Value> {
        let path = file(&folder, name, content)?;
        let output = run(command(project.0.path().join("library/consul_session")).arg(path))?;
        ensure!(output.status == 1 && output.stderr.is_empty() && output.stdout.lines().count() == 1, "{content}: {output:?}");
        output.json()
    };
    // Nothing listens on port 1.
    let unreachable = answer(
        "args",
        r#"{"name": "s", "port": 1, "token": "sesame", "id": null, "_ansible_version": "2.19.14", "_ansible_check_mode": false}"#,
    )?;
    let arguments = json!({"name": "s", "port": 1, "token": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"});
    ensure!(unreachable["error"] == "unreachable" && unreachable["invocation"]["module_args"] == arguments, "{unreachable}");
    let unknown =
        answer("task.json", r#"{"name": "sesame", "tokn": "abracadabra", "token": "sesame", "_ansible_module_name": "own"}"#)?;
    let arguments = json!({"name": "********", "token": "VALUE_SPECIFIED_IN_NO_LOG_PARAMETER"});
    ensure!(unknown["invocation"]["module_args"] == arguments, "{unknown}");
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

#[test]
fn token_of_the_environment_in_an_error_is_redacted() -> Result<()> {
    let (folder, project) = (tempdir()?, Project::new()?);
    let server = Scripted::start(|request| Reply::http(403, "", &request.text()))?;
    let path = file(&folder, "args", r#"{"state": "list"}"#)?;
    let mut module = command(project.0.path().join("library/consul_session"));
    module.arg(path).env("CONSUL_HTTP_ADDR", server.address().to_string()).env("CONSUL_HTTP_TOKEN", TOKEN);
    let output = run(&mut module)?;
    let answer = output.json()?;
    ensure!(server.requests()[0].header("X-Consul-Token") == [TOKEN]);
    ensure!(answer["error"] == "access-denied" && answer["msg"].as_str().unwrap_or_default().contains("(token)"), "{answer}");
    ensure!(!output.stdout.contains(&TOKEN[..8]) && output.stderr.is_empty(), "{output:?}");
    // The author of a task writes its scheme, as an operator types it.
    let path = file(&folder, "args", r#"{"state": "list", "scheme": "http"}"#)?;
    let mut module = command(project.0.path().join("library/consul_session"));
    module.arg(path).env("CONSUL_HTTP_ADDR", format!("https://{}", server.address())).env("CONSUL_HTTP_TOKEN", TOKEN);
    let answer = run(&mut module)?.json()?;
    ensure!(answer["error"] == "access-denied" && server.requests()[1].header("X-Consul-Token") == [TOKEN], "{answer}");
    Ok(())
}
