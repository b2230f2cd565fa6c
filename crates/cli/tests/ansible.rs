//! The program as the Ansible module `consul_session`: one file in a playbook's `library/`, which
//! Ansible runs against a real Consul. The playbooks check what each task answers; the tests check
//! the rest.

use anyhow::{Context, Result, bail, ensure};
use consul_session::options;
use serde_json::{Value, json};
use std::collections::BTreeMap;
use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Command;
use tempfile::{TempDir, tempdir};
use test_support::TOKEN;
use test_support::certificates::Certificate;
use test_support::consul::{Consul, Kind, Settings};
use test_support::program::{Output, file, run};
use test_support::scripted::{Reply, Scripted};
use test_support::tools::{ansible_playbook, command, dist_file, root};

const PROGRAM: &str = env!("CARGO_BIN_EXE_consul-session");
/// The file for `ansible-doc`.
const DOCUMENTATION: &str = "crates/cli/ansible/consul_session.yml";
/// The folder of community.general in a project.
const COLLECTION: &str = "collections/ansible_collections/community/general";

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
        fs::copy(PROGRAM, folder.path().join("library/consul_session"))?;
        Ok(Project(folder))
    }

    /// Returns a project without `library/`, and with a stand-in for community.general, whose
    /// modules in Python do nothing.
    fn with_collection() -> Result<Project> {
        let project = Project::new()?;
        let folder = project.0.path();
        fs::remove_dir_all(folder.join("library"))?;
        fs::create_dir_all(project.modules())?;
        for module in ["consul_session", "other"] {
            let text = "#!/usr/bin/python\nprint('{\"changed\": true, \"python\": true}')\n";
            fs::write(project.modules().join(format!("{module}.py")), text)?;
        }
        let meta = folder.join(COLLECTION).join("meta");
        fs::create_dir(&meta)?;
        let runtime = "requires_ansible: '>=2.15'\naction_groups:\n  consul: [consul_session]\n";
        fs::write(meta.join("runtime.yml"), runtime)?;
        Ok(project)
    }

    /// Returns the folder of the stand-in's modules.
    fn modules(&self) -> PathBuf {
        self.0.path().join(COLLECTION).join("plugins/modules")
    }

    /// Returns what `ansible-doc` shows of a module, as JSON.
    fn documentation(&self, module: &str) -> Result<Value> {
        let mut ansible = self.ansible("ansible-doc")?;
        ansible.args(["--json", "--type", "module", "--playbook-dir", ".", module]);
        let mut shown = run(&mut ansible)?.succeeded()?.json()?;
        ensure!(shown[module].is_object(), "{shown}");
        Ok(shown[module].take())
    }

    /// Runs a playbook until it ends, in success or failure.
    fn run(&self, playbook: &str, agent: SocketAddr, args: &[&str], environment: &[(&str, &str)]) -> Result<Output> {
        let mut ansible = self.ansible("ansible-playbook")?;
        ansible.arg(playbook).args(["-e", &format!("agent_port={}", agent.port())]).args(args);
        run(ansible.envs(environment.iter().copied()))
    }

    /// Returns a program of Ansible, which runs in the folder.
    fn ansible(&self, program: &str) -> Result<Command> {
        let folder = self.0.path();
        let mut ansible = command(ansible_playbook()?.with_file_name(program));
        ansible.current_dir(folder).envs([("LC_ALL", "C.UTF-8"), ("ANSIBLE_NOCOLOR", "1")]);
        // Ansible reads no configuration of the user, and leaves nothing outside the folder.
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANSIBLE_")) {
            ansible.env_remove(name);
        }
        ansible.env("ANSIBLE_HOME", folder.join("home")).env("ANSIBLE_REMOTE_TEMP", folder.join("remote"));
        ansible.env("ANSIBLE_ASYNC_DIR", folder.join("async"));
        ansible.env("CONSUL_SESSION_CACHE", root().join("target/tmp/compiled"));
        Ok(ansible)
    }

    /// Runs a playbook that must succeed. Returns its output and the number of tasks with a change.
    fn play(&self, playbook: &str, agent: SocketAddr, args: &[&str]) -> Result<(String, u32)> {
        self.play_with(playbook, agent, args, &[])
    }

    /// Runs a playbook that must succeed, with these environment variables.
    fn play_with(
        &self,
        playbook: &str,
        agent: SocketAddr,
        args: &[&str],
        environment: &[(&str, &str)],
    ) -> Result<(String, u32)> {
        let output = self.run(playbook, agent, args, environment)?;
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
fn arguments_that_the_original_ignores_do_not_filter() -> Result<()> {
    let agent = Consul::start(Kind::Plain)?;
    Project::new()?.play("ignored.yml", agent.http(), &[])?;
    Ok(())
}

/// The words are those of the installed ansible-core, which checks the same arguments for a module
/// in Python.
#[test]
fn argument_errors_are_in_the_words_of_ansible() -> Result<()> {
    let (agent, project) = (Consul::start(Kind::Plain)?, Project::new()?);
    let module = project.0.path().join("argument_spec.py");
    fs::rename(module, project.0.path().join("library/argument_spec.py"))?;
    project.play("words.yml", agent.http(), &[])?;
    Ok(())
}

/// Starts an agent with ACLs, on which [`TOKEN`] has every permission.
fn agent_with_token() -> Result<Consul> {
    let agent = Consul::start(Kind::Acl)?;
    let token = json!({"SecretID": TOKEN, "Policies": [{"Name": "global-management"}]});
    agent.api().put("/v1/acl/token", Some(&token))?;
    Ok(agent)
}

#[test]
fn play_with_the_full_name_runs_the_program() -> Result<()> {
    let (agent, project) = (agent_with_token()?, Project::with_collection()?);
    let output = project.run("community.yml", agent.http(), &[], &[("SECRET", TOKEN)])?;
    // The module of the stand-in answers nothing that the play asks for.
    ensure!(output.status != 0 && output.stdout.contains("has no attribute 'session_id'"), "{output:?}");
    // Beside the module in Python, and in its place.
    fs::copy(PROGRAM, project.modules().join("consul_session"))?;
    let play = || project.play_with("community.yml", agent.http(), &[], &[("SECRET", TOKEN)]);
    // Two creations, two destructions, and the other module.
    ensure!(play()?.1 == 5);
    fs::remove_file(project.modules().join("consul_session.py"))?;
    ensure!(play()?.1 == 5);
    Ok(())
}

#[test]
fn collection_of_the_release_installs_and_runs() -> Result<()> {
    let (agent, project) = (agent_with_token()?, Project::new()?);
    fs::remove_dir_all(project.0.path().join("library"))?;
    let galaxy = |args: &[&str]| run(project.ansible("ansible-galaxy")?.arg("collection").args(args));
    // Beside the playbook, where Ansible finds it; ansible-galaxy warns that it is nowhere else.
    let archive = dist_file("consul_session-consul-", ".tar.gz")?.display().to_string();
    let installed = galaxy(&["install", "--offline", "--collections-path", "collections", &archive])?;
    ensure!(installed.status == 0 && installed.stdout.contains("was installed successfully"), "{installed:?}");
    let verify = || galaxy(&["verify", "--offline", "--collections-path", "collections", "consul_session.consul"]);
    let verified = verify()?;
    ensure!(verified.status == 0 && verified.stdout.contains("Successfully verified"), "{verified:?}");
    let play = || project.play_with("collection.yml", agent.http(), &[], &[("SECRET", TOKEN)]);
    ensure!(play()?.1 == 1 && play()?.1 == 0);
    let shown = project.documentation("consul_session.consul.consul_session")?;
    ensure!(shown["doc"]["options"].as_object().is_some_and(|options| options.len() > options::TABLE.len()), "{shown}");
    // The checksums are of the files.
    fs::write(project.0.path().join("collections/ansible_collections/consul_session/consul/README.md"), "another")?;
    let changed = verify()?;
    ensure!(changed.status != 0 && changed.stdout.contains("README.md"), "{changed:?}");
    Ok(())
}

#[test]
fn ansible_doc_shows_every_option() -> Result<()> {
    let (library, collection) = (Project::new()?, Project::with_collection()?);
    fs::copy(root().join(DOCUMENTATION), library.0.path().join("library/consul_session.yml"))?;
    fs::remove_file(collection.modules().join("consul_session.py"))?;
    fs::copy(PROGRAM, collection.modules().join("consul_session"))?;
    fs::copy(root().join(DOCUMENTATION), collection.modules().join("consul_session.yml"))?;
    for shown in [library.documentation("consul_session")?, collection.documentation("community.general.consul_session")?] {
        let documented = shown["doc"]["options"].as_object().context("no options")?;
        for info in options::TABLE {
            let option = documented.get(info.name).with_context(|| format!("no {}", info.name))?;
            ensure!(option["description"][0].as_str() == Some(&format!("{}.", info.help)), "{option}");
        }
        ensure!(documented.len() == options::TABLE.len() + 1 && documented.contains_key("ca_path"), "{documented:?}");
        ensure!(shown["examples"].as_str().is_some_and(|examples| examples.contains("delay: 20s")), "{shown}");
    }
    // Every field of an answer is documented.
    let agent = Consul::start(Kind::Plain)?;
    let returned = library.documentation("consul_session")?["return"].take();
    let path = library.0.path().join("args");
    let arguments = json!({"name": "s", "port": agent.http().port(), "_ansible_diff": true});
    for (arguments, status) in [(arguments, 0), (json!({"state": "gone"}), 1)] {
        fs::write(&path, arguments.to_string())?;
        let output = run(command(library.0.path().join("library/consul_session")).arg(&path))?;
        ensure!(output.status == status, "{output:?}");
        // Ansible itself knows these; and `option` is a detail of one case of the error.
        let known = ["changed", "failed", "msg", "invocation", "warnings", "option"];
        for name in output.json()?.as_object().context("not an object")?.keys() {
            ensure!(known.contains(&name.as_str()) || returned[name].is_object(), "{name} is not in {returned}");
        }
    }
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
    let (agent, project) = (agent_with_token()?, Project::new()?);
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
