//! A task of Ansible: with community.general's module, and with `consul-session` as the module.

use super::{Round, Subject};
use crate::backend::{Backend, CREATED};
use crate::workload::Workload;
use anyhow::{Context, Result, ensure};
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};
use tempfile::{TempDir, tempdir};
use test_support::tools::{ansible_playbook, command, root};

/// Number of tasks that are measured in one play.
const TASKS: u32 = 10;

/// The module of the task.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Module {
    /// community.general's `consul_session`, which creates a session each time.
    Community,
    /// `consul-session`, which creates a session the first time.
    Own,
}

impl Module {
    /// Returns the name in the tables.
    pub fn name(self) -> &'static str {
        match self {
            Module::Community => "community.general under Ansible",
            Module::Own => "consul-session under Ansible",
        }
    }
}

/// A module in its own Ansible project.
pub struct Ansible {
    module: Module,
    playbook: PathBuf,
    /// Folder with community.general.
    collections: PathBuf,
    folder: TempDir,
}

impl Ansible {
    /// Writes the project.
    ///
    /// # Errors
    ///
    /// Fails if the module or Ansible is not installed.
    pub fn new(module: Module, collections: PathBuf) -> Result<Ansible> {
        let folder = tempdir()?;
        let name = match module {
            Module::Community => {
                let folder = collections.join("ansible_collections/community/general");
                ensure!(folder.is_dir(), "no community.general at {}: `cargo xtask bench` installs it", folder.display());
                "community.general.consul_session"
            }
            Module::Own => {
                let program = std::env::current_exe()?.with_file_name("consul-session");
                fs::create_dir(folder.path().join("library"))?;
                fs::copy(program, folder.path().join("library/consul_session"))?;
                "consul_session"
            }
        };
        fs::write(
            folder.path().join("play.yml"),
            format!(
                "- hosts: localhost\n  gather_facts: false\n  tasks:\n    - {name}:\n        name: {CREATED}\n        \
                 host: 127.0.0.1\n        port: \"{{{{ agent_port }}}}\"\n      loop: \"{{{{ range(repeats | int) | list }}}}\"\n"
            ),
        )?;
        Ok(Ansible { module, playbook: ansible_playbook()?, collections, folder })
    }

    /// Returns the time of a play that repeats the task.
    fn play(&self, backend: &Backend, tasks: u32) -> Result<Duration> {
        let folder = self.folder.path();
        let mut ansible = command(&self.playbook);
        ansible.args(["-i", "localhost,", "-c", "local", "play.yml"]).current_dir(folder);
        ansible.args([
            "-e",
            &format!("agent_port={}", backend.address(Workload::Task).port()),
            "-e",
            &format!("repeats={tasks}"),
        ]);
        for (name, _) in std::env::vars_os().filter(|(name, _)| name.to_string_lossy().starts_with("ANSIBLE_")) {
            ansible.env_remove(name);
        }
        ansible.envs([("LC_ALL", "C.UTF-8"), ("ANSIBLE_NOCOLOR", "1"), ("ANSIBLE_LOCALHOST_WARNING", "0")]);
        ansible.env("ANSIBLE_HOME", folder.join("home")).env("ANSIBLE_COLLECTIONS_PATH", &self.collections);
        // The modules run in the same Python.
        let python = self.playbook.with_file_name("python3");
        ansible.env("ANSIBLE_PYTHON_INTERPRETER", python);
        ansible.env("CONSUL_SESSION_CACHE", root().join("target/tmp/bench-cache"));
        let start = Instant::now();
        let output = ansible.output().with_context(|| format!("{ansible:?}"))?;
        let time = start.elapsed();
        let printed = String::from_utf8_lossy(&output.stdout);
        let done = format!("ok={}", u32::from(tasks > 0));
        ensure!(output.status.success() && printed.contains(&done), "{printed}{}", String::from_utf8_lossy(&output.stderr));
        Ok(time)
    }
}

impl Subject for Ansible {
    fn name(&self) -> String {
        self.module.name().into()
    }

    fn supports(&self, workload: Workload) -> bool {
        workload == Workload::Task
    }

    /// Measures a task as the difference between a play with more tasks and one with a single task.
    fn run(&mut self, _workload: Workload, backend: &Backend, calls: usize) -> Result<Round> {
        let task = || -> Result<Duration> {
            let one = self.play(backend, 1)?;
            Ok(self.play(backend, 1 + TASKS)?.saturating_sub(one) / TASKS)
        };
        Ok(Round { times: (0..calls).map(|_| task()).collect::<Result<_>>()?, cpu: None })
    }
}
